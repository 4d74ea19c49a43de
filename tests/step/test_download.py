"""step=download: whole files or an error, over a server that breaks off, refuses, lies and is slow."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.table import Table

import skyloom
from make.http import FileServer
from make.survey import sky, write_image
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.sky.files.remote_list import read_names
from skyloom.sky.survey.facts import Survey
from skyloom.step.tiles import open_tiles
from skyloom.store import Store

CONF = Path(__file__).parents[2] / "conf"
IMAGE, MASK = "mosaic-blanked.fits", "mosaic.pybdsmmask.fits"
NAMES = ["P000+23", "P000+31", "P000+36"]


@pytest.fixture
def remote(tmp_path):
    """Three mosaics of 83,520 bytes with their masks of 46,080 bytes."""
    for seed, name in enumerate(NAMES):
        write_image(tmp_path / "remote" / name / IMAGE, sky(100, 100, seed=seed))
        write_image(tmp_path / "remote" / name / MASK, np.zeros((1, 1, 100, 100), "f4"))
    return tmp_path / "remote"


def get(server, store, *, survey="lotss", **options):
    fast = {"retry_wait_s": 0.001, "timeout_s": 5.0, "retries": 3, "workers": 2}
    return skyloom.curate(
        "download", survey=survey, store=store, **{"mosaics": 3, "survey.base_url": server.url, **fast, **options}
    )


def check_same(artifact, remote):
    for name in NAMES:
        for file in (IMAGE, MASK):
            assert artifact.file(f"mosaics/{name}/{file}").read_bytes() == (remote / name / file).read_bytes()
    assert artifact.verify() == []


def test_the_list_has_841_names():
    names = read_names("lotss_dr2.txt")
    assert len(names) == len(set(names)) == 841
    assert names == sorted(names)
    assert {"P000+23", "P10Hetdex", "P17", "P21", "P6", "P5Hetdex41"} <= set(names)


def test_files_arrive_whole_with_their_checksums_and_are_images(remote, tmp_path):
    with FileServer(remote) as server:
        artifact = get(server, tmp_path / "store")
        assert len(server.gets()) == 6
    check_same(artifact, remote)
    table = artifact.table()
    assert table.columns == ["mosaic", "file", "path", "bytes", "sha256", "url"]
    assert table["mosaic"].to_list() == [name for name in NAMES for _ in range(2)]
    for row in table.iter_rows(named=True):
        content = (remote / row["mosaic"] / row["file"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert row["sha256"] == artifact.manifest["files"][row["path"]]["sha256"]
        assert row["url"] == f"{server.url}/{row['mosaic']}/{row['file']}"
    assert artifact.counts == {"read": 3, "kept": 3, "files": 6, "bytes": table["bytes"].sum(), "dropped": {}}
    cutouts = skyloom.curate("cutouts", survey="lotss", images=artifact, window_px=50, store=tmp_path / "store")
    assert cutouts.table()["image"].unique().sort().to_list() == NAMES
    assert cutouts.inputs["images"].id == artifact.id


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dropped_connection_is_resumed_or_begun_again(remote, tmp_path, ranges):
    with FileServer(remote, drop_after=30_000, ranges=ranges, drops=10**9 if ranges else 2) as server:
        artifact = get(server, tmp_path / "store", mosaics=NAMES[:1], files=[IMAGE])
        starts = [r.start for r in server.gets()]
    assert artifact.file(f"mosaics/{NAMES[0]}/{IMAGE}").read_bytes() == (remote / NAMES[0] / IMAGE).read_bytes()
    assert starts == ([0, 30_000, 60_000] if ranges else [0, 0, 0])
    assert not ranges or server.sent() == 83_520, "no byte twice"


def test_endless_breaks_end_with_one_line_and_what_arrived_is_kept(remote, tmp_path):
    options = {"mosaics": NAMES[:1], "files": [IMAGE]}
    with FileServer(remote, drop_after=30_000, ranges=False) as server:
        with pytest.raises(InputError, match="broke off 4 times without progress, at byte 30000 of 83520") as error:
            get(server, tmp_path / "store", **options)
        assert "\n" not in str(error.value)
        assert len(server.gets()) == 5, "the first, which got 30,000 bytes, and 4 that got no further"
        server.manners.drop_after, server.manners.ranges = None, True
        server.requests.clear()
        get(server, tmp_path / "store", **options)
        assert [r.start for r in server.gets()] == [30_000]


def test_a_busy_server_is_asked_again_and_not_for_ever(remote, tmp_path):
    with FileServer(remote, statuses=[503, 500, 429]) as server:
        check_same(get(server, tmp_path / "store"), remote)
    with FileServer(remote, statuses=[503] * 99) as server:
        with pytest.raises(InputError, match="server answers 503 Service Unavailable"):
            get(server, tmp_path / "store", mosaics=1, files=[IMAGE])
        assert len(server.gets()) == 4


def test_what_is_whole_is_never_fetched_again(remote, tmp_path):
    with FileServer(remote) as server:
        (remote / NAMES[2]).rename(remote / "away")
        with pytest.raises(InputError, match=r"2 of 6 files .* first is P000\+36/mosaic-blanked.fits"):
            get(server, tmp_path / "store")
        assert not server.gets(), "asked for before anything is fetched"
        (remote / "away").rename(remote / NAMES[2])
        broken = remote / NAMES[2] / MASK
        content = broken.read_bytes()
        broken.write_bytes(content[: -2880 * 5])
        with pytest.raises(InputError, match=r"P000\+36/mosaic.pybdsmmask.fits has arrived, but.*truncated"):
            get(server, tmp_path / "store", workers=1)
        broken.write_bytes(content)
        server.requests.clear()
        artifact = get(server, tmp_path / "store")
        assert [r.path for r in server.gets()] == [f"/{NAMES[2]}/{MASK}"]
        server.requests.clear()
        assert get(server, tmp_path / "store").id == artifact.id
        assert not server.requests
    check_same(artifact, remote)


def test_missing_mosaics_can_be_left_out_by_name(remote, tmp_path):
    (remote / NAMES[1] / MASK).unlink()
    for head in (True, False):
        with FileServer(remote, head=head) as server:
            if not head:
                with pytest.raises(InputError, match=r"P000\+31/mosaic.pybdsmmask.fits does not exist .HTTP 404."):
                    get(server, tmp_path / "other")
            artifact = get(server, tmp_path / f"store{head}", on_missing="skip")
        entry = artifact.counts["dropped"]["mosaic not on the server"]
        assert (entry["number"], entry["examples"]) == (1, [NAMES[1]])
        assert artifact.table("dropped.parquet").select("mosaic", "file").rows() == [(NAMES[1], MASK)]
        assert artifact.table()["mosaic"].unique().sort().to_list() == [NAMES[0], NAMES[2]]
        assert not (artifact.path / "mosaics" / NAMES[1]).exists()
    with FileServer(tmp_path) as server, pytest.raises(InputError, match="none of the 3 mosaics"):
        get(server, tmp_path / "store", on_missing="skip")


@pytest.mark.parametrize("announce", [+10_000, -10_000])
def test_a_wrong_length_is_noticed(remote, tmp_path, announce):
    with (
        FileServer(remote, announce=announce, ranges=False, head=False) as server,
        pytest.raises(InputError, match="broke off" if announce > 0 else "has arrived, but cannot be used.*truncated"),
    ):
        get(server, tmp_path / "store", mosaics=1, files=[IMAGE])
    assert not list(Store(tmp_path / "store"))


def test_a_page_instead_of_an_image_is_refused(remote, tmp_path):
    (remote / NAMES[0] / IMAGE).write_text("<html>please log in</html>" * 200)
    with FileServer(remote) as server, pytest.raises(InputError, match=r"mosaic-blanked.fits has arrived, but cannot"):
        get(server, tmp_path / "store")


def test_two_versions_of_a_file_are_never_joined(remote, tmp_path):
    path = remote / NAMES[0] / IMAGE
    options = {"mosaics": NAMES[:1], "files": [IMAGE]}
    with FileServer(remote, drop_after=30_000, drops=4, ranges=False) as server:
        with pytest.raises(InputError, match="broke off"):
            get(server, tmp_path / "store", retries=2, **options)
        path.unlink()
        write_image(path, sky(100, 100, seed=99))
        os.utime(path, (1, 1))
        server.manners.drop_after, server.manners.ranges = None, True
        artifact = get(server, tmp_path / "store", **options)
    assert artifact.file(f"mosaics/{NAMES[0]}/{IMAGE}").read_bytes() == path.read_bytes()


def test_a_list_of_checksums_is_verified(remote, tmp_path):
    lines = [f"{hashlib.sha256((remote / n / f).read_bytes()).hexdigest()}  ./mosaics/{n}/{f}"
             for n in NAMES for f in (IMAGE, MASK)]  # fmt: skip
    good, short, wrong = (tmp_path / name for name in ("good.txt", "short.txt", "wrong.txt"))
    good.write_text("\n".join(lines))
    short.write_text("\n".join(lines[1:]))
    wrong.write_text("\n".join([f"{NAMES[0]}/{IMAGE} {'0' * 64}", *lines[1:]]))
    with FileServer(remote) as server:
        check_same(get(server, tmp_path / "store", checksums=good), remote)
        server.requests.clear()
        with pytest.raises(InputError, match=r"lacks 1 of the 6 files, the first is P000\+23/mosaic-blanked.fits"):
            get(server, tmp_path / "store", checksums=short)
        assert not server.requests
        with pytest.raises(InputError, match=rf"sha256 [0-9a-f]{{64}}, .*wrong.txt says {'0' * 64}"):
            get(server, tmp_path / "store", checksums=wrong)
        good.write_text("P000+23 abc")
        with pytest.raises(InputError, match="line 1: expected a name and a sha256"):
            get(server, tmp_path / "store", checksums=good)


def test_the_request_is_names_files_and_address(remote, tmp_path):
    class Nowhere:
        url = "http://127.0.0.1:9"

    def plan(**options):
        return get(Nowhere, tmp_path / "store", dry_run=True, **options).id

    assert plan(mosaics=3) == plan(mosaics=[*NAMES[::-1], NAMES[0]])
    assert plan(mosaics=3) != plan(mosaics=2)
    assert plan(mosaics=None) == plan(mosaics=841)
    assert plan() == plan(workers=9, retries=1, timeout_s=1.0) == plan(**{"survey.base_url": Nowhere.url + "/"})
    assert plan() == plan(files=[MASK, IMAGE])
    assert plan() != plan(files=[IMAGE])
    assert plan() != plan(base_url="https://mirror.example/dr2")
    with pytest.raises(InputError, match=r"cannot be reached, tried 2 times.*refused"):
        get(Nowhere, tmp_path / "store", retries=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mosaics": ["P000+24"]}, r"P000\+24 is not among the 841 images of survey lotss. Did you mean P000\+2"),
        ({"mosaics": 842}, "mosaics=842: expected a number from 1 to 841"),
        ({"mosaics": []}, "mosaics=.*: expected names, a number, or null"),
        ({"files": ["../x"]}, "not a list of plain file names"),
        ({"base_url": "ftp://x"}, "'ftp://x' is no address; give base_url=https"),
        (
            {"survey": "generic", "base_url": "http://x"},
            "survey=generic has no list of its images; name them in mosaics",
        ),
        ({"survey": "generic", "mosaics": ["a"]}, "None is no address; give base_url=https"),
        ({"survey": "generic", "mosaics": ["a b"], "base_url": "http://x"}, "'a b' cannot be the name of a folder"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        skyloom.curate("download", **{"survey": "lotss", **options}, store=tmp_path)


def test_a_list_of_ones_own(remote, tmp_path):
    (tmp_path / "names.txt").write_text("# ours\nP000+31\n\nP000+23\n")
    with FileServer(remote) as server:
        artifact = get(server, tmp_path / "store", mosaics=None, **{"survey.image_list": str(tmp_path / "names.txt")})
    assert artifact.table()["mosaic"].unique().sort().to_list() == NAMES[:2]


def test_too_small_a_disk_is_said_before_anything_is_fetched(remote, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "free")(100_000)
    monkeypatch.setattr("skyloom.step.download.pieces.shutil.disk_usage", lambda path: usage)
    with FileServer(remote) as server, pytest.raises(StoreError, match=r"need 0.0 GB, the disk of .* larger disk"):
        get(server, tmp_path / "store")
    assert not server.gets()


CHILD = """
import sys, skyloom, skyloom.sky.files.fetch
skyloom.sky.files.fetch.BLOCK = 4096  # the files are small
skyloom.curate("download", survey="lotss", mosaics=3, retry_wait_s=0.001, workers=2, store=sys.argv[2],
               **{"survey.base_url": sys.argv[1]})
