"""The Slurm that all tests of this folder share; where none can be started they are skipped, with the reason."""

import pytest

from make.slurm import cluster, why_not


@pytest.fixture(scope="session")
def slurm():
    if reason := why_not():
        pytest.skip(reason)
    with cluster() as running:
        yield running
