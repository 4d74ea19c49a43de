"""train.py task=…: fits, validates and tests a task."""

import hydra
from omegaconf import DictConfig

from skyloom.run.script import launch, run


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float | None:
    """Run the verb 'train' with a composed configuration; a search is told the number that it goes by."""
    return run("train", config)


if __name__ == "__main__":
    launch(main)
