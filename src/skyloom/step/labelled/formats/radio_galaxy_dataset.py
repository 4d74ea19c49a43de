"""format=radio_galaxy_dataset: 2,158 radio galaxies of FIRST in four classes, read straight from the zip file."""

import re
import zipfile
from functools import partial
from pathlib import Path

from skyloom.errors import InputError
from skyloom.step.labelled.format import SPLIT_NAMES, LabelledSet, LeftOut, Member, unzipped

CLASSES = {"FRI": "0", "FRII": "1", "Compact": "2", "Bent": "3"}  # the number is the third field of a file's name
PIXEL_SCALE_ARCSEC = 1.8  # FIRST, Becker, White & Helfand 1995, ApJ 450, 559
FOLDERS = ("test", "valid", "train", "all")  # what lies in several belongs to the first of these
FILE = re.compile(r"(?:.*/)?(?P<folder>train|valid|test|all)/(?P<label>[^/]+)/(?P<name>[^/]+)\.png")
NAME = re.compile(r"(?P<ra>\d+\.?\d*)_(?P<dec>-?\d+\.?\d*)_(?P<number>\d)_.+")


def radio_galaxy_dataset(path: Path) -> LabelledSet:
    """Read the list of the FIRST zip of RadioGalaxyDataset (Griese et al. 2023, Data in Brief 47, 108974).

    The layout is ``galaxy_data/FOLDER/CLASS/RA_DEC_NUMBER_CATALOGUE.png``, with the position in degrees and the
    folders train, valid, test, and all, which repeats the other three.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{path}: expected the zip file galaxy_data_png.zip of RadioGalaxyDataset ({error}); fetch it again"
        ) from error
    members: dict[str, Member] = {}
    left_out = []
    found = [(FILE.fullmatch(entry), entry) for entry in sorted(archive.namelist()) if not entry.endswith("/")]
    for match, entry in sorted(found, key=lambda pair: FOLDERS.index(pair[0]["folder"]) if pair[0] else -1):
        if match is None:
            left_out.append(LeftOut(entry, "other file", "it does not lie in FOLDER/CLASS/*.png of the data set"))
            continue
        folder, label, name = match["folder"], match["label"], match["name"]
        facts = NAME.fullmatch(name)
        if label not in CLASSES:
            left_out.append(LeftOut(entry, "unknown class", f"the data set has {', '.join(CLASSES)}"))
        elif facts and facts["number"] != CLASSES[label]:
            left_out.append(LeftOut(entry, "contradicting label", "folder and name of the file say different classes"))
        elif name not in members:
            members[name] = Member(
                name, (label,), partial(unzipped, archive, entry), SPLIT_NAMES.get(folder),
                ra_deg=float(facts["ra"]) if facts else None, dec_deg=float(facts["dec"]) if facts else None,
            )  # fmt: skip
        elif folder == "all":
            left_out.append(LeftOut(entry, "copy", "the folder all repeats the images of train, valid and test"))
        else:
            left_out.append(LeftOut(entry, "repeated", "the same name is in test, valid or train, in this order"))
    return LabelledSet([members[name] for name in sorted(members)], left_out, PIXEL_SCALE_ARCSEC)
