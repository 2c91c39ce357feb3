"""Every value of the parameters that choose between ways of building the model, trained once."""

import functools
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.training import InsufficientMemoryError
from v1tlearn.trials import Trials

COLUMNS = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]

SELECTIONS = ("correlation", "variance_explained")


def changed_by_behavior(est, trials, columns, mouse="A"):
    """Whether predictions depend on these columns of the behaviour."""
    stimuli, behaviors = trials.get("stimuli", mouse), trials.get("behaviors", mouse)
    altered = behaviors.copy()
    places = [COLUMNS.index(c) for c in columns]
    altered[:, places] = behaviors[::-1, places]
    first, second = (est.predict({mouse: stimuli}, {mouse: b}) for b in (behaviors, altered))
    return not np.array_equal(first[mouse], second[mouse])


@pytest.mark.parametrize(
    "mode",
    ["none", "channels", "b_mlp", "b_mlp_first_block", "b_mlp_shared", "b_mlp_per_mouse"],
)
def test_behavior_modes_of_v1t(mode, small, trials):
    est = small(v1.V1TRegressor, behavior_mode=mode, shift="none").fit(trials)
    assert est.behavior_mode_ == mode
    assert np.isfinite(est.score(trials))
    assert est.core_columns_ == ([] if mode == "none" else COLUMNS)
    assert changed_by_behavior(est, trials, COLUMNS) == (mode != "none")


@pytest.mark.parametrize("kind", quick([v1.CNNRegressor, v1.LNRegressor, v1.ViTRegressor], 0, 2))
@pytest.mark.parametrize("mode", ["none", "channels"])
def test_behavior_modes_of_the_others(kind, mode, small, trials):
    est = small(kind, behavior_mode=mode, shift="none").fit(trials)
    assert np.isfinite(est.score(trials))
    assert changed_by_behavior(est, trials, COLUMNS[:3]) == (mode != "none")
    assert not changed_by_behavior(est, trials, COLUMNS[3:])


@pytest.mark.parametrize(
    ("kind", "mode", "columns"),
    [
        (v1.V1TRegressor, "b_mlp", COLUMNS),
        (v1.ViTRegressor, "channels", COLUMNS[:3]),
        (v1.CNNRegressor, "channels", COLUMNS[:3]),
        (v1.LNRegressor, "channels", COLUMNS[:3]),
    ],
)
def test_auto_is_the_published_mode(kind, mode, columns, small, trials, arrays):
    est = small(kind, max_epochs=0).fit(trials)
    assert (est.behavior_mode_, est.core_columns_) == (mode, columns)
    est.fit(arrays["stimuli"], None, arrays["responses"])
    assert (est.behavior_mode_, est.core_columns_) == ("none", [])


def test_behavior_columns_choose_and_order(small, trials):
    est = small(behavior_columns=["running_speed", "pupil_x"], shift="none").fit(trials)
    assert list(est.feature_names_in_) == ["running_speed", "pupil_x"]
    assert changed_by_behavior(est, trials, ["running_speed"])
    assert not changed_by_behavior(est, trials, ["pupil_dilation", "pupil_y"])
    without = small(behavior_columns="all", max_epochs=0).fit(trials)
    assert without.core_columns_ == COLUMNS


@pytest.mark.parametrize("shift", ["none", "readout", "stimulus", "both", "both_behavior"])
def test_what_the_eye_moves(shift, small, trials):
    est = small(shift=shift, crop_scale=0.8, behavior_mode="none").fit(trials)
    assert np.isfinite(est.score(trials))
    assert changed_by_behavior(est, trials, ["pupil_x", "pupil_y"]) == (shift != "none")
    assert changed_by_behavior(est, trials, COLUMNS[:3]) == (shift == "both_behavior")


def test_without_shift_and_behavior_mode_no_behavior_is_needed(small, trials, arrays):
    est = small(shift="none", behavior_mode="none").fit(trials)
    assert est.predict(arrays["stimuli"])["A"].shape == arrays["responses"]["A"].shape


def frames(arrays, without=()):
    """Behaviour as data frames; one mouse lacks columns."""
    out = {}
    for mouse, values in arrays["behaviors"].items():
        frame = pd.DataFrame(values, columns=COLUMNS)
        out[mouse] = frame.drop(columns=list(without)) if mouse == "B" else frame
    return out


