"""Readers, store, downloads and simulated recordings."""

from v1tlearn.datasets.cadena2019 import read_cadena2019
from v1tlearn.datasets.fetch import (
    fetch_franke2022,
    fetch_nat60k,
    fetch_natimg2800,
    fetch_sensorium2022,
)
from v1tlearn.datasets.fetch_movies import fetch_mahuas2020, fetch_sensorium2023
from v1tlearn.datasets.nat60k import read_nat60k, read_text16
from v1tlearn.datasets.natimg2800 import read_natimg2800
from v1tlearn.datasets.nwb import read_nwb, read_nwb_movies
from v1tlearn.datasets.onken2016 import read_onken2016
from v1tlearn.datasets.outlines import receptive_fields_from_outlines
from v1tlearn.datasets.receptive_fields import with_receptive_fields
from v1tlearn.datasets.schema import validate_recordings
from v1tlearn.datasets.sensorium import read_sensorium, read_sensorium2023, write_sensorium
from v1tlearn.datasets.simulate import (
    make_coarse_recordings,
    make_movie_recordings,
    make_v1_recordings,
)
from v1tlearn.datasets.spike_times import bin_spikes
from v1tlearn.datasets.stimulus_spikes import read_stimulus_spikes
from v1tlearn.datasets.store import open_recordings, save_recordings

__all__ = [
    "bin_spikes",
    "fetch_franke2022",
    "fetch_mahuas2020",
    "fetch_nat60k",
    "fetch_natimg2800",
    "fetch_sensorium2022",
    "fetch_sensorium2023",
    "make_coarse_recordings",
    "make_movie_recordings",
    "make_v1_recordings",
    "open_recordings",
    "read_cadena2019",
    "read_nat60k",
    "read_natimg2800",
    "read_nwb",
    "read_nwb_movies",
    "read_onken2016",
    "read_sensorium",
    "read_sensorium2023",
    "read_stimulus_spikes",
    "read_text16",
    "receptive_fields_from_outlines",
    "save_recordings",
    "validate_recordings",
    "with_receptive_fields",
    "write_sensorium",
]
