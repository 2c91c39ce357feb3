"""A readout of the user, through the public door, in one file."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1


class Pooled(v1.nn.Readout):
    """The mean of each map over space, weighted; never negative weights."""

    def __init__(self, core_shape, n_neurons, l1=0.0, bias_init=None):
        super().__init__(n_neurons)
        self.weights = torch.nn.Parameter(torch.full((n_neurons, core_shape[0]), 0.1))
        bias = torch.zeros(n_neurons) if bias_init is None else torch.as_tensor(bias_init)
        self.bias = torch.nn.Parameter(bias.float())
        self.l1 = l1

    def forward(self, features, shift=None):
        return features.mean((2, 3)) @ self.weights.T + self.bias

    def penalty(self):
        return self.l1 * self.weights.abs().sum()

    def project_(self):
        with torch.no_grad():
            self.weights.clamp_(min=0)


Small = partial(v1.nn.Stacked2dCore, n_layers=1, hidden_channels=4, input_kernel=3, hidden_kernel=3)


def model(**options):
    options = {"max_epochs": 2, "batch_size": 8, "device": "cpu", "random_state": 0, **options}
    return v1.EncodingRegressor(Small, **{"readout": Pooled, "lr": 0.05, **options})


@pytest.fixture(scope="module")
def fitted(trials):
    return model().fit(trials)


def test_it_is_fitted_to_several_mice(fitted, trials):
    assert all(isinstance(readout, Pooled) for readout in fitted.module_.readouts)
    assert fitted.predict(trials)["B"].shape == trials.responses["B"].shape


def test_its_constraint_holds_after_every_step(fitted):
    for readout in fitted.module_.readouts:
        assert (readout.weights >= 0).all()
        assert (readout.weights == 0).any()


@pytest.mark.filterwarnings("ignore:.*cannot follow their images")
def test_its_penalty_is_part_of_the_training(trials):
    free, sparse = (model(readout=partial(Pooled, l1=l1)).fit(trials) for l1 in (0.0, 30.0))
    sizes = [m.module_.readout("A").weights.sum() for m in (free, sparse)]
    assert sizes[1] < sizes[0]
    assert sparse.history_[0]["penalty"] > free.history_[0]["penalty"]


@pytest.mark.filterwarnings("ignore:.*cannot follow their images")
def test_it_is_saved_loaded_transferred_and_searched_over(fitted, trials, tmp_path):
    fitted.save(tmp_path / "model")
    again = v1.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(trials)["A"], fitted.predict(trials)["A"])
    moved = fitted.transfer(trials.sel(mouse_id="B"), max_epochs=1)
    assert isinstance(moved.module_.readout("B"), Pooled)
    search = GridSearchCV(
        model(max_epochs=1),
        {"readout": ["gaussian", Pooled, partial(Pooled, l1=1.0)]},
        cv=GroupKFold(2),
    )
    search.fit(trials, groups=trials.image_ids)
    assert len(search.cv_results_["params"]) == 3


def test_biases_begin_at_the_means_that_were_asked_for(trials):
    est = model(readout_bias="published_mean", max_epochs=0).fit(trials)
    np.testing.assert_allclose(
        est.module_.readout("A").bias.detach(), est.statistics_["A"]["response_mean"], rtol=1e-6
    )
