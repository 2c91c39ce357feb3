"""The script that compares readouts on simulated mice: papers/minimodel2025/readouts.py."""

import pandas as pd
import pytest

from papers.minimodel2025 import readouts
from tests.papers.scripts import run_script


def test_the_summary_is_over_seeds_and_beside_the_gaussian_readout():
    scores = {"Gaussian": (0.2, 0.4), "factorised": (0.3, 0.3)}
    rows = [
        {"model": model, "readout": readout, "seed": seed, "score": value + offset}
        for model, offset in (("CNN", 0.0), ("full model", 0.1))
        for readout, values in scores.items()
        for seed, value in enumerate(values)
    ]
    table = readouts.summary(pd.DataFrame(rows))
    spread = 0.2 / 2**0.5  # two numbers 0.2 apart
    gaussian, factorised = (table.loc["full model", readout] for readout in scores)
    assert gaussian["score"].tolist() == pytest.approx([0.4, spread])
    assert gaussian["difference"].tolist() == [0, 0]
    assert factorised["score"].tolist() == pytest.approx([0.4, 0])
    assert factorised["difference"].tolist() == pytest.approx([0, spread])


@pytest.mark.slow
def test_from_simulation_to_the_printed_table():
    done = run_script("minimodel2025.readouts", "--quick", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("factorised") == 2  # of both cores
