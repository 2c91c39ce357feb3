"""A neuroscientist with zips on disk: one screen of code to a table and a figure."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "first_steps.py"
ENVIRONMENT = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def zips(tmp_path_factory):
    """Zips of mice in the layout of Sensorium; of one the responses to test images are withheld."""
    recordings = v1.make_v1_recordings(
        n_mice=3,
        n_neurons=[6, 4, 3],
        n_trials=60,
        n_test_images=5,
        n_repeats=4,
        image_shape=(16, 24),
        random_state=0,
    )
    withheld = recordings["C"]["responses"].where(recordings["C"]["tier"] != "test", 0)
    recordings["C"]["responses"] = withheld
    folder = tmp_path_factory.mktemp("sensorium")
    v1.write_sensorium(recordings, folder, zip=True)
    assert {path.suffix for path in folder.iterdir()} == {".zip"}
    return folder


@pytest.fixture(scope="module")
def results(zips, tmp_path_factory):
    """The folder in which the script ran, and what it printed."""
    folder = tmp_path_factory.mktemp("results")
    done = subprocess.run(
        [sys.executable, SCRIPT, zips, "1"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    return folder, done.stdout


def test_it_is_one_screen_of_code():
    code = SCRIPT.read_text().split('"""', 2)[2]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 100


@pytest.mark.filterwarnings("ignore:no neuron of mice")
@pytest.mark.slow
def test_the_table_is_that_of_the_metrics(results, zips):
    folder, printed = results
    table = pd.read_csv(folder / "first_steps.csv", index_col=0)
    assert list(table.index) == ["LN", "CNN"]
    trials = v1.Trials(v1.read_sensorium(zips))
    train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
    model = v1.LNRegressor(max_epochs=1, random_state=0).fit(train, validation=validation)
    predicted = model.predict(test)
    correlation = v1.metrics.single_trial_correlation
    shares = table.pop("share_of_oracle")  # the zips of simulated mice bring the true rates
    reached = correlation(test.responses, predicted)
    ceiling = correlation(test.responses, test.expected_responses)
    assert shares["LN"] == pytest.approx(reached / ceiling, abs=1e-3)
    assert {"single_trial_correlation", "average_correlation", "feve"} <= set(table)
    for name in table:
        expected = getattr(v1.metrics, name)(test.responses, predicted)
        assert table.loc["LN", name] == pytest.approx(expected, abs=1e-3), name
    assert all(name in printed for name in table)


@pytest.mark.slow
def test_the_figure_shows_both_models_in_their_colours(results):
    image = matplotlib.image.imread(results[0] / "first_steps.png")[..., :3]
    assert np.ptp(image) > 0.5
    for name in ("LN", "CNN"):
        color = matplotlib.colors.to_rgb(v1.inspection.model_color(name))
        assert (np.abs(image - color).max(axis=-1) < 0.02).sum() > 50, name


@pytest.mark.slow
def test_without_a_number_it_trains_longer(zips, tmp_path):
    with subprocess.Popen(
        [sys.executable, SCRIPT, zips], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE
    ) as running:
        shown = b""
        while b"epoch" not in shown and (part := running.stderr.read1()):
            shown += part
        running.kill()
    assert b"0/100" in shown
