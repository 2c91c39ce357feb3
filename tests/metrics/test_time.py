"""The time axis of responses in metrics, against brute force over trials, frames and neurons."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from v1tlearn import metrics
from v1tlearn.metrics import (
    average_correlation,
    fev,
    feve,
    fraction_oracle,
    normalized_correlation,
    oracle_correlation,
    single_trial_correlation,
)


def recordings():
    return v1.make_movie_recordings(2, [3, 4], 4, 3, 4, n_frames=(12, 20), random_state=0)


@pytest.fixture(scope="module")
def trials():
    mice = {mouse: one.to_dataset() for mouse, one in recordings().items()}
    responses = mice["A"]["responses"].copy()
    shown = int(np.argmax(mice["A"]["tier"].values == "test"))
    responses[shown, 5, 1] = np.nan  # a frame in which a neuron was not recorded
    mice["A"] = mice["A"].assign(responses=responses)
    return v1.Trials(mice).sel(tier="test")


@pytest.fixture(scope="module")
def predictions(trials):
    rng = np.random.default_rng(1)
    rates = trials.expected_responses
    noisy = {m: rates.get(m) + 0.5 * rng.standard_normal(rates.get(m).shape) for m in rates.mice}
    return v1.Responses.from_arrays(noisy, like=trials, name="predictions")


def pairs(true, pred, neuron):
    """Recorded frames of one neuron, by loops."""
    x, y = [], []
    for one, two in zip(true, pred, strict=True):
        for frame in range(len(one)):
            if np.isfinite(one[frame, neuron]):
                x.append(float(one[frame, neuron]))
                y.append(float(two[frame, neuron]))
    return np.array(x), np.array(y)


def repeats(values, true, image_ids, neuron):
    """Values of the repeats of each frame of each movie in which a neuron was recorded."""
    found = {}
    for trial, image in enumerate(image_ids):
        for frame in range(len(true[trial])):
            if np.isfinite(true[trial][frame, neuron]):
                key = (image, frame)
                found.setdefault(key, []).append(float(values[trial][frame, neuron]))
    return list(found.values())


def of_mouse(view, mouse):
    return list(np.asarray(view[view.rows(mouse)[0]]))


def test_single_trial_correlation_is_over_all_frames_that_were_recorded(trials, predictions):
    values = single_trial_correlation(trials.responses, predictions, multioutput="raw_values")
    for mouse in trials.mice:
        true, pred = of_mouse(trials.responses, mouse), of_mouse(predictions, mouse)
        wanted = [np.corrcoef(*pairs(true, pred, n))[0, 1] for n in range(true[0].shape[1])]
        np.testing.assert_allclose(values.sel(mouse=mouse), wanted, rtol=1e-6)


def test_average_correlation_averages_the_repeats_of_each_frame(trials, predictions):
    values = average_correlation(trials.responses, predictions, multioutput="raw_values")
    for mouse in trials.mice:
        view = trials[trials.rows(mouse)[0]]
        true, pred = of_mouse(trials.responses, mouse), of_mouse(predictions, mouse)
        for n in range(true[0].shape[1]):
            means = [
                [np.mean(group) for group in repeats(what, true, view.image_ids, n)]
                for what in (true, pred)
            ]
            found = float(values.sel(mouse=mouse)[n])
            assert found == pytest.approx(np.corrcoef(*means)[0, 1], rel=1e-6)


def test_the_oracle_is_the_mean_of_the_other_repeats_of_a_frame(trials):
    values = oracle_correlation(trials.responses, multioutput="raw_values").sel(mouse="B")
    view = trials.sel(mouse_id="B")
    true = of_mouse(view.responses, "B")
    for n in range(4):
        own, others = [], []
        for group in repeats(true, true, view.image_ids, n):
            for place, value in enumerate(group):
                own.append(value)
                others.append(np.mean(group[:place] + group[place + 1 :]))
        assert float(values[n]) == pytest.approx(np.corrcoef(own, others)[0, 1], rel=1e-6)


def test_explainable_variance_is_over_the_frames(trials):
    values = fev(trials.responses, multioutput="raw_values").sel(mouse="B")
    view = trials.sel(mouse_id="B")
    true = of_mouse(view.responses, "B")
    for n in range(4):
        groups = repeats(true, true, view.image_ids, n)
        everything = np.concatenate(groups)
        noise = np.mean([np.var(group, ddof=1) for group in groups])
        total = np.var(everything, ddof=1)
        assert float(values[n]) == pytest.approx((total - noise) / total, rel=1e-6)


@pytest.mark.parametrize(
    "metric", [fraction_oracle, feve, normalized_correlation, average_correlation]
)
def test_true_rates_are_better_than_noisy_ones(trials, predictions, metric):
    truth = trials.expected_responses
    options = {"threshold": 0.0} if metric is feve else {}
    true = trials.responses
    assert metric(true, truth, **options) > metric(true, predictions, **options)


def forms(view):
    """The same responses in every form that metrics take."""
    one = view.sel(mouse_id="A")
    matrix = one["A"]
    return {
        "Responses": one,
        "array": matrix.values,
        "object array": np.asarray(one),
        "DataArray": matrix,
        "dict": {"A": matrix.values},
        "list": [matrix.values],
    }


FORMS = ("Responses", "array", "object array", "DataArray", "dict", "list")


PAIRS = [(one, two) for one in FORMS for two in FORMS if (one == "list") == (two == "list")]


@pytest.mark.parametrize(("true_form", "pred_form"), PAIRS)
def test_every_form_gives_the_same_value(trials, predictions, true_form, pred_form):
    true, pred = forms(trials.responses)[true_form], forms(predictions)[pred_form]
    own = trials.sel(mouse_id="A")
    wanted = average_correlation(own.responses, predictions.sel(mouse_id="A"))
    ids = {"A": own.image_ids} if true_form == "dict" else own.image_ids
    ids = [own.image_ids] if true_form == "list" else ids
    found = average_correlation(true, pred, image_ids=ids)
    assert found == pytest.approx(wanted, rel=1e-12)


def test_dimensions_go_by_their_names(trials, predictions):
    true, pred = trials.responses["A"], predictions["A"]
    wanted = single_trial_correlation(true, pred)
    turned = pred.transpose("neuron", "time", "trial")
    assert single_trial_correlation(true, turned) == pytest.approx(wanted)
    assert single_trial_correlation(trials.sel(mouse_id="A").responses, turned) == pytest.approx(
        wanted
    )


def test_what_predictions_say_behind_the_end_of_a_movie_does_not_count(trials, predictions):
    wanted = single_trial_correlation(trials.responses, predictions)
    filled = {mouse: np.nan_to_num(predictions.get(mouse), nan=1e6) for mouse in predictions.mice}
    assert single_trial_correlation(trials.responses, filled) == pytest.approx(wanted)


def test_several_mice_in_one_object_array(trials, predictions):
    found = single_trial_correlation(
        np.asarray(trials.responses),
        np.asarray(predictions),
        mouse_ids=trials.mouse_ids,
        multioutput="mice",
    )
    wanted = single_trial_correlation(trials.responses, predictions, multioutput="mice")
    xr.testing.assert_allclose(found, wanted)


def test_weights_of_trials_are_those_of_their_frames(trials, predictions):
    weights = (np.arange(len(trials)) % 2).astype(float)
    some = np.flatnonzero(weights)
    found = single_trial_correlation(trials.responses, predictions, sample_weight=weights)
    wanted = single_trial_correlation(trials.responses[some], predictions[some])
    assert found == pytest.approx(wanted)


def test_movies_without_ids_are_told_apart_by_their_content(trials, predictions):
    bare = v1.Trials(
        {m: ds.to_dataset().drop_vars("image_id") for m, ds in trials.recordings.items()}
    )
    pred = v1.Responses.from_arrays({m: predictions.get(m) for m in bare.mice}, like=bare)
    wanted = average_correlation(trials.responses, predictions)
    assert average_correlation(bare.responses, pred) == pytest.approx(wanted)
    assert single_trial_correlation(bare.responses, pred) == pytest.approx(
        single_trial_correlation(trials.responses, predictions)
    )


def test_predictions_of_other_movies_are_refused(trials, predictions):
    other = v1.Trials(recordings()).sel(tier="train").responses
    with pytest.raises(ValueError, match=r"y_true has .* trials, y_pred has"):
        single_trial_correlation(trials.responses, other)
    with pytest.raises(ValueError, match="has no time axis"):
        single_trial_correlation(trials.responses, predictions.mean("time"))
    ids = trials.image_ids
    turned = predictions[np.argsort(ids, kind="stable")]
    with pytest.raises(ValueError, match=r"frames in y_true|different image ids|other mice"):
        single_trial_correlation(trials.responses, turned)


def test_arrays_of_other_lengths_are_refused():
    one = np.random.default_rng(0).random((3, 8, 2))
    with pytest.raises(ValueError, match="y_true has 8 frames, y_pred 7"):
        single_trial_correlation(one, one[:, :7])
    ragged = np.empty(2, dtype=object)
    ragged[:] = [one[0], one[1, :5]]
    shorter = ragged.copy()
    shorter[1] = one[1, :4]
    with pytest.raises(ValueError, match="trial 1 has 5 frames in y_true and 4 in y_pred"):
        single_trial_correlation(ragged, shorter)


def test_the_table_and_the_scorers_take_movies(trials, predictions):
    class Known:
        def predict(self, trials):
            return predictions

    table = v1.score_table({"known": Known()}, trials, multioutput="uniform_average")
    row = table[(table.model == "known") & (table.metric == "single_trial_correlation")]
    wanted = single_trial_correlation(trials.responses, predictions)
    assert row["value"].item() == pytest.approx(wanted)
    scorer = metrics.scorers["single_trial_correlation"]
    assert scorer(Known(), trials) == pytest.approx(wanted)
