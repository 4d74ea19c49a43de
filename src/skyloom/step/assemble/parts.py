"""Which part of a data set each image belongs to, by its place on the sky or by itself, and subsets of parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field, PositiveInt

from skyloom.errors import ConfigError, InputError, unknown_choice
from skyloom.step.split import hash_of, part_of, parts_by_sky

CUTOUT_LEVEL = 62  # marks cutouts in the hash, where cells have their level
SUBSET_LEVEL = 61  # marks the order in which subsets take cutouts


@dataclass(frozen=True)
class Subset:
    """A fixed number of images of one part."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
    part: str
    number: PositiveInt


def split_images(
    table: pl.DataFrame, images: pl.DataFrame, by: str, fractions: dict[str, float], level: int, seed: int
) -> pl.Series:
    """Part of each cutout.

    Parameters
    ----------
    table
        Rows of an index, N.
    images
        Its ``images.parquet``.
    by
        ``cell``: cells of the sky are shared out, and a cutout that reaches into a cell of another part has none.
        ``cutout``: each by a hash of its id.
    fractions
        Share per part.
    level
        HEALPix level of the cells.
    seed
        Start of the hash.

    Returns
    -------
    Series
        String (N,); null at borders of parts.

    Raises
    ------
    ConfigError
        Cells too small for the cutouts.
    InputError
        A cutout without a position, or a part that gets none.
    """
    names = [name for name, share in fractions.items() if share > 0]
    edges = np.cumsum([fractions[name] for name in names])
    if by == "cutout":
        part = part_of(table["cutout_id"].to_numpy(), CUTOUT_LEVEL, edges, seed)
    else:
        lost = table.filter(~(pl.col("ra_deg").is_finite() & pl.col("dec_deg").is_finite()).fill_null(False))
        if len(lost):
            raise InputError(
                f"{len(lost)} cutouts have no position on the sky (the first is {lost['cutout_id'][0]}); by=cutout "
                "shares them out without one"
            )
        _, part = parts_by_sky(table, images, level, edges, seed)
    if empty := [name for i, name in enumerate(names) if not (part == i).any()]:
        raise InputError(
            f"no image of {len(table)} is left for {' and '.join(empty)}: use another seed, other fractions, or "
            f"{'more cutouts' if by == 'cutout' else 'a finer level, or by=cutout'}"
        )
    return pl.Series("split", np.array([*names, None], dtype=object)[part].tolist(), dtype=pl.String)


def subset_columns(images: pl.DataFrame, subsets: Sequence[Subset], seed: int) -> list[pl.Series]:
    """One Boolean column per subset: the images of its part whose ids come first by a hash.

    A smaller subset of a part therefore lies within a larger one, and neither depends on the order of the images.

    Raises
    ------
    ConfigError
        No such part, fewer images than wanted, or a name that is taken.
    """
    parts = images["split"].drop_nulls().unique().sort().to_list()
    ids = images["cutout_id"].to_numpy()
    order = np.lexsort([ids, hash_of(ids, SUBSET_LEVEL, seed)])
    taken = {*images.columns, *parts}
    columns = []
    for subset in subsets:
        if subset.name in taken:
            raise ConfigError(f"subsets: the name {subset.name} is taken; choose another")
        if subset.part not in parts:
            raise unknown_choice(f"subsets: part of {subset.name}", subset.part, parts)
        taken.add(subset.name)
        inside = order[(images["split"] == subset.part).to_numpy()[order]]
        if subset.number > len(inside):
            raise ConfigError(
                f"subsets: {subset.name} wants {subset.number} images of part {subset.part}, which has {len(inside)}"
            )
        chosen = np.zeros(len(images), bool)
        chosen[inside[: subset.number]] = True
        columns.append(pl.Series(subset.name, chosen))
    return columns
