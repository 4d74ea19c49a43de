"""Every option of every group composes, is commented, and is read by somebody; scripts answer fast."""

import importlib
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from skyloom.run import notebook
from skyloom.run.verbs import BY_INPUT, function_of

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
MAIN_GROUP = {"curate": "step", "extract": "product", "analyze": "report", "train": "task"}
COMMON = {"seed", "name", "dry_run", "paths", "experiment"}


@cache
def composed(verb, *overrides):
    return notebook.compose(verb, [*overrides])


def choices(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


VERB_CHOICES = [(verb, group, choice) for verb, group in MAIN_GROUP.items() for choice in choices(group)]
# Steps whose function, or whose options, depend on the survey: (step, survey).
OF_A_SURVEY = [("cutouts", "roman"), ("cutouts", "lsst"), ("cutouts", "hsc")]
OF_A_SURVEY += [
    (step, survey)
    for path in sorted((CONF / "survey_step").glob("*.yaml"))
    for survey, _, step in [path.stem.rpartition("_")]
]


@pytest.mark.parametrize(("step", "survey"), OF_A_SURVEY)
def test_every_option_of_a_survey_and_step_is_read(step, survey):
    config = composed("curate", f"step={step}", f"survey={survey}")
    function = function_of("curate", config)
    wanted = set(inspect.signature(function).parameters) - {"store", "name", "dry_run", "image_roots"}
    assert wanted <= {str(key) for key in config}, f"no configuration for {wanted - {str(key) for key in config}}"
    own = CONF / "survey_step" / f"{survey}_{step}.yaml"
    keys = set(yaml.safe_load(own.read_text())) if own.exists() else set()
    assert keys <= wanted, f"nothing reads {keys - wanted}"


@pytest.mark.parametrize(("verb", "group", "choice"), VERB_CHOICES)
def test_every_key_of_a_choice_is_read_by_its_function(verb, group, choice):
    config = composed(verb, f"{group}={choice}", *(["survey=lotss"] if choice == "simulate" else []))
    function = function_of(verb, config)
    wanted = set(inspect.signature(function).parameters) - {"store", "name", "dry_run", "image_roots", "runs"}
    given = {str(key) for key in config}
    assert wanted <= given, f"no configuration for {wanted - given}"
    if verb != "train":
        for places in BY_INPUT.get(choice, {}).values():  # options of all functions of a report stand in one file
            module, _, name = places.partition(":")
            wanted |= set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
        keys = set(yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())) - {group, "defaults"}
        for step, survey in OF_A_SURVEY:  # options of the function for surveys with bands stand in the same file
            if (group, choice) == ("step", step):
                own = function_of(verb, composed(verb, f"step={step}", f"survey={survey}"))
                wanted |= set(inspect.signature(own).parameters)
        assert keys <= wanted, f"nothing reads {keys - wanted}"


@pytest.mark.parametrize(
    ("verb", "group"),
    [
        ("extract", "backbone"),
        ("extract", "transform"),
        ("extract", "executor"),
        ("curate", "executor"),
        ("curate", "survey"),
        ("train", "backbone"),
        ("train", "trainer"),
        ("train", "logger"),
        ("train", "hparams_search"),
        ("train", "datamodule"),
    ],
)
def test_every_option_of_every_group_composes(verb, group):
    first = {"extract": "product=features", "curate": "step=cutouts", "train": "task=byol"}[verb]
    assert choices(group)
    for choice in choices(group):
        composed(verb, first, f"{group}={choice}")


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_every_key_carries_a_comment(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#"), "the first line says what the file is for"
    for number, line in enumerate(lines):
        if not re.match(r"\s*-?\s*[A-Za-z_]+:", line) or "#" in line:
            continue
        key = line.strip().rstrip(":").split(":")[0]
        value = line.split(":", 1)[1].strip()
        if value and key in {"step", "product", "report", "name"} and value == path.stem:
            continue  # the file's own name
        if not value or path.name in {"curate.yaml", "train.yaml", "extract.yaml", "analyze.yaml"}:
            continue  # a heading, or a line of the sentence that the defaults list is
        assert lines[number - 1].strip().startswith("#"), f"line {number + 1} has no comment: {line}"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_no_machine_or_person_in_a_configuration(path):
    text = path.read_text()
    assert not re.search(r"(/home/|/mnt/|/work/|/u/|[a-z0-9]@[a-z][\w-]*\.[a-z])", text)


@pytest.mark.parametrize("script", ["curate", "train", "extract", "analyze"])
@pytest.mark.parametrize("flag", ["--help", "--cfg"])
def test_scripts_answer_quickly(script, flag, tmp_path):
    group = MAIN_GROUP[script]
    words = [sys.executable, "-X", "importtime", f"{script}.py", f"{group}={choices(group)[0]}", flag]
    if flag == "--cfg":
        words.append("job")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "seed: 0" in done.stdout  # seconds are not asserted: machines differ; docs/measurements.md has the figure
    assert re.search(r"\| +hydra$", done.stderr, re.M), "imports are told"
    assert not re.search(r"\| +(torch|lightning|astropy|polars)$", done.stderr, re.M), "heavy import before any work"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["curate.py", "step=cutuots"], ["cutuots", "cutouts", "subsample"]),
        (["curate.py"], ["step", "cutouts"]),
        (["train.py", "backbone=resnet81"], ["resnet18", "dinov2_s"]),
        (["curate.py", "step=cutouts", "images=x", "window=3"], ["window"]),
        (["curate.py", "step=cutouts", "images=x.fits", "strategy=slidng"], ["slidng", "sliding"]),
    ],
)
def test_a_misspelt_option_lists_the_choices_on_one_line(words, expected, tmp_path):
    done = subprocess.run(
        [sys.executable, *words, f"paths.runs={tmp_path}/runs", f"paths.store={tmp_path}/store"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in expected), lines[0]
