"""metrics.csv is append-only, grows columns, and can be cut back to a checkpoint."""

import csv
import threading

import pytest
import torch

from skyloom.trainer.record import CsvRecord


def log(record, step, **metrics):
    record.log_metrics({"epoch": 0, **metrics}, step=step)
    record.save()


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_have_epoch_step_and_a_column_per_metric(tmp_path):
    record = CsvRecord(tmp_path / "metrics.csv")
    log(record, 0, loss=0.5)
    log(record, 1, loss=0.25)
    assert record.path.read_text() == "epoch,step,loss\n0,0,0.5\n0,1,0.25\n"
    assert record.rows == 2


def test_a_new_metric_gets_a_column_at_the_end(tmp_path):
    record = CsvRecord(tmp_path / "metrics.csv")
    log(record, 0, loss=0.5)
    log(record, 1, accuracy=1.0)
    assert record.path.read_text() == "epoch,step,loss,accuracy\n0,0,0.5,\n0,1,,1\n"
    assert list(tmp_path.iterdir()) == [record.path]


def test_single_precision_reads_back_exactly(tmp_path):
    record = CsvRecord(tmp_path / "metrics.csv")
    values = torch.rand(50, generator=torch.Generator().manual_seed(0)).tolist()
    for step, value in enumerate(values):
        log(record, step, loss=value)
    back = torch.tensor([float(row["loss"]) for row in table(record.path)])
    assert torch.equal(back, torch.tensor(values))


def test_it_goes_on_with_the_columns_of_before(tmp_path):
    log(CsvRecord(tmp_path / "metrics.csv"), 0, loss=0.5, rate=0.1)
    again = CsvRecord(tmp_path / "metrics.csv")
    log(again, 1, rate=0.2)
    assert again.rows == 2
    assert table(again.path)[1] == {"epoch": "0", "step": "1", "loss": "", "rate": "0.2"}


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_cut_and_repeat_gives_the_same_file(tmp_path, keep):
    def write(record, first):
        for step in range(first, 4):
            log(record, step, **({"loss": 1.0 / (step + 1)} if step < 3 else {"late": 2.0}))

    whole = CsvRecord(tmp_path / "whole.csv")
    write(whole, 0)
    torn = CsvRecord(tmp_path / "torn.csv")
    write(torn, 0)
    with torn.path.open("a") as file:
        file.write("0,9")  # the process died in the middle of a line
    again = CsvRecord(torn.path)
    again.cut(keep)
    assert len(table(again.path) if keep else []) == keep
    write(again, keep)
    assert again.path.read_bytes() == whole.path.read_bytes()


def test_readers_see_whole_tables_while_columns_grow(tmp_path):
    record = CsvRecord(tmp_path / "metrics.csv")
    log(record, 0, loss=0.5)
    torn = []
    done = threading.Event()

    def read():
        while not done.is_set():
            if not record.path.read_text().startswith("epoch,step,loss"):
                torn.append(record.path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 60):
        log(record, step, **{f"metric{step}": 1.0})
    done.set()
    reader.join()
    assert torn == []


def test_last_is_the_last_value_of_each_metric(tmp_path):
    record = CsvRecord(tmp_path / "metrics.csv")
    assert record.last() == {}
    log(record, 0, loss=0.5, rate=0.1)
    log(record, 1, loss=0.25)
    log(record, 2, loss=float("nan"))
    assert record.last() == {"loss": 0.25, "rate": 0.1}
