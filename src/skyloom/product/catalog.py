"""product=catalog: from images to a catalogue of detections, by way of candidates that any other thresholds can use."""

import inspect
from collections.abc import Mapping
from typing import Any

from skyloom.errors import ConfigError
from skyloom.product.candidates import candidates as find_candidates
from skyloom.product.catalog_build import catalog as build_catalog
from skyloom.progress import say
from skyloom.store import Artifact, Plan, Store

OF_STORE = ("store", "name", "dry_run")
FOUND_IN = ("model", "detector", "dataset", "part", "lsst", "roman")


def catalog(
    *,
    candidates: Artifact | str | None = None,
    store: Any = None,
    name: str | None = None,
    dry_run: bool = False,
    **options: Any,
) -> Artifact | Plan:
    """Detect, select, measure, and write a catalogue.

    The forward pass is an artifact of its own, of kind ``candidates``, that is made first unless the store has it; so
    other thresholds cost none. Writes ``catalog.parquet`` (columns: docs/products/catalog.md), ``images.parquet``, and
    as asked ``catalog.fits``, ``catalog.vot`` and ``regions.reg``. No truth is read.

    Parameters
    ----------
    candidates
        Start from these; None: make them, or find them in the store, with the options of product=candidates.
    store, name, dry_run
        As of all functions that make artifacts; the name is the catalogue's.
    options
        Those of :func:`skyloom.product.candidates.candidates`, and of the catalogue: ``thresholds`` (an artifact of
        step=thresholds that says ``score`` and ``nms``), ``score``, ``nms``, ``top_k`` and ``across_classes`` as in
        :func:`skyloom.detector.candidates.select`, ``seams``, ``photometry``, ``formats``, ``workers`` (processes that
        measure).

    Returns
    -------
    Artifact or Plan
        A dry run answers with the plan of the candidates while they are missing, else with that of the catalogue.

    Raises
    ------
    ConfigError
        ``candidates`` and what they are made from are both given.
    InputError
        An image cannot be read.
    """
    _check_names(options)
    where = Store(store)
    if candidates is None:
        made = find_candidates(**_options_of(find_candidates, options), store=where, dry_run=dry_run)
        if isinstance(made, Plan) and not made.exists:
            say("catalog: its candidates come first, and its own id follows from theirs")
            return made
        candidates = made.id
    elif given := [key for key in FOUND_IN if options.get(key) is not None]:
        raise ConfigError(f"candidates={candidates} are there already: leave {' and '.join(given)} out, or candidates")
    result: Artifact | Plan = build_catalog(
        candidates=candidates, **_options_of(build_catalog, options), store=where, name=name, dry_run=dry_run
    )
    return result


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    return {key: value for key, value in found.items() if key not in (*OF_STORE, "candidates")}


def _options_of(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in _parameters(function) if key in options}


def _check_names(options: Mapping[str, Any]) -> None:
    known = {**_parameters(find_candidates), **_parameters(build_catalog)}
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"catalog: option {unknown[0]} is not known; choose from: {', '.join(sorted(known))}")


def _check(arguments: Mapping[str, Any]) -> None:
    """Check the types of all arguments without doing anything, as recipes do for all their links first."""
    find_candidates.check(_options_of(find_candidates, arguments))  # type: ignore[attr-defined]
    build_catalog.check({"candidates": None, **_options_of(build_catalog, arguments)})  # type: ignore[attr-defined]


_own = [value for key, value in inspect.signature(catalog).parameters.items() if key != "options"]
_all = {**_parameters(find_candidates), **_parameters(build_catalog)}
catalog.__signature__ = inspect.Signature([_own[0], *_all.values(), *_own[1:]])  # type: ignore[attr-defined]
catalog.check = _check  # type: ignore[attr-defined]
