"""SIGKILL at ten random moments in each step of a small chain: the same command always ends with the same bytes.

A new step is one more line in LINKS (the format of ``conf/recipe``).
"""

import hashlib
import os
import random
import sys
from collections.abc import Callable

import pytest

from make.http import FileServer
from make.joint_files import write_joint
from make.killed import Builds
from make.simulated import FEW, joint_facts
from make.survey import sky, write_image
from skyloom.run.links import read_links
from skyloom.run.verbs import arguments_of, function_of
from skyloom.store import Artifact, Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")

KILLS = 10
IMAGE = {"backbone": "resnet18", "backbone.model": "test_resnet", "backbone.image_size_px": 32}
LEVELS = [{"clusters": 12, "sample_size": 4, "resamples": 2}, {"clusters": 3, "sample_size": 2, "resamples": 2}]
SERVED = ["P000+23", "P000+31", "P000+36"]
SERVER, SOURCES = "http://server", "sources"  # stand for what is only known when the test runs
SKY = "sky"  # stands for a tiny Roman and LSST survey of two tiles
ROUND = {f"survey.{name}.bands": joint_facts(FEW)[name]["bands"] for name in ("roman", "lsst")}  # drawn fast
HEADS = {"task.projection_dim": 8, "task.hidden_dim": 16, "task.prediction_hidden_dim": 16}

LINKS = {
    "simulate": {"curate": "simulate", "survey": "lotss", "mosaics": 3, "size_px": 240},
    "download": {"curate": "download", "survey": "lotss", "mosaics": SERVED, "files": ["mosaic-blanked.fits"],
                 "base_url": SERVER, "workers": 2, "retry_wait_s": 0.0},
    "cutouts": {"curate": "cutouts", "survey": "lotss", "images": {"from": "simulate"}, "window_px": 32},
    "cutouts_in_processes": {"curate": "cutouts", "survey": "lotss", "images": {"from": "simulate"}, "window_px": 24,
                             "overlap": 0.75, "workers": 2},
    "cutouts_mask": {"curate": "cutouts", "survey": "lotss", "images": {"from": "simulate"}, "strategy": "mask"},
    "cutouts_catalog": {"curate": "cutouts", "survey": "lotss", "images": {"from": "simulate"}, "strategy": "catalog",
                        "catalog": SOURCES, "window_px": 32},
    "merge": {"curate": "merge", "cutouts": [{"from": "cutouts"}, {"from": "cutouts_catalog"}]},
    "deduplicate": {"curate": "deduplicate", "cutouts": {"from": "merge"}},
    "split": {"curate": "split", "cutouts": {"from": "merge"}, "level": 11,
              "fractions": {"train": 0.6, "val": 0.4, "test": 0.0}},
    "part": {"curate": "part", "split": {"from": "split"}, "part": "train"},
    "pack": {"curate": "pack", "cutouts": {"from": "cutouts"}, "dtype": "float16", "shard_rows": 64,
             "workers": 1},
    "stats": {"curate": "stats", "cutouts": {"from": "cutouts"}, "shard_rows": 64, "preprocess": {"stretch": "asinh"}},
    "features": {"extract": "features", "cutouts": {"from": "cutouts"}, "shard_rows": 64, "device": "cpu", **IMAGE},
    "neardup": {"curate": "neardup", "features": {"from": "features"}, "own_clusters": 8, "memory_gb": 1.0e-6},
    "cluster": {"curate": "cluster", "features": {"from": "features"}, "levels": LEVELS},
    "subsample": {"curate": "subsample", "clusters": {"from": "cluster"}, "target_size": 60},
    "train": {"train": "byol", "cutouts": {"from": "cutouts"}, "selection": {"from": "subsample"}, "trainer": "cpu",
              "trainer.max_epochs": 4, "datamodule.batch_size": 20, **HEADS, **IMAGE},
    "report": {"analyze": "selection", "selection": {"from": "subsample"}, "model": {"from": "train"},
               "thumbnails": 6, "dpi": 50},
    "simulate_joint": {"curate": "simulate", "survey": "roman_lsst", "tile_px": 200, "overlap_px": 8, "patch_px": 37,
                       "patch_border_px": 12, "faintest_mag": 25.0, "crowding": 4.0, "stars_per_arcmin2": 100.0,
                       **ROUND},
    "roman": {"curate": "cutouts", "survey": "roman", "images": SKY, "window_px": 64, "border_px": 4},
    "lsst": {"curate": "cutouts", "survey": "lsst", "images": SKY, "match": {"from": "roman"}},
    "integrity": {"curate": "integrity", "cutouts": {"from": "lsst"}, "shard_rows": 4, "threads": 1},
    "annotate": {"curate": "annotate", "survey": "lsst", "cutouts": {"from": "lsst"}},
    "annotate_segments": {"curate": "annotate", "survey": "roman", "cutouts": {"from": "roman"},
                          "source": "segmentation"},
    "assemble": {"curate": "assemble", "annotations": {"from": "annotate"}, "match": {"from": "roman"},
                 "integrity": [{"from": "integrity"}], "by": "cutout"},
    "stats_bands": {"curate": "stats", "cutouts": {"from": "lsst"}, "integrity": {"from": "integrity"}},
}  # fmt: skip


