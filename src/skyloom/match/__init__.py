"""Catalogue matching: friends of friends, one-to-one assignment, blends. Functions on arrays and tables."""

from skyloom.match.assign import Assignment, assign, mutual_nearest, nearest
from skyloom.match.blends import (
    blend_flags,
    group_labels,
    unrecognised_by_graph,
    unrecognised_by_groups,
    unrecognised_by_neighbours,
)
from skyloom.match.fof import fof_table, friends_of_friends
from skyloom.match.pairs import Pairs, close_pairs
from skyloom.match.points import Points, sky_points

__all__ = [
    "Assignment",
    "Pairs",
    "Points",
    "assign",
    "blend_flags",
    "close_pairs",
    "fof_table",
    "friends_of_friends",
    "group_labels",
    "mutual_nearest",
    "nearest",
    "sky_points",
    "unrecognised_by_graph",
    "unrecognised_by_groups",
    "unrecognised_by_neighbours",
]
