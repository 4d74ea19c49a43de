"""A file that has arrived in part, with the size and version that the server told, so that it can be gone on with."""

import json
from pathlib import Path
from typing import Any


class Part:
    """The beginning of a file, and what the server said of the whole.

    Parameters
    ----------
    target
        Path of the whole file; the part lies beside it as ``<target>.part``, its facts as ``<target>.part.json``.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._facts_path = target.with_name(target.name + ".part.json")
        try:
            self._facts: dict[str, Any] = json.loads(self._facts_path.read_text())
        except (OSError, ValueError):
            self.clear()  # nobody knows which file this is the beginning of

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def total(self) -> int | None:
        """Bytes of the whole file; None when the server did not tell."""
        return self._facts.get("total")

    def range_headers(self) -> dict[str, str]:
        """Headers that ask for the rest, and for all of it when the remote file has changed meanwhile."""
        if not self.size:
            return {}
        version = self._facts.get("version")
        return {"Range": f"bytes={self.size}-", **({"If-Range": version} if version else {})}

    def clear(self) -> int:
        """Throw the part away; returns its size."""
        size = self.size
        self.path.unlink(missing_ok=True)  # before the facts: a part never lies beside the facts of another version
        self._facts_path.unlink(missing_ok=True)
        self._facts = {}
        return size

    def remember(self, total: int | None, headers: Any) -> None:
        """Keep what the server says of the whole file."""
        etag = headers.get("ETag", "")
        version = etag if etag.startswith('"') else headers.get("Last-Modified")  # a weak tag does not pin the bytes
        self._facts = {"total": total, "version": version}
        aside = self._facts_path.with_suffix(".new")
        aside.write_text(json.dumps(self._facts))
        aside.replace(self._facts_path)

    def finish(self, target: Path) -> None:
        """Give the whole file its name."""
        if not self.path.exists():
            self.path.touch()  # a file of no bytes
        self.path.replace(target)
        self._facts_path.unlink(missing_ok=True)
