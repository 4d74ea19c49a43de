"""The parts of a page on a selection: each measures, draws, and says in words what is seen."""

from typing import Any

import numpy as np
import polars as pl

from skyloom.report.curated import Curated
from skyloom.report.lineage import flatten, lineage_of
from skyloom.report.page import Plot, Section, Table
from skyloom.report.selection import plots
from skyloom.report.selection.numbers import MEANINGS, SETS, occupancy, sky_coverage, stream, verdict
from skyloom.store import Artifact

SHOWN = 20_000  # points drawn of a set, at random: more only blacken the plot, and PCA needs no more


def balance_section(data: Curated, numbers: dict[str, Any], baseline: np.ndarray, dpi: int) -> Section:
    """Numbers per level, what they mean, and the occupancy of the clusters; ``baseline`` are random positions (n,)."""
    sets = {"all": np.arange(len(data.rows)), "random": baseline, "selection": data.selected}
    counts = [
        {name: occupancy(assignment, positions, clusters) for name, positions in sets.items()}
        for assignment, clusters in zip(data.assignments, data.clusters_per_level, strict=True)
    ]
    rows = [
        [f"Level {level['level']}" if name == SETS[0] else "", name, f"{level['clusters']:,}",
         *(f"{level[name][key]:.3f}" for key in ("coverage", "entropy", "normalised_entropy", "gini"))]
        for level in numbers["levels"] for name in SETS
    ]  # fmt: skip
    sky = sky_coverage(data.column("ra_deg"), data.column("dec_deg"), sets)
    numbers["sky"] = sky
    text = [verdict(numbers)]
    if sky["cells"]:
        text.append(
            f"The cutouts lie in {sky['cells']:,} sky cells (HEALPix order {sky['healpix_order']}); "
            f"the selection reaches {100 * sky['coverage']['selection']:.1f} % of them, "
            f"the random one {100 * sky['coverage']['random']:.1f} %."
        )
    text.append(
        f"{numbers['duplicates']:,} of the {numbers['selected']:,} selected images are repeats of one taken already."
    )
    caption = (
        "Images in each cluster, from the fullest to the emptiest, before (all) and after (selection). "
        "A flat line is an even selection; the dotted line is the size of every cluster in a perfect one."
    )
    return Section(
        "Balance over the clusters",
        text=text,
        tables=[Table(["", "Set", "Clusters", "Coverage", "Entropy", "Evenness", "Gini"], rows, text_columns=2)],
        terms=MEANINGS,
        plots=[Plot("occupancy.png", plots.occupancy_plot(counts, dpi=dpi), caption)],
    )


def thumbnails_section(data: Curated, snr: np.ndarray, number: int, dpi: int, seed: int) -> Section:
    """At most ``number`` cutouts of all and of the selection side by side; ``snr`` (N,) is printed below them."""
    if number == 0:
        return Section("What it looks like", text=["No cutouts are shown (thumbnails=0)."])
    rms = data.column("rms")
    sets, titles = {}, {}
    for name, positions in (("all", np.arange(len(data.rows))), ("selection", np.unique(data.selected))):
        shown = _some(positions, number, stream(seed, f"thumbnails {name}"))
        shown = shown[np.argsort(-np.nan_to_num(snr[shown], nan=-np.inf), kind="stable")]
        sets[name] = (data.index.read(data.rows[shown]), rms[shown], snr[shown])
        titles[name] = f"{'All' if name == 'all' else 'Selection'}: {len(shown)} of {len(positions):,}"
    caption = (
        "Cutouts drawn at random from each set, sorted by peak signal to noise, which is printed below each. All have "
        "the same stretch: the asinh of signal over noise, from minus 2 to 100. Blank pixels are grey."
    )
    return Section(
        "What it looks like",
        plots=[Plot("thumbnails.png", plots.thumbnails_plot(sets, titles=titles, dpi=dpi), caption, photo=True)],
    )


