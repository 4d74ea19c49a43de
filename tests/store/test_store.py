"""What the store promises: same request same id, whole or absent, resumed, found again."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import pytest
from pydantic import Field

from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.store import Artifact, Build, Plan, Store, builds, of_kind
from skyloom.store.ids import plain


@builds("numbers", version=1, free=("workers",))
def count(
    build: Build, *, upto: Annotated[int, Field(gt=0)], mode: Literal["up", "down"], scale: float, workers: int = 1
):
    pieces = [build.shard(f"{i:03d}", lambda path, i=i: path.write_text(str(i))) for i in range(upto)]
    values = [int(piece.read_text()) for piece in pieces]
    with build.write("numbers.parquet") as path:
        pl.DataFrame({"n": values, "x": [None, *[v * scale for v in values[1:]]]}).write_parquet(path)
    build.table = "numbers.parquet"
    build.count(read=upto, kept=upto - 1)
    build.drop("zero", 1, why="has no sign", examples=["0"])
    build.note(unit="Jy/beam")


@builds("sums", version=1, inputs={"numbers": of_kind("numbers")})
def total(build: Build, *, numbers: Artifact):
    build.write_json("sum.json", {"sum": int(numbers.table()["n"].sum())})


def make(store, **changes):
    return count(**{"upto": 3, "mode": "up", "scale": 0.5, **changes}, store=store)


def test_a_repeated_request_gives_the_same_artifact_and_does_no_work(tmp_path, capsys):
    first = make(tmp_path)
    inode = (first.path / "manifest.json").stat().st_ino
    again = make(tmp_path)
    assert again.id == first.id
    assert (again.path / "manifest.json").stat().st_ino == inode
    assert "is there already" in capsys.readouterr().err


def test_the_id_depends_on_every_parameter_but_free_ones_and_not_on_the_store(tmp_path):
    first = make(tmp_path / "a")
    assert make(tmp_path / "b").id == first.id
    assert make(tmp_path / "a", workers=7).id == first.id
    assert (
        len(
            {
                first.id,
                make(tmp_path / "a", upto=4).id,
                make(tmp_path / "a", scale=0.25).id,
                make(tmp_path / "a", mode="down").id,
            }
        )
        == 4
    )
    assert make(tmp_path / "a", scale=1).id == make(tmp_path / "a", scale=1.0).id


def test_an_id_can_never_be_read_as_a_number():
    from skyloom.store.ids import Request

    for i in range(300):
        assert Request("k", "s", 1, {"i": i}, {}).id[0].isalpha()


def test_the_id_is_fixed_across_versions_of_skyloom():
    """Ids in papers must stay valid: this one may only change together with a new manifest schema."""
    from skyloom.store.ids import Request

    assert (
        Request("cutouts", "cutouts", 1, {"window_px": 128, "overlap": 0.5}, {"images": {"files": 1}}).id
        == "wb53kglmludr"
    )


def test_manifest_tells_counts_reasons_files_code_and_packages(tmp_path):
    manifest = make(tmp_path).manifest
    assert manifest["counts"] == {
        "read": 3,
        "kept": 2,
        "dropped": {"zero": {"number": 1, "why": "has no sign", "examples": ["0"]}},
    }
    assert manifest["notes"] == {"unit": "Jy/beam"}
    assert set(manifest["files"]) == {"numbers.parquet"}
    assert len(manifest["files"]["numbers.parquet"]["sha256"]) == 64
    assert manifest["code"]["version"]
    assert manifest["packages"]["numpy"]


def test_tables_as_polars_and_astropy(tmp_path):
    artifact = make(tmp_path)
    assert artifact.table()["n"].to_list() == [0, 1, 2]
    table = artifact.astropy()
    assert table["n"].tolist() == [0, 1, 2]
    assert table["x"].mask.tolist() == [True, False, False]
    with pytest.raises(StoreError, match=r"no file 'x.npy'; it has: numbers.parquet"):
        artifact.file("x.npy")


def test_look_up_by_id_prefix_name_path(tmp_path):
    store = Store(tmp_path)
    artifact = count(upto=3, mode="up", scale=0.5, store=store, name="three")
    for reference in (artifact.id, artifact.id[:5], "three", str(artifact.path), artifact):
        assert store.open(reference).id == artifact.id
    with pytest.raises(StoreError, match="no artifact with the id, prefix or name 'zzz'"):
        store.open("zzz")
    with pytest.raises(StoreError, match="Did you mean the name 'three'"):
        store.open("thre")
    with pytest.raises(StoreError, match="is of kind numbers; expected features"):
        store.open("three", "features")


def test_an_ambiguous_prefix_names_the_candidates(tmp_path):
    ids = sorted(make(tmp_path, upto=1, scale=float(n)).id for n in range(40))
    shared = next(a[0] for a, b in pairwise(ids) if a[0] == b[0])
    with pytest.raises(
        StoreError, match=rf"'{shared}' is the beginning of .* ids: numbers {shared}.*give more letters"
    ):
        Store(tmp_path).open(shared)


def test_a_name_cannot_be_moved_by_accident(tmp_path):
    make(tmp_path)
    count(upto=3, mode="up", scale=0.5, store=tmp_path, name="mine")
    count(upto=3, mode="up", scale=0.5, store=tmp_path, name="mine")
    with pytest.raises(StoreError, match="'mine' already stands for numbers"):
        count(upto=4, mode="up", scale=0.5, store=tmp_path, name="mine")
    assert len(list(Store(tmp_path))) == 1, "refused before any work"
    with pytest.raises(StoreError, match="starts with a letter"):
        count(upto=4, mode="up", scale=0.5, store=tmp_path, name="../evil")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upto": 0}, "upto=0: input should be greater than 0"),
        ({"upto": "many"}, "upto='many': input should be a valid integer"),
        ({"mode": "upp"}, r"mode=upp is not known; choose one of: down, up. Did you mean 'up'\?"),
        ({"colour": 1}, "option=colour is not known; choose one of: mode, scale, upto, workers"),
    ],
)
def test_bad_arguments_are_one_line_errors(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_a_missing_argument_is_named(tmp_path):
    with pytest.raises(ConfigError, match="count: 'mode' is missing"):
        count(upto=1, scale=1.0, store=tmp_path)


def test_dry_run_plans_and_writes_nothing(tmp_path):
    plan = count(upto=3, mode="up", scale=0.5, store=tmp_path, dry_run=True)
    assert isinstance(plan, Plan)
    assert not plan.exists
    assert not list(tmp_path.iterdir())
    assert make(tmp_path).id == plan.id
    assert count(upto=3, mode="up", scale=0.5, store=tmp_path, dry_run=True).exists


def test_lineage_and_find(tmp_path):
    store = Store(tmp_path)
    numbers = make(store)
    sums = total(numbers=numbers.id[:6], store=store)
    assert sums.inputs["numbers"].id == numbers.id
    assert [a.id for a in store.ancestors(sums)] == [numbers.id]
    assert [a.id for a in store.descendants(numbers)] == [sums.id]
    other = make(store, upto=5)
    assert [a.id for a in store.find("numbers", {"upto": "5"})] == [other.id]
    assert [a.id for a in store.find("sums", {"numbers": numbers.id[:4]})] == [sums.id]
    assert store.find("sums", made_from=other) == []


def test_verify_finds_every_kind_of_damage(tmp_path):
    artifact = make(tmp_path)
    assert artifact.verify() == []
    table = artifact.file("numbers.parquet")
    assert not os.access(table, os.W_OK) or os.geteuid() == 0, "finished files are read-only"
    good = table.read_bytes()
    table.chmod(0o644)
    table.write_bytes(good[:-1] + b"x")
    assert "other content" in artifact.verify()[0]
    table.write_bytes(good[:-1])
    assert "bytes, the manifest says" in artifact.verify()[0]
    (artifact.path / "stray").write_text("")
    table.unlink()
    assert [("missing" in p, "not in the manifest" in p) for p in artifact.verify()] == [(True, False), (False, True)]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_number_that_is_none_is_named(tmp_path, dry_run):
    with pytest.raises(ConfigError, match=r"^scale=nan: expected a finite number"):
        make(tmp_path, scale=float("nan"), dry_run=dry_run)
    assert not (tmp_path / "numbers").exists()


def test_a_number_that_is_none_is_named_deep_inside():
    with pytest.raises(TypeError, match=r"^task\.rates\.1=inf: expected a finite number"):
        plain({"rates": [1.0, float("inf")]}, "task")


def test_an_empty_word_is_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"paths\.store is empty; give a folder"):
        Store("")


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ("piece", "goes on after the 1 pieces"),
        ("last.ckpt", "goes on from its last checkpoint"),
        (None, "command again$"),
    ],
)
def test_a_full_disk_says_where_the_next_attempt_starts(tmp_path, left, told):
    @builds("numbers", version=1)
    def fill(build: Build):
        build.resumes_from("last.ckpt")
        if left == "piece":
            build.shard("0", lambda path: path.write_text("0"))
        elif left:
            (build.path / left).write_text("0")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match=told):
        fill(store=tmp_path)


def test_a_file_that_was_cut_short_or_spoilt_is_named_when_it_is_used(tmp_path):
    made = make(tmp_path)
    path = made.file("numbers.parquet")
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-30])
    with pytest.raises(StoreError, match=rf"numbers\.parquet has {len(whole) - 30} bytes, the manifest of numbers"):
        made.table()
    path.write_bytes(b"x" * len(whole))
    with pytest.raises(StoreError, match=r"numbers\.parquet is damaged \(.*make it again$"):
        made.table()


def test_a_folder_without_a_manifest_is_found_before_the_work_not_after_it(tmp_path):
    store = Store(tmp_path)
    plan = make(store, dry_run=True)
    (store.path("numbers", plan.id) / "left").mkdir(parents=True)
    with pytest.raises(StoreError, match="is in the way: it has no manifest"):
        make(store)
    assert not store.partial("numbers", plan.id).exists()


def test_an_empty_file_of_a_name_does_not_block_the_name(tmp_path):
    store = Store(tmp_path)
    store.names.folder.mkdir(parents=True)
    (store.names.folder / "first").touch()  # a full disk, or a kill between making and writing it
    assert store.names.all() == {}
    made = make(store, name="first")
    assert store.open("first").id == made.id


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_store_that_may_only_be_read_is_read_and_refuses_the_rest_in_one_line(tmp_path, monkeypatch):
    store = Store(tmp_path)
    made = make(store)
    monkeypatch.setattr("skyloom.store.store.os.access", lambda path, mode: False)  # root may write everywhere
    assert make(store).id == made.id
    with pytest.raises(StoreError, match=r"cannot be written \(no permission to write\); set paths.store"):
        make(store, upto=2)
    store.names.folder.write_text("in the way")
    with pytest.raises(StoreError, match=r"the name 'first' cannot be written to .*names \("):
        make(store, name="first")


def test_a_name_of_an_artifact_that_is_gone_says_so(tmp_path):
    store = Store(tmp_path)
    made = make(store, name="first")
    shutil.rmtree(made.path)
    with pytest.raises(StoreError, match=r"the name 'first' stands for numbers \w+, which is not in .* --remove first"):
        store.open("first")


def test_a_removal_that_is_killed_leaves_a_leftover_not_half_an_artifact(tmp_path, monkeypatch):
    store = Store(tmp_path)
    made = make(store, name="first")

    def killed(path):
        (path / "numbers.parquet").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("skyloom.store.store.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.remove(made)
    assert not store.has("numbers", made.id)
    assert len(store.sweep()) == 1
    assert make(store).verify() == []


def test_a_refused_request_leaves_nothing(tmp_path):
    @builds("numbers", version=1)
    def refuse(build: Build, *, n: int):
        (build.path / "half.txt").write_text("half")
        raise InputError("bad.fits: no")

    with pytest.raises(InputError):
        refuse(n=1, store=tmp_path)
    assert not list(Store(tmp_path))
    assert not [p for p in (tmp_path / ".partial").iterdir() if p.is_dir()]


def test_a_full_disk_is_explained_and_the_work_goes_on_after_it(tmp_path):
    state = {"full": True}

    @builds("numbers", version=1)
    def fill(build: Build, *, n: int):
        build.shard("a", lambda path: path.write_text("a"))
        with build.write("x") as path:
            path.write_text("x")
            if state["full"]:
                raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"the disk is full .* give the same command again"):
        fill(n=1, store=tmp_path)
    assert not list(Store(tmp_path))
    state["full"] = False
    assert fill(n=1, store=tmp_path).verify() == []


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root on Linux to mount a small tmpfs")
def test_a_disk_that_is_really_full(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:

        @builds("numbers", version=1)
        def fill(build: Build, *, n: int):
            build.shard("first", lambda path: path.write_bytes(b"1"))
            with build.write("big.parquet") as path:
                pl.DataFrame({"x": list(range(n))}).write_parquet(path, compression="uncompressed")

        with pytest.raises(StoreError, match="the disk is full"):
            fill(n=1_000_000, store=small / "store")
        assert not list(Store(small / "store"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


SLOW = textwrap.dedent("""
    import sys, time
    from skyloom.store import Build, builds

    @builds("slow", version=1)
    def slow(build: Build, *, pieces: int):
        print("started", flush=True)
        for i in range(pieces):
            def make(path, i=i):
                with path.open("w") as file:
                    for _ in range(20):
                        file.write(f"{i}," * 500)
                        file.flush()
                        time.sleep(0.002)
            build.shard(f"{i:03d}", make)
        with build.write("all.txt") as path, path.open("w") as file:
            for piece in build.shards():
                file.write(piece.read_text())
                time.sleep(0.01)
        build.count(pieces=pieces)

    print(slow(pieces=6, store=sys.argv[1]).id)
