"""format=mirabest: FR I and FR II radio galaxies of MiraBest in one npz file, with its batches as folds."""

import re
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from skyloom.errors import InputError
from skyloom.step.labelled.format import LabelledSet, Member

KEYS = ("data", "labels", "filenames", "split", "label_names")
PIXEL_SCALE_ARCSEC = 1.8  # FIRST, as MiraBest cuts it
NAME = re.compile(r"\d+_(?P<ra>\d+\.?\d*)_(?P<dec>[+-]\d+\.?\d*)")
BATCH = re.compile(r"data_batch_(\d+)")


def mirabest(path: Path) -> LabelledSet:
    """Read MiraBest (Porter & Scaife 2023, RASTI 2, 293): ``data`` (N, S, S) and four arrays of facts.

    ``data_batch_k`` is part ``train`` and fold k, ``test_batch`` part ``test`` without a fold. File names hold the
    position in degrees: ``CLASS_RA_DEC.png``.
    """
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as data_file, np.load(data_file, allow_pickle=False) as file:
            if lost := [key for key in KEYS if key not in file.files]:
                raise InputError(
                    f"{path}: expected the arrays {', '.join(KEYS)}; {', '.join(lost)} are not there, only "
                    f"{', '.join(file.files)}; give the npz file of MiraBest"
                )
            data, labels, names, split, label_names = (file[key] for key in KEYS)
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected a whole npz file ({' '.join(str(error).split())[:160]})") from error
    if data.ndim != 3 or {len(labels), len(names), len(split)} != {len(data)}:
        raise InputError(f"{path}: expected data (N, S, S) and N labels, filenames and split, found {data.shape}, "
                         f"{len(labels)}, {len(names)} and {len(split)}; fetch the file again")  # fmt: skip
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(label_names):
        raise InputError(f"{path}: labels from {labels.min()} to {labels.max()} for {len(label_names)} label_names")
    members = []
    for i in np.argsort([Path(str(name)).name for name in names], kind="stable"):
        name = Path(str(names[i])).stem
        facts, batch = NAME.fullmatch(name), BATCH.fullmatch(str(split[i]))
        members.append(
            Member(
                name, (str(label_names[labels[i]]),), partial(data.__getitem__, int(i)),
                "train" if batch else "test" if split[i] == "test_batch" else None, int(batch[1]) if batch else None,
                ra_deg=float(facts["ra"]) if facts else None, dec_deg=float(facts["dec"]) if facts else None,
            )
        )  # fmt: skip
    return LabelledSet(members, pixel_scale_arcsec=PIXEL_SCALE_ARCSEC)
