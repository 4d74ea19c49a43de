"""A job makes what is missing of its pieces, and tells what it could not make."""

import pickle

from make.pieces import fail_at_three, square
from skyloom.executor.job import Failure, PieceJob


def folder_of(tmp_path):
    folder = tmp_path / "store" / ".partial" / "x" / ".shards"  # where the pieces of tests/make/pieces.py look around
    folder.mkdir(parents=True)
    return folder


def test_finished_pieces_are_not_made_again_also_after_a_journey(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "b").write_text("there")
    job = pickle.loads(pickle.dumps(PieceJob(folder, {"a": 2, "b": 5}, square)))
    assert job() == []
    assert (folder / "a").read_text() == "4"
    assert (folder / "b").read_text() == "there"


def test_a_piece_that_breaks_does_not_stop_the_others_but_bad_input_does(tmp_path, capsys):
    folder = folder_of(tmp_path)
    failures = PieceJob(folder, {"a": 4, "b": 5, "c": 3, "d": 6}, fail_at_three)()
    assert failures == [
        Failure("a", "ZeroDivisionError", "four", final=False),
        Failure("c", "InputError", "number 3 cannot be squared", final=True),
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["b"]
    assert "Traceback" in capsys.readouterr().err


def test_a_preempted_job_goes_back_to_the_queue_as_it_is(tmp_path):
    job = PieceJob(folder_of(tmp_path), {"a": 2}, square)
    assert job.checkpoint().function is job
