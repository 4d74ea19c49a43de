"""extract.py product=…: runs a model over a data set."""

import hydra
from omegaconf import DictConfig

from skyloom.run.script import launch, run


@hydra.main(version_base="1.3", config_path="conf", config_name="extract")
def main(config: DictConfig) -> None:
    """Run the verb 'extract' with a composed configuration."""
    run("extract", config)


if __name__ == "__main__":
    launch(main)
