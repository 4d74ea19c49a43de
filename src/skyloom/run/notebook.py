"""The four verbs for notebooks and programs: the same configuration files, the same ids, an artifact in return."""

import os
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError
from skyloom.store import Artifact, Plan


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


def config_folder() -> Path:
    """Folder of the configuration: ``SKYLOOM_CONF``, else ``conf/`` of the checkout that skyloom runs from."""
    folder = Path(os.environ.get("SKYLOOM_CONF") or Path(__file__).resolve().parents[3] / "conf")
    if not (folder / "common.yaml").exists():
        raise ConfigError(
            f"no configuration in {folder}; install skyloom in editable mode from its checkout, or set SKYLOOM_CONF"
        )
    return folder


def compose(verb: str, overrides: list[str]) -> Any:
    """Compose the configuration of a verb from command-line overrides."""
    import hydra

    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder()), job_name=verb):
        return hydra.compose(verb, overrides)


def _run(verb: str, **options: Any) -> Artifact | Plan:
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from skyloom.run.verbs import call

    options = {"paths.store" if key == "store" else key: _plain(value) for key, value in options.items()}
    groups = {key for key, value in options.items() if isinstance(value, str) and (config_folder() / key).is_dir()}
    try:
        config = compose(verb, [f"{key}={options[key]}" for key in sorted(groups)])
        for key, value in options.items():
            if key not in groups:
                OmegaConf.update(config, key, value)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return call(verb, config)


def _plain(value: Any) -> Any:
    """Bring what a notebook passes to what a configuration can hold."""
    if isinstance(value, Artifact):
        return str(value.path)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
