"""curate.py step=…: makes and reshapes data sets."""

import hydra
from omegaconf import DictConfig

from skyloom.run.script import launch, run


@hydra.main(version_base="1.3", config_path="conf", config_name="curate")
def main(config: DictConfig) -> None:
    """Run the verb 'curate' with a composed configuration."""
    run("curate", config)


if __name__ == "__main__":
    launch(main)
