"""The script for recordings of macaque V1: papers/minimodel2025/monkey.py."""

import numpy as np
import pytest

import v1tlearn as v1
from papers.minimodel2025 import monkey
from tests.papers.scripts import run_script


def test_the_simulated_file_has_the_layout_of_the_recordings(tmp_path):
    trials = v1.Trials(v1.read_cadena2019(monkey.simulate(tmp_path / "file.npz"), crop=2))
    assert trials.get("stimuli", "macaque").shape == (160, 1, 16, 16)
    tiers, counts = np.unique(trials.tiers, return_counts=True)
    assert dict(zip(tiers.tolist(), counts.tolist(), strict=True)) == {
        "test": 80,
        "train": 72,
        "validation": 8,
    }
    test = trials.sel(tier="test").responses.get("macaque")
    assert np.isnan(test).sum(axis=0).tolist() == [0, 20] * 3  # every other one lacks a repeat
    assert 0 < np.isnan(trials.sel(tier="train").responses.get("macaque")).mean() < 0.2


@pytest.mark.slow
def test_from_the_file_to_the_printed_table():
    done = run_script("minimodel2025.monkey", "--quick", strict=True)
    assert done.returncode == 0, done.stderr
    assert "values mean nothing" in done.stdout
    assert "minimodels, 0.004" in done.stdout
