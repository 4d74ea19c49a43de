"""report=dataset: what a data set of annotated images holds, what was left out of it, and how it looks."""

from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from skyloom.report.dataset.sections import (
    examples_section,
    left_out_section,
    objects_section,
    parts_section,
    pixels_section,
    sky_section,
)
from skyloom.report.dataset.tables import open_tables
from skyloom.report.writing import write_report
from skyloom.store import Artifact, Build, builds, of_kind


@builds("report", version=1, inputs={"dataset": of_kind("dataset")}, free=("image_roots",))
def dataset(
    build: Build,
    *,
    dataset: Artifact,
    examples: NonNegativeInt,
    pixel_images: NonNegativeInt,
    dpi: Annotated[int, Field(ge=50, le=600)],
    seed: NonNegativeInt,
    image_roots: str | None,
) -> None:
    """Report on a data set.

    Writes ``report.html`` (self-contained), ``numbers.json`` and the plots as PNG.

    Parameters
    ----------
    build
        Where to write.
    dataset
        Artifact of kind ``dataset``.
    examples
        Images shown with their masks; 0 shows none.
    pixel_images
        Images whose pixels are measured; 0 reads none.
    dpi
        Pixels per inch of the plots, 50 to 600.
    seed
        Start of the random streams: which images are shown and measured.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    InputError
        An image is gone or has changed.
    StoreError
        The cutouts or annotations of the data set are not in the store.
    """
    data = open_tables(dataset, image_roots=image_roots)
    numbers: dict[str, Any] = {}
    sections = [
        parts_section(data, numbers),
        left_out_section(data, numbers, dpi),
        objects_section(data, numbers, dpi),
        pixels_section(data, numbers, pixel_images, dpi, seed),
        sky_section(data, numbers, dpi, seed),
        examples_section(data, examples, dpi, seed),
    ]
    images, objects = len(data.images), len(data.objects)
    stars = numbers["categories"].get("star", 0)
    write_report(
        build,
        title=f"Data set {dataset.id}",
        lead=f"{objects:,} annotated objects in {images:,} images: what they are, and what was left out.",
        facts=[
            (f"{images:,}", "images"),
            (f"{objects:,}", "objects"),
            (f"{objects / max(images, 1):.1f}", "objects per image"),
            (f"{100 * stars / max(objects, 1):.1f} %", "stars"),
            (f"{numbers['without_objects']:,}", "images without objects"),
        ],
        sections=sections,
        numbers=numbers,
        inputs={"dataset": dataset},
    )
    build.count(images=images, objects=objects)
