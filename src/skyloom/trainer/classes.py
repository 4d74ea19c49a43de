"""From the name in the options of a group to a class."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skyloom.errors import unknown_choice
from skyloom.trainer.options import named


def class_of(group: str, options: Mapping[str, Any], suffix: str) -> Any:
    """The class behind a name: ``byol`` of the group ``task`` is ``skyloom.task.byol.ByolTask``."""
    name = named(group, dict(options))
    folder = Path(__file__).parents[1] / group
    if not (folder / f"{name}.py").exists():
        raise unknown_choice(f"{group}.name", name, (p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")))
    class_name = "".join(word.capitalize() for word in name.split("_")) + suffix
    return getattr(importlib.import_module(f"skyloom.{group}.{name}"), class_name)
