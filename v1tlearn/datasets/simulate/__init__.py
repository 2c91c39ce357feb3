"""Simulated recordings of mouse V1 with known truth."""

from v1tlearn.datasets.simulate.coarse import make_coarse_recordings
from v1tlearn.datasets.simulate.movies import make_movie_recordings
from v1tlearn.datasets.simulate.recordings import make_v1_recordings

__all__ = ["make_coarse_recordings", "make_movie_recordings", "make_v1_recordings"]
