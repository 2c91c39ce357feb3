"""Training curves: the records of `history_` in the lines, the kept epoch and drops marked."""

import copy

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS, TrainingDisplay
from v1tlearn.preprocessing import CenterCrop


def history(scores, rates=None, start=1):
    rates = rates or [0.01] * len(scores)
    records = [
        {"epoch": start + i, "loss": 3.0 - 0.1 * i, "lr": lr}
        for i, lr in enumerate(rates)
    ]  # fmt: skip
    for record, score in zip(records, scores, strict=True):
        if score is not None:
            record |= {"validation_loss": 4.0 - score, "validation_correlation": score}
    return records


def labelled(axis, label):
    (found,) = [line for line in axis.get_lines() if line.get_label() == label]
    return found


def test_lines_hold_the_records(figures):
    records = history([0.1, 0.3, 0.2, 0.25], [0.01, 0.01, 0.003, 0.001])
    display = TrainingDisplay({"CNN": records})
    assert display.plot() is display
    losses, correlations = display.axes_
    assert losses.figure is correlations.figure is display.figure_
    training, validation, correlation = display.lines_["CNN"]
    assert training in losses.get_lines()
    assert validation in losses.get_lines()
    assert correlation in correlations.get_lines()
    for line, key in [
        (training, "loss"),
        (validation, "validation_loss"),
        (correlation, "validation_correlation"),
    ]:
        assert line.get_xdata().tolist() == [1, 2, 3, 4]
        assert line.get_ydata().tolist() == [record[key] for record in records]
        assert line.get_color() == MODEL_COLORS["CNN"]
    assert training.get_linestyle() != validation.get_linestyle()


def test_the_kept_epoch_and_drops_are_marked(figures):
    records = history([0.1, 0.3, 0.2, 0.25], [0.01, 0.01, 0.003, 0.001], start=5)
    display = TrainingDisplay({"CNN": records}).plot()
    assert display.kept_ == {"CNN": 6}
    assert display.lr_drops_ == {"CNN": [7, 8]}
    kept = labelled(display.axes_[1], "_CNN, kept")
    assert (kept.get_xdata().tolist(), kept.get_ydata().tolist()) == ([6], [0.3])
    assert labelled(display.axes_[0], "_CNN, kept").get_ydata().tolist() == [3.7]
    for axis in display.axes_:
        assert labelled(axis, "_CNN, lr drops").get_xdata().tolist() == [7, 8]
    legends = display.axes_[0].findobj(figures.matplotlib.legend.Legend)
    texts = {text.get_text() for legend in legends for text in legend.get_texts()}
    assert texts == {"CNN", "training", "validation", "kept", "lr drop"}
    assert display.axes_[0].get_ylabel() == "loss"
    assert display.axes_[1].get_xlabel() == "epoch"


def test_without_validation_there_is_one_panel_and_the_last_epoch(figures):
    display = TrainingDisplay({"CNN": history([None, None, None])}).plot()
    assert len(display.axes_) == 1
    assert display.kept_ == {"CNN": 3}


def test_a_single_epoch(figures):
    display = TrainingDisplay({"CNN": history([0.1])}).plot()
    assert display.kept_ == {"CNN": 1}


def test_diverged_scores_are_not_kept():
    assert TrainingDisplay({"CNN": history([0.1, np.nan])}).kept_ == {"CNN": 1}


def test_legend_lies_outside_the_axes(figures):
    display = TrainingDisplay({"CNN": history([0.1, 0.3]), "LN": history([0.1, 0.2])}).plot()
    display.figure_.canvas.draw()
    legends = display.axes_[0].findobj(figures.matplotlib.legend.Legend)
    boxes = [legend.get_window_extent() for legend in legends]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])
    for box in boxes:
        assert box.y0 >= display.axes_[0].get_window_extent().y1 - 1
        assert box.x1 <= display.figure_.bbox.x1


def test_own_axes_and_no_figure_left(figures):
    fig = figures.matplotlib.figure.Figure()
    axes = fig.subplots(2)
    display = TrainingDisplay({"CNN": history([0.1, 0.2])}).plot(axes, line_kw={"lw": 5})
    assert display.figure_ is fig
    assert display.axes_.tolist() == axes.tolist()
    assert display.lines_["CNN"][0].get_linewidth() == 5
    assert figures.get_fignums() == []
    with pytest.raises(ValueError, match="1 axes came, TrainingDisplay draws 2"):
        display.plot(axes[:1])


def test_fitted_models_of_every_kind(figures, models, recordings):
    display = TrainingDisplay.from_estimator(models)
    for name, model in models.items():
        correlation = display.lines_[name][-1]
        expected = [record["validation_correlation"] for record in model.history_]
        assert correlation.get_ydata().tolist() == expected
        assert correlation.get_color() == MODEL_COLORS[name]
    one = TrainingDisplay.from_estimator(models["CNN"])
    assert list(one.lines_) == ["CNN"]
    two = TrainingDisplay.from_estimator([models["CNN"], models["LN"], models["CNN"]])
    assert list(two.lines_) == ["CNN", "LN", "CNN (2)"]
    ensemble = v1.EnsembleRegressor.from_members([models["CNN"], models["CNN"]])
    members = TrainingDisplay.from_estimator(ensemble)
    assert list(members.lines_) == ["ensemble, member 1", "ensemble, member 2"]
    first, second = (lines[0].get_color() for lines in members.lines_.values())
    assert first == MODEL_COLORS["ensemble"] != second
    piped = make_pipeline(CenterCrop(), models["CNN"])
    assert list(TrainingDisplay.from_estimator(piped).lines_) == ["CNN"]
    assert list(TrainingDisplay.from_estimator({"mine": piped}).lines_) == ["mine"]


