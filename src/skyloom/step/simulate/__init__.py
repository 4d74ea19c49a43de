"""step=simulate: a small survey in the true layout, for demos, tests and trials."""

from skyloom.step.simulate.step import simulate

__all__ = ["simulate"]
