"""The layouts of Sensorium: a folder or a zip per mouse, a file per trial, images or movies."""

from v1tlearn.datasets.sensorium.read import read_sensorium
from v1tlearn.datasets.sensorium.read_movies import read_sensorium2023
from v1tlearn.datasets.sensorium.write import write_sensorium

__all__ = ["read_sensorium", "read_sensorium2023", "write_sensorium"]
