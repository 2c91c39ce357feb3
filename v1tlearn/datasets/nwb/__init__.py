"""Readers of NWB files, the format of Neurodata Without Borders, in which DANDI keeps data."""

from v1tlearn.datasets.nwb.movies import read_nwb_movies
from v1tlearn.datasets.nwb.read import read_nwb

__all__ = ["read_nwb", "read_nwb_movies"]
