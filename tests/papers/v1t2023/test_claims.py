"""The script that prints three claims of the V1T paper: papers/v1t2023/claims.py."""

import numpy as np
import pandas as pd
import pytest

from papers.v1t2023 import claims as paper_claims
from tests.papers.scripts import run_script


def scores(*gains):
    """Scores of one case, with these gains for seeds 0, 1, ..."""
    rows = [
        {"claim": "behaviour", "case": "CNN", "arm": arm, "correlation": value, "seed": seed}
        for seed, gain in enumerate(gains)
        for arm, value in (("without", 0.25), ("with", 0.25 + gain))
    ]
    return pd.DataFrame(rows)


def test_the_summary_is_over_seeds():
    row = paper_claims.summary(scores(0.02, 0.06)).loc[("behaviour", "CNN")]
    assert row[["without", "with", "gain"]].tolist() == pytest.approx([0.25, 0.29, 0.04])
    assert row["spread"] == pytest.approx(0.04 / np.sqrt(2))  # two numbers 0.04 apart
    assert row["seeds won"] == "2 of 2"


def test_a_gain_of_rounding_errors_is_none():
    row = paper_claims.summary(scores(0.02, 5.6e-10, -0.02)).loc[("behaviour", "CNN")]
    assert row["seeds won"] == "1 of 3"


@pytest.mark.slow
def test_from_simulation_to_the_printed_table(tmp_path):
    arguments = ["--quick", "--seeds", "0", "--jobs", "1", "--max-epochs", "1"]
    arguments += ["--models", "CNN", "--output", tmp_path / "scores.csv"]
    done = run_script("v1t2023.claims", *arguments)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table.columns) == ["claim", "case", "arm", "correlation", "seed"]
    assert table["correlation"].between(-1, 1).all()
    everything, some = sorted(
        {case for case in table["case"] if "trials" in case}, key=lambda case: "50" in case
    )
    arms = {
        ("behaviour", "CNN, mean of 2 seeds"): ["without", "with"],
        # two members, so that they can be better than the best of them
        ("ensemble", "CNN, 2 of 3"): ["without", "best on test", "with"],
        ("transfer", some): ["without", "with"],
        ("transfer", everything): ["without", "with"],
    }
    assert some == "CNN, 50 trials"
    assert dict(table.groupby(["claim", "case"])["arm"].apply(list)) == arms
    values = table.set_index(["claim", "case", "arm"])["correlation"].sort_index()
    lines = done.stdout.splitlines()
    for claim, case in arms:
        without, gained = values[claim, case, "without"], values[claim, case, "with"]
        gain = gained - without
        (line,) = [line for line in lines if f" {case} " in line and line.endswith("of 1")]
        numbers = line.split(case)[1].split()
        expected = [f"{value:.3f}" for value in (without, gained, gain)]
        assert numbers == [*expected, "NaN", str(int(gain > 1e-6)), "of", "1"]
    best = values.loc["ensemble", "CNN, 2 of 3"]
    won = int(best["with"] - best["best on test"] > 1e-6)
    assert lines[-1] == (
        f"Ensemble of CNN, 2 of 3: above even the member best on the test set for {won} of 1"
    )
