import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from make.found_masks import only, random_detections, random_objects
from skyloom.metric.coco import ALL, IOU_THRESHOLDS, curves, mask_areas, overlaps
from skyloom.metric.detection_objects import joined_objects
from skyloom.sky.mask.rle import decode

CROWDED = {"images": 1, "objects": 300, "size_px": 128, "false": 60, "max_detections": 1000}
FEW = {"images": 4, "objects": 12, "size_px": 48, "false": 10, "max_detections": 100}
CUT_OFF = {"images": 2, "objects": 40, "size_px": 48, "false": 20, "max_detections": 7}
RANGES = [ALL, (0.0, 30.0), (30.0, 80.0), (80.0, 1e10), (5000.0, 1e10)]


def scene(seed, *, images, objects, size_px, false, max_detections):
    """Truth and detections of images, of which one is empty, one has no truth and one no detection."""
    rng = np.random.default_rng(seed)
    truths = [random_objects(rng, objects, size_px=size_px) for _ in range(images)]
    founds = [random_detections(rng, truth, false=false) for truth in truths]
    none = random_objects(rng, 0, size_px=size_px)
    more = random_objects(rng, 3, size_px=size_px)
    truths += [none, none, more]
    founds += [none | {"scores": np.zeros(0)}, random_detections(rng, none), none | {"scores": np.zeros(0)}]
    sizes = np.full((len(truths), 2), size_px)
    kept = [only(t, "boxes", "labels", "rle") for t in truths], [only(f) for f in founds]
    return sizes, joined_objects(kept[0], scored=False), joined_objects(kept[1], scored=True)


def peer(kind, sizes, truth, found, *, classes, max_detections, ranges, iou_thresholds, areas):
    """pycocotools' precision, scores and recall in the same shapes."""
    whole = {
        "images": [{"id": i, "height": int(h), "width": int(w)} for i, (h, w) in enumerate(sizes)],
        "categories": [{"id": label} for label in range(classes)],
        "info": {},
    }

    def annotations(side, values):
        for number, image in enumerate(side["image"].tolist()):
            x0, y0, x1, y1 = side["boxes"][number].tolist()
            own = {"id": number + 1, "image_id": image, "category_id": int(side["labels"][number]), "iscrowd": 0}
            own |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": float(values[number])}
            own["segmentation"] = {"size": sizes[image].tolist(), "counts": side["rle"][number]}
            yield own | ({"score": float(side["scores"][number])} if "scores" in side else {})

    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for side, values in zip((truth, found), areas, strict=True):
            one = COCO()
            one.dataset = whole | {"annotations": list(annotations(side, values))}
            one.createIndex()
            sides.append(one)
        judge = COCOeval(*sides, iouType={"mask": "segm", "box": "bbox"}[kind])
        judge.params.maxDets = [max_detections]
        judge.params.iouThrs = np.array(iou_thresholds)
        judge.params.areaRng = [list(pair) for pair in ranges]
        judge.params.areaRngLbl = [str(number) for number in range(len(ranges))]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][..., 0], judge.eval["scores"][..., 0], judge.eval["recall"][..., 0]


@pytest.mark.parametrize("kind", ["mask", "box"])
@pytest.mark.parametrize("how", [FEW, CROWDED, CUT_OFF], ids=["few", "crowded", "cut_off"])
def test_equals_pycocotools(kind, how):
    sizes, truth, found = scene(5, **how)
    classes = 3  # the last one has neither truths nor detections
    options = {"classes": classes, "max_detections": how["max_detections"], "ranges": RANGES}
    options["iou_thresholds"] = IOU_THRESHOLDS
    if how is CROWDED:  # of which pycocotools would take long
        options |= {"ranges": RANGES[:2], "iou_thresholds": (0.5, 0.75)}
    ours = curves(kind, sizes, truth, found, **options)
    size = found["boxes"][:, 2:] - found["boxes"][:, :2]
    areas = mask_areas(truth, sizes), mask_areas(found, sizes) if kind == "mask" else size.prod(1)
    precision, scores, recall = peer(kind, sizes, truth, found, **options, areas=areas)
    # with -1 where there is no truth
    np.testing.assert_allclose(np.nan_to_num(ours.precision, nan=-1), precision, atol=1e-6)
    np.testing.assert_allclose(np.nan_to_num(ours.recall, nan=-1), recall, atol=1e-6)
    np.testing.assert_allclose(np.nan_to_num(ours.scores, nan=-1), scores, atol=1e-6)
    assert np.isnan(ours.recall[:, 2]).all()
    assert np.isnan(ours.recall[..., 4:]).all()
    assert 0.003 < ours.precision[:, :, :2, 0].mean() < 0.99