def test_a_mouse_without_pupil_position_has_no_shifter(small, arrays):
    behaviors = frames(arrays, without=["pupil_x", "pupil_y"])
    est = small().fit(arrays["stimuli"], behaviors, arrays["responses"])
    assert est.module_.shifter("A") is not None
    assert est.module_.shifter("B") is None
    assert np.isfinite(est.score(arrays["stimuli"], behaviors, arrays["responses"]))


def test_one_pupil_column_is_no_pupil_position(small, arrays):
    behaviors = frames(arrays, without=["pupil_x"])
    est = small().fit(arrays["stimuli"], behaviors, arrays["responses"])
    assert est.module_.shifter("B") is None


@pytest.mark.parametrize("given", ["all", "none", "A", "three axes"])
@pytest.mark.parametrize("kind", quick([v1.CNNRegressor, v1.V1TRegressor], 0))
def test_positions(kind, given, small, arrays):
    positions = {
        "all": arrays["positions"],
        "none": None,
        "A": {"A": arrays["positions"]["A"]},
        "three axes": arrays["positions"],
    }[given]
    dims = 3 if given == "three axes" else 2
    est = small(kind, position_dims=dims).fit(
        arrays["stimuli"], arrays["behaviors"], arrays["responses"], positions=positions
    )
    for mouse in est.mice_:
        network = est.module_.readout(mouse).position_network
        assert (network is not None) == (mouse in (positions or {}))
        if network is not None:
            assert network[0].in_features == dims
    assert np.isfinite(est.score(arrays["stimuli"], arrays["behaviors"], arrays["responses"]))


def test_positions_can_be_left_aside(small, trials):
    est = small(position_network=False).fit(trials)
    assert est.module_.readout("A").position_network is None


@pytest.mark.parametrize("bias", ["zero", "mean", "published_mean", "published_mean_over_std"])
def test_initial_bias(bias, small, trials):
    est = small(readout_bias=bias, max_epochs=0, validation_fraction=0).fit(trials)
    responses = trials.get("responses", "B").astype(np.float64)
    mean, scaled = responses.mean(0), responses.mean(0) / responses.std(0)
    expected = {
        "zero": np.zeros(7),
        "mean": np.where(scaled < 1, np.log(scaled), scaled - 1),
        "published_mean": mean,
        "published_mean_over_std": scaled,
    }[bias]
    found = est.module_.readout("B").bias.detach().numpy()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert np.isfinite(small(readout_bias=bias).fit(trials).score(trials))


