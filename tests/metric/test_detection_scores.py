import numpy as np
import pytest

from make.found_masks import only, random_detections, random_objects
from skyloom.errors import ConfigError, InputError
from skyloom.metric.detection_scores import DetectionScores

CLASSES = ["galaxy", "star"]
AREAS = {"tiny": (0, 30), "big": (30, 1e5)}


def empty(**changes):
    options = {"areas": AREAS, "max_detections": 500} | changes
    return DetectionScores(CLASSES, **options)


def filled(images, *, seed=0, number=20, **changes):
    scores = empty(**changes)
    for image in images:
        rng = np.random.default_rng([seed, image])
        truth = random_objects(rng, 0 if image == 3 else number)
        scores.add(image, (64, 64), only(truth), only(random_detections(rng, truth)))
    return scores


def perfect(rng, number, **changes):
    truth = only(random_objects(rng, number, **changes))
    return truth, truth | {"scores": rng.random(number)}


def test_predictions_that_equal_the_truth_score_one():
    scores, rng = empty(), np.random.default_rng(0)
    for image, number in enumerate((300, 5, 0, 1)):
        scores.add(image, (96, 96), *perfect(rng, number, size_px=96, biggest_px=8))
    values = scores.compute()
    assert values["mask_ap"] == pytest.approx(1, abs=1e-12)
    assert set(np.round(list(values.values()), 12)) == {1.0}
    for kind in ("mask", "box"):
        names = {"ap", "ap50", "ap75", "ar", *(f"a{a}_{n}" for a in "pr" for n in (*CLASSES, *AREAS))}
        assert {name for name in values if name.startswith(kind)} == {f"{kind}_{name}" for name in names}


def test_hundred_detections_would_cut_a_crowded_field_off():
    rng = np.random.default_rng(0)
    truth, found = perfect(rng, 300, size_px=96, biggest_px=8, classes=1)
    for most, expected in ((100, 1 / 3), (300, 1)):
        scores = empty(max_detections=most)
        scores.add(0, (96, 96), truth, found)
        assert scores.compute()["box_ar"] == pytest.approx(expected, abs=0.02)


def test_merged_states_of_ranks_equal_one_pass():
    whole = filled(range(8))
    ranks = [filled(range(rank, 8, 3)).state() for rank in (2, 0, 1)]
    ranks.append(empty().state())  # a rank without an image
    merged = DetectionScores.merged(ranks)
    assert len(merged) == len(whole) == 8
    assert merged.compute() == pytest.approx(whole.compute(), abs=0, rel=0)
    for side in ("truth", "found"):
        ours, theirs = merged.state()[side], whole.state()[side]
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_order_of_images_does_not_matter():
    assert filled([4, 1, 2, 0]).compute() == filled([0, 1, 2, 4]).compute()


def test_classes_without_truth_are_not_averaged():
    scores, rng = empty(), np.random.default_rng(1)
    truth, found = perfect(rng, 9, classes=1)
    scores.add(0, (64, 64), truth, found)
    values = scores.compute()
    assert values["mask_ap"] == values["mask_ap_galaxy"] == pytest.approx(1)
    assert np.isnan(values["mask_ap_star"])


def test_without_any_truth_nothing_is_known():
    scores, rng = empty(), np.random.default_rng(1)
    nothing = only(random_objects(rng, 0))
    scores.add(0, (64, 64), nothing, only(random_detections(rng, random_objects(rng, 9))))
    assert all(np.isnan(value) for value in scores.compute().values())
    assert all(np.isnan(value) for value in empty().compute().values())
    scores.add(1, (64, 64), only(random_objects(rng, 3, classes=1)), nothing | {"scores": []})
    assert scores.compute()["mask_ap"] == 0


def test_masks_and_boxes_are_judged_apart():
    rng = np.random.default_rng(1)
    truth, found = perfect(rng, 9)
    found["rle"] = found["rle"][1:] + found["rle"][:1]
    scores = empty()
    scores.add(0, (64, 64), truth, found)
    values = scores.compute()
    assert values["box_ap"] == pytest.approx(1)
    assert values["mask_ap"] < 0.5


def test_one_threshold_gives_ap_at_it_alone():
    values = filled(range(3), iou_thresholds=[0.5]).compute()
    assert values["mask_ap"] == values["mask_ap50"] == filled(range(3)).compute()["mask_ap50"]
    assert np.isnan(values["mask_ap75"])


def test_columns_follow_their_objects():
    scores = filled([5, 0])
    own = scores.objects("truth")
    assert own["image"].tolist() == [0] * 20 + [1] * 20
    assert own["mag"].shape == (40,)
    one = filled([0]).objects("truth")["mag"]
    np.testing.assert_array_equal(own["mag"][:20], one)
    rng = np.random.default_rng(0)
    without = only(random_objects(rng, 2), "boxes", "labels", "rle")
    scores.add(9, (64, 64), without, without | {"scores": [1, 0]})
    assert np.isnan(scores.objects("truth")["mag"][-2:]).all()


def test_recall_in_bins_of_a_column():
    scores, rng = empty(), np.random.default_rng(0)
    truth = only(random_objects(rng, 40))
    bright = truth["mag"] < np.median(truth["mag"])
    found = {k: v[bright] if isinstance(v, np.ndarray) else [t for t, b in zip(v, bright, strict=True) if b]
             for k, v in truth.items() if k != "mag"}  # fmt: skip
    scores.add(0, (64, 64), truth, found | {"scores": rng.random(bright.sum())})
    limit = truth["mag"][bright].max()
    ours = scores.curves("mask", [(0, limit), (limit + 1e-9, 99)], ("mag", None))
    np.testing.assert_array_equal(ours.recall[..., 0], 1)
    np.testing.assert_array_equal(ours.recall[..., 1], 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 2]}, "labels from 0 to 1"),
        ({"labels": [0, -1]}, "labels from 0 to 1"),
        ({"labels": [0]}, "other numbers"),
        ({"scores": [1, np.nan]}, "score is not finite"),
        ({"boxes": np.zeros((2, 5))}, "boxes of shape"),
        ({"boxes": np.full((2, 4), np.inf)}, "finite boxes"),
        ({"mag": [1.0, 2.0, 3.0]}, "other numbers of mag"),
    ],
)
def test_objects_that_do_not_fit_are_named(changes, message):
    truth, found = perfect(np.random.default_rng(0), 2)
    with pytest.raises(InputError, match=message) as error:
        empty().add(7, (64, 64), truth, found | changes)
    assert "image 7" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_counts_once():
    scores = filled([0])
    with pytest.raises(InputError, match="image 0 was judged before"):
        scores.add(0, (64, 64), *perfect(np.random.default_rng(0), 1))
    with pytest.raises(InputError, match="image 0 was judged before"):
        DetectionScores.merged([scores.state(), filled([0]).state()])
    with pytest.raises(InputError, match="same options"):
        DetectionScores.merged([scores.state(), filled([1], max_detections=3).state()])
    with pytest.raises(InputError, match="no scores"):
        scores.add(1, (64, 64), *perfect(np.random.default_rng(0), 1)[:1] * 2)


def test_options_that_mean_nothing():
    for changes in ({"areas": {"galaxy": (0, 1)}}, {"areas": {"none": (3, 3)}}, {"max_detections": 0},
                    {"iou_thresholds": [0.0]}):  # fmt: skip
        with pytest.raises(ConfigError, match="expected"):
            empty(**changes)
    with pytest.raises(ConfigError):
        DetectionScores([], areas={}, max_detections=1)