""")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "build.json"
    }


def test_sigkill_at_random_moments_ends_with_the_same_bytes(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    whole = subprocess.run(
        [sys.executable, script, tmp_path / "whole"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    kills = 0
    for moment in (0.02, 0.08, 0.15, 0.2, 0.05, 0.11):
        process = subprocess.Popen(
            [sys.executable, script, tmp_path / "killed"], stderr=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        process.stdout.readline()  # "started"
        time.sleep(moment)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        if (tmp_path / "killed" / "slow" / whole).exists():
            break  # finished, or killed between the final rename and the end of the process: it is whole either way
    again = subprocess.run(
        [sys.executable, script, tmp_path / "killed"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    assert kills >= 2, "the test must really have killed something"
    assert Store(tmp_path / "killed").open(whole).verify() == []
    assert again == whole
    assert tree(tmp_path / "killed" / "slow" / whole) == tree(tmp_path / "whole" / "slow" / whole)
    assert Artifact(tmp_path / "killed" / "slow" / whole).history["attempts"] >= 3


def test_two_processes_at_once_one_builds_the_other_waits(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    both = [
        subprocess.Popen(
            [sys.executable, script, tmp_path / "store"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    texts = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert texts[0][0].split()[-1] == texts[1][0].split()[-1]
    artifact = Store(tmp_path / "store").open(texts[0][0].split()[-1])
    assert artifact.verify() == []
    assert artifact.history["attempts"] == 1, "only one of them built"


def _hold(store, ready, leave):
    with Store(store).lock("numbers", "abc").acquire():
        ready.set()
        leave.wait(20)


def test_sweep_deletes_leftovers_but_not_what_is_being_built(tmp_path):
    context = multiprocessing.get_context("fork")
    store = Store(tmp_path)
    for name in ("numbers-abc", "numbers-xyz"):
        (tmp_path / ".partial" / name).mkdir(parents=True)
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, leave))
    holder.start()
    try:
        assert ready.wait(20)
        assert [p.name for p in store.leftovers()] == ["numbers-xyz"]
        assert [p.name for p in store.sweep()] == ["numbers-xyz"]
        assert (tmp_path / ".partial" / "numbers-abc").exists()
    finally:
        leave.set()
        holder.join()


def test_a_newer_manifest_and_a_broken_one_are_explained(tmp_path):
    artifact = make(tmp_path)
    source = artifact.path / "manifest.json"
    source.chmod(0o644)
    source.write_text(json.dumps({**artifact.manifest, "schema": 99}))
    with pytest.raises(StoreError, match=r"schema 99.*update skyloom"):
        Store(tmp_path).open(artifact.id)
    source.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        Store(tmp_path).open(artifact.id)


def test_fingerprint_sees_content_not_path(tmp_path):
    from skyloom.store import fingerprint

    big = os.urandom(9 << 20)
    for name, data in {"a": big, "b": big, "c": big[:-1], "d": big[:-1] + b"?"}.items():
        (tmp_path / name).write_bytes(data)
    prints = {name: fingerprint(tmp_path / name) for name in "abcd"}
    assert prints["a"] == prints["b"]
    assert len(set(prints.values())) == 3
    with pytest.raises(InputError, match="cannot read"):
        fingerprint(tmp_path / "nothing")


def test_interrupted_again_and_again_between_manifest_and_final_name(tmp_path, monkeypatch):
    real, calls = Build.move, []

    def stop_twice(build, final):
        calls.append(final)
        if len(calls) < 3:
            raise KeyboardInterrupt
        return real(build, final)

    monkeypatch.setattr(Build, "move", stop_twice)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path)
        assert not list(Store(tmp_path))
    assert make(tmp_path).verify() == []
    assert len(calls) == 3, "the body ran once; only the move was repeated"