def content(artifact: Artifact) -> dict[str, str]:
    """Every file with the hash of its bytes; build.json tells when and how often, and may differ."""
    files = (path for path in artifact.path.rglob("*") if path.is_file() and path.name != "build.json")
    return {str(p.relative_to(artifact.path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


class Chain:
    """The links in one store; each is built whole when it is first needed."""

    def __init__(self, folder, url):
        self.url, self.sky = url, folder / SKY
        self.links = {link.name: link for link in read_links(LINKS)}
        self.common = {"paths.store": str(folder / "store"), "paths.runs": str(folder / "runs"), "seed": 0}
        self.store = Store(folder / "store")
        self.calls: dict[str, tuple[Callable, dict]] = {}
        self.whole: dict[str, Artifact] = {}
        self.builds = Builds()

    def call(self, name):
        if name not in self.calls:
            link = self.links[name]
            config = link.configuration(self.common, {source: self.made(source).id for source in link.sources}, [])
            function = function_of(link.verb, config)
            arguments = arguments_of(function, config)
            if arguments.get("base_url") == SERVER:
                arguments["base_url"] = self.url
            if arguments.get("images") == SKY:
                arguments["images"] = str(self.sky)
            if arguments.get("catalog") == SOURCES:
                arguments["catalog"] = str(self.made("simulate").file("sources.parquet"))
            self.calls[name] = function, arguments
        return self.calls[name]

    def build(self, name, kill_after_s=None):
        return self.builds.build(*self.call(name), kill_after_s)

    def made(self, name):
        """The artifact of a link, built without a kill."""
        if name not in self.whole:
            self.build(name)
            function, arguments = self.call(name)
            plan = function(**{**arguments, "dry_run": True})
            self.whole[name] = self.store.open(plan.id, plan.request.kind)
        return self.whole[name]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))  # builds inherit it; forks must not meet other threads
    folder = tmp_path_factory.mktemp("kills")
    for number, name in enumerate(SERVED):
        write_image(folder / "served" / name / "mosaic-blanked.fits", sky(150, 150, seed=number))
    with FileServer(folder / "served", drop_after=30_000, block=5_000, pause_s=0.001) as server:  # each body breaks off
        write_joint(folder / SKY, tiles=2)
        chain = Chain(folder, server.url)
        yield chain
        chain.builds.close()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.mark.parametrize("name", LINKS)
def test_sigkill_at_random_moments_ends_with_the_same_bytes(chain, name):
    artifact = chain.made(name)
    expected = content(artifact)
    chain.store.remove(artifact)
    seconds = chain.build(name)  # the first build had to import as well, and moments shall fall into work
    assert content(artifact) == expected
    chain.store.remove(artifact)
    moments = random.Random(name)
    kills, finished = 0, 0
    while kills < KILLS:
        if chain.build(name, kill_after_s=moments.uniform(0, seconds)) == float("inf"):
            kills += 1
        if chain.store.has(artifact.kind, artifact.id):  # either whole or not there at all
            assert content(artifact) == expected
            chain.store.remove(artifact)
            finished += 1
    chain.build(name)
    assert content(artifact) == expected
    assert artifact.verify() == []
    assert not [path for path in chain.store.leftovers() if path.name.endswith(artifact.id)]
    attempts = Artifact(artifact.path).history["attempts"]
    print(
        f"{name}: {KILLS} kills within {seconds:.2f} s, finished {finished} times between, {attempts} attempts at last"
    )