def test_prints_nothing(capfd):
    sizes, truth, found = scene(1, **FEW)
    curves("mask", sizes, truth, found, classes=2, max_detections=100)
    assert capfd.readouterr() == ("", "")


def test_ranges_of_a_column_leave_other_truths_and_false_detections_out():
    sizes, truth, found = scene(2, images=1, objects=30, size_px=96, false=0, max_detections=100)
    found = {"image": truth["image"], "boxes": truth["boxes"], "labels": truth["labels"], "rle": truth["rle"]}
    found["scores"] = np.linspace(1, 0, len(truth["labels"]))
    mag = np.arange(len(truth["labels"]), dtype=float)
    found["labels"] = np.where(mag < 10, 1 - truth["labels"], truth["labels"])  # the bright ones are all wrong
    own = np.where(mag < 10, mag, np.nan)
    ours = curves("mask", sizes, truth, found, classes=2, max_detections=100, ranges=[(0, 9), (10, 50)],
                  values=(mag, own))  # fmt: skip
    assert np.nanmax(ours.recall[..., 0]) < 0.5
    np.testing.assert_array_equal(ours.recall[:, :, 1], 1)
    np.testing.assert_array_equal(ours.precision[..., 1], 1)
    whole = curves("mask", sizes, truth, found, classes=2, max_detections=100, values=(mag, own))
    assert whole.precision.mean() < 0.9


def test_unknown_values_are_in_no_bin_but_in_the_whole():
    sizes, truth, found = scene(3, **FEW)
    nothing = np.full(len(truth["labels"]), np.nan), np.full(len(found["labels"]), np.nan)
    ours = curves("box", sizes, truth, found, classes=2, max_detections=100, ranges=[ALL, (-99, 99)], values=nothing)
    assert np.isnan(ours.recall[..., 1]).all()
    usual = curves("box", sizes, truth, found, classes=2, max_detections=100)
    np.testing.assert_array_equal(ours.recall[..., 0], usual.recall[..., 0])


def test_no_image_at_all():
    nothing = joined_objects([], scored=True)
    ours = curves("mask", np.zeros((0, 2)), nothing, nothing, classes=2, max_detections=1, ranges=[ALL, (0, 1)])
    assert ours.precision.shape == ours.scores.shape == (10, 101, 2, 2)
    assert np.isnan(ours.precision).all()
    assert ours.recall.shape == (10, 2, 2)


def test_overlaps_are_those_of_the_pixels():
    rng = np.random.default_rng(0)
    truth = random_objects(rng, 6, size_px=20)
    found = random_detections(rng, truth)
    for kind in ("mask", "box"):
        iou = overlaps(kind, found, truth, np.array([20, 20]))
        assert iou.shape == (len(found["labels"]), 6)
        for i, j in np.ndindex(*iou.shape):
            if kind == "mask":
                a, b = (decode(side["rle"][k], (20, 20)) for side, k in ((found, i), (truth, j)))
            else:
                a, b = (np.zeros((20, 20), bool) for _ in range(2))
                for image, box in ((a, found["boxes"][i].astype(int)), (b, truth["boxes"][j].astype(int))):
                    image[box[1] : box[3], box[0] : box[2]] = True
            assert iou[i, j] == pytest.approx((a & b).sum() / (a | b).sum())
    assert overlaps("mask", only(random_objects(rng, 0)), truth, np.array([20, 20])).shape == (0, 6)
