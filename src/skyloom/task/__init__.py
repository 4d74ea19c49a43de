"""LightningModules: wiring, losses and logging of what is learnt."""

from skyloom.task.byol import ByolTask
from skyloom.task.dino import DinoTask
from skyloom.task.dinov2 import Dinov2Task
from skyloom.task.simclr import SimclrTask
from skyloom.task.vicreg import VicregTask

__all__ = ["ByolTask", "DinoTask", "Dinov2Task", "SimclrTask", "VicregTask"]
