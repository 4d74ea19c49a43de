"""The parts of a page on a data set: each measures, draws, and says in words what is seen."""

from typing import Any

import numpy as np
import polars as pl

from skyloom.report.dataset import plots
from skyloom.report.dataset.tables import Tables
from skyloom.report.page import Plot, Section, Table
from skyloom.report.selection.numbers import stream
from skyloom.sky.mask.rle import decode

SHOWN = 20_000  # points on the map, at random: more only blacken it


def parts_section(data: Tables, numbers: dict[str, Any]) -> Section:
    """Images and objects of each part and subset; adds ``parts``, ``categories`` and ``without_objects``."""
    images = data.images
    groups = {name: images.filter(split=name) for name in images["split"].drop_nulls().unique().sort()}
    groups |= {name: images.filter(name) for name in data.artifact.notes.get("subsets", {})}
    rows = []
    numbers["parts"] = {}
    for name, own in (groups | {"all": images}).items():
        objects = own["annotations"].to_numpy()
        median = float(np.median(objects)) if len(objects) else 0.0
        empty = int((objects == 0).sum())
        numbers["parts"][name] = {"images": len(own), "objects": int(objects.sum()), "without_objects": empty}
        rows.append([name, f"{len(own):,}", f"{int(objects.sum()):,}", f"{median:g}", f"{empty:,}"])
    counts = dict(data.objects["category_id"].value_counts().rows())
    numbers["categories"] = {name: int(counts.get(number, 0)) for number, name in data.categories.items()}
    numbers["without_objects"] = int((images["annotations"] == 0).sum())
    kinds = ", ".join(f"{number:,} of class {name}" for name, number in numbers["categories"].items())
    table = Table(["Part", "Images", "Objects", "Objects per image (median)", "Images without objects"], rows)
    return Section("Parts", text=[f"Of the {len(data.objects):,} objects there are {kinds}."], tables=[table])


def left_out_section(data: Tables, numbers: dict[str, Any], dpi: int) -> Section:
    """What the steps before left out, and why; adds ``dropped`` and ``rejected``."""
    dropped = data.artifact.counts["dropped"]
    numbers["dropped"] = {reason: entry["number"] for reason, entry in dropped.items()}
    rows = [[reason, f"{entry['number']:,}", entry["why"]] for reason, entry in dropped.items()]
    tables = [Table(["Reason", "Number", "Why"], rows, text_columns=3)] if rows else []
    text = [] if rows else ["Nothing was left out when the data set was put together."]
    drawn = []
    if data.rejected is not None:
        reasons = [(str(reason), int(number)) for reason, number in data.rejected.rows()]
        numbers["rejected"] = dict(reasons)
        total = sum(number for _, number in reasons)
        text.append(f"{total:,} objects could not be annotated, in all tiles and before any image was left out.")
        if reasons:
            caption = "Objects of the truth without an annotation, by the reason that step=annotate gives."
            drawn = [Plot("rejected.png", plots.reasons_plot(reasons, dpi=dpi), caption)]
    return Section("What was left out", text=text, tables=tables, plots=drawn)


def objects_section(data: Tables, numbers: dict[str, Any], dpi: int) -> Section:
    """Objects per image, sizes and magnitudes; adds quantiles of all three."""
    objects, images = data.objects, data.images
    areas = {name: objects.filter(category_id=number)["area_px"].to_numpy() for number, name in data.categories.items()}
    magnitudes = {}
    for name in data.magnitudes:
        values = objects[name].cast(pl.Float64).drop_nulls().to_numpy()
        magnitudes[name.removeprefix("mag_")] = values[np.isfinite(values)]
    numbers["objects_per_image"] = _quantiles(images["annotations"].to_numpy())
    numbers["area_px"] = {name: _quantiles(values) for name, values in areas.items()}
    numbers["magnitude"] = {name: _quantiles(values) for name, values in magnitudes.items()}
    clipped = int(objects["clipped"].sum())
    numbers["clipped"] = clipped
    text = [f"{clipped:,} objects touch the border of their image."]
    if not magnitudes:
        text.append("The annotations have no magnitudes.")
    picture = plots.objects_plot(images["annotations"].to_numpy(), areas, magnitudes, dpi=dpi)
    caption = "Objects in each image, the area of their masks, and their magnitudes, in bins of half a magnitude."
    return Section("Objects", text=text, plots=[Plot("objects.png", picture, caption)])


