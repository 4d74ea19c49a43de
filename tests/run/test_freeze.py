"""What is copied for jobs of a cluster, what is refused before, and what is left when copying fails."""

import errno
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from skyloom.errors import ConfigError
from skyloom.run import freeze as module
from skyloom.run.freeze import NOTE, SCRIPTS, SWEEP, Freeze, check_request, check_same_code, freeze, quoted
from skyloom.store import provenance

NOW = datetime(2026, 3, 1, 12, 30, 5)
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
GIT = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]


def git(folder, *words):
    subprocess.run([*GIT, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout without git, which is taken for the one that runs."""
    root = tmp_path / "checkout"
    files = {
        "conf/train.yaml": "seed: 0\n", "conf/.train.yaml.swp": "", "src/skyloom/store/provenance.py": "",
        "src/skyloom/run/freeze.py": "", "src/skyloom/__pycache__/x.pyc": "", "src/skyloom/old.pyc": "",
        "tests/test_x.py": "", **dict.fromkeys(SCRIPTS, "print()\n"),
    }  # fmt: skip
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(module, "__file__", str(root / "src" / "skyloom" / "run" / "freeze.py"))
    monkeypatch.setattr(provenance, "__file__", str(root / "src" / "skyloom" / "store" / "provenance.py"))
    monkeypatch.setattr(provenance, "code", provenance.code.__wrapped__)  # without what it remembers
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return root


def noted(copy):
    return json.loads((copy / NOTE).read_text())


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_scripts_configuration_and_package_are_copied_and_nothing_else(checkout, tmp_path):
    freeze(tmp_path / "sweep" / "copy", now=NOW)
    copy = tmp_path / "sweep" / "copy"
    code = {"src/skyloom/store/provenance.py", "src/skyloom/run/freeze.py"}
    assert names(copy) == {*SCRIPTS, NOTE, "conf/train.yaml", *code}
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    note = noted(copy)
    assert (note["copied_from"], note["time"]) == (str(checkout), "2026-03-01T12:30:05")
    assert (note["git_commit"], note["git_dirty"]) == (None, None), "no checkout of git: unknown, not clean"


def test_a_tree_with_edits_is_copied_as_it_is_and_called_dirty(checkout, tmp_path):
    git(checkout, "init", "-q")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-q", "-m", "first")
    freeze(tmp_path / "clean", now=NOW)
    (checkout / "conf" / "train.yaml").write_text("seed: 1\n")
    freeze(tmp_path / "edited", now=NOW)
    clean, edited = noted(tmp_path / "clean"), noted(tmp_path / "edited")
    assert len(clean["git_commit"]) == 40
    assert edited["git_commit"] == clean["git_commit"]
    assert (clean["git_dirty"], edited["git_dirty"]) == (False, True)
    assert (tmp_path / "edited" / "conf" / "train.yaml").read_text() == "seed: 1\n"
    assert (tmp_path / "clean" / "conf" / "train.yaml").read_text() == "seed: 0\n"


def test_without_the_program_git_the_commit_is_unknown(checkout, tmp_path, monkeypatch):
    git(checkout, "init", "-q")
    monkeypatch.setenv("PATH", str(tmp_path))
    freeze(tmp_path / "copy", now=NOW)
    assert (noted(tmp_path / "copy")["git_commit"], noted(tmp_path / "copy")["git_dirty"]) == (None, None)


def test_code_in_a_copy_is_that_of_its_note(checkout, tmp_path, monkeypatch):
    freeze(tmp_path / "copy", now=NOW)
    file = tmp_path / "copy" / NOTE
    file.write_text(json.dumps(noted(tmp_path / "copy") | {"git_commit": "c0ffee", "git_dirty": True}))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "copy" / "src" / "skyloom" / "store" / "provenance.py"))
    assert provenance.code() == {"version": noted(tmp_path / "copy")["version"], "git_commit": "c0ffee",
                                 "git_dirty": True}  # fmt: skip


def test_a_full_disk_leaves_no_part_of_a_copy(checkout, tmp_path, monkeypatch):
    def full(*words, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copystat", full)  # what copies the files of folders calls it last
    with pytest.raises(OSError, match="No space left"):
        freeze(tmp_path / "sweep" / "copy", now=NOW)
    assert list((tmp_path / "sweep").iterdir()) == []


def test_a_copy_that_is_there_is_never_mixed_with_another(checkout, tmp_path):
    freeze(tmp_path / "copy", now=NOW)
    before = names(tmp_path / "copy")
    (checkout / "conf" / "new.yaml").touch()
    with pytest.raises(OSError, match="copy"):
        freeze(tmp_path / "copy", now=NOW)
    assert names(tmp_path / "copy") == before
    assert not (tmp_path / "copy.partial").exists()
    (tmp_path / "other.partial").mkdir()  # that somebody else is making
    with pytest.raises(FileExistsError):
        freeze(tmp_path / "other", now=NOW)
    assert (tmp_path / "other.partial").exists()


# --- the callback ---


def composed(tmp_path, *, target=f"{SUBMITIT}.LocalLauncher", overrides=(), sources=(), trainer=None, **launcher):
    hydra = {
        "launcher": {"_target_": target, **launcher}, "sweep": {"dir": str(tmp_path / "it's a sweep")},
        "overrides": {"task": list(overrides)}, "runtime": {"config_sources": list(sources)},
    }  # fmt: skip
    return OmegaConf.create({"hydra": hydra, **({"trainer": trainer} if trainer else {})})


@pytest.fixture
def started(monkeypatch, checkout):
    """What the process is replaced by: program, words and environment."""
    found = SimpleNamespace(words=None, env=None)

    def execve(program, words, env):
        found.words, found.env = words, env

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "argv", [str(checkout / "train.py"), "task=byol", "-m"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-W", "error", *sys.argv])
    return found


def test_the_command_goes_on_from_the_copy(started, checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("SKYLOOM_CONF", str(checkout / "conf"))
    Freeze().on_multirun_start(composed(tmp_path))
    sweep = tmp_path / "it's a sweep"
    (copy,) = (sweep / "code").iterdir()
    program, *words = started.words
    assert program == sys.executable
    assert words[:-1] == ["-W", "error", str(copy / "train.py"), "task=byol", "-m"]
    (override,) = OverridesParser.create().parse_overrides(words[-1:])
    assert (override.key_or_group, override.value()) == ("hydra.sweep.dir", str(sweep))
    assert started.env["PYTHONPATH"].split(os.pathsep) == [str(copy / "src"), "/elsewhere"]
    assert started.env[SWEEP] == str(sweep)
    assert "SKYLOOM_CONF" not in started.env, "the copy has a configuration of its own"


@pytest.mark.parametrize("words", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"], ["-cd={}"]])
def test_folders_of_the_user_are_copied_too(started, checkout, tmp_path, words):
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text("a: 1\n")
    sys.argv[1:1] = [word.format(own) for word in words]
    sys.orig_argv[4:4] = sys.argv[1 : 1 + len(words)]
    Freeze().on_multirun_start(composed(tmp_path))
    (copy,) = (tmp_path / "it's a sweep" / "code").iterdir()
    assert (copy / "more0" / "mine.yaml").read_text() == "a: 1\n"
    said = started.words[started.words.index(str(copy / "train.py")) + 1 :]
    assert said[: len(words)] == [word.format(copy / "more0") for word in words]
    assert str(own) not in " ".join(started.words)


def refused(capsys, config):
    with pytest.raises(SystemExit) as end:
        Freeze().on_multirun_start(config)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_what_cannot_be_copied_is_not_submitted(started, tmp_path, monkeypatch, capsys):
    def full(source, target, **options):
        raise shutil.Error([(source, target, "[Errno 28] No space left on device"), ("b", "c", "[Errno 28]")])

    monkeypatch.setattr(shutil, "copytree", full)
    line = refused(capsys, composed(tmp_path))
    assert "nothing was submitted: [Errno 28] No space left on device; make room or set paths.runs" in line
    assert started.words is None
    assert list((tmp_path / "it's a sweep" / "code").iterdir()) == []


def test_another_program_is_refused_before_anything_is_copied(started, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "own.py"), "task=byol"])
    assert "can be sent to a cluster; got" in refused(capsys, composed(tmp_path))
    assert not (tmp_path / "it's a sweep").exists()


def test_here_nothing_is_copied(started, tmp_path):
    Freeze().on_multirun_start(composed(tmp_path, target="hydra._internal.core_plugins.basic_launcher.BasicLauncher"))
    assert started.words is None
    assert not (tmp_path / "it's a sweep").exists()


def test_in_the_copy_it_warns_of_configuration_from_elsewhere(started, checkout, tmp_path, caplog):
    (checkout / NOTE).write_text("{}")
    sources = [{"schema": "file", "path": str(checkout / "conf")}, {"schema": "file", "path": str(tmp_path / "own")},
               {"schema": "pkg", "path": "hydra.conf"}]  # fmt: skip
    Freeze().on_multirun_start(composed(tmp_path, sources=sources))
    assert started.words is None, "there is no copy of a copy"
    assert [record.args for record in caplog.records] == [(str(tmp_path / "own"),)]
    assert "is not copied" in caplog.text


# --- what is refused before anything is submitted ---------------------------------------------------------------------

CPU = {"devices": 2, "num_nodes": 1, "accelerator": "cpu"}
GPU = {**CPU, "accelerator": "gpu"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": f"{SUBMITIT}.SlurmLauncher"}, "no srun on PATH"),
        ({"trainer": CPU, "tasks_per_node": 4}, "4 processes but the trainer asks for 2"),
        (
            {"trainer": {**CPU, "num_nodes": 2}, "tasks_per_node": 2, "nodes": 3},
            "6 processes but the trainer asks for 4",
        ),
        ({"trainer": GPU, "gpus_per_node": 1}, "trainer.devices=2 but a job gets 1 GPU"),
        ({"trainer": CPU, "overrides": ["trainer.devices=1,2"]}, "trainer.devices cannot be swept"),
        ({"trainer": CPU, "overrides": ["trainer.num_nodes=choice(1,2)"]}, "trainer.num_nodes cannot be swept"),
    ],
)
def test_jobs_that_could_not_work_are_refused(tmp_path, monkeypatch, options, words):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        check_request(composed(tmp_path, **options))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trainer": CPU, "overrides": ["trainer.devices=2", "seed=1,2"]},
        {"trainer": {**CPU, "num_nodes": 2}, "tasks_per_node": 2, "nodes": 2},
        {"trainer": GPU, "tasks_per_node": 2, "gpus_per_node": 2},
        {"trainer": CPU, "gpus_per_node": 1},
    ],
)
def test_jobs_that_fit_are_not(tmp_path, options):
    check_request(composed(tmp_path, **options))


def test_a_job_with_other_code_than_its_configuration_says_how_to_mend_it(checkout, tmp_path):
    def source(folder, provider="main", schema="file"):
        return SimpleNamespace(path=str(folder), provider=provider, schema=schema)

    check_same_code([source("hydra.conf", "hydra", "pkg"), source(checkout / "conf")])
    check_same_code([source(tmp_path / "more", "command-line")])
    with pytest.raises(ConfigError) as error:
        check_same_code([source(tmp_path / "copy" / "conf")])
    assert f"export PYTHONPATH={tmp_path / 'copy' / 'src'}" in str(error.value)
    assert f"runs the code of {checkout}" in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["/plain", "/with space", "it's", "a,b=c", "{x}", "[1]", "(a)", "$x", "#a", "\\end", "end\\", "a\\'b", "ü:~"],
)
def test_any_path_is_quoted_as_hydra_reads_it(text):
    (override,) = OverridesParser.create().parse_overrides([f"key={quoted(text)}"])
    assert override.value() == text
    assert not override.is_sweep_override()


def test_the_checkout_is_where_the_scripts_are():
    assert module.checkout() == Path(__file__).resolve().parents[2]
    assert all((module.checkout() / name).exists() for name in SCRIPTS)
