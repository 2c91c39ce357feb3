"""scikit-learn's own checks, through a 2-D adapter that exists only here.

A strict estimator of images would have nearly all of them skipped. Here an ordinary (n, p) matrix
is n images of one pixel with p channels, seen by one mouse; for models that see time it is n movies
of one such frame. What several frames are to them is shown in `test_movie_models.py` and
`test_vist.py`.
"""

from dataclasses import KW_ONLY, dataclass

import numpy as np
import pytest
from sklearn.base import RegressorMixin, clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import _check_feature_names, check_is_fitted, validate_data

import v1tlearn as v1

# Of images, each with its reason, and the check of ours that replaces it. They are left out, rather
# than expected to fail: whether float32 comes out alike depends on the processor.
REPLACED = {
    "check_methods_subset_invariance": (
        "predictions are float32: those of a batch and of its rows may differ in the seventh "
        "digit; instead: test_base.py::test_predictions_do_not_depend_on_the_block"
    ),
    "check_methods_sample_order_invariance": (
        "as before; instead: test_predictions_follow_the_order_of_rows"
    ),
}


class OnColumns:
    """An estimator on columns. Responses must not be negative for it: `y` is shifted and back."""

    def fit(self, X, y=None):
        super().fit(*self._images(X, y, reset=True))
        _check_feature_names(self, X, reset=True)
        return self

    def _stimuli(self, columns):
        return columns[:, :, None, None]

    def _images(self, X, y, reset):
        if y is None:
            raise ValueError("Flat requires y to be passed, but the target y is None.")
        columns, y = validate_data(
            self,
            X,
            y,
            reset=reset,
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        y = y.astype(np.float64)
        if reset:
            self.lowest_, self.is_vector_ = y.min(), y.ndim == 1
        return self._stimuli(columns), None, self._responses(y - self.lowest_)

    def _responses(self, y):
        return y.reshape(len(y), -1)

    def predict(self, X):
        check_is_fitted(self)
        columns = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        y = super().predict(self._stimuli(columns)).astype(np.float64) + self.lowest_
        y = y.reshape(len(y), -1)
        return y[:, 0] if self.is_vector_ else y

    def score(self, X, y, sample_weight=None):
        return RegressorMixin.score(self, X, y, sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.target_tags.required = True
        tags.target_tags.single_output = True
        return tags


class OnFrames(OnColumns):
    """An estimator of movies on columns: each row is the only frame of a movie."""

    def _stimuli(self, columns):
        return columns[:, None, :, None, None]

    def _responses(self, y):
        return y.reshape(len(y), 1, -1)


class Partly:
    """Columns for `partial_fit`, which all of these have."""

    def partial_fit(self, X, y=None):
        first = not hasattr(self, "module_")
        super().partial_fit(*self._images(X, y, reset=first))
        if first:
            _check_feature_names(self, X, reset=True)
        return self


@dataclass(eq=False, repr=False, kw_only=True)
class Flat(Partly, OnColumns, v1.CNNRegressor):
    """A CNN on columns."""

    n_layers: int = 2
    hidden_channels: int = 16
    input_kernel: int = 1
    hidden_kernel: int = 1
    laplace: float = 0.0
    readout_l1: float = 0.0
    readout_bias: str = "mean"
    lr: float = 0.05
    batch_size: int = 64
    max_epochs: int = 10
    validation_fraction: float = 0.0
    device: str = "cpu"


@dataclass(eq=False, repr=False, kw_only=True)
class FlatMovieLN(Partly, OnFrames, v1.MovieLNRegressor):
    """A linear-nonlinear model of movies on columns."""

    n_lags: int = 2
    window_frames: int = 1
    space_smoothness: float = 0.0
    time_smoothness: float = 0.0
    l2: float = 0.0
    lr: float = 0.2
    batch_size: int = 64
    max_epochs: int = 20
    validation_fraction: float = 0.0
    device: str = "cpu"


@dataclass(eq=False, repr=False, kw_only=True)
class FlatMovieCNN(Partly, OnFrames, v1.MovieCNNRegressor):
    """A convolutional model of movies on columns."""

    n_layers: int = 2
    hidden_channels: int = 16
    input_kernel: int = 1
    hidden_kernel: int = 1
    input_time_kernel: int = 3
    hidden_time_kernel: int = 2
    window_frames: int = 1
    laplace: float = 0.0
    readout_l1: float = 0.0
    readout_bias: str = "mean"
    lr: float = 0.05
    batch_size: int = 64
    max_epochs: int = 10
    validation_fraction: float = 0.0
    device: str = "cpu"


@dataclass(eq=False, repr=False)
class FlatViST(Partly, OnFrames, v1.ViSTRegressor):
    """A Vi-ST on columns."""

    _: KW_ONLY
    grid: int = 1
    extractor: str = "none"  # dilated layers are slow with movies of one frame
    condition: str = "none"
    kernels: tuple = ()
    dropout: float = 0.0
    loss: str = "rmse"
    window_frames: int = 1
    steps_per_epoch: int = 10
    batch_size: int = 64
    max_epochs: int = 10
    lr: float = 0.1
    start_lr: float = 0.1
    warmup_epochs: int = 0
    average_from: int | None = None
    weight_decay: float = 0.0
    validation_fraction: float = 0.0
    device: str = "cpu"


@dataclass(eq=False, repr=False)
class FlatEnsemble(OnColumns, v1.EnsembleRegressor):
    """Two such CNNs; of a plain one, because an adapter in an adapter would shift twice."""

    n_candidates: int = 2
    n_members: int = 2
    validation_fraction: float = 0.0


def small_cnn():
    """Make a CNN with the parameters of `Flat`."""
    return v1.CNNRegressor(**Flat().get_params())


CHECKED = [
    Flat(random_state=0),
    FlatEnsemble(small_cnn(), random_state=0),
    FlatMovieLN(random_state=0),
    FlatMovieCNN(random_state=0),
    FlatViST(random_state=0),
]


@parametrize_with_checks(CHECKED[:1])
def test_sklearn_checks(estimator, check):
    run(estimator, check)


@pytest.mark.slow
@parametrize_with_checks(CHECKED[1:])
def test_sklearn_checks_of_all_kinds(estimator, check):
    run(estimator, check)


def run(estimator, check):
    name = check.func.__name__
    if name in REPLACED and not isinstance(estimator, OnFrames):  # movies are predicted one by one
        pytest.skip(REPLACED[name])
    check(estimator)


@pytest.mark.parametrize("estimator", [e for e in CHECKED if not isinstance(e, OnFrames)], ids=repr)
def test_predictions_follow_the_order_of_rows(estimator):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 3))
    model = clone(estimator).fit(X, X[:, 0])
    order = rng.permutation(20)
    expected = model.predict(X)
    np.testing.assert_allclose(model.predict(X[order]), expected[order], rtol=1e-5)
    assert np.ptp(expected) > 0.01
