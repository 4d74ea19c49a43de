"""Numbers of nested mappings by path, as manifests, ``numbers.json`` and notes hold them."""

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
