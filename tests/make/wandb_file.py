"""Reads the file of an offline run of W&B back: the log format of LevelDB, with a protocol buffer in each record.

Format: https://github.com/google/leveldb/blob/main/doc/log_format.md, after a header of 7 bytes.
"""

import json
from pathlib import Path
from types import SimpleNamespace

HEADER, BLOCK, FRAME = 7, 32768, 7
FULL, FIRST, LAST = 1, 2, 4


def payloads(path: Path):
    data = path.read_bytes()
    assert data[:4] == b":W&B", "not a file of W&B"
    at, parts = HEADER, []
    while at < len(data):
        room = BLOCK - at % BLOCK
        if room < FRAME:  # the rest of a block, too small for a frame
            at += room
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts = [*([] if kind in (FULL, FIRST) else parts), data[at + FRAME : at + FRAME + size]]
        at += FRAME + size
        if kind in (FULL, LAST):
            yield b"".join(parts)


def read_run(folder: Path) -> SimpleNamespace:
    """A run: ``run`` (its header), ``config``, ``history`` (rows), ``summary``, ``made`` and ``used`` artifacts."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    found = SimpleNamespace(run=None, config={}, history=[], summary={}, made={}, used={}, exit_code=None)
    for payload in payloads(file):
        record = Record()
        record.ParseFromString(payload)
        match record.WhichOneof("record_type"):
            case "run":
                found.run = record.run
                found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "config":
                found.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            case "history":
                found.history.append(
                    {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                )
            case "summary":
                found.summary |= {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
                }
            case "artifact":
                one = record.artifact
                entry = SimpleNamespace(
                    type=one.type,
                    metadata=json.loads(one.metadata),
                    references=[content.ref for content in one.manifest.contents],
                )
                (found.used if one.use_after_commit else found.made)[one.name] = entry
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def segments(runs: Path, id: str):
    """Folders of the offline runs with an id, the oldest first."""
    return sorted((runs / "loggers" / id / "wandb").glob("offline-run-*"))
