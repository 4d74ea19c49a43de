"""The documentation is true of the code: links lead somewhere, commands compose, examples run."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from skyloom.cli import _parse
from skyloom.run.notebook import compose

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "slurm" / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)
VERB = re.compile(r"\b(curate|train|extract|analyze)\.py\b([^|#;)\n]*)")
REPO_PATH = re.compile(r"`((?:conf|src|tests|docs|examples|benchmarks|slurm)/[\w./-]*)`")
FLAGS = {"--help", "--cfg", "job", "-m", "--multirun"}


def name(path):
    return str(path.relative_to(ROOT))


def blocks(path):
    """Language, title and text of each fenced block."""
    return [(language, title, text) for language, title, text in FENCE.findall(path.read_text())]


def titled():
    """Files that the pages tell a reader to write."""
    return {title: text for path in PAGES for _, title, text in blocks(path) if title}


def commands():
    """(page, verb, words) of every command of a script, in bash blocks and in the tables of coming-from.md."""
    found = []
    for path in PAGES:
        texts = [text for language, _, text in blocks(path) if language in ("bash", "sh")]
        if path.name == "coming-from.md":
            texts += re.findall(r"`(python (?:curate|train|extract|analyze)\.py [^`]*)`", path.read_text())
        for text in texts:
            for verb, rest in VERB.findall(text.replace("\\\n", " ")):
                found.append((name(path), verb, rest.strip()))
    return found


def distinct():
    """The same, each once: a page says again what another has said."""
    return list({(verb, rest): (page, verb, rest) for page, verb, rest in reversed(commands())}.values())[::-1]


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    """Our configuration, and the files that the pages tell a reader to add."""
    folder = tmp_path_factory.mktemp("docs") / "conf"
    shutil.copytree(ROOT / "conf", folder)
    for title, text in titled().items():
        if title.startswith("conf/"):
            target = folder.parent / title
            assert not (ROOT / title).exists(), f"{title} of the pages exists already; choose another example"
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
    return folder


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_and_paths_exist(path):
    outside = FENCE.sub("", path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", outside):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file) if file else path
        assert found.exists(), f"{target} does not exist"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", FENCE.sub("", found.read_text()), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, target
    for line in outside.splitlines():
        for target in REPO_PATH.findall(line):
            assert "not yet" in line or target in titled() or (ROOT / target).exists(), f"{target} does not exist"


def test_the_commands_are_found():
    assert len({page for page, _, _ in commands()}) >= 8
    assert {verb for _, verb, _ in commands()} == {"curate", "train", "extract", "analyze"}


@pytest.mark.parametrize(("page", "verb", "rest"), distinct())
def test_commands_compose(page, verb, rest, conf, monkeypatch):
    monkeypatch.setenv("SKYLOOM_CONF", str(conf))
    words = shlex.split(rest)
    if "--config-dir" in words:
        assert "my_survey" in rest
        return  # names a file of the reader's own
    overrides = [re.sub(r"\$\w+", "placeholder", word) for word in words if word not in FLAGS]
    sweep = "-m" in words or "--multirun" in words
    singles = []
    for override in OverridesParser.create().parse_overrides(overrides):
        assert sweep or not override.is_sweep_override(), f"{override.input_line} is a sweep and needs -m"
        value = next(override.sweep_string_iterator()) if override.is_sweep_override() else None
        singles.append(f"{override.get_key_element()}={value}" if value else override.input_line)
    compose(verb, singles)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_lookups_parse(path):
    for language, _, text in blocks(path):
        if language != "bash":
            continue
        for line in re.findall(r"^skyloom (.*)$", text, re.MULTILINE):
            _parse(shlex.split(line, comments=True))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_python_blocks_parse(path):
    for language, _, text in blocks(path):
        if language == "python":
            ast.parse(text)


def test_the_step_of_the_how_to_works(conf):
    """The three files of howto/add.md, written into a copy, pass their own test."""
    copy = conf.parent
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "make", copy / "tests" / "make")
    for title, text in titled().items():
        if not title.startswith("conf/"):
            (copy / title).parent.mkdir(parents=True, exist_ok=True)
            (copy / title).write_text(text)
    (copy / "pytest.ini").write_text("[pytest]\npythonpath = src tests\naddopts = -p no:cacheprovider\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_table_of_groups_lists_every_choice():
    text = (ROOT / "docs" / "howto" / "configure.md").read_text()
    rows = {
        row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in re.findall(r"^\| `(\w+)` \| (`.*?) \| `", text, re.M)
    }
    groups = {folder.name: {path.stem for path in folder.glob("*.yaml")} for folder in (ROOT / "conf").iterdir()}
    assert {name: choices for name, choices in groups.items() if choices} == {
        name: choices for name, choices in rows.items() if name in groups
    }
