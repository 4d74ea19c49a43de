import json
import re
from pathlib import Path

import pytest

from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.report.compare.run_metrics import Measured, chosen_metric, final_value, measured
from skyloom.report.compare.runs import compare_runs
from skyloom.store import Build, builds, of_kind


@builds("cutouts", version=1)
def data(build: Build, *, window_px: int) -> None:
    """Counts only."""
    build.count(kept=10 * window_px)


@builds("model", version=1, inputs={"cutouts": of_kind("cutouts")})
def training(build: Build, *, cutouts, task: dict, trainer: dict, best: dict | None, scored: bool) -> None:
    """The loss falls faster with a higher rate, and rises again at the end."""
    rate = task["learning_rate"]
    rows = [f"{epoch},{epoch},{1 - rate * loss},{rate}" for epoch, loss in enumerate((0.5, 2.0, 1.0))]
    with build.write("metrics.csv") as path:
        path.write_text("epoch,step,train/loss,val/mask_ap\n" + "\n".join(rows) + "\n1,3,nan,\n")
    if best:
        build.note(best=best)


def train(store, *, rate=0.1, momentum=0.9, window_px=32, epochs=3, best=None):
    cutouts = data(window_px=window_px, store=store)
    task = {"name": "byol", "learning_rate": rate, "momentum": momentum}
    return training(cutouts=cutouts, task=task, trainer={"max_epochs": epochs}, best=best, scored=True, store=store)


def report(store, runs, **changes):
    return compare_runs(**{"runs": runs, "sort": None, "direction": "auto", "shown": None, "dpi": 50, "store": store,
                           **changes})  # fmt: skip


def numbers_of(made):
    return json.loads(made.file("numbers.json").read_text())


def job(folder: Path, *overrides: str, **result) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"verb": "train", "overrides": ["task=byol", *overrides]}))
    if result:
        (folder / "result.json").write_text(json.dumps({"kind": None, "id": None, "error": None, **result}))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def models(store):
    """By rate and momentum."""
    return {(r, m): train(store, rate=r, momentum=m) for r in (0.1, 0.4) for m in (0.9, 0.99)}


@pytest.fixture
def sweep(tmp_path, models):
    for number, ((rate, momentum), model) in enumerate(models.items()):
        job(tmp_path / "sweep" / str(number), f"task.learning_rate={rate}", f"task.momentum={momentum}",
            kind="model", id=model.id)  # fmt: skip
    return tmp_path / "sweep"


def test_a_line_per_run_with_the_deltas_of_configuration_as_columns(store, models):
    told = numbers_of(report(store, [m.id for m in models.values()], sort="train/loss"))
    assert {frozenset(row["facts"].items()): row["id"] for row in told["rows"]} == {
        frozenset({("task.learning_rate", str(r)), ("task.momentum", str(m))}): model.id
        for (r, m), model in models.items()
    }
    assert told["better"] == "low"
    values = [row["value"] for row in told["rows"]]
    assert values == pytest.approx([0.6, 0.6, 0.9, 0.9])
    assert [row["best"] for row in told["rows"]] == pytest.approx([0.2, 0.2, 0.8, 0.8])
    assert {row["best_epoch"] for row in told["rows"]} == {1.0}


def test_more_is_better_unless_it_is_a_loss(store, models):
    ids = [m.id for m in models.values()]
    of_score = numbers_of(report(store, ids))
    assert (of_score["metric"], of_score["better"]) == ("val/mask_ap", "high")
    assert [row["value"] for row in of_score["rows"]] == [0.4, 0.4, 0.1, 0.1]
    assert numbers_of(report(store, ids, direction="min"))["rows"][0]["value"] == 0.1


def test_a_folder_gives_the_same_report_as_its_ids(store, models, sweep):
    ids = [m.id for m in models.values()]
    made = report(store, str(sweep))
    assert made.id == report(store, ids[::-1]).id == report(store, [str(sweep), ids[0]]).id
    assert set(made.inputs) == {f"runs[{i}]" for i in range(4)}
    assert report(store, str(sweep.parent)).id == made.id, "a folder above stands for all sweeps in it"


def test_jobs_without_a_result_are_named_with_what_they_were_asked_for(store, sweep, capsys):
    job(sweep / "10", "task.learning_rate=9.0", error="the loss is not finite")
    job(sweep / "4", "task.learning_rate=0.7")
    made = report(store, str(sweep))
    assert made.counts["unfinished"] == 2
    assert numbers_of(made)["unfinished"] == [
        {"job": "4", "state": "started", "overrides": ["task.learning_rate=0.7"], "error": ""},
        {"job": "10", "state": "failed", "overrides": ["task.learning_rate=9.0"], "error": "the loss is not finite"},
    ]
    assert "job 10 failed: task.learning_rate=9.0 the loss is not finite" in capsys.readouterr().err
    assert "the loss is not finite" in made.file("report.html").read_text()


