"""A step that works differently for some surveys finds its function, and refuses options that it would not read."""

import inspect

import pytest

import skyloom
from skyloom.errors import ConfigError
from skyloom.run.notebook import compose
from skyloom.run.verbs import arguments_of, function_of


@pytest.mark.parametrize(
    ("step", "survey", "name"),
    [
        ("cutouts", "generic", "cutouts"),
        ("cutouts", "lotss", "cutouts"),
        ("cutouts", "roman", "tile_cutouts"),
        ("cutouts", "hsc", "tile_cutouts"),
        ("simulate", "lotss", "simulate"),
        ("simulate", "roman_lsst", "simulate_roman_lsst"),
        ("download", "roman", "download"),
    ],
)
def test_the_function_of_a_step_and_survey(step, survey, name):
    function = function_of("curate", compose("curate", [f"step={step}", f"survey={survey}"]))
    assert function.__name__ == name


def test_a_survey_that_a_step_does_not_know():
    with pytest.raises(ConfigError, match="step=simulate does not know survey=hsc; choose survey=lotss or survey=rom"):
        function_of("curate", compose("curate", ["step=simulate", "survey=hsc"]))


@pytest.mark.parametrize(
    ("survey", "options", "named"),
    [
        ("roman", {"strategy": "mask"}, "strategy"),
        ("roman", {"sources.size": "r"}, "sources"),
        ("lotss", {"match": "cutouts-1"}, "match"),
        ("generic", {"border_px": 3}, "border_px"),
    ],
)
def test_an_option_that_only_other_surveys_read_is_refused(survey, options, named, tmp_path):
    with pytest.raises(ConfigError, match=f"^{named} has no meaning for step=cutouts with survey={survey}; leave it"):
        skyloom.curate("cutouts", survey=survey, images="x", store=tmp_path, **options)


def test_options_that_are_read_pass_and_so_do_interpolated_defaults(tmp_path):
    plan = {"images": tmp_path, "store": tmp_path / "store", "dry_run": True}
    with pytest.raises(skyloom.errors.InputError, match="no tile of survey 'roman' found"):
        skyloom.curate("cutouts", survey="roman", border_px=0, window_px=64, **plan)
    with pytest.raises(skyloom.errors.InputError, match="no image of survey 'generic' found"):
        skyloom.curate("cutouts", strategy="sliding", window_px=64, overlap=0.2, **plan)


def test_a_step_that_is_not_made_of_pieces_refuses_jobs(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^step=merge is not made of pieces, so executor=slurm has nothing to do.*sbatch"
    ):
        skyloom.curate("merge", cutouts=["a", "b"], executor="slurm", store=tmp_path)


def test_a_number_of_processes_is_refused_where_there_are_no_pieces(tmp_path):
    with pytest.raises(ConfigError, match=r"^step=merge is not made of pieces, so executor.workers=4 has nothing"):
        skyloom.curate("merge", cutouts=["a", "b"], **{"executor.workers": 4}, store=tmp_path)
    with pytest.raises(ConfigError, match=r"^step=download .*executor.workers=4 .*or give workers=… in its place$"):
        skyloom.curate("download", survey="lotss", **{"executor.workers": 4}, store=tmp_path)
    for executor in ("processes", "serial"):  # the usual one, and one that changes nothing: the step's own error comes
        with pytest.raises(skyloom.errors.SkyloomError, match="cutouts"):
            skyloom.curate("merge", cutouts=["a", "b"], executor=executor, store=tmp_path)


def test_steps_in_pieces_get_the_executor_that_was_chosen():
    for step in ("cutouts", "integrity", "stats", "pack", "annotate"):
        words = [f"step={step}", "executor=serial", "survey=lotss" if step == "cutouts" else "survey=roman"]
        config = compose("curate", words)
        assert "executor" in inspect.signature(function_of("curate", config)).parameters, step
    config = compose("extract", ["product=features", "cutouts=x", "executor=processes", "executor.workers=3"])
    assert arguments_of(function_of("extract", config), config)["executor"].processes(1) == 3
