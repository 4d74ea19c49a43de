"""Recipes: what is missing is made, what fails is named, and the shipped ones fit the steps that there are."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

import skyloom
from make.forked_script import call, running
from skyloom.errors import ConfigError, SkyloomError
from skyloom.run.links import check_links, executor_options, plain_recipe, read_links
from skyloom.run.notebook import configure
from skyloom.run.recipe import run_recipe
from skyloom.run.verbs import missing_keys
from skyloom.store import Store

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))

TINY = {
    "survey": {"curate": "simulate", "survey": "lotss", "mosaics": 1, "size_px": 200},
    "cutouts": {"curate": "cutouts", "survey": "lotss", "images": {"from": "survey"},
                "window_px": "${recipe.window_px}"},
    "features": {"extract": "features", "cutouts": {"from": "cutouts"}, "backbone": "resnet18",
                 "backbone.model": "test_resnet", "backbone.image_size_px": 32},
    "clusters": {"curate": "cluster", "features": {"from": "features"},
                 "levels": [{"clusters": 4, "sample_size": 3, "resamples": 1}]},
    "selection": {"curate": "subsample", "clusters": {"from": "clusters"}, "target_size": 8},
}  # fmt: skip


def run(folder, links=TINY, window_px=32, **options):
    config = configure("curate", {"paths.store": str(folder / "store"), "paths.runs": str(folder / "runs"), **options})
    OmegaConf.set_struct(config, False)
    config.recipe = {"name": "tiny", "window_px": window_px, "links": links}
    return run_recipe(config)


def states(chain):
    return [row.state for row in chain.rows]


def test_a_chain_is_made_once_and_a_change_makes_only_what_follows_from_it(tmp_path, capsys):
    plan = run(tmp_path, dry_run=True)
    assert states(plan) == ["would be made", *(f"would be made after {name}" for name in list(TINY)[:-1])]
    assert plan.id == ""
    assert not (tmp_path / "store").exists()

    first = run(tmp_path, name="picked")
    assert states(first) == ["made"] * 5
    store = Store(tmp_path / "store")
    assert store.open("picked").id == first.id
    assert first.artifacts["selection"].inputs["clusters"].id == first.artifacts["clusters"].id
    assert first.artifacts["cutouts"].parameters["window_px"] == 32

    again = run(tmp_path)
    assert states(again) == ["there"] * 5
    assert [row.id for row in again.rows] == [row.id for row in first.rows]
    assert run(tmp_path, dry_run=True).id == first.id

    more = TINY | {"selection": TINY["selection"] | {"target_size": 9}}
    assert states(run(tmp_path, more)) == ["there"] * 4 + ["made"]
    assert states(run(tmp_path, window_px=40, dry_run=True))[:3] == [
        "there", "would be made", "would be made after cutouts",
    ]  # fmt: skip
    table = capsys.readouterr().err
    assert f"selection  curate subsample  {first.id}  made" in table


def test_the_failing_link_is_named_and_the_rest_not_reached(tmp_path, capsys):
    links = TINY | {"clusters": TINY["clusters"] | {"levels": [{"clusters": 9999, "sample_size": 3, "resamples": 1}]}}
    with pytest.raises(SkyloomError, match=r"link 'clusters' of the recipe tiny failed: .*9999"):
        run(tmp_path, links)
    table = capsys.readouterr().err.splitlines()
    found = {line.split()[0]: line for line in table if line.split()[1:2] in (["curate"], ["extract"])}
    assert "made" in found["features"]
    assert "failed" in found["clusters"]
    assert "not reached" in found["selection"]
    assert states(run(tmp_path)) == ["there"] * 3 + ["made"] * 2


@pytest.mark.parametrize(
    ("link", "named"),
    [
        ({"curate": "subsample", "clusters": {"from": "later"}, "target_size": 3}, "from=later"),
        ({"curate": "subsample", "clusters": {"from": "clusters"}, "target_size": 0}, "target_size=0"),
        ({"curate": "subsample", "clusters": {"from": "clusters"}, "target_siz": 3}, "Did you mean 'target_size'"),
        ({"curate": "subsample", "clusters": {"from": "clusters"}}, "target_size must be given"),
        ({"curate": "subsampl", "clusters": {"from": "clusters"}}, "subsampl"),
        ({"clusters": {"from": "clusters"}}, "no verb"),
        ({"curate": "subsample", "train": "byol"}, "curate and train"),
    ],
)
def test_a_mistake_in_the_last_link_is_found_before_the_first_one_works(tmp_path, link, named):
    with pytest.raises(ConfigError) as error:
        run(tmp_path, TINY | {"selection": link})
    assert "link 'selection'" in str(error.value)
    assert named in str(error.value)
    assert not (tmp_path / "store").exists()


def test_a_defect_keeps_its_traceback_and_names_the_link(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("skyloom.step.subsample.sample_hierarchy", broken)
    with pytest.raises(ZeroDivisionError) as error:
        run(tmp_path)
    assert "link 'selection'" in error.value.__notes__[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_fits_the_steps(name):
    asked = missing_keys(configure("curate", {"recipe": name}).recipe)  # what only its user knows, such as a file
    if asked:
        with pytest.raises(ConfigError, match=f"must be given: recipe.{sorted(asked)[0]}="):
            plain_recipe(configure("curate", {"recipe": name}))
    recipe = plain_recipe(configure("curate", {"recipe": name, **{f"recipe.{key}": "x" for key in asked}}))
    assert recipe["name"] == name
    check_links(read_links(recipe["links"]), {"seed": 0}, [])


def test_the_script_takes_a_recipe_in_the_place_of_a_step(tmp_path):
    words = ["recipe=lotss_demo", "recipe.mosaics=1", "~recipe.links.report", "~recipe.links.model",
             "~recipe.links.selection", "~recipe.links.clusters", "~recipe.links.features",
             "~recipe.links.features_dinov2", "recipe.links.survey.size_px=300",
             f"paths.store={tmp_path}/store", f"paths.runs={tmp_path}/runs"]  # fmt: skip
    done = call(running(), "curate.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Store(tmp_path / "store").open(done.stdout.strip()).kind == "cutouts", "the id alone, of the last link"
    wrong = call(running(), "curate.py", *words, "step=cluster", cwd=tmp_path)
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1


def test_the_notebook_function_reports_each_link(tmp_path):
    seen = []
    chain = skyloom.recipe(
        "lotss_demo", store=tmp_path, dry_run=True, on_link=lambda link, artifact: seen.append(link.name)
    )
    assert seen == []
    assert chain.rows[0].state == "would be made"


def test_the_executor_of_a_recipe_is_that_of_its_links_but_for_those_that_choose(tmp_path):
    config = configure("curate", {"executor": "processes", "executor.workers": 3, "recipe": "lotss_small"})
    common = executor_options(config)
    assert common == {"executor": "processes", "executor.workers": 3}
    links = {link.name: link for link in read_links(TINY | {"own": TINY["features"] | {"executor": "serial"}})}
    results = dict.fromkeys(["cutouts", "survey", "features", "clusters"], "x")
    links["cutouts"].options["window_px"] = 32
    assert links["cutouts"].configuration(common, results, []).executor.workers == 3
    assert links["own"].configuration(common, results, []).executor == {"name": "serial"}
    report = read_links({"page": {"analyze": "selection", "selection": "x"}})[0]
    assert "executor" not in report.configuration(common, {}, [])


def test_a_link_with_an_executor_of_its_own_runs_and_makes_the_same(tmp_path):
    links = {
        "survey": TINY["survey"] | {"mosaics": 2, "size_px": 100},
        "cutouts": TINY["cutouts"] | {"executor": "processes", "executor.workers": 2},
    }
    plain, made = (
        run(tmp_path / name, dict(links, cutouts=cutouts), executor="serial").artifacts["cutouts"]
        for name, cutouts in (("plain", TINY["cutouts"]), ("own", links["cutouts"]))
    )
    assert [one.history["settings"]["executor"] for one in (plain, made)] == ["serial", "2 processes"]
    assert made.id == plain.id
    assert made.manifest["files"] == plain.manifest["files"]
