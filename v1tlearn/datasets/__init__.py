"""Readers, store, downloads and simulated recordings."""

from v1tlearn.datasets.cadena2019 import read_cadena2019
from v1tlearn.datasets.fetch import (
    fetch_franke2022,
    fetch_nat60k,
    fetch_natimg2800,
    fetch_sensorium2022,
)
from v1tlearn.datasets.nat60k import read_nat60k, read_text16
from v1tlearn.datasets.natimg2800 import read_natimg2800
from v1tlearn.datasets.schema import validate_recordings
from v1tlearn.datasets.sensorium import read_sensorium, write_sensorium
from v1tlearn.datasets.simulate import (
    make_coarse_recordings,
    make_movie_recordings,
    make_v1_recordings,
)
from v1tlearn.datasets.store import open_recordings, save_recordings

__all__ = [
    "fetch_franke2022",
    "fetch_nat60k",
    "fetch_natimg2800",
    "fetch_sensorium2022",
    "make_coarse_recordings",
    "make_movie_recordings",
    "make_v1_recordings",
    "open_recordings",
    "read_cadena2019",
    "read_nat60k",
    "read_natimg2800",
    "read_sensorium",
    "read_text16",
    "save_recordings",
    "validate_recordings",
    "write_sensorium",
]
