"""The links of a recipe: read from its file, checked against each other, composed before any work is done."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from skyloom.errors import ConfigError, SkyloomError, unknown_choice
from skyloom.run.families import FROM, expanded
from skyloom.run.notebook import configure
from skyloom.run.verbs import GROUPS, arguments_of, function_of, missing_keys

IN_PIECES = ("curate", "extract")  # verbs with an executor
PLACEHOLDER = "zzzzzzzzzzzz"  # stands for an id that is not known yet; opened by nobody


@dataclass(frozen=True)
class Link:
    """One link of a chain.

    Attributes
    ----------
    name : str
        Its name in the recipe.
    verb : str
        ``curate``, ``extract``, ``train`` or ``analyze``.
    choice : str
        The step, product, task or report.
    options : dict
        As on the command line; ``{"from": NAME}`` stands for the result of an earlier link.
    """

    name: str
    verb: str
    choice: str
    options: dict[str, Any]

    @property
    def sources(self) -> list[str]:
        """The links whose results this one reads, each once."""
        return list(dict.fromkeys(_references(self.options)))

    def configuration(
        self, common: Mapping[str, Any], results: Mapping[str, str], folders: Sequence[str]
    ) -> DictConfig:
        """Compose what the script would compose, with ``results`` (paths or ids by link) in place of references."""
        if self.verb not in IN_PIECES or any(_of_executor(key) for key in self.options):
            common = {key: value for key, value in common.items() if not _of_executor(key)}
        options = {GROUPS[self.verb]: self.choice, **common, **_filled(self.options, results)}
        return configure(self.verb, options, folders)


def read_links(links: Any) -> list[Link]:
    """Read the key ``links`` of a recipe.

    Parameters
    ----------
    links
        By name, in the order of the work: one key that is a verb, whose value is the choice, and the options. A link
        may stand for several, see :func:`skyloom.run.families.expanded`.

    Raises
    ------
    ConfigError
        There is no link, one has no verb or two, or reads a link that does not stand above it.
    """
    if not isinstance(links, Mapping) or not links:
        raise ConfigError("a recipe needs 'links', by name: {cutouts: {curate: cutouts, images: …}, …}")
    found: list[Link] = []
    for name, entry in expanded(links):
        verbs = [verb for verb in GROUPS if verb in entry]
        if len(verbs) != 1:
            raise ConfigError(
                f"link '{name}' has {'no verb' if not verbs else ' and '.join(verbs)}; expected one of "
                f"{', '.join(GROUPS)} with its choice, as in 'curate: cutouts'"
            )
        link = Link(name, verbs[0], str(entry.pop(verbs[0])), entry)
        for source in link.sources:
            if source not in (above := [other.name for other in found]):
                error = unknown_choice(FROM, source, above or ["(nothing, it is the first link)"])
                raise ConfigError(f"link '{name}' can only read links above it: {error}")
        found.append(link)
    return found


def check_links(links: Sequence[Link], common: Mapping[str, Any], folders: Sequence[str]) -> None:
    """Find misspelt options and impossible values in all links, before the first one has worked for a day.

    Raises
    ------
    ConfigError
        Names the link.
    """
    for link in links:
        try:
            config = link.configuration(common, dict.fromkeys(link.sources, PLACEHOLDER), folders)
            function = function_of(link.verb, config)
            function.check(arguments_of(function, config))  # type: ignore[attr-defined]
        except SkyloomError as error:
            raise type(error)(f"link '{link.name}' ({link.verb} {link.choice}): {error}") from error


def plain_recipe(config: DictConfig) -> dict[str, Any]:
    """The recipe of a composed configuration, with its own parameters filled in."""
    if missing := sorted(missing_keys(config.recipe)):
        given = " ".join(f"recipe.{key}=…" for key in missing)
        raise ConfigError(f"{' and '.join(missing)} must be given: {given} (the file of the recipe in conf/ says what)")
    plain: Any = OmegaConf.to_container(config.recipe, resolve=True)
    return dict(plain)


def executor_options(config: DictConfig) -> dict[str, Any]:
    """The executor of a composed configuration as options of its links, those that work in pieces."""
    options: Any = OmegaConf.to_container(config.executor, resolve=True)
    return {"executor": options["name"]} | {f"executor.{key}": value for key, value in options.items() if key != "name"}


def _of_executor(key: str) -> bool:
    return key.partition(".")[0] == "executor"


def _is_reference(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {FROM}


def _references(value: Any) -> Iterator[str]:
    if _is_reference(value):
        yield str(value[FROM])
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _references(item)


def _filled(value: Any, results: Mapping[str, str]) -> Any:
    if _is_reference(value):
        return results[str(value[FROM])]
    if isinstance(value, Mapping):
        return {key: _filled(item, results) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, results) for item in value]
    return value
