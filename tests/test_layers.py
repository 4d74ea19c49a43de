"""Imports run one way; this test walks them as DESIGN draws them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "skyloom"

# From the bottom up. A package may import from lower rows and from itself; packages of one row do not know each other.
LAYERS = [
    {"errors", "progress"},
    {"store", "sky"},
    # executor: implements the store's protocol with a cluster's job arrays, so that the store need not know of clusters
    {"backbone", "transform", "metric", "cluster", "match", "executor"},
    {"detector"},
    {"task", "datamodule"},
    {"step", "product", "report", "trainer", "probe"},
    {"run", "cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Whoever imports these must be one of those.
ONLY_IN = {
    "hydra": {"run"},
    "omegaconf": {"run"},
    "lightning": {"task", "datamodule", "trainer", "probe"},
    "pytorch_lightning": set(),
    "detectron2": {"detector"},
    "submitit": {"run", "executor"},
}
WITHOUT_TORCH = {"errors", "progress", "store", "sky", "match", "executor", "run", "cli"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the package in full"
            yield node.module
            if node.module == "skyloom":
                yield from (f"skyloom.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    part = part_of(path)
    if part == "__init__":
        return  # skyloom/__init__.py only forwards to run and store when asked
    assert part in LEVEL, f"{part} has no place in the layers; add it to LAYERS"
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "skyloom" and rest:
            other = rest.split(".")[0]
            assert other == part or LEVEL[other] < LEVEL[part], f"{part} imports {other}, which is not below it"
        if top in ONLY_IN:
            assert part in ONLY_IN[top], f"only {ONLY_IN[top] or 'nobody'} may import {top}"
        if top == "torch":
            assert part not in WITHOUT_TORCH, f"{part} must work without torch"


def test_the_layers_would_catch_a_wrong_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from skyloom.run.verbs import call\nimport hydra\n")
    assert list(imports_of(bad)) == ["skyloom.run.verbs", "hydra"]
    assert LEVEL["run"] > LEVEL["sky"]


def test_groups_packages_and_tests_carry_one_name():
    for group in ("step", "product", "report", "task", "datamodule"):
        for choice in (ROOT / "conf" / group).glob("*.yaml"):
            module, package = PACKAGE / group / f"{choice.stem}.py", PACKAGE / group / choice.stem / "__init__.py"
            assert module.exists() != package.exists(), f"conf/{group}/{choice.name} has no {module.relative_to(ROOT)}"
            test = ROOT / "tests" / group / f"test_{choice.stem}.py"
            assert test.exists(), f"conf/{group}/{choice.name} has no {test.relative_to(ROOT)}"