def test_a_job_that_has_finished_since_makes_another_report(store, models, sweep):
    job(sweep / "4", "task.learning_rate=0.7")
    before = report(store, str(sweep))
    (sweep / "4" / "result.json").write_text(json.dumps({"kind": "model", "id": train(store, rate=0.7).id}))
    after = report(store, str(sweep))
    assert after.id != before.id
    assert numbers_of(after)["rows"][0]["facts"]["task.learning_rate"] == "0.7"


def test_jobs_of_one_result_make_one_line(store, models, tmp_path, capsys):
    model = models[0.1, 0.9]
    for number, accelerator in enumerate(("cpu", "auto")):
        job(tmp_path / "s" / str(number), f"trainer.accelerator={accelerator}", kind="model", id=model.id)
    assert len(numbers_of(report(store, str(tmp_path / "s")))["rows"]) == 1
    assert "2 jobs have 1 results" in capsys.readouterr().err


def test_the_value_is_that_of_the_weights_that_were_kept(store):
    kept = train(store, rate=0.3, best={"metric": "val/mask_ap", "value": 0.7, "epoch": 1})
    (row,) = numbers_of(report(store, kept.id))["rows"]
    assert (row["value"], row["numbers"]["val/mask_ap"]["last"], row["facts"]) == (0.7, 0.3, {})
    assert final_value(kept, "val/mask_ap") == 0.7


def test_what_runs_were_made_from_is_compared_too(store):
    told = numbers_of(report(store, [train(store, window_px=px).id for px in (32, 64)]))
    assert [set(row["facts"]) for row in told["rows"]] == [{"cutouts.window_px"}] * 2


def test_results_of_other_kinds_have_their_counts(store):
    told = numbers_of(report(store, [data(window_px=px, store=store).id for px in (32, 64)], sort="counts/kept"))
    assert [(row["facts"]["window_px"], row["value"]) for row in told["rows"]] == [("64", 640), ("32", 320)]


def test_table_page_and_plots(store, models, capsys):
    made = report(store, [m.id for m in models.values()], shown=["train/loss"])
    table = made.table()
    assert table["val/mask_ap_last"].to_list() == table["value"].to_list()
    assert (table["train/loss_min"] <= table["train/loss_last"]).all()
    page = made.file("report.html").read_text()
    assert set(re.findall(r'data-file="([^"]+)"', page)) == {"curves.png", "parameters.png"}
    assert "python analyze.py report=compare runs=" in page
    heads = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("task.learning_rate"))
    assert heads.split() == ["task.learning_rate", "task.momentum", "run", "val/mask_ap", "best", "epoch", "train/loss"]


def test_runs_of_different_numbers_need_a_common_one():
    one, two = (Measured({name: [(0.0, 1.0)]}, {}) for name in ("a/loss", "b/loss"))
    with pytest.raises(InputError, match="no number in common"):
        chosen_metric([one, two], None)
    assert chosen_metric([one, two], "a/loss") == "a/loss"


def test_all_models_of_a_store(store, models):
    ids = {row["id"] for row in numbers_of(report(store, "all"))["rows"]}
    assert {m.id for m in models.values()} <= ids


def test_numbers_that_are_not_finite_do_not_count(store, models):
    assert len(measured(models[0.1, 0.9]).series["train/loss"]) == 3


def test_bad_input_is_said_in_one_line(store, models, tmp_path):
    model, cutouts = models[0.1, 0.9], data(window_px=32, store=store)
    with pytest.raises(ConfigError, match="cutouts and model cannot stand in one table"):
        report(store, [model.id, cutouts.id])
    with pytest.raises(ConfigError, match="at least one"):
        report(store, [])
    with pytest.raises(ConfigError, match="sort=val/loss: no run has this number; there are: train/loss"):
        report(store, [model.id], sort="val/loss")
    with pytest.raises(InputError, match="holds no model"):
        report(tmp_path / "empty", "all")
    with pytest.raises(InputError, match=r"holds no run\.json"):
        report(store, str(tmp_path))
    job(tmp_path / "s" / "0", error="no space")
    with pytest.raises(InputError, match="none of the 1 jobs has a result yet; job 0 failed: no space"):
        report(store, str(tmp_path / "s"))
    job(tmp_path / "s" / "1", kind="model", id="absent")
    with pytest.raises(StoreError, match=r"model absent of the run .* is not in the store"):
        report(store, str(tmp_path / "s"))
    (tmp_path / "s" / "1" / "result.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        report(store, str(tmp_path / "s"))
    with pytest.raises(ConfigError, match="has no number 'x'; it has: train/loss"):
        final_value(model, "x")
