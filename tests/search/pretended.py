"""Models for tests of the search: one that trains for a moment, one that only pretends to."""

from scipy.stats import uniform

import v1tlearn as v1
from v1tlearn.search import HyperbandSearch


def small_cnn(**params):
    params = {"input_kernel": 5, "hidden_kernel": 3, "max_epochs": 4, "device": "cpu"} | params
    return v1.CNNRegressor(n_layers=2, hidden_channels=2, **params)


class Pretended(v1.CNNRegressor):
    """Trains nothing: the score is a function of the parameters, and grows with the epochs."""

    def value(self):
        return self.lr

    def fit(self, *args, on_epoch=None, **kwargs):
        for epoch in range(1, self.max_epochs + 1):
            score = self.value() * epoch / self.max_epochs
            on_epoch({"epoch": epoch, "validation_correlation": score})
        return self


def search_pretended(estimator=None, space=None, **params):
    params = {"min_epochs": 1, "random_state": 0, "refit": False, "n_trials": 8} | params
    estimator = Pretended(max_epochs=9) if estimator is None else estimator
    return HyperbandSearch(
        estimator, {"lr": uniform(0.1, 0.9)} if space is None else space, **params
    )
