"""step=labelled: labelled images as cutouts, or the labels of a catalogue for cutouts that exist."""

from skyloom.step.labelled.step import labelled

__all__ = ["labelled"]
