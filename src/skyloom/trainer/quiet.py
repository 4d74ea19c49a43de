"""Keeps Lightning to warnings, and drops those about choices that were made on purpose."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning quiet while the ``with`` lasts."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GPU available but not used")  # trainer=cpu
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")  # Lightning 2.6 calls torch 2.13 so
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # moving averages stay so
        warnings.filterwarnings("ignore", message="The `srun` command is available")  # Slurm's; we start processes
        warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no")  # parts.val=null
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
