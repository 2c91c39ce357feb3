"""The demo, run as `make demo` runs it, and the snippet of the README."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from v1tlearn.metrics import single_trial_correlation

ROOT = Path(__file__).parents[1]
MODELS = ["LN", "CNN", "ViT", "V1T"]
COLUMNS = ["single-trial correlation", "correlation to average", "share of the oracle"]


def run(*options):
    """Lines of the demo."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "demo.py"), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.splitlines()


def tables(lines):
    """Names of the rows of each table that was printed, and their shares of the oracle."""
    heads = [i for i, line in enumerate(lines) if line.split() == " ".join(COLUMNS).split()]
    found = []
    for head in heads:
        rows = [line.split() for line in lines[head + 1 :]]
        end = next(i for i, row in enumerate(rows) if row[0] == "oracle") + 1
        found.append({row[0]: float(row[-1].rstrip("%")) / 100 for row in rows[:end]})
    return found


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Lines and folder of the demo at its smallest."""
    output = tmp_path_factory.mktemp("demo")
    return run("--quick", "--output", str(output)), output


@pytest.mark.slow
def test_it_tells_from_the_start_what_it_does(quick):
    lines, _ = quick
    assert "importing PyTorch" in lines[0]
    done = [line for line in lines if line.endswith(" ...")]
    order = [re.sub(r"^ *\d+ s  (.*) \.\.\.$", r"\1", line) for line in done]
    assert order[1] == "simulating two mice"
    assert [text for text in order if text.startswith("fitting")] == [
        f"fitting {m}" for m in MODELS
    ]
    assert order[-1] == "drawing"


@pytest.mark.slow
def test_every_epoch_has_a_line(quick):
    lines, output = quick
    for name in MODELS:
        printed = [line for line in lines if line.lstrip().startswith(f"{name} epoch")]
        model = getattr(v1, f"{name}Regressor").load(output / "models" / name)
        assert len(printed) == len(model.history_)
        for line, record in zip(printed, model.history_, strict=True):
            assert line.endswith(f"{record['validation_correlation']:.3f}")


@pytest.mark.slow
def test_a_first_table_comes_before_the_transformers(quick):
    lines, _ = quick
    first, last = tables(lines)
    assert list(first) == ["LN", "CNN", "oracle"]
    assert list(last) == [*MODELS, "oracle"]
    assert first == {name: last[name] for name in first}
    spent = [i for i, line in enumerate(lines) if line.startswith("Processor time so far")]
    assert len(spent) == 2
    assert spent[0] < next(i for i, line in enumerate(lines) if "fitting ViT" in line)


@pytest.mark.slow
def test_the_table_on_disk_scores_the_models_on_disk(quick):
    lines, output = quick
    table = pd.read_csv(output / "scores.csv", index_col="model")
    assert list(table.index) == [*MODELS, "oracle"]
    assert list(table.columns) == COLUMNS
    assert table.loc["oracle", "share of the oracle"] == 1
    test = v1.Trials.open(output / "recordings.nc").sel(tier="test")
    for name in MODELS:
        model = getattr(v1, f"{name}Regressor").load(output / "models" / name)
        reached = single_trial_correlation(test.responses, model.predict(test))
        np.testing.assert_allclose(table.loc[name, COLUMNS[0]], reached, rtol=1e-4)
        assert abs(tables(lines)[1][name] - table.loc[name, COLUMNS[2]]) < 0.001


@pytest.mark.slow
def test_the_figure_is_readable_at_the_width_of_a_page(quick):
    picture = matplotlib.image.imread(quick[1] / "demo.png")
    height, width, _ = picture.shape
    assert width >= 1400
    assert height <= width
    assert picture[..., :3].std() > 0.05  # something is drawn


def test_unknown_sizes_are_refused():
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), "--quick", "--full"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "not allowed with" in result.stderr


@pytest.mark.slow
def test_the_default_form_finds_most_of_what_can_be_found(tmp_path):
    lines = run("--output", str(tmp_path))
    first, last = tables(lines)
    assert list(first) == ["LN", "CNN", "oracle"]
    assert 0.2 < last["LN"] < last["CNN"] < 1
    assert last["LN"] < last["V1T"] < 1
    assert last["ViT"] > 0.2
    assert max(last[name] for name in MODELS) > 0.4


def in_the_demo(script):
    """Run lines with what the demo defines, as a process: it sets the number of threads."""
    begin = f"""
        import runpy, sys
        sys.argv = ["demo.py", "--quick"]
        demo = runpy.run_path({str(ROOT / "examples" / "demo.py")!r})
        demo["TELLER"].remind = lambda: 3600.0
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.slow
def test_a_second_without_a_line_brings_one():
    lines = in_the_demo(
        """
        now = [0.0]
        print("begin")
        teller = demo["Teller"](clock=lambda: now[0])
        teller.do("waiting")
        for tenth in range(1, 41):
            now[0] = tenth / 10
            wait = teller.remind()
            assert 0 < wait <= 1
            if tenth == 15:
                teller.say("something else")
        """
    )
    assert lines[lines.index("begin") + 1 :] == [
        "    0 s  waiting ...",
        "    1 s  ... waiting for 1 s",
        "something else",
        "    2 s  ... waiting for 2 s",
        "    4 s  ... waiting for 4 s",
    ]


@pytest.mark.slow
def test_a_neuron_is_drawn_as_the_package_draws_it():
    """Recorded to the right, predicted upwards, both axes alike."""
    in_the_demo(
        """
        import matplotlib.pyplot as plt, numpy as np, xarray as xr
        from v1tlearn.inspection import PredictionDisplay

        values = np.array([[1.0, 5.0], [3.0, 2.0], [5.0, 4.0], [7.0, 9.0]])
        coords = {"image_id": ("trial", [0, 0, 1, 2])}
        recorded = xr.DataArray(values, dims=("trial", "neuron"), coords=coords)
        predicted = recorded - 2.5
        axis = plt.subplots()[1]
        predicted[2, 0] = 0.0  # the second neuron is the one predicted better
        demo["draw_neuron"](axis, "CNN", predicted, recorded)
        means = np.array([3.5, 4.0, 9.0])
        dots = axis.collections[0].get_offsets()
        np.testing.assert_allclose(dots, np.column_stack([means, means - 2.5]))
        ours = PredictionDisplay(means, {"CNN": means - 2.5}).plot().ax_
        assert axis.get_xlim() == axis.get_ylim() == ours.get_xlim()
        assert axis.get_aspect() == ours.get_aspect() == 1
        assert axis.get_xlabel().startswith("recorded")
        assert axis.get_ylabel().startswith("predicted")
        """
    )
