"""The layout of Sensorium 2022 and Franke 2022: a folder or a zip per mouse, a file per trial."""

from v1tlearn.datasets.sensorium.read import read_sensorium
from v1tlearn.datasets.sensorium.write import write_sensorium

__all__ = ["read_sensorium", "write_sensorium"]
