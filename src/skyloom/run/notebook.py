"""The four verbs for notebooks and programs: the same configuration files, the same ids, an artifact in return."""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from skyloom.errors import ConfigError, unknown_choice
from skyloom.store import Artifact, Plan

if TYPE_CHECKING:
    from skyloom.run.recipe import Chain, OnLink

_COMPOSING = Lock()  # what Hydra composes with is one for all threads


def curate(step: str, **options: Any) -> Artifact | Plan:
    """Make or reshape a data set, as ``curate.py step=…`` does.

    Parameters
    ----------
    step
        A file of ``conf/step``.
    **options
        Keys of the configuration. Nested ones have dots: ``**{"backbone.weights": model}``. Artifacts may be
        passed as they are; ``store=FOLDER`` is short for ``paths.store``.

    Returns
    -------
    Artifact or Plan
        The finished artifact; a plan when ``dry_run=True``.
    """
    return _run("curate", step=step, **options)


def extract(product: str, **options: Any) -> Artifact | Plan:
    """Run a model over a data set, as ``extract.py product=…`` does; options as in :func:`curate`."""
    return _run("extract", product=product, **options)


def train(task: str, **options: Any) -> Artifact | Plan:
    """Fit a task, as ``train.py task=…`` does; options as in :func:`curate`."""
    return _run("train", task=task, **options)


def analyze(report: str, **options: Any) -> Artifact | Plan:
    """Measure and draw, as ``analyze.py report=…`` does; options as in :func:`curate`."""
    return _run("analyze", report=report, **options)


def recipe(name: str, *, on_link: "OnLink | None" = None, **options: Any) -> "Chain":
    """Make what is missing of a whole chain, as ``curate.py recipe=…`` does.

    Parameters
    ----------
    name
        A file of ``conf/recipe``.
    on_link
        Called with each link and its artifact as soon as that is there.
    **options
        As in :func:`curate`; the recipe's own parameters are ``**{"recipe.window_px": 128}``.

    Returns
    -------
    skyloom.run.recipe.Chain
        The table of links; ``artifacts`` holds the results by name.
    """
    from skyloom.run.recipe import run_recipe

    return run_recipe(configure("curate", {"recipe": name, **options}), on_link=on_link)


def config_folder() -> Path:
    """Folder of the configuration: ``SKYLOOM_CONF``, else ``conf/`` of the checkout that skyloom runs from."""
    folder = Path(os.environ.get("SKYLOOM_CONF") or Path(__file__).resolve().parents[3] / "conf")
    if not (folder / "common.yaml").exists():
        raise ConfigError(
            f"no configuration in {folder}; install skyloom in editable mode from its checkout, or set SKYLOOM_CONF"
        )
    return folder


def compose(verb: str, overrides: list[str], folders: Sequence[str] = ()) -> Any:
    """Compose the configuration of a verb from command-line overrides.

    Parameters
    ----------
    verb
        ``curate``, ``extract``, ``train`` or ``analyze``.
    overrides
        As on the command line.
    folders
        The main configuration folder and any further ones; empty for skyloom's own.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    main, *more = folders or [str(config_folder())]
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in more)}]"] if more else []
    with _COMPOSING:
        outer = GlobalHydra.instance().hydra  # that of a script which runs a recipe: Hydra allows one at a time
        GlobalHydra.instance().hydra = None
        try:
            with hydra.initialize_config_dir(version_base="1.3", config_dir=main, job_name=verb):
                return hydra.compose(verb, overrides + search)
        finally:
            GlobalHydra.instance().hydra = outer


def configure(verb: str, options: dict[str, Any], folders: Sequence[str] = ()) -> Any:
    """Compose the configuration of a verb from Python values; ``folders`` as in :func:`compose`.

    Raises
    ------
    ConfigError
        A choice or a key does not exist.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    options = {"paths.store" if key == "store" else key: _plain(value) for key, value in options.items()}
    where = [Path(folder) for folder in folders or [str(config_folder())]]
    groups = {
        key for key, value in options.items() if isinstance(value, str) and any((f / key).is_dir() for f in where)
    }
    try:
        config = compose(verb, [f"{key}={options[key]}" for key in sorted(groups)], folders)
        for key, value in options.items():
            if key not in groups:
                _set(config, key, value)
    except (ConfigAttributeError, ConfigKeyError) as error:
        key = str(error.full_key) if isinstance(error, ConfigKeyError) else key  # within a mapping that was given
        parent, _, name = key.rpartition(".")
        above = OmegaConf.select(config, parent) if parent else config
        what = f"{parent}: option" if parent else "option"
        raise unknown_choice(what, name, [str(k) for k in above or config]) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return config


def _run(verb: str, **options: Any) -> Artifact | Plan:
    from skyloom.run.verbs import call

    return call(verb, configure(verb, options))


def _set(config: Any, key: str, value: Any) -> None:
    """Put a value into a configuration; a list takes the place of a mapping, and the reverse, as in Python."""
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigTypeError

    try:
        OmegaConf.update(config, key, value)
    except ConfigTypeError:  # OmegaConf merges mappings, and neither of these into the other
        there = OmegaConf.select(config, key)
        if not (isinstance(value, dict) and OmegaConf.is_dict(there)):
            OmegaConf.update(config, key, value, merge=False)
            return
        for name, item in value.items():
            _set(there, str(name), item)


def _plain(value: Any) -> Any:
    """Bring what a notebook passes to what a configuration can hold."""
    if isinstance(value, Artifact):
        return str(value.path)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
