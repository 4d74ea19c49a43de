"""Numbers of nested mappings by path."""

import math

from skyloom.store.flat import flat_numbers


def test_numbers_are_flattened():
    assert dict(flat_numbers({"a": {"b": 1, "c": None, "d": [1]}, "e": True})) == {"a/b": 1.0, "e": 1.0}


def test_what_is_no_number_has_no_path_and_numbers_stay_as_they_are():
    assert list(flat_numbers({"text": "1", "list": [1, 2], "none": None, "empty": {}})) == []
    found = dict(flat_numbers({"nan": math.nan, "flag": False, 3: {4: 5}}))
    assert math.isnan(found.pop("nan"))
    assert found == {"flag": False, "3/4": 5}
    assert isinstance(found["flag"], bool), "so that who wants measures can leave it out"
