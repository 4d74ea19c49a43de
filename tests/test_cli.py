import contextlib
import json
import os
import subprocess
import sys

import pytest

from make.curated import fake_images, write_selection
from skyloom.cli import main, output
from skyloom.store import Store


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    return write_selection(root), root


@pytest.fixture
def fresh(tmp_path):
    return write_selection(tmp_path), tmp_path


@pytest.fixture
def skyloom(capsys):
    def call(*words) -> tuple[int, list[str], str]:
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err

    return call


def chain(selection) -> list:
    """The selection and its ancestors, nearest first."""
    found = [selection]
    while found[-1].inputs:
        found.extend(found[-1].inputs.values())
    return found


def test_ls_prints_a_line_per_artifact_with_tabs(filled, skyloom):
    selection, root = filled
    code, lines, _ = skyloom("--store", root, "ls")
    assert code == 0
    rows = [line.split("\t") for line in lines]
    assert [row[0] for row in rows] == ["clusters", "cutouts", "features", "images", "selection"]
    assert rows[-1][1] == selection.id
    assert "kept 6" in rows[-1][-1]


def test_ls_of_a_kind_lists_only_it_and_knows_the_others(filled, skyloom):
    selection, root = filled
    _, lines, _ = skyloom("ls", "selection", "--store", root)
    assert [line.split("\t")[1] for line in lines] == [selection.id]
    code, lines, error = skyloom("ls", "selections", "--store", root)
    assert (code, lines) == (2, [])
    assert error.startswith("error: kind=selections is not known")
    assert "Did you mean 'selection'?" in error


def test_the_store_may_come_from_the_environment(filled, skyloom, monkeypatch):
    monkeypatch.setenv("SKYLOOM_STORE", str(filled[1]))
    assert len(skyloom("ls")[1]) == 5


def test_an_empty_store_is_no_mistake_but_a_missing_one_is(tmp_path, skyloom):
    code, lines, error = skyloom("ls", "--store", tmp_path)
    assert (code, lines) == (0, [])
    assert "is empty" in error
    code, _, error = skyloom("ls", "--store", tmp_path / "nowhere")
    assert code == 2
    assert error.startswith("error: there is no store in")
    assert len(error.splitlines()) == 1


def test_show_tells_parameters_inputs_counts_and_files(filled, skyloom):
    selection, root = filled
    cutouts = chain(selection)[3]
    _, lines, _ = skyloom("show", cutouts.id[:6], "--store", root)
    told = dict(line.split("\t") for line in lines)
    assert told["artifact.id"] == cutouts.id
    assert told["parameters.spread_deg"] == "4.0"
    assert told["inputs.images"] == chain(selection)[4].id
    assert told["counts.kept"] == "20"
    assert told["counts.dropped.blank window.why"] == "too many blank pixels"
    assert int(told["files.cutouts.parquet"]) == cutouts.file("cutouts.parquet").stat().st_size


def test_find_prints_ids_alone(filled, skyloom):
    selection, root = filled
    cutouts = chain(selection)[3]
    flat = write_selection(root, sky=False)
    assert skyloom("--store", root, "find", "cutouts", "sky=true")[1] == [cutouts.id]
    assert skyloom("--store", root, "find", f"images={cutouts.inputs['images'].id}", "sky=false")[1] == [
        chain(flat)[3].id
    ]


def test_find_follows_lineage_and_takes_words_on_both_sides_of_an_option(filled, skyloom):
    selection, root = filled
    cutouts = chain(selection)[3]
    words = ("find", "features", "--from", cutouts.id, "dimensions=4", "--store", root)
    assert skyloom(*words)[1] == [chain(selection)[2].id]
    assert skyloom("find", "images", "--from", cutouts.id, "--store", root)[:2] == (1, [])


def test_find_without_a_match_exits_with_1_and_with_an_unknown_key_with_2(filled, skyloom):
    _, root = filled
    code, lines, error = skyloom("find", "cutouts", "spread_deg=99", "--store", root)
    assert (code, lines) == (1, [])
    assert "nothing found" in error
    code, _, error = skyloom("find", "cutouts", "spread=99", "--store", root)
    assert code == 2
    assert "Did you mean 'spread_deg'?" in error


def test_find_knows_what_ancestors_were_made_with(fresh, skyloom):
    selection, root = fresh
    cutouts = chain(selection)[3]
    for words in (
        (f"cutouts={cutouts.id}", "cutouts.sky=true"),
        ("cutouts.spread_deg=4", "features.dimensions>=4", "features.dimensions<5"),
        ("clusters=*", "features.dimensions!=9", "step=fake_*"),
    ):
        assert skyloom("--store", root, "find", "selection", *words)[1] == [selection.id], words
    assert skyloom("--store", root, "find", "selection", "features.dimensions>4")[0] == 1
    assert skyloom("--store", root, "find", "selection", "step>4a")[0] == 2
    wide = skyloom("--store", root, "find", "selection", "cutouts.sky=true", "--wide")[1][0].split("\t")
    assert wide[0] == selection.id
    assert {"features.dimensions=4", f"cutouts={cutouts.id}"} < set(wide)


