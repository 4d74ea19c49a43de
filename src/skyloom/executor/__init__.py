"""Who makes the pieces of steps and extractions: this process, several of this machine, or a cluster's job arrays."""

from skyloom.executor.build import build_executor

__all__ = ["build_executor"]
