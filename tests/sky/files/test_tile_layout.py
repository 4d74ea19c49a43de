"""How the files of tiles are named: patterns that cannot work are refused by their key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from skyloom.errors import ConfigError
from skyloom.sky.survey.facts import Survey

CONF = Path(__file__).parents[3] / "conf" / "survey"


def read(file: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{file}.yaml").read_text())


def load(file: str, /, **changes: Any) -> Survey:
    return Survey.from_mapping(read(file) | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiles": None}, r"survey\.tiles is missing"),
        ({"tiles": {"name": "(", "image": "{tile}{band}"}}, "no regular expression"),
        ({"tiles": {"name": ".*", "image": "{tile}.fits"}}, "expected {band} in it"),
        ({"tiles": {"name": ".*", "image": "/a/{tile}_{band}.fits"}}, "relative"),
        ({"tiles": {"name": ".*", "image": "{tile}_{band}", "segmentation": "seg.fits"}}, "expected {tile} in it"),
        ({"tiles": {"name": ".*", "image": "{tile}_{band}", "remote": {"images": "x"}}}, "Did you mean 'image'"),
    ],
)
def test_layouts_that_cannot_work_are_refused_by_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load("roman", **changes)
    assert "\n" not in str(error.value)


def test_names_to_write_files_under() -> None:
    tiles = load("lsst").tiles
    assert tiles is not None
    assert tiles.file_name("image", tile="tract1_patch0_2", band="y") == "tract1_patch0_2_bandy.fits"
    assert tiles.file_name("truth") == "truth.parquet"
    with pytest.raises(ConfigError, match="segmentation is null"):
        tiles.file_name("segmentation")