def test_find_on_a_terminal_shows_what_differs(fresh, skyloom, monkeypatch):
    selection, root = fresh
    other = write_selection(root, rows=[1, 2])
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    text = "\n".join(skyloom("--store", root, "find", "selection")[1])
    assert selection.id in text
    assert other.id in text
    assert "rows" in text
    assert "dimensions" not in text, "it is the same for both"


def test_an_unreadable_manifest_is_reported_and_the_others_are_listed(fresh, skyloom):
    selection, root = fresh
    broken = chain(selection)[4].path / "manifest.json"
    broken.chmod(0o644)
    for text in ("{", "[]", '{"schema": 1, "kind": "images"}'):
        broken.write_text(text)
        for words in (("ls",), ("find", "selection")):
            code, lines, error = skyloom(*words, "--store", root)
            assert code == 0
            assert any(selection.id in line for line in lines)
            assert f"left out: {broken}" in error


def test_verify_notices_an_edited_parameter(fresh, skyloom):
    selection, root = fresh
    source = selection.path / "manifest.json"
    source.chmod(0o644)
    source.write_text(source.read_text().replace('"rows": [', '"rows": [\n 3,'))
    code, lines, _ = skyloom("verify", selection.id, "--store", root)
    assert code == 1
    assert "were edited" in lines[0]


def test_lineage_goes_up_and_down(filled, skyloom):
    selection, root = filled
    expected = chain(selection)
    _, lines, _ = skyloom("lineage", selection.id, "--store", root)
    assert [tuple(line.split("\t")[:3]) for line in lines] == [
        (str(depth), artifact.kind, artifact.id) for depth, artifact in enumerate(expected)
    ]
    _, lines, _ = skyloom("lineage", "--down", expected[3].id, "--store", root)
    assert [line.split("\t")[1] for line in lines] == ["cutouts", "features", "clusters", "selection"]


def test_a_lineage_with_a_gap_is_shown(fresh, skyloom):
    selection, root = fresh
    images = chain(selection)[4]
    Store(root).remove(images)
    _, lines, _ = skyloom("lineage", selection.id, "--store", root)
    assert lines[-1].split("\t")[1:] == ["images", images.id, "", "no longer in the store"]


def test_verify_finds_what_was_changed_and_goes_on(fresh, skyloom):
    selection, root = fresh
    code, lines, error = skyloom("verify", "--store", root)
    assert (code, lines) == (0, [])
    assert "5 artifacts checked, no problems" in error

    table = selection.file("selection.parquet")
    table.chmod(0o644)
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    sound, broken = chain(selection)[2].id, chain(selection)[4].path / "manifest.json"
    broken.chmod(0o644)
    broken.write_text("{")
    code, lines, _ = skyloom("verify", "--store", root)
    assert code == 1
    assert len(lines) == 2
    assert any("manifest.json cannot be read" in line for line in lines)
    assert any(f"{table} has other content" in line for line in lines)
    assert skyloom("verify", sound, "--store", root)[0] == 0


def test_gc_lists_first_and_deletes_only_when_told(fresh, skyloom, monkeypatch):
    _, root = fresh
    store = Store(root)
    left = store.partial("images", "abandonedxyz")
    (left / ".shards").mkdir(parents=True)
    running = store.partial("images", "runningxyzab")
    running.mkdir(parents=True)
    with store.lock("images", "runningxyzab"):
        code, lines, error = skyloom("gc", "--store", root)
        assert (code, lines) == (0, [f"partial\timages\tabandonedxyz\t{left}"])
        assert "--yes" in error
        assert left.exists()
        skyloom("gc", "--yes", "--store", root)
        assert not left.exists()
        assert running.exists()
    assert len(list(store)) == 5


def test_gc_keeps_what_others_were_made_from(fresh, skyloom):
    selection, root = fresh
    clusters, features = chain(selection)[1:3]
    code, _, error = skyloom("gc", "--yes", "--store", root, "--remove", features.id)
    assert code == 2
    assert f"features {features.id} cannot be removed" in error
    assert "clusters" in error
    assert len(list(Store(root))) == 5

    skyloom("gc", "--store", root, "--remove", selection.id)
    assert len(list(Store(root))) == 5
    code, lines, _ = skyloom("gc", "--yes", "--store", root, "--remove", features.id, selection.id, clusters.id)
    assert code == 0
    assert [line.split("\t")[1] for line in lines] == [
        "selection",
        "clusters",
        "features",
    ]  # never a child without parent
    assert {artifact.kind for artifact in Store(root)} == {"images", "cutouts"}


