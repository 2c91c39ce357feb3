"""Scores in figures are those of the metrics, ceilings those of the truth or of repeats."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from v1tlearn import metrics
from v1tlearn.inspection import MODEL_COLORS, ScoreDisplay


@pytest.fixture
def predictions(noisy_predictions):
    return {"LN": noisy_predictions(1.0), "CNN": noisy_predictions(0.1)}


def raw(metric, y_true, *others):
    return {
        mouse: np.asarray(
            metric(
                *[y[y.rows(mouse)[0]].get(mouse) for y in (y_true, *others)],
                image_ids=y_true.image_ids[y_true.rows(mouse)[0]],
                multioutput="raw_values",
            )
        )
        for mouse in y_true.mice
    }


METRICS = ["single_trial_correlation", "average_correlation", "feve", "normalized_correlation"]


@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_those_of_the_metric(metric, predictions, test_trials, figures):
    y_true, function = test_trials.responses, getattr(metrics, metric)
    display = ScoreDisplay.from_predictions(y_true, predictions, metric=metric)
    for name, y_pred in predictions.items():
        for mouse, expected in raw(function, y_true, y_pred).items():
            np.testing.assert_allclose(display.scores[name][mouse], expected)
            assert display.means_.loc[name, mouse] == pytest.approx(np.nanmean(expected))
        mean = function(y_true, y_pred)
        assert display.means_.loc[name, "mean"] == pytest.approx(mean)
    assert display.best_ == "CNN"


def test_the_truth_is_the_ceiling_where_it_is_known(models, test_trials, figures):
    for metric in METRICS[:2]:
        display = ScoreDisplay.from_estimator(models, test_trials, metric=metric)
        function = getattr(metrics, metric)
        expected = raw(function, test_trials.responses, test_trials.expected_responses)
        for mouse, values in expected.items():
            np.testing.assert_allclose(display.ceiling[mouse], values)
        for name, model in models.items():
            score = function(test_trials.responses, model.predict(test_trials))
            assert display.means_.loc[name, "mean"] == pytest.approx(score)


def test_otherwise_repeats_are(predictions, test_trials, figures):
    y_true = test_trials.responses
    display = ScoreDisplay.from_predictions(y_true, predictions)
    for mouse, values in raw(metrics.oracle_correlation, y_true).items():
        np.testing.assert_allclose(display.ceiling[mouse], values)
    assert list(display.means_.index) == ["LN", "CNN", "oracle (jackknife)"]  # not the truth
    for kind in ("bars", "neurons", "scatter"):
        display.plot(kind=kind)
        ax = display.ax_
        texts = [ax.get_xlabel(), *(text.get_text() for text in ax.get_xticklabels())]
        texts += [text.get_text() for text in ax.get_legend().get_texts()] if kind == "bars" else []
        assert any("(jackknife)" in text for text in texts)
    for metric in METRICS[2:]:  # which correct for noise
        display = ScoreDisplay.from_predictions(y_true, predictions, metric=metric)
        assert (display.means_.loc["oracle"] == 1).all()
    display = ScoreDisplay.from_predictions(y_true, predictions, metric="average_correlation")
    assert display.ceiling is None
    display = ScoreDisplay.from_predictions(y_true, predictions, ceiling=None)
    assert display.ceiling is None
    assert not [name for name in display.means_.index if "oracle" in name]


def test_without_repeats_there_is_no_ceiling(noisy_predictions, recordings, figures):
    train = v1.Trials(recordings).sel(tier="train")
    _, once = np.unique(train.sel(mouse_id="A").image_ids, return_index=True)
    single = train.sel(mouse_id="A")[once]
    display = ScoreDisplay.from_predictions(single.responses, noisy_predictions(0.1, single))
    assert display.ceiling is None
    assert list(display.scores) == ["model"]


def test_arrays_and_functions(figures):
    rng = np.random.default_rng(0)
    y_true = rng.normal(size=(40, 3))
    y_pred = y_true + rng.normal(size=y_true.shape)

    def negative_error(true, pred, *, image_ids, multioutput):
        assert multioutput == "raw_values"
        return -((true - pred) ** 2).mean(0)

    display = ScoreDisplay.from_predictions(
        y_true, {"mine": y_pred}, metric=negative_error, image_ids=np.arange(40) // 2
    )
    (found,) = display.scores["mine"].values()
    np.testing.assert_allclose(found, -((y_true - y_pred) ** 2).mean(0))
    assert display.ax_.get_ylabel() == "negative error"


SCORES = {"LN": {"A": [0.1, 0.3], "B": [0.2]}, "CNN": {"A": [0.3, 0.5], "B": [0.1]}}
CEILING = {"A": [0.5, 0.7], "B": [0.4]}


def test_bars(figures):
    display = ScoreDisplay(SCORES, metric="correlation", ceiling=CEILING)
    assert display.plot() is display
    heights = {
        bars.get_label(): [bar.get_height() for bar in bars] for bars in display.ax_.containers
    }
    assert heights["LN"] == pytest.approx([0.2, 0.2, 0.2])
    assert heights["CNN"] == pytest.approx([0.4, 0.1, 0.25])
    colors = {
        bars.get_label(): figures.matplotlib.colors.to_hex(bars[0].get_facecolor())
        for bars in display.ax_.containers
    }
    assert colors == {name: MODEL_COLORS[name] for name in SCORES}
    ticks = [tick.get_text() for tick in display.ax_.get_xticklabels()]
    assert ticks == ["mouse A", "mouse B", "mean"]
    ceilings = [line for line in display.ax_.get_lines() if "oracle" in line.get_label()]
    assert [line.get_ydata()[0] for line in ceilings] == pytest.approx([0.6, 0.4, 0.5])
    assert [text.get_text() for text in display.ax_.texts] == ["0.40", "0.20", "0.25"]  # the best
    assert display.ax_.get_ylabel() == "correlation"
    assert display.best_ == "CNN"


def test_bars_of_one_mouse_have_no_mean_beside_them(figures):
    display = ScoreDisplay({"CNN": {"A": [0.5, np.nan]}}).plot()
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["mouse A"]
    assert [text.get_text() for text in display.ax_.texts] == ["0.50"]


def test_dots_for_neurons(figures):
    display = ScoreDisplay(SCORES, ceiling=CEILING).plot(kind="neurons")
    dots = {d.get_label(): d for d in display.ax_.collections}
    assert list(dots) == ["LN", "CNN", "oracle"]
    assert sorted(dots["CNN"].get_offsets()[:, 1]) == pytest.approx([0.1, 0.3, 0.5])
    assert (np.abs(dots["CNN"].get_offsets()[:, 0] - 1) < 0.35).all()
    assert dots["CNN"].get_alpha() < 1
    assert [text.get_text() for text in display.ax_.texts] == ["0.20", "0.25", "0.50"]


@pytest.mark.parametrize("x", [None, "LN"])
def test_scatter_has_the_same_axes(x, figures):
    display = ScoreDisplay(SCORES, ceiling=CEILING).plot(kind="scatter", x=x)
    ax = display.ax_
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_aspect() == 1
    dots = {d.get_label(): np.asarray(d.get_offsets()) for d in ax.collections}
    if x is None:
        assert list(dots) == ["LN", "CNN"]
        np.testing.assert_allclose(dots["CNN"], [(0.5, 0.3), (0.7, 0.5), (0.4, 0.1)])
    else:
        assert list(dots) == ["CNN"]
        np.testing.assert_allclose(dots["CNN"], [(0.1, 0.3), (0.3, 0.5), (0.2, 0.1)])
    assert ax.get_xlabel().startswith(x or "oracle")
    (line,) = [line for line in ax.get_lines() if line.get_label() == "_equal"]
    assert line.get_slope() == 1


@pytest.mark.parametrize("kind", ["bars", "neurons", "scatter"])
def test_own_axes_and_keywords(kind, figures):
    fig = figures.matplotlib.figure.Figure()
    ax = fig.subplots()
    display = ScoreDisplay(SCORES, ceiling=CEILING).plot(
        ax, kind=kind, bar_kw={"alpha": 0.2}, scatter_kw={"alpha": 0.2}, ceiling_kw={"lw": 7}
    )
    assert display.ax_ is ax
    assert display.figure_ is fig
    assert figures.get_fignums() == []
    drawn = [bars[0] for bars in ax.containers] or ax.collections
    assert all(artist.get_alpha() == 0.2 for artist in drawn)
    if kind != "scatter":
        assert 7 in [line.get_linewidth() for line in ax.get_lines()]


def test_silent_neurons_and_nothing_to_score(figures):
    display = ScoreDisplay({"CNN": {"A": [np.nan, np.nan]}, "LN": {"A": [np.nan, np.nan]}})
    for kind in ("bars", "neurons"):
        display.plot(kind=kind)
    assert display.best_ == "CNN"


def test_errors(predictions, test_trials):
    with pytest.raises(ValueError, match="scores is empty"):
        ScoreDisplay({})
    with pytest.raises(ValueError, match="'LN' has scores of the mice"):
        ScoreDisplay({"CNN": {"A": [1.0]}, "LN": {"B": [1.0]}})
    with pytest.raises(ValueError, match="kind='pie': expected one of"):
        ScoreDisplay(SCORES).plot(kind="pie")
    with pytest.raises(ValueError, match="x='V1T': expected one of"):
        ScoreDisplay(SCORES).plot(kind="scatter", x="V1T")
    with pytest.raises(ValueError, match="x='LN' is for kind='scatter'"):
        ScoreDisplay(SCORES).plot(x="LN")
    with pytest.raises(ValueError, match="nothing to draw 'CNN' against"):
        ScoreDisplay({"CNN": {"A": [1.0]}}).plot(kind="scatter")
    with pytest.raises(ValueError, match="metric='mse': expected one of"):
        ScoreDisplay.from_predictions(test_trials.responses, predictions, metric="mse")
    with pytest.raises(ValueError, match="ceiling='truth': expected 'auto'"):
        ScoreDisplay.from_predictions(test_trials.responses, predictions, ceiling="truth")
    with pytest.raises(TypeError, match="trials is a DataTree: expected Trials"):
        ScoreDisplay.from_estimator({}, test_trials.recordings)
    with pytest.raises(ValueError, match="scores: two are called '1'"):
        ScoreDisplay({1: {"A": [1.0]}, "1": {"A": [2.0]}})
    with pytest.raises(ValueError, match="two mice are called '1'"):
        ScoreDisplay({"CNN": {1: [1.0], "1": [2.0]}})
    with pytest.raises(ValueError, match="a model is called 'oracle', as the ceiling is"):
        ScoreDisplay({"oracle": {"A": [1.0]}}, ceiling={"A": [1.0]})
    with pytest.raises(TypeError, match="scores is a list: expected a dict"):
        ScoreDisplay([0.1])
    with pytest.raises(TypeError, match="'CNN': scores are a list: expected a dict"):
        ScoreDisplay({"CNN": [0.1]})


@pytest.mark.parametrize(
    ("estimators", "told"),
    [
        (v1.CNNRegressor, "CNNRegressor"),
        ("CNN", "str came"),
        (None, "NoneType came"),
        ({"mine": None}, "'mine'"),
        ([v1.CNNRegressor], "CNNRegressor"),
    ],
)
def test_what_is_no_estimator(estimators, told, test_trials):
    with pytest.raises(TypeError, match=f"{told}.*expected a fitted estimator"):
        ScoreDisplay.from_estimator(estimators, test_trials)


def test_what_is_not_fitted(test_trials):
    for estimator in (v1.LNRegressor(), v1.EnsembleRegressor(v1.LNRegressor())):
        with pytest.raises(NotFittedError, match=r"'mine', a .*, is not fitted"):
            ScoreDisplay.from_estimator({"mine": estimator}, test_trials)


def test_mice_in_another_order(figures):
    turned = {
        "CNN": {"B": SCORES["CNN"]["B"], "A": SCORES["CNN"]["A"]},
        "ceiling": {"B": CEILING["B"], "A": CEILING["A"]},
    }
    display = ScoreDisplay(
        {"LN": SCORES["LN"], "CNN": turned["CNN"]}, ceiling=turned["ceiling"]
    ).plot(kind="scatter")
    dots = {d.get_label(): np.asarray(d.get_offsets()) for d in display.ax_.collections}
    np.testing.assert_allclose(dots["LN"], [(0.5, 0.1), (0.7, 0.3), (0.4, 0.2)])
    np.testing.assert_allclose(dots["CNN"], [(0.5, 0.3), (0.7, 0.5), (0.4, 0.1)])
    assert list(display.means_.columns) == ["A", "B", "mean"]


def labelled(values, ids, dim="neuron"):
    return xr.DataArray(values, dims=dim, coords={dim: ids})


@pytest.mark.parametrize("dim", ["neuron", "unit"])
def test_neurons_are_aligned_by_unit_id(dim):
    display = ScoreDisplay(
        {
            "ours": {"A": [1.0, 2.0, 3.0]},  # not known whose
            "LN": {"A": labelled([0.1, 0.2, 0.3], [7, 8, 9], dim)},
            "CNN": {"A": labelled([0.9, 0.7, 0.8], ["9", "7", "8"], dim)},
        },
        ceiling={"A": labelled([3.0, 2.0, 1.0], [9, 8, 7], dim)},
    )
    assert display.scores["ours"]["A"].tolist() == [1.0, 2.0, 3.0]
    assert display.scores["LN"]["A"].tolist() == [0.1, 0.2, 0.3]
    assert display.scores["CNN"]["A"].tolist() == [0.7, 0.8, 0.9]
    assert display.ceiling["A"].tolist() == [1.0, 2.0, 3.0]


def test_other_neurons_are_refused():
    first = {"A": labelled([0.1, 0.2], [7, 8])}
    with pytest.raises(ValueError, match=r"'CNN', mouse 'A': there is no score of unit 8, .*'LN'"):
        ScoreDisplay({"LN": first, "CNN": {"A": labelled([0.1, 0.2], [7, 9])}})
    with pytest.raises(ValueError, match="'CNN', mouse 'A': two neurons have the unit id 7"):
        ScoreDisplay({"CNN": {"A": labelled([0.1, 0.2], [7, 7])}})
    with pytest.raises(ValueError, match=r"'CNN', mouse 'A': .*dimensions \('x', 'neuron'\)"):
        ScoreDisplay({"CNN": {"A": first["A"].expand_dims("x")}})


def test_what_metrics_give_is_taken(predictions, test_trials):
    y_true, score = test_trials.responses, metrics.single_trial_correlation
    values = {
        name: score(y_true, y_pred, multioutput="raw_values")
        for name, y_pred in predictions.items()
    }
    mice, ids = values["CNN"]["mouse"].values, values["CNN"]["neuron"].values
    turned = values["CNN"][::-1]
    display = ScoreDisplay({"LN": values["LN"], "CNN": turned}, ceiling=values["CNN"])
    by_hand = ScoreDisplay({"CNN": {mouse: values["CNN"].sel(mouse=mouse) for mouse in ("A", "B")}})
    for mouse in ("A", "B"):
        expected = values["CNN"].values[mice == mouse]
        assert len(expected) == (ids[mice == mouse]).size > 2
        for found in (display.scores["CNN"], display.ceiling, by_hand.scores["CNN"]):
            np.testing.assert_array_equal(found[mouse], expected)
    assert list(display.means_.columns) == ["A", "B", "mean"]
    with pytest.raises(ValueError, match="scores of the mouse A only"):
        ScoreDisplay({"LN": values["LN"].sel(mouse="A")})


@pytest.mark.parametrize("names", [["Gabor filters", "random filters"], ["a long name " * 3]])
def test_no_word_is_cut_off(names, figures):
    rng = np.random.default_rng(0)
    scores = {name: {m: rng.normal(0.4, 0.1, 30) for m in "AB"} for name in names}
    ceiling = {m: rng.normal(0.7, 0.1, 30) for m in "AB"}
    display = ScoreDisplay(scores, metric="correlation", ceiling=ceiling).plot()
    display.figure_.canvas.draw()
    inside = display.figure_.bbox.padded(1)
    ticks = [label.get_window_extent() for label in display.ax_.get_xticklabels()]
    for box in [display.ax_.get_legend().get_window_extent(), *ticks]:
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
    assert all(left.x1 <= right.x0 for left, right in pairwise(ticks))


@pytest.mark.parametrize("metric", METRICS)
def test_bars_have_the_intervals_of_the_table(metric, models, test_trials, figures):
    display = ScoreDisplay.from_estimator(models, test_trials, metric=metric, n_bootstrap=50)
    table = v1.score_table(models, test_trials, metrics=metric, n_bootstrap=50, oracle=False)
    for name in models:
        own = table[table["model"] == name]
        for end in ("low", "high"):
            found = display.intervals_[name].loc[end, test_trials.mice]
            np.testing.assert_allclose(found.to_numpy(), own[end].to_numpy())


def test_the_ceiling_may_be_estimated_from_repeats(predictions, test_trials, figures):
    display = ScoreDisplay.from_predictions(
        test_trials.responses, predictions, metric="average_correlation", ceiling="estimated"
    )
    found = metrics.noise_ceiling(test_trials, n_bootstrap=0, multioutput="mice")
    expected = found["average_ceiling"].sel(estimate="value").values
    np.testing.assert_allclose(display.means_.loc["noise ceiling", test_trials.mice], expected)
    with pytest.raises(ValueError, match="ceiling='estimated' is known of"):
        ScoreDisplay.from_predictions(
            test_trials.responses, predictions, metric="feve", ceiling="estimated"
        )
