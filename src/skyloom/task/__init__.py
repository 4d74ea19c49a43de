"""LightningModules: wiring, losses and logging of what is learnt."""

from skyloom.task.byol import ByolTask

__all__ = ["ByolTask"]