@pytest.mark.parametrize("gaussian", ["full", "uncorrelated", "isotropic"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_readouts_and_optimizers(gaussian, optimizer, small, trials):
    est = small(gaussian=gaussian, optimizer=optimizer, core_lr=1e-3, weight_decay=0.01)
    assert np.isfinite(est.fit(trials).score(trials))


WAYS = [*product(["sqrt", "sqrt_recording", 2.0], ["joint", "per_mouse"], ["plateau", "rounds"])]
WAYS += [("per_neuron", "joint", "periods"), ("per_neuron", "per_mouse", "cosine")]
WAYS += [("per_recorded", "joint", "reduce"), ("per_recorded", "per_mouse", "constant")]


@pytest.mark.parametrize(("loss_scale", "core_pass", "schedule"), quick(WAYS, 0, 5, 10))
def test_ways_to_train(loss_scale, core_pass, schedule, small, trials):
    est = small(loss_scale=loss_scale, core_pass=core_pass, schedule=schedule, max_epochs=1)
    assert np.isfinite(est.fit(trials).score(trials))


def test_periods_of_an_estimator(small, trials):
    est = small(schedule="periods", period_epochs=(2, 1), lr_factor=0.5, max_epochs=9).fit(trials)
    assert est.stop_reason_ == "schedule"
    assert [r["lr"] for r in est.history_] == pytest.approx([2e-3, 2e-3, 1e-3])


def test_rates_of_an_estimator_fall_along_a_cosine(small, trials):
    est = small(schedule="cosine", lr_patience=9, max_epochs=2, min_lr=1e-4).fit(trials)
    assert [r["lr"] for r in est.history_] == pytest.approx([2e-3, (2e-3 + 1e-4) / 2])


def test_a_cosine_needs_no_validation(small, trials):
    options = {"lr_patience": 1, "max_epochs": 4, "min_lr": 0.0, "validation_fraction": 0}
    est = small(schedule="cosine", warm_start=True, **options).fit(trials)
    rates = [2e-3 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert [r["lr"] for r in est.history_] == pytest.approx(rates)
    assert est.best_epoch_ == 4
    est.partial_fit(trials)  # at the full rate
    est.fit(trials)
    assert [r["lr"] for r in est.history_[4:]] == pytest.approx([2e-3, *rates])


def test_a_core_that_begins_below_the_least_rate_stays_below(small, trials):
    rates = {"lr": 2e-3, "core_lr": 1e-12, "min_lr": 1e-3}
    began = small(max_epochs=0, **rates)
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        before = began.fit(trials).module_.core.state_dict()
    core = small(schedule="cosine", **rates).fit(trials).module_.core
    moved = [(p - before[name]).abs().max().item() for name, p in core.named_parameters()]
    assert max(moved) < 1e-9


def test_an_estimator_is_judged_by_the_variance_it_explains(small, trials):
    est = small(selection="variance_explained", max_epochs=4).fit(trials)
    name = "validation_variance_explained"
    for record in est.history_:
        of_mice = [record[f"{name}_{mouse}"] for mouse in trials.mice]
        assert record[name] == pytest.approx(np.mean(of_mice), rel=1e-5)
        assert np.isfinite(record["validation_correlation"])
    assert est.best_epoch_ == 1 + int(np.argmax([r[name] for r in est.history_]))


@pytest.mark.parametrize("judges", [SELECTIONS, SELECTIONS[::-1]])
def test_another_selection_has_a_best_epoch_of_its_own(judges, small, trials):
    est = small(warm_start=True, max_epochs=1, selection=judges[0]).fit(trials)
    est.set_params(selection=judges[1], max_epochs=2).fit(trials)
    assert est.best_epoch_ > 1
    est.fit(trials)  # the schedule goes on
    scores = [record[f"validation_{judges[1]}"] for record in est.history_[1:]]
    assert len(scores) == 4
    assert est.best_epoch_ == 2 + int(np.argmax(scores))
    assert est.state_["schedule"]["best"] == max(scores)


def test_neurons_without_variance_are_left_out_of_it_and_named(small, trials):
    responses = {m: np.array(trials.responses[m]) for m in trials.mice}
    responses["B"][:, 2] = 1.5
    odd = v1.Trials.from_arrays(
        {m: trials.get("stimuli", m) for m in trials.mice}, responses=responses
    )
    est = small(selection="variance_explained", max_epochs=1)
    with pytest.warns(UserWarning, match="'B': the responses of 1 of 7 neurons do not vary"):
        est.fit(odd)
    assert np.isfinite(est.history_[0]["validation_variance_explained"])
    constant = responses | {"B": np.full_like(responses["B"], 1.5)}
    held_out = v1.Trials.from_arrays(
        {m: trials.get("stimuli", m) for m in trials.mice}, responses=constant
    )
    with pytest.raises(ValueError, match=r"'B': no neuron's responses vary.*selection='corr"):
        est.fit(odd, validation=held_out)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"schedule": "reduce", "min_lr": 0.1}, "least rate above 0 and below the first"),
        ({"schedule": "cosine", "lr": 1e-5}, "expected a min_lr below lr"),
        ({"schedule": "periods", "period_epochs": (0,)}, "each at least 1"),
        ({"schedule": "periods", "lr_patience": 0}, "expected at least 1"),
        ({"selection": "r2"}, "selection"),
        ({"clip_norm": 0.0}, "clip_norm"),
    ],
)
def test_wrong_ways_to_train_are_named(params, message, small, trials):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(trials)


def test_means_over_what_was_recorded_need_the_loss_of_neurons(trials):
    def loss(rates, responses, recorded):
        return (rates - responses).square().sum()

    core = functools.partial(v1.nn.Stacked2dCore, n_layers=1, hidden_channels=2)
    est = v1.EncodingRegressor(core=core, loss=loss, loss_scale="per_recorded", max_epochs=1)
    with pytest.raises(ValueError, match="'per_recorded' needs the loss of each neuron"):
        est.fit(trials)


@pytest.mark.parametrize("tokenizer", ["unfold", "conv", "spt", "cct", "dual_norm"])
@pytest.mark.parametrize("attention", quick(["standard", "lsa"], 1))
def test_tokenizers_and_attention(tokenizer, attention, small, trials):
    est = small(v1.ViTRegressor, tokenizer=tokenizer, attention=attention, max_epochs=1)
    assert np.isfinite(est.fit(trials).score(trials))


