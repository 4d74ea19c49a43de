"""Writes cutouts artifacts from bare tables, for tests of steps that never look at pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.step.cutouts.table import COLUMNS, IMAGE_COLUMNS
from skyloom.store import Artifact, Build, builds


def grid(
    length_px: int, size_px: int, stride_px: int, *, image: str = "a", ra: float = 123.0, dec: float = 45.0,
    scale_arcsec: float = 1.5, seed: int = 0,
) -> pl.DataFrame:  # fmt: skip
    """Windows of a square image whose centre lies at (ra, dec), tangent plane, each with some rms."""
    start = np.arange(0, length_px - size_px + 1, stride_px)
    row0, col0 = (a.ravel() for a in np.meshgrid(start, start, indexing="ij"))
    return windows(row0, col0, size_px, length_px, image=image, ra=ra, dec=dec, scale_arcsec=scale_arcsec, seed=seed)


def windows(
    row0: np.ndarray, col0: np.ndarray, size_px: int | np.ndarray, length_px: int, *, image: str = "a",
    ra: float = 123.0, dec: float = 45.0, scale_arcsec: float = 1.5, seed: int = 0,
) -> pl.DataFrame:  # fmt: skip
    """Windows at given places of a square image."""
    from skyloom.step.cutouts.table import cutout_ids

    row0, col0 = np.asarray(row0), np.asarray(col0)
    size = np.broadcast_to(size_px, row0.shape)
    lon, lat = tangent(row0 + size / 2 - length_px / 2, col0 + size / 2 - length_px / 2, ra, dec, scale_arcsec)
    rng = np.random.default_rng(seed)
    ids = [cutout_ids("fake", image, row0[i : i + 1], col0[i : i + 1], int(s))[0] for i, s in enumerate(size)]
    return pl.DataFrame(
        {
            "cutout_id": ids, "survey": ["fake"] * len(row0), "image": [image] * len(row0), "row0": row0, "col0": col0,
            "size_px": size, "ra_deg": lon, "dec_deg": lat, "nan_frac": np.zeros(len(row0)),
            "rms": rng.uniform(1, 2, len(row0)), "peak": 1.0, "peak_snr": 5.0, "healpix": 0, "source": "here",
        },
        schema=COLUMNS,
    )  # fmt: skip


def tangent(
    row: np.ndarray, col: np.ndarray, ra: float, dec: float, scale_arcsec: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sky positions (deg) of offsets in pixels from the centre of a tangent plane; RA grows with falling column."""
    x, y = -np.radians(col * scale_arcsec / 3600), np.radians(row * scale_arcsec / 3600)
    a, d = np.radians(ra), np.radians(dec)
    down = np.cos(d) - y * np.sin(d)
    lon = a + np.arctan2(x, down)
    lat = np.arctan2(np.sin(d) + y * np.cos(d), np.hypot(x, down))
    return np.degrees(lon) % 360, np.degrees(lat)


def index(
    store: Path, *tables: pl.DataFrame, length_px: int = 1000, facts: dict[str, dict[str, Any]] | None = None,
    order: Sequence[int] | None = None, notes: dict[str, Any] | None = None,
    unit: str | None = "Jy/beam", scale_arcsec: float | None = 1.5,
) -> Artifact:  # fmt: skip
    """A ``cutouts`` artifact of these rows; ``facts`` overrides columns of ``images.parquet`` by image."""
    table = pl.concat(tables)
    if order is not None:
        table = table[list(order)]
    images = pl.DataFrame(
        [
            {
                "image": name, "artifact": None, "path": f"/nowhere/{name}.fits", "fingerprint": f"f-{name}",
                "height_px": length_px, "width_px": length_px, "dtype": ">f8", "unit": unit,
                "pixel_scale_arcsec": scale_arcsec, "has_wcs": True, **(facts or {}).get(name, {}),
            }
            for name in table["image"].unique().sort()
        ],
        schema=IMAGE_COLUMNS,
    )  # fmt: skip

    @builds("cutouts", version=1)
    def fake(build: Build, *, digest: str) -> None:
        for name, frame in (("cutouts", table.with_columns(source=pl.lit(build.request.id))), ("images", images)):
            with build.write(f"{name}.parquet") as path:
                frame.write_parquet(path)
        build.table = "cutouts.parquet"
        build.count(read=len(table), kept=len(table))
        build.note(survey="fake", unit=unit, window_px=int(table["size_px"][0]), **(notes or {}))

    return fake(digest=f"{table.write_csv()}{images.write_csv()}{notes}", store=store)
