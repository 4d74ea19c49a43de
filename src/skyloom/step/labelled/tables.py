"""The rows of cutouts.parquet and images.parquet for images that came with labels."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from skyloom.errors import InputError
from skyloom.sky.geometry.sphere import cell_of
from skyloom.step.cutouts.table import COLUMNS, HEALPIX_LEVEL, IMAGE_COLUMNS, cutout_ids
from skyloom.step.labelled.format import LabelledFiles, Member


def cutout_table(members: Sequence[Member], facts: pl.DataFrame, size: int, survey: str, source: str) -> pl.DataFrame:
    """Table with the columns of a cutout index; positions are null where a member has none."""
    row0, col0 = facts["row0"].to_numpy(), facts["col0"].to_numpy()
    ids = [cutout_ids(survey, m.name, row0[i : i + 1], col0[i : i + 1], size)[0] for i, m in enumerate(members)]
    if len(set(ids)) < len(ids):
        raise InputError(f"two images of survey '{survey}' get the same cutout_id; choose another set_name=…")
    ra, dec = (pl.Series([getattr(m, name) for m in members], dtype=pl.Float64) for name in ("ra_deg", "dec_deg"))
    placed = (ra.is_not_null() & dec.is_not_null()).to_numpy()
    healpix = np.zeros(len(members), dtype=np.int64)
    if placed.any():
        healpix[placed] = cell_of(ra.filter(placed).to_numpy(), dec.filter(placed).to_numpy(), HEALPIX_LEVEL)
    peak, rms = facts["peak"].to_numpy(), facts["rms"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(rms > 0, peak / rms, np.nan)
    return pl.DataFrame(
        {
            "cutout_id": ids, "survey": [survey] * len(ids), "image": [m.name for m in members], "row0": row0,
            "col0": col0, "size_px": [size] * len(ids), "ra_deg": ra, "dec_deg": dec,
            "nan_frac": facts["blank"].to_numpy() / size**2, "rms": rms, "peak": peak, "peak_snr": snr,
            "healpix": pl.select(pl.when(pl.Series(placed)).then(pl.Series(healpix))).to_series(),
            "source": [source] * len(ids),
        },
        schema=COLUMNS,
    )  # fmt: skip


def image_table(
    members: Sequence[Member], facts: pl.DataFrame, files: LabelledFiles, pixel_scale_arcsec: float | None
) -> pl.DataFrame:
    """One row per image; the path begins with the name of the file or folder that was given, wherever it lies."""
    number = len(members)
    return pl.DataFrame(
        {
            "image": [m.name for m in members], "artifact": [None] * number,
            "path": [f"{files.path.name}/{m.name}" for m in members], "fingerprint": [files.fingerprint] * number,
            "height_px": facts["height_px"], "width_px": facts["width_px"], "dtype": facts["dtype"],
            "unit": [None] * number, "pixel_scale_arcsec": [pixel_scale_arcsec] * number,
            "has_wcs": [False] * number, "mask_fingerprint": [None] * number,
        },
        schema=IMAGE_COLUMNS,
    )  # fmt: skip
