"""A core of the user, through the public door, in one file."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from tests.descriptions import sealed
from v1tlearn.inspection import receptive_fields


class Recurrent(v1.nn.Core):
    """A convolution whose maps inhibit one another for some steps."""

    def __init__(self, input_shape, n_channels=4, n_steps=2, n_behaviors=0):
        super().__init__(input_shape)
        channels, height, width = input_shape
        self.output_shape = (n_channels, height - 4, width - 4)
        self.filters = torch.nn.Conv2d(channels, n_channels, 5)
        self.lateral = torch.nn.Conv2d(n_channels, n_channels, 3, padding=1)
        self.gain = torch.nn.Linear(n_behaviors, n_channels) if n_behaviors else None
        self.n_steps = n_steps

    def forward(self, images, behaviors=None, sizes=None):
        drive = self.filters(images)
        if self.gain is not None:
            drive = drive * self.gain(behaviors).exp()[:, :, None, None]
        maps = drive.relu()
        for _ in range(self.n_steps):
            maps = (drive - self.lateral(maps)).relu()
        return maps


def model(**options):
    options = {"max_epochs": 2, "batch_size": 8, "device": "cpu", "random_state": 0, **options}
    return v1.EncodingRegressor(options.pop("core", Recurrent), **options)


@pytest.fixture(scope="module")
def fitted(trials):
    return model().fit(trials)


def test_it_is_fitted_to_several_mice(fitted, trials):
    assert fitted.behavior_mode_ == "channels"
    predicted = fitted.predict(trials)
    assert predicted["A"].shape == trials.responses["A"].shape
    assert fitted.history_[-1]["loss"] < fitted.history_[0]["loss"]
    assert isinstance(fitted.module_.core, Recurrent)


def test_it_is_saved_and_loaded(fitted, trials, tmp_path):
    for path, est in (("class", fitted), ("partial", model(core=partial(Recurrent, n_steps=1)))):
        est = est if hasattr(est, "module_") else est.fit(trials)
        est.save(tmp_path / path)
        again = v1.load(tmp_path / path)
        assert again.module_.core.n_steps == est.module_.core.n_steps
        np.testing.assert_array_equal(again.predict(trials)["B"], est.predict(trials)["B"])


def test_a_class_that_is_not_imported_is_named(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    text = (tmp_path / "model" / "model.json").read_text()
    changed = sealed(text.replace(".Recurrent", ".Elsewhere"))
    (tmp_path / "model" / "model.json").write_text(changed)
    with pytest.raises(ValueError, match=r"the class .*\.Elsewhere, which is not here: import it"):
        v1.load(tmp_path / "model")


def test_functions_cannot_be_saved(trials, tmp_path):
    est = model(core=lambda shape: Recurrent(shape), max_epochs=0).fit(trials)
    with pytest.raises(TypeError, match="'parameters/core' is a function, which cannot be saved"):
        est.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_it_is_transferred(fitted, trials):
    one = trials.sel(mouse_id="A")
    for freeze in (True, False):
        moved = fitted.transfer(one, freeze, max_epochs=1)
        kept = torch.equal(moved.module_.core.filters.weight, fitted.module_.core.filters.weight)
        assert kept == freeze


@pytest.mark.slow
def test_it_is_searched_over(trials):
    grid = {"core": [Recurrent, partial(Recurrent, n_steps=0)], "head": ["elu", "softplus"]}
    search = GridSearchCV(model(max_epochs=1), grid, cv=GroupKFold(2))
    search.fit(trials, groups=trials.image_ids)
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.best_score_)


def test_it_is_cloned_combined_and_mapped(fitted, trials):
    assert clone(fitted).core is Recurrent
    ensemble = v1.EnsembleRegressor(model(max_epochs=1), 2, 2, random_state=0).fit(trials)
    assert np.isfinite(ensemble.score(trials))
    assert receptive_fields(fitted, 20)["A"].sizes["neuron"] == trials.n_neurons["A"]


def test_behaviour_goes_into_the_core_that_takes_it(trials):
    est = model(behavior_mode="core").fit(trials)
    assert est.module_.core.gain.in_features == len(est.core_columns_)
    assert est.module_.core.input_shape[0] == est.image_shape_[0]


@pytest.mark.filterwarnings("ignore:mouse .* cannot follow their images")  # after so few steps
def test_a_learned_head_is_learned(trials, tmp_path):
    est = model(head="softplus", readout_bias="mean", lr=0.05).fit(trials)
    steepness = [head.log_steepness.item() for head in est.module_.heads]
    assert all(s != 0 for s in steepness)
    est.save(tmp_path / "model")
    again = v1.load(tmp_path / "model")
    assert [head.log_steepness.item() for head in again.module_.heads] == steepness
    with pytest.raises(ValueError, match="set combine='rates'"):
        v1.EnsembleRegressor.from_members([est, est]).predict(trials)
    both = v1.EnsembleRegressor.from_members([est, est], combine="rates")
    np.testing.assert_allclose(both.predict(trials)["A"], est.predict(trials)["A"], rtol=1e-6)


def test_means_are_predicted_from_the_start(trials):
    """`readout_bias="mean"` goes through the inverse of whatever head there is."""

    class Nothing(v1.nn.Core):
        def __init__(self, input_shape):
            super().__init__(input_shape)
            self.output_shape = (1, 3, 3)

        def forward(self, images, behaviors=None, sizes=None):
            return images.new_zeros(len(images), 1, 3, 3)

    for head in ("elu", "softplus", partial(v1.nn.SoftplusHead, steepness=3.0)):
        est = model(core=Nothing, head=head, readout_bias="mean", max_epochs=0).fit(trials)
        expected = np.maximum(est.statistics_["A"]["response_mean"], 0)
        found = est.predict(trials)["A"].values[0]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2 * expected.max())


class NoShape(v1.nn.Core):
    """Says nothing of its maps."""


class Flat(v1.nn.Core):
    """Maps without width."""

    output_shape = (2, 3)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"core": torch.nn.Identity},
            TypeError,
            r"core gave a Identity: expected a v1tlearn\.nn\.C",
        ),
        ({"core": lambda shape: None}, TypeError, "core gave a NoneType"),
        ({"core": NoShape}, TypeError, "NoShape sets no output_shape"),
        ({"core": Flat}, ValueError, r"output_shape of Flat is \(2, 3\)"),
        ({"core": Recurrent((1, 9, 9))}, TypeError, "Recurrent"),
        ({"head": torch.nn.ReLU}, TypeError, r"head gave a ReLU: expected a v1tlearn\.nn\.Head"),
        ({"readout": lambda shape, n: torch.nn.Identity()}, TypeError, "readout gave a Identity"),
        ({"core": "cnn"}, ValueError, "The 'core' parameter of EncodingRegressor must be"),
    ],
)
def test_what_does_not_fulfil_the_contract_is_refused(options, error, match, trials):
    with pytest.raises(error, match=match):
        model(**options).fit(trials)


@pytest.mark.filterwarnings("ignore:82 of 82 validation trials show images")
def test_the_loss_that_is_minimised_may_be_another(trials, tmp_path):
    def absolute(rates, responses, recorded):
        errors = (rates - responses).abs()
        return errors.sum() if recorded is None else errors[recorded].sum()

    fits = {
        loss: model(loss=loss, validation_fraction=0, max_epochs=0).fit(trials)
        for loss in ("poisson", "squared", absolute)
    }
    weights = [est.module_.core.filters.weight for est in fits.values()]
    assert torch.equal(weights[0], weights[1])
    for loss, expected in (("squared", np.square), (absolute, np.abs)):
        est = fits[loss].set_params(warm_start=True, max_epochs=1)
        held = est.fit(trials, validation=trials).history_[-1]["validation_loss"]
        sums, count = 0.0, 0
        for mouse in trials.mice:
            scale = est.statistics_[mouse]["response_scale"]
            errors = (est.predict(trials).get(mouse) - trials.responses.get(mouse)) / scale
            sums, count = sums + expected(errors).sum(), count + errors.size
        assert held == pytest.approx(sums / count, rel=1e-4)
    fits["squared"].save(tmp_path / "model")
    assert v1.load(tmp_path / "model").loss == "squared"
    with pytest.raises(TypeError, match="'parameters/loss' is a function"):
        fits[absolute].save(tmp_path / "other")
