"""`FullModelRegressor`: the published run, its variants, and what several animals share."""

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.nn.minimodel_files import REFERENCE
from tests.sweeps import quick
from v1tlearn.training import make_optimizer

# Of so few trials some neurons are not learned.
pytestmark = pytest.mark.filterwarnings("ignore:.*cannot follow their images")

NAME = "validation_variance_explained"


@pytest.fixture(scope="module")
def run_of_four_periods():
    with np.load(REFERENCE / "run_fullmodel.npz") as file:
        return dict(file)


def near(found, expected, tolerance):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < tolerance, error


class InPublishedOrder(v1.FullModelRegressor):
    """Draws the batches of an epoch by the legacy generator, seeded with its number."""

    def _make_run(self, *args):
        run = super()._make_run(*args)
        run.draw = self.draw
        return run

    def draw(self, lengths, batch_size, device):
        order = np.random.RandomState(next(self.epochs)).permutation(lengths["mouse"])
        return [{"mouse": rows} for rows in torch.from_numpy(order).split(batch_size)]


def test_the_published_run_from_a_released_model_on(run_of_four_periods):
    arrays = run_of_four_periods
    state = {n.removeprefix("state0/"): v for n, v in arrays.items() if n.startswith("state0/")}
    est = InPublishedOrder()
    est.epochs = iter(arrays["history/epoch_in_period"].astype(int))
    vars(est).update(vars(v1.load_minimodel(state)))
    est.set_params(
        batch_size=int(arrays["batch_size"]),
        period_epochs=arrays["max_epochs"].tolist(),
        lr_patience=int(arrays["patience"]),
        warm_start=True,
        device="cpu",
    )
    held_out = v1.Trials.from_arrays(arrays["val_images"][:, None], None, arrays["val_responses"])
    est.fit(arrays["images"][:, None], responses=arrays["responses"], validation=held_out)
    assert est.stop_reason_ == "schedule"
    for name, key in {"lr": "learning_rate", "loss": "train_loss"}.items():
        near([r[name] for r in est.history_], arrays[f"history/{key}"], 1e-4)
    near([r["validation_loss"] for r in est.history_], arrays["history/val_loss"], 1e-4)
    near([r[NAME] for r in est.history_], arrays["history/val_variance_explained_mean"], 1e-4)
    near(est.predict(arrays["val_images"][:, None]), arrays["best/val_prediction"], 1e-4)


def test_a_neuron_that_hardly_varies_does_not_choose_the_epoch(small, trials):
    training, held_out = v1.model_selection.image_train_test_split(
        trials.sel(mouse_id="A"), test_size=0.3, random_state=0
    )
    answers = held_out.get("responses", "A").copy()
    answers[:, 0] = answers[:, 0].mean() + 1e-3 * np.arange(len(answers))
    held_out = v1.Trials.from_arrays(
        {"A": held_out.get("stimuli", "A")},
        {"A": held_out.get("behaviors", "A")},
        {"A": answers},
        behavior_names=training.behavior_names("A"),
    )

    def fit(**params):
        est = small(v1.FullModelRegressor, max_epochs=5, lr=0.03, **params)
        return est.fit(training, validation=held_out)

    usual, bounded_by_nothing = fit(), fit(selection="variance_explained")
    assert max(record[NAME] for record in bounded_by_nothing.history_) < -100
    correlations = [record["validation_correlation"] for record in usual.history_]
    assert usual.best_epoch_ == 1 + int(np.argmax(correlations))
    assert correlations[bounded_by_nothing.best_epoch_ - 1] < max(correlations)


def test_weight_decays_are_those_of_the_preset(small, trials):
    est = small(v1.FullModelRegressor, max_epochs=1).fit(trials)
    optimizer = make_optimizer(est.module_, "adamw", lr=1e-3)
    found = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for parameter in est.module_.core.parameters():
        assert found[id(parameter)] == 0.1
    for readout in est.module_.readouts:
        decays = [found[id(p)] for p in (readout.rows, readout.columns, readout.channels)]
        assert decays == [1.0, 1.0, 0.1]
        assert found[id(readout.bias)] == 0.0


@pytest.mark.parametrize(
    "options",
    quick(
        [
            {"channels": (3,)},
            {"channels": (3, 4, 5, 6), "kernels": (5, 3)},
            {"activation": "none", "pooling": "mean"},
            {"activation": "relu", "pointwise_output": False},
            {"pooling": "stride", "kernels": (4, 2)},
            {"depth_separable": False},
            {"readout": "gaussian", "schedule": "plateau", "loss_scale": "sqrt"},
            {"behavior_mode": "none", "shift": "none", "core_weight_decay": None},
        ],
        1,
        5,
    ),
)
def test_variants_train_predict_and_are_saved(options, small, trials, equal, tmp_path):
    weights = {"space_init": 0.01, "channel_init": 0.01}  # from where the loss surely falls
    est = small(v1.FullModelRegressor, **weights, **options).fit(trials)
    predictions = est.predict(trials)
    assert all(np.isfinite(predictions[mouse]).all() for mouse in trials.mice)
    assert est.history_[-1]["loss"] < est.history_[0]["loss"]
    est.save(tmp_path / "model")
    again = v1.load(tmp_path / "model")
    assert equal(again.predict(trials), predictions)
    assert again.get_params()["channels"] == est.get_params()["channels"]


def test_behaviour_enters_as_planes_and_the_core_is_one_for_all(small, trials):
    est = small(v1.FullModelRegressor).fit(trials)
    assert est.module_.core.input_shape[0] == 1 + len(est.core_columns_)
    changed = {m: trials.get("behaviors", m) + 1.0 for m in trials.mice}
    images = {m: trials.get("stimuli", m) for m in trials.mice}
    names = list(trials.behavior_names("A"))
    moved = est.predict(images, changed, behavior_names=names)
    for mouse in trials.mice:
        assert not np.allclose(moved[mouse], est.predict(trials)[mouse])
    new = est.transfer(trials.sel(mouse_id="B"), max_epochs=1)
    for one, other in zip(
        est.module_.core.parameters(), new.module_.core.parameters(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"channels": ()}, r"channels=\(\): expected a whole number for each layer"),
        ({"channels": (2, 2.5)}, "whole number"),
        ({"kernels": [0]}, "kernels"),
        ({"kernels": "25"}, "kernels"),
        ({"pooling": "sum"}, "pooling"),
        ({"activation": "gelu"}, "activation"),
        ({"core_weight_decay": -1.0}, "core_weight_decay"),
        ({"depth_separable": False, "channels": (2,) * 5}, "does not fit into images"),
    ],
)
def test_wrong_parameters_are_named_before_training(params, message, small, trials):
    with pytest.raises(ValueError, match=message):
        small(v1.FullModelRegressor, **params).fit(trials)


def test_numbers_of_numpy_are_numbers(small, trials, equal):
    plain = small(v1.FullModelRegressor, max_epochs=1).fit(trials)
    odd = small(
        v1.FullModelRegressor,
        max_epochs=1,
        channels=np.array([3, 4], np.uint8),
        kernels=[np.uint8(5), np.int64(3)],
    ).fit(trials)
    assert equal(odd.predict(trials), plain.predict(trials))
