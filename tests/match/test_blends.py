"""Labels and flags of blends on hand-made cases with known answers."""

import numpy as np
import polars as pl
import pytest
from scipy.spatial.transform import Rotation

from skyloom.errors import ConfigError
from skyloom.match import assign, blend_flags, close_pairs, fof_table, group_labels, nearest, sky_points
from skyloom.match.blends import GROUP_LABELS, group_counts, unrecognised_by_groups, unrecognised_by_neighbours


def line(*arcsec):
    return {"ra": np.zeros(len(arcsec)), "dec": np.array(arcsec, dtype=float) / 3600}


def points(*arcsec):
    return sky_points(**{f"{name}_deg": values for name, values in line(*arcsec).items()})


def flags(truth, detected, radius=1.0):
    pairs = close_pairs(truth, detected, radius)
    return blend_flags(pairs, assign(pairs))


def marked(table):
    """Names of the flags that are set, by row."""
    names = [name for name in table.columns if name.startswith("is_")]
    return [{name.removeprefix("is_") for name in names if row[name]} for row in table.rows(named=True)]


def test_labels_of_groups():
    counts = [(1, 1), (3, 3), (2, 0), (0, 2), (3, 1), (1, 4), (3, 2), (2, 3)]
    n, m = np.array(counts).T
    assert group_labels(n, m).tolist() == list(GROUP_LABELS)
    with pytest.raises(ConfigError, match="not both 0"):
        group_labels(np.array([0]), np.array([0]))


@pytest.mark.parametrize(
    ("truth", "detected", "of_truth", "of_detected"),
    [
        ([0.0], [0.2], [{"matched"}], [{"matched"}]),
        ([0.0], [], [{"missed"}], []),
        ([], [0.0], [], [{"spurious"}]),
        # two truths, one detection: the farther one is blended away, the group is unrecognised, in part deblended
        (
            [0.0, 0.6],
            [0.1],
            [{"matched", "part_of_blend", "unrec_blend", "partial_deblend"},
             {"blended_away", "part_of_blend", "unrec_blend", "partial_deblend"}],
            [{"matched", "part_of_blend", "unrec_blend", "partial_deblend"}],
        ),
        # two truths, two detections: resolved
        (
            [0.0, 0.6],
            [0.1, 0.7],
            [{"matched", "part_of_blend", "resolved_blend"}] * 2,
            [{"matched", "part_of_blend", "resolved_blend"}] * 2,
        ),
        # two truths, three detections: resolved, and the third one is a shred that is not part of what was resolved
        (
            [0.0, 0.6],
            [0.0, 0.6, 0.9],
            [{"matched", "part_of_blend", "resolved_blend", "shredded"}] * 2,
            [{"matched", "part_of_blend", "resolved_blend"}] * 2 + [{"shred", "part_of_blend"}],
        ),
        ([0.0], [0.1, 0.5], [{"matched", "shredded"}], [{"matched"}, {"shred"}]),
    ],
)  # fmt: skip
def test_flags(truth, detected, of_truth, of_detected):
    got_truth, got_detected = flags(points(*truth), points(*detected))
    assert marked(got_truth) == of_truth
    assert marked(got_detected) == of_detected


def test_clean_pairs_of_one_group_stay_clean():
    """A friends-of-friends group may chain pairs that no edge joins; they are no blend, nor marked by a neighbour's."""
    truth, detected = line(0.0, 1.5, 1.9), line(0.0, 1.6)
    groups = fof_table({"truth": truth, "det": detected}, 1.6)
    assert groups["group_id"].n_unique() == 1
    of_truth, of_detected = flags(points(*(0.0, 1.5, 1.9)), points(*(0.0, 1.6)), 0.5)
    assert marked(of_truth)[0] == marked(of_detected)[0] == {"matched"}
    assert "unrec_blend" in marked(of_truth)[1] & marked(of_truth)[2] & marked(of_detected)[1]
    assert of_truth["component"][0] == of_detected["component"][0] != of_truth["component"][1]


def test_flags_do_not_depend_on_order_or_place():
    rng = np.random.default_rng(0)
    truth, detected = (sky_points(rng.uniform(0, 0.004, n), rng.uniform(0, 0.004, n)) for n in (40, 35))
    names = [name for name in flags(truth, detected)[0].columns if name.startswith("is_")]
    before = flags(truth, detected)[0].select(names)
    order, turn = rng.permutation(40), Rotation.random(random_state=1)
    after = flags(turn.apply(truth[order]), turn.apply(detected[::-1]))[0].select(names)
    assert after.rows() == [before.row(i) for i in order.tolist()]
    assert before["is_part_of_blend"].sum() > 5


def test_flags_need_one_to_one():
    pairs = close_pairs(points(0.0, 0.1), points(0.0), 1.0)
    with pytest.raises(ConfigError, match="one-to-one"):
        blend_flags(pairs, nearest(pairs))


def test_unrecognised_by_groups():
    groups = fof_table({"truth": line(0.0, 0.5, 20.0), "det": line(0.2, 20.1, 40.0)}, 1.0)
    assert unrecognised_by_groups(groups, truth="truth", detected="det").tolist() == [True, False, False]
    assert group_counts(groups, truth="truth", detected="det")["label"].to_list() == [
        "unrec_blend", "isolated_match", "spurious_false_pos",
    ]  # fmt: skip


def test_unrecognised_by_neighbours_and_magnitudes():
    truth, detected = points(0.0, 0.5, 20.0, 20.5), points(0.2, 20.0, 60.0)
    mag = np.array([20.0, 21.0, 20.0, 23.0])
    every = unrecognised_by_neighbours(truth, detected, 2.0)
    assert every["unrecognised"].tolist() == [True, True, False]
    assert every["considered"].tolist() == [True, True, False]
    window = unrecognised_by_neighbours(truth, detected, 2.0, truth_mag=mag, window_mag=2.0)
    assert window["n_truth"].tolist() == [2, 1, 0]
    assert window["unrecognised"].tolist() == [True, False, False]
    mag[1] = np.nan
    assert unrecognised_by_neighbours(truth, detected, 2.0, truth_mag=mag, window_mag=2.0)["n_truth"][0] == 1
    assert len(unrecognised_by_neighbours(truth, points(), 2.0)["n_truth"]) == 0
    with pytest.raises(ConfigError, match="truth_mag"):
        unrecognised_by_neighbours(truth, detected, 2.0, window_mag=2.0)


def test_empty_sides():
    truth, detected = flags(points(), points())
    assert isinstance(truth, pl.DataFrame)
    assert len(truth) == len(detected) == 0
