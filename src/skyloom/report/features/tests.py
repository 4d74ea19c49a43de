"""Parts of a page on features that test them: neighbours on the sky, and a second set of features."""

from typing import Any

import numpy as np

from skyloom.errors import InputError
from skyloom.metric.representation import moments
from skyloom.metric.two_sample import two_sample_test
from skyloom.report.feature_set import FeatureSet
from skyloom.report.features import plots
from skyloom.report.features.embedding import principal_axes
from skyloom.report.features.galleries import windows_of
from skyloom.report.features.numbers import number
from skyloom.report.features.physical import SETS, compare, neighbour_pairs, pair_distances
from skyloom.report.page import Plot, Section, Table
from skyloom.report.selection.numbers import stream

SIGNIFICANT = 1e-3
COMPARED = (("overlapping", "random"), ("touching", "random"), ("same_image", "random"), ("touching", "same_image"))
PAIRS = [
    ("Overlapping", "Nearest window of the image that shares pixels: it must be near, so this only shows that the "
     "encoder sees the same pixels alike."),
    ("Touching", "Nearest window of the image that shares no pixel: the honest test, since only what the sky or the "
     "image have in common brings these near."),
    ("Same image", "Any window of the image at least two sides away: near only by what the whole image has in common, "
     "such as its noise. Touching against this asks for the sky alone."),
    ("AUC", "Chance that a pair of the first kind is nearer than one of the second; 0.5 is no difference."),
]  # fmt: skip


def physical_section(data: FeatureSet, numbers: dict[str, Any], *, pairs: int, dpi: int, seed: int) -> Section:
    """The physical-neighbour test; adds ``physical_neighbours`` to ``numbers``."""
    title = "Neighbours on the sky"
    if pairs == 0:
        return Section(title, text=["The test was not asked for (pairs=0)."])
    found = neighbour_pairs(windows_of(data), pairs, stream(seed, "pairs"))
    distances = pair_distances(found, data.x.take)
    tests = [test for names in COMPARED if (test := compare(distances, *names))]
    numbers["physical_neighbours"] = {
        "pairs": {name: len(found[name]) for name in SETS},
        "median_distance": {name: number(np.median(d)) if len(d) else None for name, d in distances.items()},
        "tests": [{"first": t.first, "second": t.second, "auc": number(t.auc), "p_value": number(t.p_value),
                   "u": t.u, "significant": t.p_value < SIGNIFICANT} for t in tests],
    }  # fmt: skip
    text = [_verdict(numbers["physical_neighbours"])]
    missing = [name.replace("_", " ") for name in SETS if len(found[name]) < 8]
    if missing:
        text.append(f"There are fewer than 8 pairs of this kind, which leaves its tests out: {', '.join(missing)}.")
    rows = [
        [t.first.replace("_", " "), t.second.replace("_", " "), f"{t.auc:.3f}", f"{t.p_value:.2g}",
         "yes" if t.p_value < SIGNIFICANT else "no"]
        for t in tests
    ]  # fmt: skip
    section = Section(title, text=text, terms=PAIRS,
                      tables=[Table(["Nearer", "than", "AUC", "p", "p < 0.001"], rows, text_columns=2)])  # fmt: skip
    if any(len(values) for values in distances.values()):
        caption = f"Euclidean distance between the features of pairs, {pairs:,} windows drawn at random."
        section.plots.append(Plot("physical_neighbours.png", plots.distances_plot(distances, dpi=dpi), caption))
    return section


def _verdict(found: dict[str, Any]) -> str:
    test = next((t for t in found["tests"] if (t["first"], t["second"]) == ("touching", "random")), None)
    if test is None:
        return "There are too few neighbouring windows without common pixels for the honest form of this test."
    word = "are" if test["significant"] else "are not"
    return (
        f"Neighbouring windows without common pixels {word} significantly nearer in the space of the features than "
        f"random ones: AUC {test['auc']:.3f}, p = {test['p_value']:.2g} (one-sided Mann-Whitney U test, limit 0.001)."
    )


