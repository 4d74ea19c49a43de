"""Friends of friends equals FoFCatalogMatching (Mao 2021) where that package is installed."""

import numpy as np
import pytest
from astropy.table import Table

from skyloom.match import fof_table

peer = pytest.importorskip(
    "FoFCatalogMatching", reason="pip install FoFCatalogMatching (it needs a C compiler) compares with that package"
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lengths", [1.0, {2.0: 3, 1.0: None}, {2.0: 2, 0.8: 4}])
@pytest.mark.parametrize("seed", range(10))
def test_groups_are_the_same(seed, lengths):
    rng = np.random.default_rng(seed)
    dec = rng.uniform(-85, 85)
    catalogs = {}
    for name, n in (("truth", 300), ("det", 250), ("other", 20)):
        ra = rng.uniform(0, 0.012, n) / np.cos(np.radians(dec)) + 40
        catalogs[name] = Table({"ra": ra, "dec": dec + rng.uniform(0, 0.012, n)})
    theirs, ours = peer.match(catalogs, lengths), fof_table(catalogs, lengths)

    def groups(rows):
        members: dict[int, set] = {}
        for group, key, row in rows:
            members.setdefault(int(group), set()).add((str(key), int(row)))
        return {frozenset(group) for group in members.values()}

    found = groups(ours.rows())
    assert found == groups(zip(theirs["group_id"], theirs["catalog_key"], theirs["row_index"], strict=True))
    assert 1 < max(map(len, found)) < 570
