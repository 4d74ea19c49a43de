"""product=catalog: a catalogue at any thresholds is that of a fresh run, and is read by whoever reads catalogues."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from astropy.table import Table

import skyloom
from make.detectors import detector_artifact
from make.joint_data import joint_data
from skyloom.detector.candidates import select
from skyloom.detector.load import load_detector
from skyloom.errors import ConfigError
from skyloom.product import catalog_pieces
from skyloom.product.detection_channels import Channels
from skyloom.product.detection_source import CutoutSource
from skyloom.sky.mask.rle import decode
from skyloom.store import Plan, Store, builds

FAST = {"batch_size": 2, "shard_images": 2, "device": "cpu"}
PLAIN = {"photometry": {"enabled": False}, "formats": []}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return joint_data(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def model(data):
    return detector_artifact(data)


@pytest.fixture(scope="module")
def candidates(data, model):
    return skyloom.extract("candidates", model=model, dataset=data.dataset, **FAST, store=data.store.root)


@pytest.fixture(scope="module")
def middle(candidates):
    """A score that about half of the candidates reach."""
    return float(candidates.table()["score"].median())


def make(data, **options):
    return skyloom.extract("catalog", **{**FAST, **options}, store=data.store.root)


@pytest.fixture(scope="module")
def stars(data):
    """What SExtractor finds, with fluxes."""
    psf = {band: {"model": "gaussian", "fwhm_arcsec": 0.2 * 1.8 * math.sqrt(8 * math.log(2))} for band in "ugrizy"}
    return make(
        data, detector="sep", dataset=data.dataset, channels={"surveys": ["lsst"]}, score=0.05,
        photometry={"psf": psf, "overlap": "double"},
    )  # fmt: skip


@pytest.mark.parametrize("nms", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("at", [0.0, 1.0, 1.1])
def test_a_catalogue_at_any_pair_equals_a_fresh_run_at_that_pair(data, model, candidates, middle, at, nms):
    score = max(middle * at, 0.05)
    made = make(data, candidates=candidates, score=score, nms=nms, top_k=9, **PLAIN).table()
    detector = load_detector(model)
    source = CutoutSource({}, Channels(("lsst",), "wcs", "linear", False, 0.0), dataset=data.dataset)
    names = source.images["name"].to_list()
    total = 0
    for first in range(0, 6, 2):  # the batches of the forward pass
        with torch.inference_mode():
            raw = detector.raw([torch.from_numpy(source.read(row)) for row in (first, first + 1)])
        for row, fresh in enumerate(select(raw, score=score, nms=nms, top_k=9), start=first):
            own = made.filter(pl.col("image") == names[row])
            total += len(fresh)
            assert len(own) == len(fresh)
            assert np.array_equal(own.select("x0_px", "y0_px", "x1_px", "y1_px").to_numpy(), fresh.boxes.double())
            assert own["score"].to_list() == fresh.scores.tolist()
            assert own["class"].to_list() == fresh.labels.tolist()
            masks = [decode(counts, (32, 32)) for counts in own["rle"]]
            assert np.array_equal(masks, fresh.pasted().numpy()) if masks else True
    assert len(made) == total
    assert made["id"].to_list() == list(range(total))


def test_it_makes_its_candidates_once(data, model, candidates, middle, monkeypatch):
    made = make(data, model=model, dataset=data.dataset, score=middle, **PLAIN)
    assert made.inputs["candidates"].id == candidates.id
    monkeypatch.setattr("skyloom.product.candidates.Finder", None)  # a forward pass would fail
    assert make(data, candidates=candidates, score=middle, **PLAIN).id == made.id
    dropped = made.counts["dropped"]
    left = sum(entry["number"] for entry in dropped.values())
    assert made.counts["read"] == made.counts["kept"] + left
    assert dropped["suppressed"]["number"] > 0
    assert dropped["below the score"]["number"] > 0


def test_a_dry_run_tells_of_the_candidates_first_and_then_of_itself(data, model, candidates):
    missing = make(data, model=model, dataset=data.dataset, part="val", dry_run=True)
    assert isinstance(missing, Plan)
    assert missing.request.kind == "candidates"
    own = make(data, model=model, dataset=data.dataset, score=0.06, dry_run=True, **PLAIN)
    assert own.request.kind == "catalog"


def test_thresholds_say_score_and_nms(data, candidates, middle):
    @builds("thresholds", version=1)
    def thresholds(build):
        build.note(score=middle, nms=0.4)

    chosen = thresholds(store=data.store)
    made = make(data, candidates=candidates, thresholds=chosen, score=0.99, **PLAIN)
    said = make(data, candidates=candidates, score=middle, nms=0.4, **PLAIN)
    assert made.table().equals(said.table())
    assert (made.notes["score"], made.notes["nms"]) == (middle, 0.4)


def test_positions_and_fluxes_are_those_of_the_stars(data, stars):
    table = stars.table()
    assert len(table) >= 12
    sky = np.concatenate([data.stars[id] for id in data.stars])
    for row in table.iter_rows(named=True):
        gap = np.hypot((sky[:, 0] - row["ra_deg"]) * np.cos(np.radians(row["dec_deg"])), sky[:, 1] - row["dec_deg"])
        assert gap.min() * 3600 < 0.6
    source = CutoutSource({}, Channels(("lsst",), "wcs", "linear", False, None), dataset=data.dataset)
    names = source.images["name"].to_list()
    unit_njy = 10 ** (0.4 * (31.4 - 27))
    alone = math.tau * 1.8**2 * unit_njy
    for row in table.head(3).iter_rows(named=True):
        image = source.read(names.index(row["image"]))
        mask = decode(row["rle"], (32, 32))
        assert row["flux_mask_i_njy"] == pytest.approx(image[3][mask].sum() * unit_njy, rel=1e-5)
        assert row["mag_mask_i"] == pytest.approx(31.4 - 2.5 * math.log10(row["flux_mask_i_njy"]))
        assert row["area_px"] == mask.sum()
    ratio = table["flux_psf_i_njy"].to_numpy() / alone
    assert abs(np.nanmedian(ratio) - 1) < 0.15, "most are alone, and each has the flux that was drawn"


def test_flags_name_the_edge(stars):
    edge = (stars.table()["flags"] & 1) > 0
    for row, flagged in zip(stars.table().iter_rows(named=True), edge, strict=True):
        mask = decode(row["rle"], (32, 32))
        assert flagged == bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def test_flags_name_detections_that_lie_under_better_ones(data, candidates):
    made = make(data, candidates=candidates, score=0.05, nms=1.0, formats=[]).table()
    assert 0 < ((made["flags"] & 16) > 0).sum() < len(made)
    for (name,), group in made.group_by("image", maintain_order=True):
        taken = np.zeros((32, 32), bool)
        for row in group.iter_rows(named=True):
            mask = decode(row["rle"], (32, 32))
            own = np.count_nonzero(mask & ~taken)
            assert ((row["flags"] & 16) > 0) == (mask.any() and own < mask.sum() / 2), name
            taken |= mask


def test_files_are_read_by_astropy(stars):
    rows = len(stars.table())
    assert len(Table.read(stars.file("catalog.fits"))) == rows
    assert len(Table.read(stars.file("catalog.vot"))) == rows
    assert stars.file("regions.reg").read_text().count("circle(") == rows


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(data, candidates, middle, monkeypatch):
    options = {"candidates": candidates, "score": middle, "nms": 0.5, "formats": []}
    whole = make(data, **options)
    before = whole.file("catalog.parquet").read_bytes()
    Store(data.store.root).remove(whole)
    real, calls = catalog_pieces.catalog_rows, []

    def stop_at_second(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(catalog_pieces, "catalog_rows", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        make(data, **options)
    again = make(data, **options)
    assert len(calls) == 2 + 2, "the first piece is kept"
    assert again.file("catalog.parquet").read_bytes() == before


def test_a_catalogue_without_detections_has_all_columns(data, candidates, stars):
    made = make(data, candidates=candidates, score=1.0)
    assert made.counts["kept"] == 0
    assert set(made.table().columns) == set(stars.table().columns)


def test_the_report_on_detections_reads_it_as_it_is(data, stars):
    report = skyloom.analyze(
        "detections", truth=data.dataset, catalogs={"ours": stars.id}, bootstrap=0, examples=0, store=data.store.root
    )
    assert report.kind == "report"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"score": 0.01}, r"score=0.01: candidates \w+ were kept from a score of 0.05 on"),
        ({"part": "val"}, "are there already: leave part out, or candidates"),
        ({"photometry": {"psf": {"k": {"model": "gaussian", "fwhm_arcsec": 1.0}}}}, "photometry.psf=k is not known"),
        ({"nms": 1.5}, "nms=1.5"),
    ],
)
def test_one_line_for_every_mistake(data, candidates, options, match):
    with pytest.raises(ConfigError, match=match) as caught:
        make(data, candidates=candidates, **options)
    assert "\n" not in str(caught.value)
