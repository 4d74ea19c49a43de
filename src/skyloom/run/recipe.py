"""Runs a recipe: makes what is missing of a chain, and tells ids, states and times of all links in a table."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from skyloom.errors import SkyloomError
from skyloom.progress import say, seconds_text
from skyloom.run.links import Link, check_links, executor_options, plain_recipe, read_links
from skyloom.run.mirror import chosen_loggers, logger_keys, mirror
from skyloom.run.secrets import refuse_secrets
from skyloom.run.verbs import arguments_of, function_of
from skyloom.store import Artifact, Plan, Store

COMMON = ("seed", "paths.store", "paths.runs", "paths.images")  # what all links take from the command line
RUN_NAMES = {"logger.wandb.name", "logger.mlflow.run_name"}  # belong to the last link, as ``name`` does
THERE, MADE, WOULD, FAILED, STOPPED, WAITING = "there", "made", "would be made", "failed", "interrupted", "not reached"

OnLink = Callable[[Link, Artifact], None]


@dataclass
class Row:
    """A line of the table.

    Attributes
    ----------
    link : Link
        Which one.
    state : str
        ``there``, ``made``, ``would be made``, ``failed``, ``interrupted`` or ``not reached``.
    id : str
        Empty while it cannot be known, because an input is not there.
    seconds : float or None
        Time that the artifact took when it was made, over all attempts; of a failed link, this attempt.
    artifact : Artifact or None
        The result.
    """

    link: Link
    state: str = WAITING
    id: str = ""
    seconds: float | None = None
    artifact: Artifact | None = None


@dataclass
class Chain:
    """What came of a recipe; its text form is the table."""

    recipe: str
    rows: list[Row] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Id of the last link; empty when a dry run cannot know it."""
        return self.rows[-1].id

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The results by link, as far as there are any."""
        return {row.link.name: row.artifact for row in self.rows if row.artifact}

    def __str__(self) -> str:
        heads = ("link", "made by", "id", "state", "time")
        lines = [heads] + [
            (
                row.link.name,
                f"{row.link.verb} {row.link.choice}",
                row.id or "-",
                row.state,
                "" if row.seconds is None else seconds_text(row.seconds),
            )
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def run_recipe(config: DictConfig, *, folders: Sequence[str] = (), on_link: OnLink | None = None) -> Chain:
    """Run the links of ``config.recipe`` in order, each with the results of those above it.

    All links are checked before the first one starts. What the store has is not made again, so that a chain that was
    stopped, killed or changed goes on with what is missing. The table is written to stderr at the end, however that
    comes.

    Parameters
    ----------
    config
        Composed configuration of ``curate.py recipe=…``: ``recipe``, ``seed``, ``name`` (for the last link),
        ``dry_run``, ``logger`` (told of every link) and ``paths``.
    folders
        Where the links' configuration is composed from, the main folder first; empty for skyloom's own.
    on_link
        Called with each link and its artifact as soon as that is there.

    Raises
    ------
    SkyloomError
        Of the same class as the link raised; the message names the link.
    """
    recipe = plain_recipe(config)
    title = str(recipe.get("name") or "recipe")
    links = read_links(recipe.get("links"))
    logger: Any = OmegaConf.to_container(config.logger, resolve=True)
    refuse_secrets({"recipe": recipe, "logger": logger})
    loggers = chosen_loggers(logger)
    common = {key: OmegaConf.select(config, key) for key in COMMON} | logger_keys(logger)
    common |= executor_options(config)
    check_links(links, common, folders)
    chain = Chain(title, [Row(link) for link in links])
    try:
        for number, row in enumerate(chain.rows, start=1):
            last = number == len(links)
            named = {**common, "name": config.name} if last else {**common, **dict.fromkeys(RUN_NAMES & set(common))}
            _run_link(chain, row, named, folders, f"{number}/{len(links)}", bool(config.dry_run))
            if row.artifact and loggers and not config.dry_run:
                told = loggers if last else loggers.unnamed()
                mirror(row.artifact, told, verb=row.link.verb, runs=str(config.paths.runs))
            if row.artifact and on_link:
                on_link(row.link, row.artifact)
    finally:
        say(f"\n{chain}\n")
    return chain


def _run_link(
    chain: Chain, row: Row, common: dict[str, Any], folders: Sequence[str], position: str, dry_run: bool
) -> None:
    """Make one link, or in a dry run say whether it is there."""
    link, start = row.link, time.monotonic()
    made = chain.artifacts
    if absent := [source for source in link.sources if source not in made]:
        some = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        row.state = f"{WOULD} after {some}"  # only in a dry run: its id depends on theirs
        return
    try:
        config = link.configuration(common, {name: made[name].id for name in link.sources}, folders)
        function = function_of(link.verb, config)
        arguments = arguments_of(function, config)
        plan: Plan = function(**{**arguments, "dry_run": True})
        row.id, row.state = plan.id, THERE if plan.exists else WOULD
        if plan.exists:
            say(f"{position} {link.name}: {plan.request.kind} {plan.id} is there already")
        elif dry_run:
            return
        else:
            say(f"{position} {link.name}: making {plan.request.kind} {plan.id}")
            row.state = FAILED
        if plan.exists and (dry_run or not arguments.get("name")):
            row.artifact = Artifact(Store(arguments["store"]).path(plan.request.kind, plan.id))
        else:
            row.artifact = function(**{**arguments, "dry_run": False})  # gives the name, too
            row.state = THERE if plan.exists else MADE
        row.seconds = row.artifact.history.get("seconds")
    except BaseException as error:
        row.state = STOPPED if isinstance(error, KeyboardInterrupt) else FAILED
        row.seconds = time.monotonic() - start
        if isinstance(error, SkyloomError):
            raise type(error)(f"link '{link.name}' of the recipe {chain.recipe} failed: {error}") from error
        error.add_note(f"while making the link '{link.name}' ({link.verb} {link.choice}) of the recipe {chain.recipe}")
        raise
