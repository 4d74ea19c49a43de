"""The report of step=integrity: JSON in the form that the predecessor's tools read, and the printed summary."""

from typing import Any

import polars as pl

from skyloom.datamodule.band_index import BandIndex
from skyloom.step.integrity.gate import REASONS, problems
from skyloom.store import Artifact

WIDTH = 40  # columns of the printed summary
LISTS = {
    "nan": "nan_bands", "all_zero": "empty_bands", "inf": "inf_bands", "wrong_shape": "wrong_shape_bands",
    "wrong_dtype": "wrong_dtype_bands", "unreadable": "unreadable_bands",
}  # fmt: skip
ALWAYS = ("cutouts_all_zero", "cutouts_with_nans", "cutouts_with_empty_bands", "band_nan_counts", "band_empty_counts")
ROWS = {  # of the summary: those of the predecessor, then what it did not look for, shown where there is any
    "cutouts_all_zero": "All zero cutouts",
    "cutouts_with_nans": "Cutouts with NaN values",
    "cutouts_with_empty_bands": "Cutouts with empty bands",
    "cutouts_with_infs": "Cutouts with infinite values",
    "cutouts_with_wrong_shape": "Cutouts of wrong shape",
    "cutouts_with_wrong_dtype": "Cutouts of wrong dtype",
    "cutouts_unreadable": "Unreadable cutouts",
}
BAND_ROWS = {
    "band_nan_counts": ("nan", "NaN count"),
    "band_empty_counts": ("all_zero", "Empty count"),
    "band_inf_counts": ("inf", "Infinite count"),
    "band_unreadable_counts": ("unreadable", "Unreadable count"),
}
IN_ROWS = {
    "cutouts_with_nans": "nan", "cutouts_with_empty_bands": "all_zero", "cutouts_with_infs": "inf",
    "cutouts_with_wrong_shape": "wrong_shape", "cutouts_with_wrong_dtype": "wrong_dtype",
    "cutouts_unreadable": "unreadable",
}  # fmt: skip


def report_of(cutouts: Artifact, index: BandIndex, planes: pl.DataFrame, corrupt: pl.DataFrame) -> dict[str, Any]:
    """Put the report together.

    Parameters
    ----------
    cutouts
        What was examined.
    index
        Its index.
    planes
        Rows of ``integrity.parquet``.
    corrupt
        What :func:`skyloom.step.integrity.gate.corrupt_cutouts` answers.

    Returns
    -------
    dict
        ``summary`` (``total_cutouts``, ``corrupt_cutouts``, ``cutouts_…`` and, by band, the number of cutouts in
        ``band_…_counts``) and ``corrupt_cutouts``, keyed by file name as in the predecessor.
    """
    marked = problems(planes)
    of_cutouts = marked.group_by("cutout_id").agg(
        pl.col(*REASONS).any(), every=pl.col("all_zero").all()
    )  # fmt: skip
    summary: dict[str, Any] = {
        "total_cutouts": len(index),
        "corrupt_cutouts": len(corrupt),
        "cutouts_all_zero": int(of_cutouts["every"].sum()),
        **{name: int(of_cutouts[problem].sum()) for name, problem in IN_ROWS.items()},
    }
    for name, (problem, _) in BAND_ROWS.items():
        hits = dict(marked.filter(problem).group_by("band").len().iter_rows())
        summary[name] = {band: hits.get(band, 0) for band in index.bands}
    return {"summary": summary, "corrupt_cutouts": _entries(cutouts, index, planes, marked, corrupt)}


def _entries(
    cutouts: Artifact, index: BandIndex, planes: pl.DataFrame, marked: pl.DataFrame, corrupt: pl.DataFrame
) -> dict[str, Any]:
    """What is known of each corrupt cutout."""
    lists = [pl.col("band").filter(problem).alias(name) for problem, name in LISTS.items()]
    every = pl.col("all_zero").all().alias("every")
    facts = marked.join(corrupt.select("cutout_id"), on="cutout_id", how="semi")
    facts = facts.group_by("cutout_id", maintain_order=True).agg(*lists, every)
    messages = dict(
        planes.filter(pl.col("message").is_not_null()).group_by("cutout_id").agg(pl.col("message").first()).iter_rows()
    )
    paths = cutouts.table("images.parquet").group_by("image").agg(pl.col("path").first())
    table = index.table.join(paths, on="image", how="left")
    rows = facts.join(table, on="cutout_id", how="left", maintain_order="left")
    found: dict[str, Any] = {}
    for row in rows.iter_rows(named=True):
        name = row["file_name"] if row["file_name"] not in found else f"{row['file_name']} ({row['cutout_id']})"
        entry: dict[str, Any] = {
            "filename": row["file_name"],
            "full_path": row["path"],
            "cutout_id": row["cutout_id"],
            "shape": [len(index.bands), row["height_px"], row["width_px"]],
            **{key: row[key] for key in LISTS.values() if row[key]},
        }
        if row["every"]:
            entry["all_zero"] = True
        if row["cutout_id"] in messages:
            entry["error"] = messages[row["cutout_id"]]
        found[name] = entry
    return found


def summary_text(summary: dict[str, Any]) -> str:
    """The summary as it is printed, as lines of 40 columns."""
    total, corrupt = summary["total_cutouts"], summary["corrupt_cutouts"]
    share = f" ({100 * corrupt / total:.2f}%)" if total else ""
    lines = [_line("Total cutouts checked:", total), _line("Corrupt cutouts found:", corrupt) + share]
    lines += [_line(f"  - {label}:", summary[name]) for name, label in ROWS.items() if name in ALWAYS or summary[name]]
    lines += ["", "Per-band statistics:"]
    for number, band in enumerate(summary["band_nan_counts"]):
        lines.append(f"  {band} (band {number}):")
        lines += [
            _line(f"    - {label}:", summary[name][band])
            for name, (_, label) in BAND_ROWS.items()
            if name in ALWAYS or any(summary[name].values())
        ]
    return "\n".join(lines) + "\n"


def _line(label: str, number: int) -> str:
    return f"{label}{number:>{max(WIDTH - len(label), len(f'{number:,}') + 1)},}"
