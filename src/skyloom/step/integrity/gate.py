"""Which cutouts an integrity report calls corrupt, and why: the gate of the steps that come later."""

import polars as pl

from skyloom.errors import InputError
from skyloom.store import Artifact

# From the gravest to the mildest: a cutout with several problems has the first as its reason.
REASONS = {
    "wrong_shape": "wrong shape",
    "wrong_dtype": "wrong dtype",
    "unreadable": "unreadable",
    "all_zero": "empty band",
    "nan": "NaN pixels",
    "inf": "infinite pixels",
}
ALL_ZERO = "all zero"
WHY = {
    "wrong shape": "not the side asked for, beyond the image, or bands of different shapes",
    "wrong dtype": "a type of pixels that was not asked for",
    "unreadable": "the image cannot be read",
    ALL_ZERO: "every pixel of every band is 0",
    "empty band": "every pixel of a band is 0",
    "NaN pixels": "a band has blank pixels",
    "infinite pixels": "a band has infinite pixels",
}


def problems(planes: pl.DataFrame) -> pl.DataFrame:
    """Mark the problems of each plane (one band of one cutout).

    Parameters
    ----------
    planes
        Rows of ``integrity.parquet``.

    Returns
    -------
    polars.DataFrame
        `cutout_id`, `band`, and a Boolean column per key of `REASONS`.
    """
    return planes.select(
        "cutout_id", "band", "wrong_shape", "wrong_dtype", "unreadable", "all_zero",
        nan=pl.col("nan_count") > 0, inf=pl.col("inf_count") > 0,
    )  # fmt: skip


def corrupt_cutouts(artifact: Artifact) -> pl.DataFrame:
    """Cutouts that must not be trained on.

    Parameters
    ----------
    artifact
        Of kind ``integrity``.

    Returns
    -------
    polars.DataFrame
        One row per corrupt cutout, in the order of the index: `cutout_id` Int64, `reason` String (a key of `WHY`), and
        `detail` String, all problems with their bands (``NaN pixels in Y106, J129``).

    Raises
    ------
    InputError
        The artifact is of another kind.
    """
    if artifact.kind != "integrity":
        raise InputError(
            f"{artifact.kind} {artifact.id}: expected an artifact of kind integrity; make one with step=integrity"
        )
    return corrupt_of(artifact.table("integrity.parquet"))


def corrupt_of(planes: pl.DataFrame) -> pl.DataFrame:
    """Same as :func:`corrupt_cutouts`, of the rows of an ``integrity.parquet``."""
    marked = problems(planes)
    texts = [
        pl.when(pl.col(key).any()).then(
            pl.format("{} in {}", pl.lit(text), pl.col("band").filter(pl.col(key)).str.join(", "))
        )
        for key, text in REASONS.items()
    ]
    reason = pl.coalesce(
        *(
            pl.when(pl.col(key).all() & pl.lit(key == "all_zero")).then(pl.lit(ALL_ZERO))
            .when(pl.col(key).any()).then(pl.lit(text))
            for key, text in REASONS.items()
        )
    )  # fmt: skip
    return (
        marked.filter(pl.any_horizontal(*REASONS).any().over("cutout_id"))
        .group_by("cutout_id", maintain_order=True)
        .agg(reason=reason, detail=pl.concat_str(texts, separator="; ", ignore_nulls=True))
    )
