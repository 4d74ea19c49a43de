"""analyze.py report=…: measures and draws."""

import hydra
from omegaconf import DictConfig

from skyloom.run.script import launch, run


@hydra.main(version_base="1.3", config_path="conf", config_name="analyze")
def main(config: DictConfig) -> None:
    """Run the verb 'analyze' with a composed configuration."""
    run("analyze", config)


if __name__ == "__main__":
    launch(main)
