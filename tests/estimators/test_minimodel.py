"""Minimodels through the public door: shared convolution, several mice, what is kept and told."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot follow their images")  # so few steps

TINY = {"hidden_channels": 3, "hidden_kernel": 3, "batch_size": 16, "lr": 2e-3}


@pytest.fixture(scope="module")
def full(small, trials):
    return small(v1.FullModelRegressor).fit(trials)


def make(**params):
    return v1.MinimodelRegressor(
        **{**TINY, "max_epochs": 2, "random_state": 0, "device": "cpu", **params}
    )


def given(trials, name, mouse, change):
    """Trials of which a variable of one mouse is changed."""
    recordings = {m: trials.recordings[m].to_dataset() for m in trials.mice}
    variable = recordings[mouse][name].copy()
    variable.values = change(np.array(variable.values))
    recordings[mouse] = recordings[mouse].assign({name: variable})
    return v1.Trials(recordings)


def test_the_first_convolution_is_the_full_models_and_stays(full, trials, test_trials, equal):
    est = make(full_model=full).fit(trials)
    filters = full.module_.core.filters
    assert torch.equal(est.module_.core.filters, filters)
    assert est.core_frozen_
    assert not est.module_.core.filters.requires_grad
    assert {m: len(n) for m, n in est.n_channels_used_.items()} == {"A": 5, "B": 7}
    assert all((n <= 3).all() and (n >= 0).all() for n in est.n_channels_used_.values())
    assert {m: n.shape for m, n in est.best_epochs_.items()} == {"A": (5,), "B": (7,)}
    assert est.history_[0]["n_trained"] == 12
    predicted = est.predict(test_trials)
    assert {m: predicted[m].shape for m in "AB"} == {"A": (16, 5), "B": (16, 7)}
    again = make(full_model=full).fit(trials).predict(test_trials)
    assert all(np.array_equal(predicted[m], again[m]) for m in "AB")


def test_channels_that_are_used_are_counted(full, trials):
    est = make(full_model=full, max_epochs=1, rank=2).fit(trials.sel(mouse_id="A"))
    channels = est.module_.readouts[0].reading.channels
    with torch.no_grad():
        channels.zero_()
        channels[0, 0, 1], channels[0, 1, 1], channels[0, 1, 2] = 0.02, -0.5, -0.011
        channels[1, 0, 0] = 0.0099
    assert est.n_channels_used_["A"].tolist() == [2, 0, 0, 0, 0]


def test_a_full_model_is_fitted_first_where_none_is(full, trials, test_trials):
    unfitted = clone(full)
    est = make(full_model=unfitted).fit(trials)
    assert not hasattr(unfitted, "module_")
    # on the same training and validation trials
    assert torch.equal(est.module_.core.filters, full.module_.core.filters)
    wide = make(max_epochs=1, random_state=None).fit(trials, validation=test_trials)
    assert wide.module_.core.filters.shape == (16, 4, 25, 25)  # behaviour, too


def test_a_full_model_that_is_fitted_first_has_its_own_seed(full, trials, test_trials):
    alone = clone(full).set_params(max_epochs=1).fit(trials, validation=test_trials)
    other = make(full_model=clone(alone), max_epochs=0, random_state=1)
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        other.fit(trials, validation=test_trials)
    assert torch.equal(other.module_.core.filters, alone.module_.core.filters)


def test_clones_fit_the_full_model_anew_unless_it_is_frozen(full, trials):
    assert not hasattr(clone(make(full_model=full)).full_model, "module_")
    frozen = clone(make(full_model=FrozenEstimator(full), max_epochs=1)).fit(trials)
    assert torch.equal(frozen.module_.core.filters, full.module_.core.filters)


@pytest.mark.parametrize("kind", ["none", "unfitted", "fitted", "frozen"])
def test_what_was_saved_predicts_alike(full, trials, test_trials, tmp_path, kind):
    tiny = clone(full).set_params(max_epochs=1)
    parts = {"none": full, "unfitted": tiny, "fitted": full, "frozen": FrozenEstimator(full)}
    est = make(full_model=parts[kind], max_epochs=1).fit(trials)
    if kind == "none":
        est.full_model = None
    est.save(tmp_path / "model")
    loaded = v1.load(tmp_path / "model")
    assert type(loaded) is v1.MinimodelRegressor
    before, after = est.predict(test_trials), loaded.predict(test_trials)
    assert all(np.array_equal(before[m], after[m]) for m in "AB")
    assert loaded.get_params(deep=False).keys() == est.get_params(deep=False).keys()
    assert type(loaded.full_model) is type(est.full_model)
    assert hasattr(loaded.full_model, "module_") == (kind in ("fitted", "frozen"))
    loaded.partial_fit(trials)
    assert len(loaded.history_) == 2


def test_other_animals_get_minimodels_of_the_same_convolution(full, trials, test_trials):
    est = make(full_model=full).fit(trials.sel(mouse_id="A"))
    new = est.transfer(trials.sel(mouse_id="B"), max_epochs=1)
    assert new.mice_ == ["B"]
    assert torch.equal(new.module_.core.filters, est.module_.core.filters)
    assert est.mice_ == ["A"]
    with pytest.raises(ValueError, match="do not train the convolution"):
        est.transfer(trials.sel(mouse_id="B"), freeze_core=False)


@pytest.mark.parametrize(
    "params", [{"neurons_at_once": 2}, {"neurons_at_once": 10**30}, {"low_memory": True}]
)
def test_memory_parameters_give_the_same_model(full, trials, test_trials, params):
    usual = make(full_model=full).fit(trials).predict(test_trials)
    sparing = make(full_model=full, **params).fit(trials).predict(test_trials)
    for mouse in "AB":
        np.testing.assert_allclose(sparing[mouse], usual[mouse], rtol=1e-4, atol=1e-6)


def test_checkpoints_go_on_to_the_same_model(full, trials, test_trials, tmp_path):
    whole = make(full_model=full, max_epochs=3).fit(trials).predict(test_trials)

    class Stop(Exception):
        pass

    def stop(record):
        if record["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        make(full_model=full, max_epochs=3).fit(trials, on_epoch=stop, checkpoint_dir=tmp_path)
    other = clone(full).set_params(random_state=1).fit(trials).set_params(random_state=0)
    with pytest.raises(ValueError, match="full_model"):
        make(full_model=other, max_epochs=3).fit(trials, checkpoint_dir=tmp_path)
    est = make(full_model=full, max_epochs=3).fit(trials, checkpoint_dir=tmp_path)
    assert [record["epoch"] for record in est.history_] == [1, 2, 3]
    again = est.predict(test_trials)
    assert all(np.array_equal(again[m], whole[m]) for m in "AB")


def test_a_silent_neuron_is_named_and_predicted_to_stay_silent(full, trials, test_trials):
    def silent(responses):
        responses[:, 2] = 0.0
        return responses

    quiet = given(trials, "responses", "B", silent)
    unit = trials.neuron_ids("B")[2]
    with (
        pytest.warns(UserWarning, match="do not vary over the validation trials"),
        pytest.warns(
            UserWarning, match=rf"mouse 'B': 1 of 7 neurons never respond.* neuron {unit}:"
        ),
    ):
        est = make(full_model=full).fit(quiet)
    assert est.history_[-1]["n_trained"] == 11
    assert est.best_epochs_["B"][2] == 0
    rates = est.predict(test_trials)["B"]
    assert np.ptp(np.asarray(rates)[:, 2]) == 0
    assert np.ptp(np.asarray(rates)[:, 1]) > 0


@pytest.mark.filterwarnings("ignore:.*(do not vary|never respond )")
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
def test_a_silent_neuron_that_responds_later_is_named(full, trials, how):
    def silent(responses):
        responses[:, 2] = 0.0
        return responses

    quiet = given(trials, "responses", "B", silent)
    est = make(full_model=full, max_epochs=1, warm_start=True).fit(quiet)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "mouse 'B': .* never responded")
        getattr(est, how)(quiet)
    with pytest.warns(UserWarning, match=r"mouse 'B': 1 of 7 neurons never responded.*neuron 2"):
        getattr(est, how)(trials)
    assert est.history_[-1]["n_trained"] == 11


def test_a_neuron_constant_in_validation_is_named_before_training(full, trials, tmp_path):
    training, held_out = v1.model_selection.image_train_test_split(
        trials, test_size=0.25, random_state=0
    )

    def constant(responses):
        responses[:, 3] = 1.0
        return responses

    held_out = given(held_out, "responses", "A", constant)
    with pytest.warns(UserWarning, match="mouse 'A': the responses of 1 of 5 .*neuron 3"):
        est = make(full_model=full).fit(training, validation=held_out)
    assert est.best_epochs_["A"][3] > 0
    est.save(tmp_path / "model")  # with scores that are no numbers
    assert v1.load(tmp_path / "model").best_epochs_["A"].tolist() == est.best_epochs_["A"].tolist()


def test_responses_that_were_not_recorded_change_nothing_else(full, trials, test_trials):
    def masked(responses):
        responses[::3, 1] = np.nan
        return responses

    gaps = given(trials, "responses", "A", masked)
    usual = make(full_model=full, validation_fraction=0).fit(trials).predict(test_trials)
    other = make(full_model=full, validation_fraction=0).fit(gaps).predict(test_trials)
    own, others = np.asarray(other["A"]), np.asarray(usual["A"])
    np.testing.assert_allclose(np.delete(own, 1, 1), np.delete(others, 1, 1), rtol=1e-5)
    assert not np.allclose(own[:, 1], others[:, 1])
    np.testing.assert_array_equal(other["B"], usual["B"])


def test_training_goes_on(full, trials):
    est = make(full_model=full, warm_start=True, period_epochs=(1, 1)).fit(trials)
    before = est.module_.readouts[0].mixing.detach().clone()
    est.fit(trials)
    assert [record["n_trained"] for record in est.history_] == [12] * 4
    assert not torch.equal(est.module_.readouts[0].mixing, before)


def test_training_does_not_go_on_with_another_convolution(full, trials):
    est = make(full_model=full, warm_start=True, max_epochs=1).fit(trials)
    est.set_params(full_model=FrozenEstimator(full)).fit(trials)
    other = clone(full).set_params(random_state=1, max_epochs=1).fit(trials)
    est.set_params(full_model=other)
    for go_on in (est.fit, est.partial_fit):
        with pytest.raises(ValueError, match="changed since fit: full_model"):
            go_on(trials)
    assert len(est.history_) == 2
    est.set_params(warm_start=False).fit(trials)
    assert torch.equal(est.module_.core.filters, other.module_.core.filters)


def test_another_selection_has_best_epochs_of_its_own(full, trials):
    options = {"warm_start": True, "schedule": "plateau", "max_epochs": 1}
    est = make(full_model=full, selection="correlation", **options).fit(trials)
    est.set_params(selection="variance_explained").fit(trials)
    assert all((epochs == 2).all() for epochs in est.best_epochs_.values())


def test_receptive_fields_and_pooling_sizes(full, trials):
    est = make(full_model=full).fit(trials)
    fields = v1.inspection.receptive_fields(est, 64, random_state=0)["B"]
    assert fields.sizes["neuron"] == 7
    assert bool((fields != 0).any())
    sizes = v1.inspection.pooling_sizes(est)
    assert {m: s.sizes["neuron"] for m, s in sizes.items()} == {"A": 5, "B": 7}


def test_what_cannot_be_shared_is_refused(full, small, trials, fitted):
    refused = {
        "full_model is a CNNRegressor": clone(fitted),
        "MinimodelRegressor that is not fitted": make(),
        "pooling='mean'": small(v1.FullModelRegressor, pooling="mean"),
        r"crop_scale \(there 0.5, here 1.0\)": small(v1.FullModelRegressor, crop_scale=0.5),
        r"behavior_mode \(there 'none', here 'auto'\)": small(
            v1.FullModelRegressor, behavior_mode="none"
        ),
    }
    for said, model in refused.items():
        model.fit = model._train = None  # before any training
        with pytest.raises(ValueError, match=said):
            make(full_model=model).fit(trials)
    channels = small(v1.FullModelRegressor, behavior_mode="channels", max_epochs=1).fit(trials)
    with pytest.raises(ValueError, match=r"takes 4 channels, .*here they are 1"):
        make(full_model=channels, behavior_mode="none").fit(trials)
    others = {"shift": "readout", "core_lr": 0.1, "ema_decay": 0.9, "compile": True}
    others["penalty_scale"] = "relative"
    for name, value in others.items():
        with pytest.raises(ValueError, match=name):
            make(full_model=full, **{name: value}).fit(trials)


def test_strides_instead_of_pooling(small, trials):
    stride = small(v1.FullModelRegressor, pooling="stride", max_epochs=1).fit(trials)
    est = make(full_model=stride, max_epochs=1).fit(trials)
    readout = est.module_.readouts[0]
    assert readout.pool == 1
    assert readout.core_shape == (3, 6, 8)


# What says how to compute, and not what.
OF_THE_RUN = {"validation_fraction", "device", "deterministic", "random_state", "compile"}
OF_THE_RUN |= {"micro_batch_size", "low_memory", "neurons_at_once", "warm_start", "verbose"}


def test_every_number_of_the_preset_is_the_published_one():
    params = v1.MinimodelRegressor.from_preset("minimodel2025").get_params()
    params = {n: v for n, v in params.items() if not n.startswith("full_model")}
    layers = {"hidden_channels": 64, "hidden_kernel": 9}
    layers |= {"batch_norm_momentum": 0.9, "weight_decay": 0.1}
    inputs = {"behavior_mode": "none", "behavior_columns": "non_pupil", "shift": "none"}
    inputs |= {"shift_columns": "pupil", "crop_scale": 1.0, "image_size": "auto"}
    inputs |= {"standardize": True}
    readout = {"rank": 1, "space_init": 0.01, "channel_init": 0.2, "channel_hoyer": 0.03}
    readout |= dict.fromkeys(("space_l1", "space_l2", "space_hoyer"), 0.0)
    readout |= dict.fromkeys(("channel_l1", "channel_l2"), 0.0)
    readout |= {"space_weight_decay": 1.0, "channel_weight_decay": 0.2}
    training = {"optimizer": "adamw", "lr": 1e-3, "core_lr": None, "betas": (0.9, 0.999)}
    training |= {"batch_size": 100, "max_epochs": 190, "core_pass": "joint", "precision": "tf32"}
    training |= {"loss_scale": "per_neuron", "loss_epsilon": 1e-12, "ema_decay": None}
    training |= {"penalty_scale": "absolute", "shuffle_block": 1}
    training |= {"clip_norm": None, "selection": "variance_explained", "schedule": "periods"}
    training |= {"period_epochs": (100, 30, 30, 30), "lr_patience": 5, "lr_factor": 1 / 3}
    training |= {"carry_patience": True, "max_lr_drops": 2, "min_lr": 1e-5}  # the last two unused
    expected = layers | inputs | readout | training
    assert {n: v for n, v in params.items() if n not in OF_THE_RUN} == expected


def test_the_full_model_of_a_preset_is_as_published():
    est = v1.MinimodelRegressor.from_preset("minimodel2025", max_epochs=7, device="cpu")
    full = v1.FullModelRegressor.from_preset("minimodel2025", max_epochs=7, device="cpu")
    assert est.full_model.get_params() == full.get_params()
    assert est.full_model.core_pass == "per_mouse"
    given = v1.FullModelRegressor()
    assert v1.MinimodelRegressor.from_preset("minimodel2025", full_model=given).full_model is given


def test_images_are_scaled_as_the_full_model_does(trials, equal):
    full = v1.FullModelRegressor(channels=(3, 4), kernels=(5, 3), max_epochs=0, device="cpu")
    brighter = given(trials, "stimuli", "A", lambda images: 2.0 * images.astype("f4") + 200)
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        full.fit(brighter.sel(mouse_id="A"))
    theirs = full.statistics_["A"]
    est = make(full_model=full, max_epochs=1).fit(trials.sel(mouse_id="A"))
    for name in ("image_mean", "image_std", "behavior_shift", "behavior_scale"):
        np.testing.assert_array_equal(est.statistics_["A"][name], theirs[name])
    with pytest.warns(UserWarning, match=r"mouse 'B' is not among those of full_model, \['A'\]"):
        est = make(full_model=full, max_epochs=1).fit(trials.sel(mouse_id="B"))
    images = trials.get("stimuli", "B")
    assert abs(est.statistics_["B"]["image_mean"] - images.mean()) < 0.1 * images.std()


def test_a_search_keeps_the_fit_of_a_frozen_full_model(full, trials):
    est = make(full_model=FrozenEstimator(full), max_epochs=1, validation_fraction=0)
    search = GridSearchCV(est, {"channel_hoyer": [0.0, 0.1]}, cv=GroupKFold(2))
    search.fit(trials, groups=trials.image_ids)
    assert torch.equal(search.best_estimator_.module_.core.filters, full.module_.core.filters)
