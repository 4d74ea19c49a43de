"""Names that people give to artifacts: one small text file per name, beside the artifacts."""

import re
from difflib import get_close_matches
from pathlib import Path

from skyloom.errors import StoreError

_ALLOWED = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,99}")


class Names:
    """Maps names to ``kind/id``.

    Parameters
    ----------
    folder
        Holds one file per name whose text is ``kind/id``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> str | None:
        """The ``kind/id`` behind a name; None when the name is free, as that of an empty file is (a full disk)."""
        path = self.folder / name
        return (path.read_text().strip() or None) if _ALLOWED.fullmatch(name) and path.is_file() else None

    def check(self, name: str, target: str) -> None:
        """Refuse a name that cannot be given to ``target`` (``kind/id``), before any work is done.

        Raises
        ------
        StoreError
            The name has a forbidden form or already stands for something else.
        """
        if not _ALLOWED.fullmatch(name):
            raise StoreError(
                f"name={name} cannot be used; a name starts with a letter and has only A-Z a-z 0-9 _ . + -"
            )
        if (taken := self.get(name)) and taken != target:
            raise StoreError(
                f"the name '{name}' already stands for {taken.replace('/', ' ')}; choose another one, "
                f"or free it with: skyloom name --remove {name}"
            )

    def give(self, name: str, target: str) -> None:
        """Give a name to ``kind/id``; two processes cannot give the same name to different things."""
        self.check(name, target)
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and not self.get(name):
                path.unlink()
            try:
                with path.open("x") as file:
                    file.write(target + "\n")
            except FileExistsError:
                self.check(name, target)
        except OSError as error:
            raise StoreError(f"the name '{name}' cannot be written to {self.folder} ({error.strerror})") from error

    def remove(self, name: str) -> None:
        """Free a name; the artifact stays."""
        if not self.get(name):
            raise StoreError(f"there is no name '{name}'; 'skyloom ls' shows the names in use")
        (self.folder / name).unlink()

    def forget(self, target: str) -> None:
        """Free all names of ``kind/id``."""
        for name, other in self.all().items():
            if other == target:
                (self.folder / name).unlink()

    def all(self) -> dict[str, str]:
        """All names with their ``kind/id``, sorted."""
        if not self.folder.exists():
            return {}
        return {path.name: target for path in sorted(self.folder.iterdir()) if (target := self.get(path.name))}

    def near(self, name: str) -> str | None:
        """The name most like a misspelt one."""
        close = get_close_matches(name, self.all(), n=1)
        return close[0] if close else None