class Filters(v1.nn.Core):
    def __init__(self, input_shape):
        super().__init__(input_shape)
        channels, height, width = input_shape
        self.output_shape = (2, height - 2, width - 2)
        self.filters = torch.nn.Conv2d(channels, 2, 3)

    def forward(self, images, behaviors=None, sizes=None):
        return self.filters(images)


def squared_root(rates, responses, recorded):
    assert recorded is None
    return (rates.sqrt() - responses.clamp(min=0).sqrt()).square().sum()


@pytest.mark.filterwarnings("ignore:.*cannot follow their images")
def test_the_loss_is_that_of_the_model(figures, recordings, models):
    train = v1.Trials(recordings).sel(tier="train")
    options = {"max_epochs": 1, "batch_size": 16, "random_state": 0, "device": "cpu"}
    own = {
        loss if isinstance(loss, str) else loss.__name__: v1.EncodingRegressor(
            Filters, loss=loss, **options
        )
        for loss in ("squared", squared_root)
    }
    shown = {name: TrainingDisplay.from_estimator(est.fit(train)) for name, est in own.items()}
    named = {name: display.axes_[0].get_ylabel() for name, display in shown.items()}
    assert named == {
        "squared": "squared error\nper response",
        "squared_root": "squared_root\nper response",
    }
    both = TrainingDisplay.from_estimator({"own": own["squared"], "LN": models["LN"]})
    assert both.axes_[0].get_ylabel() == "loss\n(each its own)"


def test_searches_show_the_best(figures, models):
    class Search:
        best_estimator_ = models["LN"]

        def fit(self):
            """As searches have it."""

        def predict(self):
            """Likewise."""

    assert list(TrainingDisplay.from_estimator(Search()).lines_) == ["LN"]


def test_errors(models):
    with pytest.raises(ValueError, match="histories is empty"):
        TrainingDisplay({})
    with pytest.raises(ValueError, match="'CNN' has no epochs to show"):
        TrainingDisplay({"CNN": []})
    with pytest.raises(ValueError, match="estimators is empty"):
        TrainingDisplay.from_estimator([])
    for estimator in (v1.CNNRegressor(), v1.EnsembleRegressor(v1.CNNRegressor())):
        with pytest.raises(NotFittedError, match=r"'mine', a .*, is not fitted"):
            TrainingDisplay.from_estimator({"mine": estimator})
    for wrong in (v1.CNNRegressor, "CNN", None, [v1.CNNRegressor]):
        with pytest.raises(TypeError, match="expected a fitted estimator"):
            TrainingDisplay.from_estimator(wrong)
    with pytest.raises(TypeError, match="a CenterCrop came as 'CenterCrop': expected a fitted"):
        TrainingDisplay.from_estimator(CenterCrop())
    with pytest.raises(ValueError, match="histories: two are called '1'"):
        TrainingDisplay({1: history([0.1]), "1": history([0.2])})
    with pytest.raises(ValueError, match="kept: epoch 3 of 'CNN' came"):
        TrainingDisplay({"CNN": history([0.1])}, kept={"CNN": 3})
    with pytest.raises(ValueError, match="kept: epoch 1 of 'LN' came"):
        TrainingDisplay({"CNN": history([0.1])}, kept={"LN": 1})


def test_the_kept_epoch_is_told(figures):
    records = history([0.1, 0.3, 0.2])
    display = TrainingDisplay({"CNN": records}, kept={"CNN": np.int64(3)}).plot()
    assert display.kept_ == {"CNN": 3}
    assert labelled(display.axes_[1], "_CNN, kept").get_ydata().tolist() == [0.2]


def test_initial_weights_have_no_dot(figures):
    display = TrainingDisplay({"CNN": history([0.1, 0.3])}, kept={"CNN": 0}).plot()
    assert display.kept_ == {"CNN": 0}
    labels = [line.get_label() for axis in display.axes_ for line in axis.get_lines()]
    assert "_CNN, kept" not in labels
    legends = display.axes_[0].findobj(figures.matplotlib.legend.Legend)
    assert "kept" not in {text.get_text() for legend in legends for text in legend.get_texts()}


def test_the_kept_epoch_after_an_update(models, recordings, figures):
    train = v1.Trials(recordings).sel(tier="train")
    updated = {name: copy.deepcopy(model) for name, model in models.items()}
    for model in updated.values():
        model.partial_fit(train)
    display = TrainingDisplay.from_estimator(updated)
    assert len(display.axes_) == 2  # the fit was validated
    for name, model in updated.items():
        assert display.kept_[name] == model.best_epoch_
        assert display.lines_[name][0].get_xdata().tolist() == [
            record["epoch"] for record in model.history_
        ]
        assert display.kept_[name] == model.n_iter_ > models[name].best_epoch_