def check_comparable(data: FeatureSet, other: FeatureSet, *, allow: bool) -> None:
    """Refuse features of another network or preprocessing: their dimensions do not mean the same.

    Raises
    ------
    InputError
        Another number of dimensions, or other digests unless ``allow``.
    """
    if data.x.shape[1] != other.x.shape[1]:
        raise InputError(
            f"features {data.artifact.id} have {data.x.shape[1]} dimensions, {other.artifact.id} {other.x.shape[1]}; "
            "compare features of the same backbone"
        )
    differ = [name for name, digest in data.digests.items() if digest != other.digests[name]]
    if differ and not allow:
        raise InputError(
            f"features {data.artifact.id} and {other.artifact.id} differ in {' and '.join(differ)}, so that their "
            "dimensions do not mean the same; extract both alike, or set other_digests=allow"
        )


def two_sample_section(
    data: FeatureSet, other: FeatureSet, numbers: dict[str, Any], *, rows: int, dpi: int, seed: int
) -> Section:
    """Can the two sets be told apart; adds ``two_sample`` to ``numbers``."""
    number_of = min(rows, len(data), len(other))
    if number_of < 5:
        raise InputError(f"the two-sample test needs 5 cutouts in each set, found {len(data)} and {len(other)}")
    first, second = (
        np.sort(stream(seed, f"two samples {name}").choice(len(one), number_of, replace=False))
        for name, one in (("this", data), ("other", other))
    )
    a, b = data.x.take(first), other.x.take(second)
    found = two_sample_test(a, b, rng=stream(seed, "folds"),
                            groups=(windows_of(data).image[first], windows_of(other).image[second]))  # fmt: skip
    here, there = moments([a]), moments([b])
    spread = np.sqrt((here.std**2 + there.std**2) / 2)
    shift = np.abs(here.mean - there.mean) / np.where(spread > 0, spread, 1)
    axes, _ = principal_axes(here.covariance())
    common = 0
    if data.index.artifact.id == other.index.artifact.id:
        common = len(np.intersect1d(data.cutout_id[first], other.cutout_id[second]))
    numbers["two_sample"] = {
        "other": other.artifact.id, "rows": number_of, "common_cutouts": common,
        "accuracy": number(found.accuracy), "interval_95": [number(found.low), number(found.high)],
        "folds": [number(value) for value in found.folds], "p_value": number(found.p_value),
        "verdict": found.verdict, "folds_by_image": found.grouped,
        "mean_shift": {"mean": number(shift.mean()), "max": number(shift.max())},
        "mean_difference_max": number(np.abs(here.mean - there.mean).max()),
        "std_difference_max": number(np.abs(here.std - there.std).max()),
    }  # fmt: skip
    words = {
        "alike": "below 60 %: the sets count as alike",
        "caution": "between 60 and 85 %: what was learnt on one may not hold on the other",
        "incompatible": "above 85 %: the sets are of different domains",
    }
    text = [
        f"A logistic regression tells {number_of:,} cutouts of each set apart with an accuracy of "
        f"{100 * found.accuracy:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f} %, 95 % interval by Wilson; "
        f"chance is 50 %, p = {found.p_value:.2g}), which is {words[found.verdict]}. These limits are conventions.",
        f"Five-fold cross-validation; "
        f"{'all cutouts of an image are in one fold, so that it is the domain and not the image that is recognised' if found.grouped else 'one of the sets has fewer than five images, so that cutouts were drawn singly and a single image may be recognised'}. "  # noqa: E501
        f"Accuracy of the folds: {', '.join(f'{100 * value:.0f}' for value in found.folds)} %.",
        f"The means differ by {shift.mean():.3g} standard deviations on average over the dimensions, at most by "
        f"{shift.max():.3g}.",
    ]
    if common:
        text.append(f"{common:,} cutouts are in both samples, which makes the sets look more alike than they are.")
    picture = plots.two_sets_plot((a - here.mean) @ axes.T, (b - here.mean) @ axes.T, shift,
                                  names=("this set", f"other, {other.artifact.id}"), dpi=dpi)  # fmt: skip
    caption = (
        "Left: both sets on the principal components of this one. Right: by how much the mean of each dimension moves."
    )
    return Section("A second set of features", text=text, plots=[Plot("two_sample.png", picture, caption)])
