"""What manifests, ``numbers.json`` and notes hold, made flat: numbers by path, counts in one line."""

from collections.abc import Iterator
from typing import Any


def flat_numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested dictionaries by path (``representation/rankme``), as they are: truth values and NaN too.

    Lists, texts and nulls are left out.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat_numbers(item, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(value, int | float):
        yield prefix, value


def counts_text(counts: dict[str, Any]) -> str:
    """Counts of a manifest in one line: what was read and kept, and what was dropped."""
    parts = [f"{name} {number:,}" for name, number in counts.items() if isinstance(number, int)]
    parts += [f"dropped {entry['number']:,} ({reason})" for reason, entry in counts.get("dropped", {}).items()]
    return ", ".join(parts)
