"""What `fit` leaves behind: seeds, going on, statistics, history, and what it does not touch."""

import logging
import pickle
import random
import time

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.estimators import prediction
from v1tlearn.metrics import single_trial_correlation
from v1tlearn.training import NonFiniteLossError
from v1tlearn.trials import Responses, Trials

BOTH = pytest.mark.parametrize("kind", quick([v1.CNNRegressor, v1.V1TRegressor], 0))


def no_time(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


# ------------------------------------------------------------------------------------- randomness


@pytest.mark.parametrize(
    "kind",
    quick(
        [
            v1.CNNRegressor,
            v1.FullModelRegressor,
            v1.MinimodelRegressor,
            v1.LNRegressor,
            v1.ViTRegressor,
            v1.V1TRegressor,
        ],
        0,
        5,
    ),
)
def test_equal_seeds_give_equal_models_and_others_do_not(kind, small, trials, equal):
    first, again = (small(kind).fit(trials) for _ in range(2))
    other = small(kind, random_state=1).fit(trials)
    assert equal(first.predict(trials), again.predict(trials))
    assert no_time(first.history_) == no_time(again.history_)
    assert not equal(first.predict(trials), other.predict(trials))


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_generators_are_seeds_that_advance(make, small, trials, equal):
    generator = make(3)
    first = small(random_state=generator, max_epochs=1).fit(trials)
    second = small(random_state=generator, max_epochs=1).fit(trials)
    again = small(random_state=make(3), max_epochs=1).fit(trials)
    assert equal(first.predict(trials), again.predict(trials))
    assert not equal(first.predict(trials), second.predict(trials))


def test_without_a_seed_two_fits_differ(small, trials, equal):
    first, second = (small(random_state=None, max_epochs=1).fit(trials) for _ in range(2))
    assert not equal(first.predict(trials), second.predict(trials))


def global_state():
    numpy_state = np.random.get_state()  # noqa: NPY002
    return (
        random.getstate(),
        numpy_state[1].tobytes(),
        numpy_state[2],
        torch.get_rng_state().numpy().tobytes(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
    )


@BOTH
@pytest.mark.parametrize("deterministic", [False, True])
def test_global_generators_and_settings_are_left_as_found(
    kind, deterministic, small, trials, tmp_path
):
    before = global_state()
    est = small(kind, random_state=None, deterministic=deterministic).fit(trials)
    est.partial_fit(trials)
    est.predict(trials)
    est.score(trials)
    est.save(tmp_path / "model")
    kind.load(tmp_path / "model").predict(trials)
    pickle.loads(pickle.dumps(est))
    clone(est)
    assert global_state() == before


# --------------------------------------------------------------------------------------- going on


@BOTH
@pytest.mark.parametrize("validation_fraction", [0, 0.2])
@pytest.mark.parametrize("how", quick(["memory", "pickle", "save"], 0))
def test_warm_start_goes_on_exactly(kind, validation_fraction, how, small, trials, equal, tmp_path):
    params = {"validation_fraction": validation_fraction, "batch_size": 8}
    whole = small(kind, max_epochs=4, **params).fit(trials)
    half = small(kind, max_epochs=2, warm_start=True, **params).fit(trials)
    if how == "pickle":
        half = pickle.loads(pickle.dumps(half))
    elif how == "save":
        half.save(tmp_path / "model")
        half = kind.load(tmp_path / "model", device="cpu")
    half.fit(trials)
    assert no_time(half.history_) == no_time(whole.history_)
    assert equal(half.predict(trials), whole.predict(trials))


def test_warm_start_goes_on_exactly_with_a_validation_set(small, trials, test_trials, equal):
    whole = small(max_epochs=4).fit(trials, validation=test_trials)
    half = small(max_epochs=2, warm_start=True).fit(trials, validation=test_trials)
    half.fit(trials, validation=test_trials)
    assert equal(half.predict(trials), whole.predict(trials))


def test_warm_start_through_a_plateau(small, trials, test_trials, equal):
    params = {"lr_patience": 0, "max_lr_drops": 8, "lr": 0.03}
    whole = small(max_epochs=8, **params).fit(trials, validation=test_trials)
    half = small(max_epochs=4, warm_start=True, **params).fit(trials, validation=test_trials)
    half.fit(trials, validation=test_trials)
    assert whole.history_[-1]["lr"] < 0.03
    assert no_time(half.history_) == no_time(whole.history_)
    assert equal(half.predict(trials), whole.predict(trials))


def test_warm_start_after_the_schedule_ended_trains_again(small, trials, test_trials):
    est = small(max_epochs=50, lr_patience=0, max_lr_drops=0, warm_start=True)
    n = est.fit(trials, validation=test_trials).n_iter_
    assert n < 50
    assert est.fit(trials, validation=test_trials).n_iter_ > n


def test_a_changed_learning_rate_counts_when_going_on(small, trials):
    est = small(warm_start=True, max_epochs=1).fit(trials)
    est.set_params(lr=1e-4).fit(trials)
    assert [record["lr"] for record in est.history_] == [2e-3, 1e-4]


def test_a_fit_goes_on_with_other_penalties(small, trials):
    est = small(warm_start=True, schedule="constant", penalty_scale="absolute").fit(trials)
    before = {name: value.clone() for name, value in est.module_.state_dict().items()}
    l1 = est.readout_l1
    est.set_params(readout_l1=100 * l1, lr=1e-12, max_epochs=1).fit(trials)
    assert [record["epoch"] for record in est.history_] == [1, 2, 3]
    penalties = [sum(r.penalty().item() for r in est.module_.readouts)]
    for name, value in est.module_.state_dict().items():
        if value.is_floating_point() and "running" not in name:
            torch.testing.assert_close(value, before[name], atol=1e-9, rtol=1e-6)
    est.set_params(readout_l1=l1, max_epochs=1).fit(trials)
    penalties.append(sum(r.penalty().item() for r in est.module_.readouts))
    assert penalties[0] == pytest.approx(100 * penalties[1], rel=1e-4)


def test_going_on_refuses_another_architecture(small, trials, equal):
    est = small(warm_start=True).fit(trials)
    before = est.predict(trials)
    est.set_params(laplace=100.0, shift="none")
    with pytest.raises(ValueError, match=r"changed since fit: .*shift \(was 'readout'"):
        est.fit(trials)
    with pytest.raises(ValueError, match="laplace"):
        est.partial_fit(trials)
    assert equal(est.predict(trials), before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_works_in_any_mode_of_the_caller(mode, small, trials, equal):
    with mode():
        inside = small().fit(trials)
    assert equal(inside.predict(trials), small().fit(trials).predict(trials))


def test_fit_works_with_any_default_dtype(small, trials):
    torch.set_default_dtype(torch.float64)
    try:
        est = small(max_epochs=1).fit(trials)
        assert est.predict(trials).get("A").dtype == np.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_cold_start_forgets(small, trials, equal):
    est = small().fit(trials)
    first = est.predict(trials)
    assert equal(est.fit(trials).predict(trials), first)
    assert est.n_iter_ == 2


def test_partial_fit_is_an_epoch_on_everything(small, trials, equal):
    whole = small(max_epochs=3, validation_fraction=0).fit(trials)
    est = small()
    for n in range(1, 4):
        assert est.partial_fit(trials).n_iter_ == n
    assert equal(est.predict(trials), whole.predict(trials))
    assert "validation_loss" not in est.history_[-1]


def test_partial_fit_after_fit_starts_from_the_fitted_model(small, trials, test_trials):
    est = small(max_epochs=3).fit(trials, validation=test_trials)
    loss = est.partial_fit(trials).history_[-1]["loss"]
    assert est.n_iter_ == 4
    assert loss < est.history_[0]["loss"]


def test_partial_fit_keeps_the_statistics(small, trials):
    est = small().partial_fit(trials)
    before = est.statistics_["A"]["response_scale"].copy()
    est.partial_fit(trials[::2])
    assert np.array_equal(est.statistics_["A"]["response_scale"], before)


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
def test_going_on_needs_the_same_mice(method, small, trials):
    est = small(warm_start=True).fit(trials)
    with pytest.raises(ValueError, match=r"fitted on the mice \['A', 'B'\].*\['A'\].*warm_start"):
        getattr(est, method)(trials.sel(mouse_id="A"))


def test_input_that_cannot_be_fitted_leaves_the_earlier_fit(small, trials, arrays, equal):
    est = small().fit(trials)
    before, attributes = est.predict(trials), set(vars(est))
    broken = {m: b.copy() for m, b in arrays["behaviors"].items()}
    broken["B"][3, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        est.fit(arrays["stimuli"], broken, arrays["responses"])
    with pytest.raises(ValueError, match="kernel"):
        est.set_params(input_kernel=99).fit(trials.sel(mouse_id="A"))
    assert est.mice_ == ["A", "B"]
    assert equal(est.predict(trials), before)
    assert set(vars(est)) == attributes


# --------------------------------------------------------------------------- what fit learns


def test_the_best_epoch_is_kept(small, trials, test_trials):
    est = small(max_epochs=6, shift="none", position_network=False)
    est.fit(trials, validation=test_trials)
    correlations = [record["validation_correlation"] for record in est.history_]
    assert est.score(test_trials) == pytest.approx(max(correlations), abs=1e-5)
    assert max(correlations) > correlations[-1]  # so that there was something to bring back


def test_without_validation_the_last_epoch_is_kept(small, trials):
    est = small(validation_fraction=0).fit(trials)
    assert len(est.history_) == est.max_epochs
    for name, value in est.module_.state_dict().items():
        assert torch.equal(value, est.state_["model"][name])


def test_history(small, trials):
    record = small(max_epochs=1).fit(trials).history_[0]
    assert set(record) == {
        "epoch",
        "loss",
        "penalty",
        "validation_loss",
        "validation_correlation",
        "validation_correlation_A",
        "validation_correlation_B",
        "lr",
        "seconds",
    }
    assert record["epoch"] == 1
    assert record["lr"] == 2e-3


def test_no_epoch_is_the_initial_model(small, trials):
    est = small(max_epochs=0).fit(trials)
    assert est.history_ == []
    assert np.isfinite(est.score(trials))


def test_predictions_are_in_the_units_of_the_responses(small, trials, arrays):
    large = {m: 1024 * r for m, r in arrays["responses"].items()}
    first = small().fit(arrays["stimuli"], arrays["behaviors"], arrays["responses"])
    second = small().fit(arrays["stimuli"], arrays["behaviors"], large)
    for mouse in trials.mice:
        expected = 1024 * first.predict(trials).get(mouse)
        assert np.array_equal(second.predict(trials).get(mouse), expected)


def test_responses_are_divided_by_their_deviation_with_a_floor(small, arrays):
    responses = {m: r.copy() for m, r in arrays["responses"].items()}
    responses["A"][:, 2] = 0  # a silent neuron is no error
    responses["A"][::3, 1] = np.nan
    with pytest.warns(UserWarning, match="'A': 1 of 5 neurons never respond.* neuron 2:"):
        est = small(validation_fraction=0).fit(arrays["stimuli"], arrays["behaviors"], responses)
    std = np.nanstd(responses["A"].astype(np.float64), axis=0)
    std[2] = 0.01 * std.mean()
    assert est.statistics_["A"]["response_scale"] == pytest.approx(std, rel=1e-5)
    assert np.isfinite(est.predict(arrays["stimuli"], arrays["behaviors"])["A"]).all()


def test_statistics_are_of_the_training_side_only(small, trials, test_trials):
    alone = small().fit(trials, validation=test_trials)
    expected = np.std(trials.get("responses", "B").astype(np.float64), axis=0)
    assert alone.statistics_["B"]["response_scale"] == pytest.approx(expected, rel=1e-5)
    split = small(validation_fraction=0.3).fit(trials)
    assert split.statistics_["B"]["response_scale"] != pytest.approx(expected, rel=1e-5)


def test_what_was_not_recorded_counts_as_absent(small, arrays):
    """A trial whose responses are all NaN trains the model as if the trial were not there."""
    kind = v1.V1TRegressor
    params = {"patch_dropout": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0}
    params |= {"standardize": False, "validation_fraction": 0, "batch_size": 100, "loss_scale": 1.0}
    params |= {"gaussian": "isotropic", "init_sigma": 1e-6, "max_epochs": 1}
    stimuli, behaviors = arrays["stimuli"]["A"] / 100, arrays["behaviors"]["A"]
    responses = arrays["responses"]["A"].copy()
    responses[::4] = np.nan
    keep = ~np.isnan(responses[:, 0])
    masked = small(kind, **params).fit(stimuli, behaviors, responses)
    dropped = small(kind, **params).fit(stimuli[keep], behaviors[keep], responses[keep])
    assert masked.predict(stimuli, behaviors) == pytest.approx(
        dropped.predict(stimuli, behaviors), rel=1e-3
    )
    assert masked.history_[0]["loss"] == pytest.approx(dropped.history_[0]["loss"], rel=1e-5)


@pytest.mark.filterwarnings("ignore:the mice .* have no trial in the validation")
def test_validation_leaves_out_what_was_not_recorded(small, trials, arrays):
    responses = arrays["responses"]["A"].copy()
    responses[:10] = np.nan
    held = Trials.from_arrays(
        {"A": arrays["stimuli"]["A"]}, {"A": arrays["behaviors"]["A"]}, {"A": responses}
    )
    with pytest.warns(UserWarning, match="look like images that were trained on"):
        masked = small().fit(trials, validation=held)
    with pytest.warns(UserWarning, match="look like images that were trained on"):
        dropped = small().fit(trials, validation=held[10:])
    for name in ("validation_loss", "validation_correlation"):
        assert [r[name] for r in masked.history_] == pytest.approx(
            [r[name] for r in dropped.history_], rel=1e-5
        )


@BOTH
def test_standardize_is_a_trial_standardizer(kind, small, trials, equal):
    inside = small(kind, validation_fraction=0).fit(trials)
    outside = make_pipeline(
        v1.TrialStandardizer(), small(kind, validation_fraction=0, standardize=False)
    ).fit(trials)
    assert equal(inside.predict(trials), outside.predict(trials))


@pytest.mark.parametrize(
    ("transformer", "params"),
    [
        (v1.CenterCrop(0.75), {"crop_scale": 0.75}),
        (v1.ResizeStimuli((9, 12)), {"image_size": (9, 12)}),
    ],
)
def test_cropping_and_resizing_outside_are_those_inside(transformer, params, small, trials):
    inside = small(validation_fraction=0, **params).fit(trials)
    outside = make_pipeline(
        v1.TrialStandardizer(), transformer, small(validation_fraction=0, standardize=False)
    ).fit(trials)
    for mouse in trials.mice:
        assert inside.predict(trials).get(mouse) == pytest.approx(
            outside.predict(trials).get(mouse), rel=1e-3
        )


# ------------------------------------------------------------------------------ score, attributes


def test_score_is_the_correlation_over_trials(fitted, test_trials):
    predictions = fitted.predict(test_trials)
    per_mouse = [
        np.mean(
            [
                np.corrcoef(p, r)[0, 1]
                for p, r in zip(
                    predictions.get(m).T, test_trials.get("responses", m).T, strict=True
                )
            ]
        )
        for m in test_trials.mice
    ]
    assert fitted.score(test_trials) == pytest.approx(np.mean(per_mouse), abs=1e-6)


@pytest.mark.parametrize("n_bytes", [1, 3000])
def test_the_score_of_parts_is_that_of_the_whole(fitted, test_trials, monkeypatch, n_bytes):
    """Where predictions are large; with responses that were not recorded, and a silent neuron."""
    changed = {}
    for mouse in test_trials.mice:
        changed[mouse] = test_trials.responses.get(mouse).copy()
        changed[mouse][::3, 1], changed[mouse][1:, 2], changed[mouse][:, 3] = np.nan, np.nan, 5.0
    target = v1.Responses.from_arrays(changed, like=test_trials)
    seen, predict = [], type(fitted)._predict
    monkeypatch.setattr(prediction, "_HELD_BYTES", 0)
    monkeypatch.setattr(prediction, "_PART_BYTES", n_bytes)
    monkeypatch.setattr(
        type(fitted), "_predict", lambda self, part: seen.append(predict(self, part)) or seen[-1]
    )
    found = fitted.score(test_trials, target)
    parts = {mouse: [part[mouse] for part in seen if mouse in part] for mouse in test_trials.mice}
    assert max(part.nbytes for own in parts.values() for part in own) <= max(n_bytes, 4 * 7)
    together = {mouse: np.concatenate(own) for mouse, own in parts.items()}  # by the same rows
    predicted = v1.Responses.from_arrays(together, like=test_trials)
    assert found == pytest.approx(single_trial_correlation(target, predicted), abs=1e-9)
    np.testing.assert_allclose(together["A"], fitted.predict(test_trials).get("A"), rtol=1e-5)
    with pytest.raises(ValueError, match="at least 2 trials, got 1"):
        fitted.score(test_trials[:1], target[:1])
    changed[test_trials.mice[0]][4, 0] = np.inf
    with pytest.raises(ValueError, match="mouse 'A': y_true holds Inf"):
        fitted.score(test_trials, v1.Responses.from_arrays(changed, like=test_trials))


def test_weights_of_zero_leave_trials_out_of_the_score(fitted, trials):
    keep = np.arange(len(trials)) % 3 > 0
    assert fitted.score(trials, sample_weight=keep.astype(float)) == pytest.approx(
        fitted.score(trials[keep]), abs=1e-6
    )
    assert fitted.score(trials, sample_weight=np.ones(len(trials))) == pytest.approx(
        fitted.score(trials), abs=1e-9
    )


def test_predictions_do_not_depend_on_the_block(fitted, trials):
    whole = fitted.predict(trials)
    for i in (0, len(trials) - 1):
        assert np.asarray(fitted.predict(trials[[i]]))[0] == pytest.approx(
            np.asarray(whole)[i], rel=1e-5
        )


def test_predictions_are_responses_of_the_trials(fitted, trials):
    predictions = fitted.predict(trials[::-1])
    assert isinstance(predictions, Responses)
    assert np.array_equal(predictions.mouse_ids, trials.mouse_ids[::-1])
    assert predictions["A"].dims == ("trial", "neuron")


def test_fitted_attributes(fitted, small, trials, arrays):
    assert fitted.mice_ == ["A", "B"]
    assert fitted.n_neurons_ == {"A": 5, "B": 7}
    assert fitted.image_shape_ == (1, 12, 16)
    assert fitted.device_ == torch.device("cpu")
    assert fitted.precision_ == "float32"
    assert fitted.n_iter_ == 2
    columns = ["pupil_dilation", "pupil_dilation_derivative", "running_speed"]
    assert list(fitted.feature_names_in_) == columns
    est = clone(fitted).fit(trials)
    est.fit(arrays["stimuli"], None, arrays["responses"])
    assert not hasattr(est, "feature_names_in_")


def test_before_fit(small, trials):
    est = small()
    for call in (est.predict, est.score):
        with pytest.raises(NotFittedError, match="CNNRegressor"):
            call(trials)
    with pytest.raises(NotFittedError):
        est.save("nowhere")
    assert not hasattr(est, "history_")
    assert not hasattr(est, "n_iter_")


def test_tags(small):
    tags = get_tags(small())
    assert tags.estimator_type == "regressor"
    assert not tags.input_tags.two_d_array
    assert not tags.target_tags.required
    assert tags.target_tags.multi_output
    assert not tags.non_deterministic


# ---------------------------------------------------------------------------- running off, progress


def test_a_loss_that_is_not_finite_names_the_mouse_and_keeps_the_best(small, trials, test_trials):
    est = small(max_epochs=2, warm_start=True).fit(trials, validation=test_trials)
    best = est.score(test_trials)
    est.set_params(lr=1e30)
    with pytest.raises(NonFiniteLossError, match=r"mouse '[AB]'.*Lower lr") as caught:
        est.fit(trials, validation=test_trials)
    assert caught.value.mouse in trials.mice
    assert est.score(test_trials) == best
    assert est.n_iter_ == caught.value.epoch - 1
    est.set_params(lr=1e-3).fit(trials, validation=test_trials)
    assert est.score(test_trials) >= best - 1e-9


def test_extreme_responses_name_their_mouse(small, arrays):
    responses = {m: r.copy() for m, r in arrays["responses"].items()}
    est = small(warm_start=True, validation_fraction=0)
    est.fit(arrays["stimuli"], arrays["behaviors"], responses)
    responses["B"][:] = 3e38  # finite, but their sum is not
    with pytest.raises(NonFiniteLossError, match="mouse 'B'"):
        est.fit(arrays["stimuli"], arrays["behaviors"], responses)


def test_verbose_shows_a_bar_and_quiet_is_quiet(small, trials, capsys):
    # Bars are redrawn ten times a second: later epochs begin after the next drawing is due.
    small(verbose=1).fit(trials, on_epoch=lambda record: time.sleep(0.15))
    shown = "".join(capsys.readouterr())
    for part in ("CNNRegressor", "2/2", "loss=", "val. loss=", "val. corr.=", "lr=", "<"):
        assert part in shown
    small().fit(trials)
    assert capsys.readouterr() == ("", "")


def test_epochs_are_logged(small, trials, caplog):
    with caplog.at_level(logging.DEBUG, logger="v1tlearn"):
        small(max_epochs=1).fit(trials)
    assert "CNNRegressor epoch 1" in caplog.text