def test_gc_refuses_an_artifact_of_another_store(fresh, tmp_path_factory, skyloom):
    _, root = fresh
    elsewhere = fake_images(cutouts=3, seed=0, store=tmp_path_factory.mktemp("other"))
    code, _, error = skyloom("gc", "--yes", "--store", root, "--remove", elsewhere.path)
    assert code == 2
    assert "does not lie in the store" in error
    assert elsewhere.path.exists()


def test_names_are_given_used_and_freed(fresh, skyloom):
    selection, root = fresh
    assert skyloom("name", "best", selection.id, "--store", root)[0] == 0
    assert skyloom("show", "best", "--store", root)[1][1] == f"artifact.id\t{selection.id}"
    assert "\tbest\t" in skyloom("ls", "selection", "--store", root)[1][0]
    assert skyloom("name", "best", chain(selection)[1].id, "--store", root)[0] == 2  # taken
    assert skyloom("name", "--remove", "best", "--store", root)[0] == 0
    assert skyloom("show", "best", "--store", root)[0] == 2
    assert skyloom("name", "best", "--store", root)[0] == 2


@pytest.mark.parametrize("words", [["frob"], [], ["ls", "--frob"], ["show"], ["ls", "a", "b"]])
def test_wrong_words_are_one_line_and_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1


def test_an_unknown_reference_is_one_line(filled, skyloom):
    code, lines, error = skyloom("show", "zzzz", "--store", filled[1])
    assert (code, lines) == (2, [])
    assert error.startswith("error: no artifact with the id, prefix or name 'zzzz'")
    assert len(error.splitlines()) == 1


def test_on_a_terminal_ids_are_never_cut(filled, skyloom, monkeypatch):
    selection, root = filled
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    for words in (("ls",), ("show", selection.id), ("lineage", selection.id)):
        _, lines, _ = skyloom(*words, "--store", root)
        assert any(selection.id in line for line in lines)
        assert not any("\t" in line for line in lines)


def test_it_starts_without_the_heavy_packages(filled):
    program = (
        "import sys; from skyloom.cli import main; main(['ls']); main(['verify']);"
        "heavy = {'torch', 'lightning', 'numpy', 'polars', 'astropy', 'matplotlib', 'hydra', 'pydantic', 'jinja2'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "SKYLOOM_STORE": str(filled[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_stops_early_is_no_error(filled):
    environment = {**os.environ, "SKYLOOM_STORE": str(filled[1])}
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "skyloom.cli", "ls"], env=environment, stdout=write, stderr=subprocess.PIPE,
            timeout=60, check=False,
        )  # fmt: skip
    finally:
        with contextlib.suppress(OSError):
            os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_json_for_programs(fresh, skyloom):
    selection, root = fresh
    _, lines, _ = skyloom("--store", root, "ls", "--json")
    everything = json.loads("\n".join(lines))
    assert {entry["id"] for entry in everything} == {artifact.id for artifact in chain(selection)}
    skyloom("--store", root, "name", "best", selection.id)
    skyloom("--store", root, "name", "first", selection.id)
    found = json.loads("\n".join(skyloom("--store", root, "find", "selection", "features.dimensions>=4", "--json")[1]))
    assert [(entry["id"], entry["names"], entry["path"]) for entry in found] == [
        (selection.id, ["best", "first"], str(selection.path))
    ]
    shown = json.loads("\n".join(skyloom("--store", root, "show", "best", "--json")[1]))
    assert shown.items() >= selection.manifest.items()
    assert shown["size"] == sum(entry["size"] for entry in selection.manifest["files"].values())
    assert shown["history"] == selection.history
    code, lines, error = skyloom("--store", root, "find", "selection", "features.dimensions>4", "--json")
    assert (code, json.loads("\n".join(lines))) == (1, [])
    assert "nothing found" in error


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out.split()[0]) == (0, "skyloom")


def test_letters_of_a_pattern_are_no_prefix(filled, skyloom):
    _, root = filled
    for text in ("*", "[a-z]", "?"):
        code, _, error = skyloom("--store", root, "show", text)
        assert code == 2
        assert f"no artifact with the id, prefix or name '{text}'" in error


def test_ls_fits_a_terminal_of_80_columns(filled, skyloom, monkeypatch):
    selection, root = filled
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = skyloom("--store", root, "ls")[1]
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if selection.id in line]
    assert selection.history["finished"] in row, "ids and times are not folded"
    assert "name" not in "".join(lines), "a column that is empty throughout is not shown"
