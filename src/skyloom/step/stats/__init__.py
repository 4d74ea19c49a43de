"""step=stats: pooled numbers of the pixels of cutouts, in one pass."""

from skyloom.step.stats.step import stats

__all__ = ["stats"]