"""


def test_killed_and_started_again_gives_the_same_bytes_and_fetches_no_byte_twice(remote, tmp_path):
    with FileServer(remote) as server:
        whole = get(server, tmp_path / "whole")
        server.requests.clear()
        server.manners.block, server.manners.pause_s = 4096, 0.01
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD), server.url, str(tmp_path / "killed")],
                                 stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])  # fmt: skip
        part = "*/.shards/_incoming/*/*.part"
        deadline = time.monotonic() + 60
        while sum(f.stat().st_size for f in (tmp_path / "killed" / ".partial").glob(part)) < 20_000:
            assert time.monotonic() < deadline
            assert child.poll() is None, "the child ended before it was killed"
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept = sum(f.stat().st_size for f in (tmp_path / "killed").rglob("*") if f.name.endswith((".part", ".fits")))
        server.manners.pause_s = 0.0
        time.sleep(0.1)
        server.requests.clear()
        again = get(server, tmp_path / "killed")
        assert server.sent() == whole.table()["bytes"].sum() - kept
        assert kept >= 20_000
    assert again.id == whole.id
    for name in again.manifest["files"]:
        assert again.file(name).read_bytes() == whole.file(name).read_bytes()
    assert (again.path / "manifest.json").read_bytes() == (whole.path / "manifest.json").read_bytes()


TILES = ["50.94_-39.9", "50.95_-39.0"]


@pytest.fixture
def irsa(tmp_path):
    """Two tiles of Roman as the public server has them, 60 x 60 px."""
    root = tmp_path / "irsa"
    for seed, tile in enumerate(TILES):
        for band in ("Y106", "J129", "H158"):
            write_image(root / f"images/simple_model/coadd/dc2_{band}_{tile}.fits", sky(60, 60, seed=seed))
        write_image(root / f"detection/dc2_seg_{tile}.fits.gz", np.zeros((60, 60), "i4"))
        for path in ("detection/dc2_det_", "truth/coadd/dc2_index_"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Table({"ra": [1.0, 2.0], "dec": [3.0, 4.0]}).write(root / f"{path}{tile}.fits.gz")
    return root


def test_the_list_of_roman_tiles():
    names = read_names("roman_troxel2023.txt")
    assert len(names) == len(set(names)) == 1039
    assert names == sorted(names)
    assert {"50.94_-39.9", "53.25_-41.8", "56.07_-40.8"} <= set(names)


def test_roman_tiles_arrive_with_all_their_files_and_are_an_input(irsa, tmp_path):
    with FileServer(irsa) as server:
        artifact = get(server, tmp_path / "store", survey="roman", mosaics=TILES)
        assert len(server.gets()) == 12
    survey = Survey.from_mapping(yaml.safe_load((CONF / "survey" / "roman.yaml").read_text()))
    tiles = open_tiles(artifact, {"survey": survey}, Store(tmp_path / "store"))
    assert [tile.name for tile in tiles.tiles] == TILES
    for tile in tiles.tiles:
        assert all(path is not None for path in tile.shared_files)
        origin = irsa / f"images/simple_model/coadd/dc2_J129_{tile.name}.fits"
        assert tile.images["J129"].read_bytes() == origin.read_bytes()
    assert (artifact.counts["kept"], artifact.counts["files"]) == (2, 12)
    assert artifact.verify() == []


def test_kinds_of_files_of_a_tile_are_a_choice(irsa, tmp_path):
    with FileServer(irsa) as server:
        (irsa / f"truth/coadd/dc2_index_{TILES[0]}.fits.gz").unlink()
        with pytest.raises(InputError, match=r"1 of 6 files .* first is 50.94_-39.9/dc2_index_50.94_-39.9.fits.gz"):
            get(server, tmp_path / "store", survey="roman", mosaics=TILES[:1])
        artifact = get(server, tmp_path / "store", survey="roman", mosaics=TILES[:1], files=["image"])
        assert [name.rpartition("/")[2] for name in artifact.table()["path"]] == [
            f"dc2_{band}_{TILES[0]}.fits" for band in ("Y106", "J129", "H158")
        ]
        with pytest.raises(ConfigError, match=r"files=images is not known; choose one of: .*Did you mean 'image'"):
            get(server, tmp_path / "store", survey="roman", mosaics=TILES[:1], files=["images"])
        with pytest.raises(ConfigError, match=r"50.94_-39.8 is not among the 1039 images of survey roman"):
            get(server, tmp_path / "store", survey="roman", mosaics=["50.94_-39.8"])


def test_names_can_come_from_a_file(irsa, tmp_path):
    (tmp_path / "tiles.txt").write_text("# mine\n" + "\n".join(TILES[1:]) + "\n")
    with FileServer(irsa) as server:
        artifact = get(server, tmp_path / "store", survey="roman", mosaics=str(tmp_path / "tiles.txt"))
        assert artifact.id == get(server, tmp_path / "store", survey="roman", mosaics=TILES[1:]).id
    assert artifact.table()["mosaic"].unique().to_list() == TILES[1:]


def test_a_survey_that_says_of_no_server_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="survey=hsc does not say where its tiles can be downloaded"):
        skyloom.curate("download", survey="hsc", store=tmp_path / "store", mosaics=["9813-3"], base_url="http://x.y")
