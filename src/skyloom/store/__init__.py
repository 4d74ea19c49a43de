"""Artifacts: how results are named, written whole or not at all, resumed, looked up and traced back."""

from skyloom.store.artifact import Artifact
from skyloom.store.build import Build
from skyloom.store.builds import Plan, builds, of_kind
from skyloom.store.executor import Executor
from skyloom.store.fingerprint import fingerprint
from skyloom.store.store import Store

__all__ = ["Artifact", "Build", "Executor", "Plan", "Store", "builds", "fingerprint", "of_kind"]