def features_section(data: Curated, numbers: dict[str, Any], dpi: int, seed: int) -> Section:
    """Principal components of the features; adds ``pca_variance_fraction`` to ``numbers``."""
    shown = _some(np.arange(len(data.rows)), SHOWN, stream(seed, "features all"))
    selected = _some(np.unique(data.selected), SHOWN, stream(seed, "features selection"))
    picture, fractions = plots.pca_plot(data.read_features(shown), data.read_features(selected), dpi=dpi)
    numbers["pca_variance_fraction"] = [round(float(value), 6) for value in fractions]
    caption = (
        "Each point is an image, placed by the two directions in which the features of all images differ most "
        "(principal components). Grey points with no blue ones among them are kinds of images that the selection "
        "lacks; where grey points crowd, the blue ones should be thinner."
    )
    return Section("In the space of the features", plots=[Plot("features.png", picture, caption)])


def sky_section(data: Curated, numbers: dict[str, Any], dpi: int, seed: int) -> Section:
    """Map of the cutouts that have a position; adds ``with_sky_position`` to ``numbers``."""
    ra, dec = data.column("ra_deg"), data.column("dec_deg")
    known = np.isfinite(ra) & np.isfinite(dec)
    numbers["with_sky_position"] = int(known.sum())
    if not known.any():
        text = "None of the cutouts has a sky position, because their images have no celestial WCS; there is no map."
        return Section("On the sky", text=[text])
    positions = np.flatnonzero(known)
    chosen = np.unique(data.selected)
    shown = _some(positions, SHOWN, stream(seed, "sky all"))
    selected = _some(chosen[known[chosen]], SHOWN, stream(seed, "sky selection"))
    picture = plots.sky_plot((ra[shown], dec[shown]), (ra[selected], dec[selected]), dpi=dpi)
    missing = len(known) - len(positions)
    notes = [f"{missing:,} of {len(known):,} cutouts have no sky position and are not on the map."] if missing else []
    caption = "Centres of the cutouts. The selection should follow all cutouts, unless a region is unlike the rest."
    return Section("On the sky", text=notes, plots=[Plot("sky.png", picture, caption)])


def snr_section(data: Curated, numbers: dict[str, Any], snr: np.ndarray, dpi: int) -> Section:
    """Distribution of the peak signal to noise, ``snr`` (N,)."""
    good, chosen = snr > 0, snr[data.selected]  # NaN is not > 0
    if not good.any():
        return Section("Signal to noise", text=["No cutout has a measured peak above zero; there is no distribution."])
    medians = [numbers["peak_snr"][name]["median"] for name in ("all", "selection")]
    both = " and ".join("not known" if value is None else f"{value:.3g}" for value in medians)
    text = f"The median peak signal to noise, of all images and of the selection: {both}."
    left_out = int((~good).sum())
    if left_out:
        text += f" {left_out:,} cutouts without a positive value are not in the plot."
    caption = (
        "Brightest pixel of each cutout over its noise. In most surveys nearly empty sky is common, so that a balanced "
        "selection has a larger part of bright sources than all images."
    )
    picture = plots.snr_plot(snr[good], chosen[chosen > 0], dpi=dpi)
    return Section("Signal to noise", text=[text], plots=[Plot("peak_snr.png", picture, caption)])


def training_section(model: Artifact, selection: Artifact, dpi: int) -> Section:
    """Training curve of a model, and whether it was trained on this selection."""
    title = "Training of the model"
    trained_on = {artifact.id for artifact in lineage_of([model])}
    known = "was trained on this selection" if selection.id in trained_on else "was not trained on this selection"
    text = [f"The model {model.id} {known}."]
    if not (model.path / "metrics.csv").exists():
        return Section(title, text=[*text, "It has no metrics.csv, so there is no curve to show."])
    metrics = pl.read_csv(model.file("metrics.csv"), infer_schema_length=None)
    if not plots.loss_columns(metrics):
        return Section(title, text=[*text, "Its metrics.csv holds no loss, so there is no curve to show."])
    caption = (
        "Loss during training; it should fall and then flatten. The spread of the features, where it was logged, "
        "should stay well above zero: at zero all images get the same features (collapse)."
    )
    sizes = [int(value) for name, value in flatten(model.parameters) if name.endswith("projection_dim")]
    picture = plots.training_plot(metrics, dimensions=sizes[0] if sizes else None, dpi=dpi)
    return Section(title, text=text, plots=[Plot("training.png", picture, caption)])


def _some(positions: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``number`` of the positions, at random, ascending."""
    return positions if len(positions) <= number else np.sort(rng.choice(positions, number, replace=False))
