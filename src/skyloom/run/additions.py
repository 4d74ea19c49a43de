"""Options added with ``+`` that nothing reads: all keys stand in files, yet Hydra would let any other pass."""

import inspect

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from skyloom.errors import ConfigError, unknown_choice

# Groups whose keys all stand in their file.
CLOSED = ("backbone", "checkpoint", "datamodule", "detector", "task", "trainer")
# What is below these is looked through by those who read it.
CHECKED = ("executor", "logger", "recipe", "survey", "transform.augment", "transform.preprocess")


def refuse_additions(verb: str, config: DictConfig) -> None:
    """Refuse the ``+key=value`` of a command that add a key which its step, product, task or report does not read.

    Raises
    ------
    ConfigError
        Names the key and those there are.
    """
    own = HydraConfig.get()
    words = list(own.overrides.task)
    added = [word.lstrip("+").partition("=")[0].partition("@")[0] for word in words if word.startswith("+")]
    if not added:
        return
    from skyloom.run.notebook import compose
    from skyloom.run.verbs import function_of

    folders = [source.path for source in own.runtime.config_sources if source.schema == "file"]
    without = compose(verb, [word for word in words if not word.startswith("+")], folders)
    read = () if config.get("recipe") else inspect.signature(function_of(verb, config)).parameters
    links = OmegaConf.to_container(without, resolve=False)
    for key in added:
        group, _, below = key.partition(".")
        link = links.get(group) if below and isinstance(links, dict) else None
        if isinstance(link, str) and link.startswith("${"):  # Hydra would put what is added in the place of all of it
            raise ConfigError(f"+key={key}: {group} only stands for {link[2:-1]}; set {link[2:-1]}.{below}")
        if OmegaConf.select(without, key, default=without) is not without:  # null is known, too
            continue
        there = OmegaConf.select(without, group)
        if group in CLOSED and below and "." not in below and isinstance(there, DictConfig):
            raise unknown_choice("+key", key, [f"{group}.{name!s}" for name in there])
        if group not in read and not key.startswith(CHECKED):
            raise unknown_choice("+key", key, {*read, *(str(name) for name in without)} - {"store", "build"})
