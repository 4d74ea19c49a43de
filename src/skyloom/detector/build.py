"""Build a detector by its name, and find its class."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

import torch

from skyloom.backbone import Backbone
from skyloom.detector.base import Detector
from skyloom.errors import ConfigError, unknown_choice
from skyloom.store.arguments import check_arguments

DETECTORS = ("cascade_mask_rcnn", "mask_rcnn", "detectron2", "mask2former", "sep")
GIVEN = ("backbone", "in_chans", "classes")  # arguments that are no options


def detector_class(name: Any) -> Any:
    """Return the class of a detector: ``mask_rcnn`` is ``skyloom.detector.mask_rcnn.MaskRcnn``.

    Raises
    ------
    ConfigError
        There is none of this name.
    """
    if name not in DETECTORS:
        raise unknown_choice("detector", name, DETECTORS)
    try:
        module = importlib.import_module(f"skyloom.detector.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"detector={name} needs the package {error.name}, which is not installed") from error
    return getattr(module, "".join(word.capitalize() for word in name.split("_")))


def build_detector(
    options: Mapping[str, Any], *, backbone: Backbone | None, in_chans: int, classes: int, seed: int
) -> Detector:
    """Build a detector with random heads.

    Parameters
    ----------
    options
        ``name`` and what ``conf/detector/<name>.yaml`` holds.
    backbone
        Its backbone; None for a detector that brings its own network.
    in_chans
        Channels of an image.
    classes
        Number of classes without the background.
    seed
        Start of the random weights of the heads; the global random state is neither read nor changed.

    Returns
    -------
    Detector
        In training mode, on the CPU.

    Raises
    ------
    ConfigError
        The name or an option is unknown, missing, or of no use.
    """
    if "name" not in options:
        raise ConfigError(f"expected detector.name, found only {', '.join(map(str, options))}; choose detector=...")
    if in_chans < 1 or classes < 1:
        raise ConfigError(f"a detector needs at least one channel and one class, found {in_chans} and {classes}")
    kind = detector_class(options["name"])
    own = checked_options(kind, {key: value for key, value in options.items() if key != "name"})
    if kind.needs_backbone and backbone is None:
        raise ConfigError(f"detector={options['name']} needs a backbone; set backbone=swin_t or another")
    network = {"backbone": backbone} if kind.needs_backbone else {}
    # Only the CPU stream is used, and fork_rng puts it back: torch.manual_seed would also reseed the GPUs.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        detector: Detector = kind(**network, in_chans=in_chans, classes=classes, **own)
    return detector


def checked_options(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of a detector's class, names, types and ranges.

    Raises
    ------
    ConfigError
        An option is unknown, missing, or has a value that cannot be used.
    """
    signature = inspect.signature(kind)
    kept = [parameter for name, parameter in signature.parameters.items() if name not in GIVEN]
    hints = get_type_hints(kind.__init__, include_extras=True)
    return check_arguments("detector", signature.replace(parameters=kept), hints, options, set())
