"""A link that is written once may be made for each of some values."""

import pytest

from skyloom.errors import ConfigError
from skyloom.run.links import read_links

LINKS = {
    "cutouts": {"curate": "cutouts", "images": "x"},
    "selection": {"curate": "subsample", "each": {"method": ["random", "flat"]}, "method": "{method}"},
    "model": {"train": "byol", "each": {"method": ["random", "flat"], "seed": [0, 1]}, "seed": "{seed}",
              "name": "by {method} {seed}", "cutouts": {"from": "cutouts"}, "selection": {"from": "selection"}},
    "report": {"analyze": "compare", "probes": [{"all": "model"}, "other"]},
}  # fmt: skip


def test_a_link_is_made_for_each_combination_and_reads_its_own_kind():
    links = {link.name: link for link in read_links(LINKS)}
    assert list(links) == [
        "cutouts", "selection-random", "selection-flat", "model-random-0", "model-random-1", "model-flat-0",
        "model-flat-1", "report",
    ]  # fmt: skip
    assert links["selection-flat"].options == {"method": "flat"}
    model = links["model-flat-1"]
    assert model.options["seed"] == 1, "a value of its own keeps its type"
    assert model.options["name"] == "by flat 1"
    assert model.sources == ["cutouts", "selection-flat"]
    assert links["report"].sources == ["model-random-0", "model-random-1", "model-flat-0", "model-flat-1"]
    assert links["report"].options["probes"][-1] == "other"
    assert len(links["report"].options["probes"]) == 5, "one list, not a list within a list"


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ({"a": {"curate": "part", "each": [1, 2]}}, "link 'a': each="),
        ({"a": {"curate": "part", "each": {"seed": []}}}, "link 'a': each="),
        ({**LINKS, "late": {"curate": "part", "split": {"from": "model"}}}, "link 'late' reads .* 4 fit"),
        ({"a": {"curate": "part", "split": {"all": "b"}}}, "link 'a' can only read links above it"),
    ],
)
def test_what_cannot_be_meant_is_refused(links, message):
    with pytest.raises(ConfigError, match=message):
        read_links(links)