def pixels_section(data: Tables, numbers: dict[str, Any], number: int, dpi: int, seed: int) -> Section:
    """Distribution of the pixels of some images in each band; adds ``pixels``."""
    title = "Pixels"
    if data.index is None or number == 0:
        why = "pixel_images=0" if data.index is not None else "the data set has no cutouts"
        return Section(title, text=[f"No pixels were read: {why}."])
    index = data.index
    rows = index.rows_of(data.images["cutout_id"].to_numpy()[data.some(number, stream(seed, "pixels"))])
    planes = [index.read(int(row)).reshape(len(index.bands), -1) for row in rows]
    cube = np.concatenate(planes, axis=1)
    bands = {band: values[np.isfinite(values)] for band, values in zip(index.bands, cube, strict=True)}
    blank = {band: cube.shape[1] - len(values) for band, values in bands.items()}
    numbers["pixels"] = {
        band: {"images": len(rows), "blank": blank[band], "mean": float(values.mean(dtype=np.float64)),
               "std": float(values.std(dtype=np.float64)), **_quantiles(values)}
        for band, values in bands.items() if len(values)
    }  # fmt: skip
    table = Table(
        ["Band", "Mean", "Std", "Median", "Blank pixels"],
        [[band, *(f"{entry[key]:.4g}" for key in ("mean", "std", "median")), f"{entry['blank']:,}"]
         for band, entry in numbers["pixels"].items()],
    )  # fmt: skip
    text = f"Of {len(rows):,} images drawn at random, in {index.unit or 'an unknown unit'}. step=stats measures all."
    measured = {band: values for band, values in bands.items() if len(values)}
    if not measured:
        return Section(title, text=[text, "All their pixels are blank."])
    caption = "Fraction of the pixels at each value over the noise; what lies beyond 100 is counted at 100."
    picture = plots.pixels_plot(measured, index.unit, dpi=dpi)
    return Section(title, text=[text], tables=[table], plots=[Plot("pixels.png", picture, caption)])


def sky_section(data: Tables, numbers: dict[str, Any], dpi: int, seed: int) -> Section:
    """Map of the images by part; adds ``tiles`` and ``with_sky_position``."""
    placed = data.images.filter((pl.col("ra_deg").is_finite() & pl.col("dec_deg").is_finite()).fill_null(False))
    numbers["tiles"], numbers["with_sky_position"] = data.images["tile"].n_unique(), len(placed)
    if placed.is_empty():
        return Section("On the sky", text=["None of the images has a position; there is no map."])
    if len(placed) > SHOWN:
        chosen = np.sort(stream(seed, "sky").choice(len(placed), SHOWN, replace=False))
        placed = placed[chosen]
    parts = {
        str(name or "no part"): (own["ra_deg"].to_numpy(), own["dec_deg"].to_numpy())
        for (name,), own in placed.sort("split").group_by(["split"], maintain_order=True)
    }
    caption = "Centres of the images, by part. Parts by cell make patches of their own; parts by cutout are mixed."
    text = f"The images are of {numbers['tiles']:,} tiles."
    return Section("On the sky", text=[text], plots=[Plot("sky.png", plots.sky_plot(parts, dpi=dpi), caption)])


def examples_section(data: Tables, number: int, dpi: int, seed: int) -> Section:
    """Some images with the outlines of their masks."""
    title = "Examples"
    rows = data.some(number, stream(seed, "examples"), with_objects=True)
    if data.index is None or not rows:
        return Section(title, text=["No images are shown: " + _why(data, number)])
    index = data.index
    band = index.bands[len(index.bands) // 2]
    pictures, masks, labels, titles = [], [], [], []
    for image in data.images[rows].iter_rows(named=True):
        row = int(index.rows_of(np.array([image["cutout_id"]]))[0])
        own = data.annotations_of(image["cutout_id"])
        shape = (image["height_px"], image["width_px"])
        pictures.append(index.read(row, [band])[0])
        masks.append(np.array([decode(counts, shape) for counts in own["rle"]]))
        labels.append(own["category_id"].to_numpy())
        titles.append(image["file_name"].removesuffix(".npy"))
    caption = f"Band {band} with the outlines of all masks: blue for {data.categories.get(0)}, orange for the others."
    picture = plots.examples_plot(pictures, masks, labels, titles, dpi=dpi)
    return Section(title, plots=[Plot("examples.png", picture, caption, photo=True)])


def _why(data: Tables, number: int) -> str:
    if data.index is None:
        return "the data set has no cutouts."
    return "examples=0." if number == 0 else "none has an object."


def _quantiles(values: np.ndarray) -> dict[str, float | None]:
    """5 %, median and 95 % of finite values; None where there are none."""
    names = ("p5", "median", "p95")
    if not len(values):
        return dict.fromkeys(names)
    return {name: float(value) for name, value in zip(names, np.percentile(values, [5, 50, 95]), strict=True)}
