"""A valid artifact of band cutouts made directly from npy images, for tests of the steps that read them."""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from make.joint_pixels import tangent_wcs
from make.joint_tables import (
    LSST_BANDS,
    ROMAN_BANDS,
    STAR,
    ZERO_POINT_MAG,
    lsst_objects,
    lsst_truth,
    roman_truth,
    sky_sources,
)
from skyloom.sky.geometry.wcs_cards import cards_of
from skyloom.step.cutouts.table import cutout_ids
from skyloom.step.cutouts.tiles.columns import BAND_COLUMNS, BAND_IMAGE_COLUMNS, PIECE_COLUMNS
from skyloom.store import Artifact, Build, Store, builds, fingerprint

STEP_DEG = 0.01  # between the centres of neighbouring cutouts


def band_cutouts(
    store: Path | Store,
    *,
    bands: int = 6,
    n: int = 4,
    size: int = 32,
    rng: np.random.Generator | int = 0,
    tiles: int = 1,
    objects: int = 5,
    pixels: np.ndarray | None = None,
) -> Artifact:
    """``n`` cutouts per tile, each an image of its own.

    With 6 bands they are like LSST (0.2"), with 3 like Roman (0.0575"); a cutout has the same id, tile, number and
    centre in both. ``pixels`` (tiles * n, bands, size, size) takes the place of noise with round sources, one per truth
    object; ``objects`` is their number per cutout.
    """
    lsst = bands != len(ROMAN_BANDS)
    survey, scale, unit = ("lsst", 0.2, "AB27") if lsst else ("roman", 0.0575, "electron")
    names = (LSST_BANDS if lsst else ROMAN_BANDS)[:bands]
    stream = np.random.default_rng(rng)
    rows, truth, detections, drawn = [], {}, {}, []
    for t in range(tiles):
        tile = f"{50.94 + t:.2f}_-39.9"
        truths, found = [], []
        for k in range(n):
            wcs = tangent_wcs(50.94 + t + STEP_DEG * k, -39.9, scale, (size, size))
            x, y = stream.uniform(1, size - 2, (2, objects))
            sky = wcs.pixel_to_world(x, y)
            kind = (stream.random(objects) < 0.3).astype(int) * STAR
            own = sky_sources(stream, sky.ra.deg, sky.dec.deg, kind, stream.uniform(19, 23, objects), 1000 * t + 50 * k)
            drawn.append(_draw(stream, x, y, own["mag"].to_numpy(), len(names), size))
            number = np.array([k])
            id = int(cutout_ids("roman", tile, number, number, 512)[0])
            centre = wcs.pixel_to_world((size - 1) / 2, (size - 1) / 2)
            rows.append(
                {"cutout_id": id, "survey": survey, "image": f"{tile}-{k}", "row0": 0, "col0": 0, "size_px": size,
                 "ra_deg": centre.ra.deg, "dec_deg": centre.dec.deg, "height_px": size, "width_px": size, "tile": tile,
                 "number": k, "file_name": f"c{k}_{tile}.npy", "cards": cards_of(wcs)}
            )  # fmt: skip
            place = pl.DataFrame({"cutout_id": np.full(objects, id), "x_px": x, "y_px": y})
            truths.append(_truth(place, own, lsst))
            found.append(_detections(place, own))
        truth[tile], detections[tile] = pl.concat(truths), pl.concat(found)
    cube = np.stack(drawn) if pixels is None else np.asarray(pixels)
    cube = cube.astype(np.float32)
    digest = hashlib.sha256(cube.tobytes() + str((rows, names, objects)).encode()).hexdigest()

    @builds("images", version=1)
    def images(build: Build, *, digest: str) -> None:
        for row, planes in zip(rows, cube, strict=True):
            for band, plane in zip(names, planes, strict=True):
                with build.write(f"{row['image']}_{band}.npy") as path, path.open("wb") as file:
                    np.save(file, plane)

    held = images(digest=digest, store=store)

    @builds("cutouts", version=1)
    def cutouts(build: Build, *, digest: str) -> None:
        table = pl.DataFrame(rows).with_columns(
            nan_frac=None, rms=None, peak=None, peak_snr=None, healpix=None, source=pl.lit(build.request.id),
        )  # fmt: skip
        facts = [
            {"image": row["image"], "band": band, "artifact": held.id, "path": f"{row['image']}_{band}.npy",
             "fingerprint": fingerprint(held.file(f"{row['image']}_{band}.npy")), "height_px": size, "width_px": size,
             "dtype": "<f4", "unit": unit, "pixel_scale_arcsec": scale, "zero_point_mag": ZERO_POINT_MAG[band],
             "fits_header": row["cards"]}
            for row in rows for band in names
        ]  # fmt: skip
        pieces = pl.DataFrame(rows).select(
            "cutout_id", "image", row0=0, col0=0, height="height_px", width="width_px", to_row=0, to_col=0
        )
        tables = {
            "cutouts": table.select(*BAND_COLUMNS).cast(BAND_COLUMNS),
            "images": pl.DataFrame(facts, schema=BAND_IMAGE_COLUMNS),
            "pieces": pieces.cast(PIECE_COLUMNS),
            **{f"truth/{tile}": frame for tile, frame in truth.items()},
            **{f"detections/{tile}": frame for tile, frame in detections.items()},
        }
        for folder in ("truth", "detections"):
            (build.path / folder).mkdir()
        for name, frame in tables.items():
            with build.write(f"{name}.parquet") as path:
                frame.write_parquet(path)
        build.table = "cutouts.parquet"
        build.count(read=len(table), kept=len(table))
        build.note(
            survey=survey, bands=list(names), unit=unit, pixel_scale_arcsec=scale, match=None, window_px=size,
            zero_point_mag={band: ZERO_POINT_MAG[band] for band in names},
        )  # fmt: skip

    return cutouts(digest=digest, store=store)


def _draw(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, mag: np.ndarray, bands: int, size: int) -> np.ndarray:
    """Noise of 0.05 and, at zero point 27, round sources with a width of 1.8 px, (bands, size, size)."""
    rows, cols = np.mgrid[:size, :size]
    flux = 10 ** ((27.0 - mag) / 2.5) / (2 * np.pi * 1.8**2)
    total = sum(
        f * np.exp(-((rows - b) ** 2 + (cols - a) ** 2) / (2 * 1.8**2)) for f, a, b in zip(flux, x, y, strict=True)
    )
    return np.float32(total + rng.normal(0, 0.05, (bands, size, size)))


def _truth(place: pl.DataFrame, sources: pl.DataFrame, lsst: bool) -> pl.DataFrame:
    columns = lsst_truth(sources) if lsst else pl.DataFrame(roman_truth(sources))
    object_id = columns["id" if lsst else "ind"].cast(pl.String)
    own = place.select(
        "cutout_id", object_id=object_id, category_id=sources["kind"].cast(pl.Int8), ra_deg=sources["ra"],
        dec_deg=sources["dec"], x_px="x_px", y_px="y_px",
    )  # fmt: skip
    return pl.concat([own, columns], how="horizontal")


def _detections(place: pl.DataFrame, sources: pl.DataFrame) -> pl.DataFrame:
    columns = lsst_objects(sources, 3256, ["0,0"] * len(sources))
    own = place.select(
        "cutout_id", detection_id=columns["objectId"], ra_deg=sources["ra"], dec_deg=sources["dec"], x_px="x_px",
        y_px="y_px",
    )  # fmt: skip
    return pl.concat([own, columns], how="horizontal")
