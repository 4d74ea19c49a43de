"""Random changes of an image with several bands and of its boxes, masks and keypoints, for training a detector."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from skyloom.errors import ConfigError, unknown_choice
from skyloom.transform.band_changes import blurred, noisier, reddened
from skyloom.transform.quarter_turn import mirrored_x, mirrored_y, quarter_turn

POOL = ("quarter_turn", "mirror_x", "mirror_y")
Move = Callable[[Any], Any]


class DetectionAugment:
    """Turns and mirrors from a pool, then reddening, blur and noise.

    Of the pool, k members are chosen, k being uniform from ``pool_min`` to ``pool_max``, and applied in random order:
    ``quarter_turn`` by 0, 90, 180 or 270 degrees, ``mirror_x`` and ``mirror_y`` with a probability of one half. The
    sky has no upward direction, and nothing is cropped, resized or interpolated. All random numbers come from the
    generator that the caller passes.

    Parameters
    ----------
    bands
        Names of the channels.
    extinction
        A_b / E(B-V) in magnitudes by band; needed where reddening is on.
    wavelength_nm
        Effective wavelength by band; needed where blur is on.
    pool
        Some of `POOL`; empty: none.
    pool_min, pool_max
        Least and greatest number of members to apply.
    reddening_probability, reddening_ebv_max_mag
        How often, and the largest E(B-V); uniform from 0.
    blur_probability, blur_sigma_max_px
        How often, and the largest sigma at 754.6 nm in pixels of the image; uniform from 0.
    noise_probability, noise_max
        How often, and the largest sigma in units of the noise that the band has; uniform from 0.

    Raises
    ------
    ConfigError
        An option is out of range, or a band lacks what is needed.
    """

    def __init__(
        self,
        bands: Sequence[str],
        *,
        extinction: Mapping[str, float],
        wavelength_nm: Mapping[str, float],
        pool: Sequence[str],
        pool_min: int,
        pool_max: int,
        reddening_probability: float,
        reddening_ebv_max_mag: float,
        blur_probability: float,
        blur_sigma_max_px: float,
        noise_probability: float,
        noise_max: float,
    ) -> None:
        for name in pool:
            if name not in POOL:
                raise unknown_choice("augment.pool", name, POOL)
        top = len(pool)
        for key, value, low, high in (
            ("pool_min", pool_min, 0, min(pool_max, top)),
            ("pool_max", pool_max, 0, top),
            ("reddening_probability", reddening_probability, 0.0, 1.0),
            ("reddening_ebv_max_mag", reddening_ebv_max_mag, 0.0, 10.0),
            ("blur_probability", blur_probability, 0.0, 1.0),
            ("blur_sigma_max_px", blur_sigma_max_px, 0.0, 50.0),
            ("noise_probability", noise_probability, 0.0, 1.0),
            ("noise_max", noise_max, 0.0, 100.0),
        ):
            if not low <= value <= high:
                raise ConfigError(f"augment.{key}={value}: expected {low} to {high}")
        self.pool, self.pool_range = tuple(pool), (pool_min, pool_max)
        self.reddening, self.ebv_max_mag = reddening_probability, reddening_ebv_max_mag
        self.blur, self.sigma_max_px = blur_probability, blur_sigma_max_px
        self.noise, self.noise_max = noise_probability, noise_max
        self.extinction = _by_band("extinction", "reddening_probability", self.reddening, bands, extinction)
        self.wavelength_nm = _by_band("wavelength_nm", "blur_probability", self.blur, bands, wavelength_nm)

    def __call__(self, sample: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Change a sample.

        Parameters
        ----------
        sample
            ``image`` (C, H, W), ``boxes``, ``masks`` and ``centroids`` as ``tv_tensors``; masks may be missing. Other
            entries are passed on. It is left as it is.
        generator
            Where all random numbers come from; a CPU generator.
        """
        changed = dict(sample)
        moves = self._moves(generator)
        for key in ("image", "boxes", "masks", "centroids"):
            if key in changed:
                for move in moves:
                    changed[key] = move(changed[key])
        changed["image"] = self._recoloured(changed["image"], generator)
        return changed

    def _moves(self, generator: torch.Generator) -> list[Move]:
        """Draw what happens to the geometry, in order."""
        low, high = self.pool_range
        number = low + _below(high - low + 1, generator)
        chosen = torch.randperm(len(self.pool), generator=generator)[:number].tolist()
        moves: list[Move] = []
        for name in (self.pool[i] for i in chosen):
            if name == "quarter_turn":
                turns = _below(4, generator)
                moves.append(partial(quarter_turn, turns=turns))
            elif _below(2, generator):
                moves.append(mirrored_x if name == "mirror_x" else mirrored_y)
        return moves

    def _recoloured(self, image: Tensor, generator: torch.Generator) -> Tensor:
        if _uniform(generator) < self.reddening:
            image = reddened(image, self.extinction, self.ebv_max_mag * _uniform(generator))
        if _uniform(generator) < self.blur:
            image = blurred(image, self.wavelength_nm, self.sigma_max_px * _uniform(generator))
        if _uniform(generator) < self.noise:
            image = noisier(image, self.noise_max * _uniform(generator), generator)
        return image


def _by_band(key: str, switch: str, share: float, bands: Sequence[str], values: Mapping[str, float]) -> Tensor:
    if share == 0.0:
        return torch.empty(0)
    if lacking := [band for band in bands if values.get(band) is None]:
        raise ConfigError(
            f"augment.{key} lacks {', '.join(lacking)}, which neither the survey's file nor the transform says; give "
            f"it, as +transform.augment.{key}.{lacking[0]}=NUMBER, or set transform.augment.{switch}=0"
        )
    return torch.tensor([float(values[band]) for band in bands])


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))
