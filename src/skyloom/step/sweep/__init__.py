"""step=sweep: how good a catalogue is at every pair of thresholds."""

from skyloom.step.sweep.step import sweep

__all__ = ["sweep"]
