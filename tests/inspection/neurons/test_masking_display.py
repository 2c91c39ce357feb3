"""Masking curves, drawn."""

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.inspection import MaskingDisplay, attention_masking

FRACTIONS = [0.1, 0.2, 0.4, 0.7, 1.0]


@pytest.fixture(scope="module")
def curves(aligners, seen):
    return attention_masking(
        aligners["attention"],
        seen,
        rankings=["attention", "reliability", "random"],
        scores={"mine": {"A": range(9), "B": range(6)}},
        fractions=FRACTIONS,
        n_random=4,
    )["A"]


def test_curves_and_band_are_what_was_measured(curves, figures):
    display = MaskingDisplay(curves).plot(measure="ssim_image")
    assert list(display.lines_) == [
        (n, "key") for n in ("attention", "reliability", "random", "mine")
    ]
    own = curves.sel(responses="recorded", keep="key")
    kept = own["fraction"].values > 0
    for name in display.rankings:
        line = display.lines_[name, "key"]
        np.testing.assert_array_equal(line.get_xdata(), own["fraction"][kept])
        np.testing.assert_array_equal(line.get_ydata(), own["ssim_image"].sel(ranking=name)[kept])
    heights = display.band_.get_paths()[0].vertices[:, 1]
    assert heights.min() == own["ssim_image_random"][:, kept].min()
    assert heights.max() == own["ssim_image_random"][:, kept].max()
    assert display.ax_.get_xscale() == "log"
    colors = [line.get_color() for line in display.lines_.values()]
    assert len(set(colors)) == 4


def test_both_kinds_of_neurons_are_told_apart(curves, figures):
    display = MaskingDisplay(curves).plot(keep="both", responses="shuffled")
    assert len(display.lines_) == 8
    assert display.lines_["mine", "key"].get_linestyle() == "-"
    assert display.lines_["mine", "non_key"].get_linestyle() == "--"
    lowest = MaskingDisplay(curves).plot(keep="non_key")
    texts = [text.get_text() for text in lowest.ax_.get_legend().get_texts()]
    assert texts[0] == "attention, lowest"


def test_half_of_the_way_is_found(curves, figures):
    display = MaskingDisplay(curves).plot()
    own = curves["correlation_full"].sel(responses="recorded", keep="key")
    half = (own.min() + own.max()).item() / 2
    for name, share in display.half_.items():
        values = own.sel(ranking=name).values
        shares = curves["fraction"].sel(responses="recorded", keep="key").values
        assert share == shares[values >= half].min()


def test_an_aligner_is_drawn_at_once_onto_given_axes(aligners, seen, figures):
    _, ax = figures.subplots()
    display = MaskingDisplay.from_estimator(
        aligners["attention"], seen, mouse="B", ax=ax, fractions=FRACTIONS, line_kw={"lw": 3}
    )
    assert display.ax_ is ax
    assert display.lines_["attention", "key"].get_linewidth() == 3
    assert display.curves.sizes["neuron"] == 6
    with pytest.raises(ValueError, match="say with mouse="):
        MaskingDisplay.from_estimator(aligners["attention"], seen)
    with pytest.raises(ValueError, match="mouse='C'"):
        MaskingDisplay.from_estimator(aligners["attention"], seen, mouse="C")


def test_what_is_no_curve_is_refused(curves, aligners, seen, figures):
    with pytest.raises(TypeError, match="expected what attention_masking gives for one mouse"):
        MaskingDisplay({"A": curves})
    for options in ({"measure": "top5"}, {"keep": "all"}, {"responses": "none"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}="):
            MaskingDisplay(curves).plot(**options)
    nothing = attention_masking(aligners["attention"], seen, thresholds=[0.999], n_random=1)["A"]
    with pytest.raises(ValueError, match="no step keeps a neuron"):
        v1.inspection.MaskingDisplay(nothing).plot()
