"""Links of a recipe that are written once and made for each of some values."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from skyloom.errors import ConfigError

FROM, ALL, EACH = "from", "all", "each"
Values = dict[str, Any]


def expanded(links: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write out the links that have ``each``, and what refers to them.

    A link ``model`` with ``each: {seed: [0, 1]}`` becomes ``model-0`` and ``model-1``; in its options ``"{seed}"``
    stands for the value. ``{from: model}`` means the one made for the same values as the link that says so,
    ``{all: model}`` the list of all of them.

    Yields
    ------
    name : str
    entry : dict
        Without ``each`` and ``all``.

    Raises
    ------
    ConfigError
        ``each`` is not a mapping of lists, or a reference is ambiguous.
    """
    members: dict[str, dict[str, Values]] = {}
    for name, entry in links.items():
        entry = dict(entry) if isinstance(entry, Mapping) else {}
        each = entry.pop(EACH, {})
        if not isinstance(each, Mapping) or not all(isinstance(values, list) and values for values in each.values()):
            raise ConfigError(f"link '{name}': each={each!r}: expected lists by name, as each: {{seed: [0, 1, 2]}}")
        own = members[str(name)] = {
            "-".join([str(name), *map(str, chosen)]): dict(zip(each, chosen, strict=True))
            for chosen in product(*each.values())
        }
        for member, values in own.items():
            yield member, {key: _written(value, values, members, member) for key, value in entry.items()}


def _written(value: Any, values: Values, members: Mapping[str, Mapping[str, Values]], link: str) -> Any:
    if isinstance(value, Mapping) and set(value) == {ALL}:
        return [{FROM: member} for member in members.get(str(value[ALL]), [str(value[ALL])])]
    if isinstance(value, Mapping) and set(value) == {FROM}:
        return {FROM: _member(str(value[FROM]), values, members.get(str(value[FROM]), {}), link)}
    if isinstance(value, Mapping):
        return {key: _written(item, values, members, link) for key, item in value.items()}
    if isinstance(value, list):
        written: list[Any] = []
        for item in value:
            found = _written(item, values, members, link)
            joined = isinstance(item, Mapping) and set(item) == {ALL}  # within a list, all members become its items
            written += found if joined else [found]
        return written
    if isinstance(value, str):
        for name, chosen in values.items():
            if value == f"{{{name}}}":
                return chosen
            value = value.replace(f"{{{name}}}", str(chosen))
    return value


def _member(source: str, values: Values, members: Mapping[str, Values], link: str) -> str:
    """The member of a family that was made for the same values."""
    if not members:
        return source  # whoever reads the links says that there is none
    fits = [m for m, own in members.items() if all(own[key] == values[key] for key in own.keys() & values.keys())]
    if len(fits) != 1:
        raise ConfigError(
            f"link '{link}' reads {{from: {source}}}, of which {len(fits)} fit: {', '.join(fits) or 'none'}; "
            f"give the link the same values of each, or take {{all: {source}}}"
        )
    return fits[0]
