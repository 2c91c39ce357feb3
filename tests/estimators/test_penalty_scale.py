"""Penalties in the size of the loss, from the parameter to the training."""

import json

import pytest

import v1tlearn as v1
from tests.descriptions import sealed

pytestmark = pytest.mark.filterwarnings("ignore:mouse .* neurons cannot follow:UserWarning")
STILL = {"max_epochs": 1, "validation_fraction": 0, "lr": 1e-12, "core_pass": "per_mouse"}


def penalty(est, trials):
    return est.fit(trials).history_[0]["penalty"]


def test_the_core_bears_trials_and_neurons_of_each_mouse(small, trials):
    scales = {"readout_l1": 0.0, **STILL}
    relative = penalty(small(**scales), trials)
    absolute = penalty(small(penalty_scale="absolute", **scales), trials)
    share = sum((41 / 4500) ** 0.5 * n / 8000 for n in (5, 7))
    assert relative == pytest.approx(absolute * share / 2, rel=1e-5)
    joint = penalty(small(**scales | {"core_pass": "joint"}), trials)
    assert joint == pytest.approx(relative, rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"readout_l1": 2.0}, {"readout": "factorized", "channel_hoyer": 0.5}]
)
@pytest.mark.parametrize("kind", [v1.CNNRegressor, v1.V1TRegressor])
def test_readouts_bear_the_trials_alone(kind, options, small, trials):
    free = {v1.CNNRegressor: {"laplace": 0.0}, v1.V1TRegressor: {"core_l1": 0.0}}[kind]
    relative = penalty(small(kind, **free, **options, **STILL), trials)
    absolute = penalty(small(kind, penalty_scale="absolute", **free, **options, **STILL), trials)
    assert relative == pytest.approx((41 / 4500) ** 0.5 * absolute, rel=1e-5)


def test_a_constant_loss_scale_leaves_trials_out(small, trials):
    options = {"laplace": 0.0, "readout_l1": 2.0, "loss_scale": 3.0, **STILL}
    relative = penalty(small(**options), trials)
    assert relative == penalty(small(penalty_scale="absolute", **options), trials)


def test_models_are_relative_and_presets_absolute():
    kinds = (v1.CNNRegressor, v1.LNRegressor, v1.ViTRegressor, v1.V1TRegressor)
    assert {kind().penalty_scale for kind in kinds} == {"relative"}
    presets = [kind.from_preset(name) for kind in kinds for name in kind._presets]
    assert {est.penalty_scale for est in presets} == {"absolute"}


def test_it_may_change_when_a_fitted_model_goes_on(small, trials):
    est = small(warm_start=True, max_epochs=1).fit(trials)
    est.set_params(penalty_scale="absolute", max_epochs=2).fit(trials)
    assert est.history_[1]["penalty"] > 10 * est.history_[0]["penalty"]


def test_models_saved_before_there_was_a_scale_go_on_as_they_began(small, trials, tmp_path):
    est = small(penalty_scale="absolute", max_epochs=1).fit(trials)
    est.save(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    text = json.dumps(document)
    assert text.count('"penalty_scale"') == 2  # as given, and as fitted
    file.write_text(sealed(json.dumps(without(document, "penalty_scale"))), encoding="utf-8")
    opened = v1.load(tmp_path / "model")
    assert opened.penalty_scale == "absolute"
    one, other = (e.partial_fit(trials).history_[-1] for e in (est, opened))
    assert one["penalty"] == other["penalty"]


def without(tree, name):
    if isinstance(tree, dict):
        return {key: without(value, name) for key, value in tree.items() if key != name}
    return [without(value, name) for value in tree] if isinstance(tree, list) else tree