def test_bfloat16_on_request(small, trials):
    est = small(precision="bfloat16").fit(trials)
    assert est.precision_ == "bfloat16"
    assert np.isfinite(est.score(trials))


@pytest.mark.parametrize("image_size", ["auto", (10, 14), [10, 14]])
def test_image_size(image_size, small, trials):
    est = small(image_size=image_size, crop_scale=0.75, max_epochs=1).fit(trials)
    size = est.module_.cropper.output_size
    assert tuple(size) == ((10, 14) if image_size != "auto" else (9, 12))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (v1.CNNRegressor, "sensorium2022"),
        (v1.LNRegressor, "sensorium2022"),
        (v1.CNNRegressor, "v1t2023"),
        (v1.LNRegressor, "v1t2023"),
        (v1.ViTRegressor, "v1t2023"),
        (v1.V1TRegressor, "v1t2023"),
    ],
)
def test_presets_train(kind, name, small, trials):
    preset = kind.from_preset(name)
    tiny = small(kind).get_params()
    shown = {k: v for k, v in preset.get_params().items() if v != kind().get_params()[k]}
    sizes = ("n_layers", "hidden_channels", "input_kernel", "hidden_kernel", "patch_size")
    sizes += ("patch_stride", "embed_dim", "mlp_dim", "random_state", "device")
    overrides = {k: tiny[k] for k in sizes if k in tiny}
    est = kind.from_preset(name, **overrides, max_epochs=1).fit(trials)
    assert {k: est.get_params()[k] for k in shown if k not in overrides and k != "max_epochs"} == {
        k: v for k, v in shown.items() if k not in overrides and k != "max_epochs"
    }
    assert np.isfinite(est.score(trials))


def test_the_sensorium_preset():
    est = v1.CNNRegressor.from_preset("sensorium2022", lr=0.001)
    assert est.batch_norm_momentum == 0.9
    assert (est.schedule, est.core_pass, est.loss_scale) == (
        "rounds",
        "per_mouse",
        "sqrt_recording",
    )
    assert (est.lr, est.batch_size, est.max_epochs) == (0.001, 128, 200)


def test_an_unknown_preset():
    with pytest.raises(ValueError, match=r"CNNRegressor has no preset 'x': expected .*'sensor"):
        v1.CNNRegressor.from_preset("x")


def test_several_channels(small):
    recordings = v1.make_v1_recordings(
        n_mice=1, n_neurons=4, n_trials=30, n_test_images=2, n_repeats=2, n_channels=2,
        image_shape=(12, 16), random_state=0,
    )  # fmt: skip
    trials = Trials(recordings).sel(tier="train")
    for kind in (v1.CNNRegressor, v1.V1TRegressor):
        assert small(kind, max_epochs=1).fit(trials).image_shape_ == (2, 12, 16)


def test_the_shifter_sees_the_columns_asked_for(small, trials, arrays):
    est = small(behavior_mode="none", shift_columns=["running_speed"]).fit(trials)
    assert est.module_.shifters[0].n_inputs == 1
    assert est.used_columns_["A"] == ["running_speed"]
    stimuli = {"A": arrays["stimuli"]["A"]}
    names = est.behavior_names_["A"]
    before = est.predict(stimuli, {"A": arrays["behaviors"]["A"]})["A"]
    for column in names:
        behaviors = arrays["behaviors"]["A"].copy()
        behaviors[:, names.index(column)] += 1
        moved = not np.array_equal(est.predict(stimuli, {"A": behaviors})["A"], before)
        assert moved == (column == "running_speed")


def test_columns_asked_for_come_last_in_the_stimulus_shifter(small, trials):
    est = small(shift="both_behavior", crop_scale=0.8, shift_columns=["pupil_x", "running_speed"])
    model = est.fit(trials).module_
    assert model.shifters[0].n_inputs == 2
    assert model.cropper.shifters[0].n_inputs == 5


