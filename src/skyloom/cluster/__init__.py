"""k-means, hierarchies of clusters and balanced selection on feature rows."""

from skyloom.cluster.assign import assign
from skyloom.cluster.hierarchy import hierarchical_kmeans
from skyloom.cluster.kmeans import KMeansResult, kmeans
from skyloom.cluster.levels import Level, LevelResult
from skyloom.cluster.sampling import (
    flat_selection,
    image_assignment,
    random_selection,
    sample_hierarchy,
    top_level_selection,
    water_fill,
)

__all__ = [
    "KMeansResult",
    "Level",
    "LevelResult",
    "assign",
    "flat_selection",
    "hierarchical_kmeans",
    "image_assignment",
    "kmeans",
    "random_selection",
    "sample_hierarchy",
    "top_level_selection",
    "water_fill",
]
