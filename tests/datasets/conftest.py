import pytest

from tests.datasets.sensorium_files import GRAY, write_by_hand


@pytest.fixture
def mouse(tmp_path):
    root = tmp_path / GRAY
    write_by_hand(root)
    return root
