import pytest

import v1tlearn as v1
from tests.trials.labelled import SIZES, recording


@pytest.fixture
def recordings():
    return {mouse: recording(mouse) for mouse in SIZES}


@pytest.fixture
def trials(recordings):
    return v1.Trials(recordings)


@pytest.fixture
def opened(trials, tmp_path):
    trials.to_netcdf(tmp_path / "r.nc")
    return v1.Trials.open(tmp_path / "r.nc")