def test_resized_images_are_taken_as_they_are(small, trials):
    est = small(image_size=(6, 8)).fit(trials)
    resized = v1.ResizeStimuli((6, 8)).fit_transform(trials)
    np.testing.assert_allclose(
        est.predict(resized)["A"], est.predict(trials)["A"], rtol=1e-5, atol=1e-6
    )
    cropping = small(image_size=(6, 8), crop_scale=0.8).fit(trials)
    with pytest.raises(ValueError, match="the model was fitted on"):
        cropping.predict(resized)
    with pytest.raises(ValueError, match="the model was fitted on"):
        est.predict(v1.ResizeStimuli((6, 9)).fit_transform(trials))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["whiskers"], r"mouse 'A': shift_columns asks for \['whiskers'\]"),
        ([], "shift_columns is empty"),
    ],
)
def test_shift_columns_must_exist(columns, message, small, trials):
    with pytest.raises(ValueError, match=message):
        small(shift_columns=columns).fit(trials)


def test_convolutions_without_bias(small, trials):
    with_bias, without = (small(bias=b).fit(trials).module_.core for b in (True, False))
    names = dict(without.named_parameters())
    extra = {n for n, _ in with_bias.named_parameters()} - set(names)
    assert len(extra) == 3  # one layer of three convolutions
    assert all(n.endswith("bias") for n in extra)


def test_the_loss_constant_enters_the_loss(small, trials):
    losses = [
        small(loss_epsilon=e, max_epochs=1).fit(trials).history_[0]["loss"] for e in (0, 1e-8, 0.1)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[2] - losses[0]) > 0.01


def test_epochs_are_reported(small, trials):
    records = []
    est = small(max_epochs=3).fit(trials, on_epoch=records.append)
    assert records == est.history_


def test_what_the_report_raises_ends_training_in_good_order(small, trials):
    class Enough(Exception):
        pass

    def stop(record):
        if record["epoch"] == 2:
            raise Enough

    est = small(max_epochs=9, schedule="constant")
    with pytest.raises(Enough):
        est.fit(trials, on_epoch=stop)
    reference = small(max_epochs=2, schedule="constant").fit(trials)
    assert est.n_iter_ == 2
    np.testing.assert_array_equal(est.predict(trials)["A"], reference.predict(trials)["A"])


WAYS = ("compile", "micro_batch_size", "low_memory")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [v1.V1TRegressor, v1.ViTRegressor])
def test_less_memory_gives_the_same_model(kind, small, trials, equal):
    """Recomputation to the bit; parts draw other random numbers, which are many enough to see."""
    plain = small(kind, low_memory=False).fit(trials)
    again = small(kind, low_memory=True).fit(trials)
    assert equal(again.predict(trials), plain.predict(trials))
    parts = small(kind, micro_batch_size=5).fit(trials)
    assert not equal(parts.predict(trials), plain.predict(trials))
    assert parts.score(trials) == pytest.approx(plain.score(trials), abs=0.1)


@pytest.mark.parametrize("kind", [v1.CNNRegressor, v1.LNRegressor])
def test_parts_of_batches_are_not_for_batch_normalisation(kind, small, trials, equal):
    est = small(kind).fit(trials)
    expected = est.predict(trials)
    est.set_params(micro_batch_size=5)
    with pytest.raises(ValueError, match="micro_batch_size=5 is below batch_size=16, but the core"):
        est.fit(trials)
    assert equal(est.predict(trials), expected)  # the earlier fit stays
    est.set_params(micro_batch_size=16).fit(trials)
    new = est.transfer(trials, micro_batch_size=5)  # a frozen core uses running statistics
    assert np.isfinite(new.score(trials))


def test_compiling_without_a_compiler_is_refused(small, trials, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"compile=True needs a C\+\+ compiler"):
        small(compile=True).fit(trials)
    small(max_epochs=0).fit(trials)


def test_full_memory_is_told_by_fit(small, trials, monkeypatch):
    empty = torch.empty

    def fail(*args, **kwargs):
        if kwargs.get("dtype") != torch.uint8:  # where images are to lie
            return empty(*args, **kwargs)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0")

    monkeypatch.setattr(torch, "empty", fail)
    est = small()
    with pytest.raises(InsufficientMemoryError, match=r"mice \['A', 'B'\].*3.00 GiB.*low_memory"):
        est.fit(trials)
    assert not hasattr(est, "module_")


@pytest.mark.parametrize("name", WAYS)
def test_ways_of_computing_may_change_between_fits(name, small, trials):
    est = small(warm_start=True).fit(trials)
    est.set_params(**{name: 16 if name == "micro_batch_size" else False}).fit(trials)
    assert est.n_iter_ == 4
