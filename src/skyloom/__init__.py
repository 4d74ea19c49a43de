"""From sky-survey images to data sets and models.

Four verbs, the same in a shell and in a notebook::

    import skyloom

    cutouts = skyloom.curate(step="cutouts", images="mosaics/", window_px=128, overlap=0.5)
    cutouts.table()

Each returns a finished :class:`skyloom.store.Artifact` with its ``path``, ``manifest`` and tables.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyloom.run.notebook import analyze, curate, extract, recipe, train
    from skyloom.store import Artifact, Store

__version__ = "0.1.0"
__all__ = ["Artifact", "Store", "analyze", "curate", "extract", "recipe", "train"]

_VERBS = ("curate", "train", "extract", "analyze", "recipe")


def __getattr__(name: str) -> Any:
    """Import the verbs and the store when they are first used, so that ``import skyloom`` stays fast."""
    if name in _VERBS:
        from skyloom.run import notebook

        return getattr(notebook, name)
    if name in ("Store", "Artifact"):
        from skyloom import store

        return getattr(store, name)
    raise AttributeError(f"module 'skyloom' has no attribute '{name}'")


def __dir__() -> list[str]:
    """What the tabulator key of a notebook offers, also before its first use."""
    return sorted({*globals(), *__all__})
