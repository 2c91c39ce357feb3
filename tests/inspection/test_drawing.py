"""matplotlib is an extra: nothing imports it until something is drawn, and who lacks it is told."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from v1tlearn.inspection import ImageDisplay, PredictionDisplay, ScoreDisplay, TrainingDisplay

DISPLAYS = [
    lambda: TrainingDisplay({"CNN": [{"epoch": 1, "loss": 1.0, "lr": 0.1}]}),
    lambda: ScoreDisplay({"CNN": {"A": [0.5]}}),
    lambda: PredictionDisplay([0.0, 1.0], {"CNN": [0.0, 1.0]}),
    lambda: ImageDisplay(np.zeros((1, 1, 2, 3)), ["an image"]),
]


@pytest.mark.slow
def test_importing_the_package_imports_no_matplotlib():
    script = """
        import sys
        import v1tlearn.inspection
        assert not [name for name in sys.modules if name.split(".")[0] == "matplotlib"]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


@pytest.mark.parametrize("make", DISPLAYS)
def test_without_matplotlib_the_extra_is_named(make, monkeypatch):
    display = make()  # needs none
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'Display draws with matplotlib.*extra "plot"'):
        display.plot()


@pytest.mark.parametrize("make", DISPLAYS)
def test_figures_are_readable_on_a_telephone(make, figures):
    """390 pixels wide, the smallest text is at least 8 pixels high, and settings stay."""
    before = figures.rcParams.copy()
    display = make().plot()
    assert figures.rcParams == before
    figure = display.figure_
    texts = figure.findobj(figures.matplotlib.text.Text)
    smallest = min(text.get_fontsize() for text in texts if text.get_text())
    assert smallest / 72 * 390 / figure.get_figwidth() >= 8
