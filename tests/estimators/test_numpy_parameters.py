"""Parameters as searches give them: numbers of NumPy count as Python's, absurd ones are named."""

from fractions import Fraction

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import v1tlearn as v1
from v1tlearn.inspection import receptive_fields
from v1tlearn.preprocessing import CenterCrop, ResizeStimuli

# What each number may come as; as Python's it is the last.
ODD = {
    "n_layers": (np.uint8(2), 2),
    "hidden_channels": (np.uint8(4), 4),
    "input_kernel": (np.array(5), 5),
    "hidden_kernel": (np.int8(3), 3),
    "depth_separable": (np.bool_(True), True),
    "lr": (np.float64(0.002), 0.002),
    "core_lr": (np.float32(0.5), 0.5),
    "betas": ((np.float64(0.9), np.float32(0.5)), (0.9, 0.5)),
    "batch_size": (np.uint8(16), 16),
    "max_epochs": (np.int8(2), 2),
    "micro_batch_size": (np.int16(16), 16),
    "lr_patience": (np.uint8(1), 1),
    "max_lr_drops": (np.uint8(1), 1),
    "min_lr": (np.float32(0.5), 0.5),
    "clip_norm": (np.float64(9.0), 9.0),
    "period_epochs": ((np.uint8(2), np.int64(1)), (2, 1)),
    "validation_fraction": (np.float32(0.25), 0.25),
    "image_size": ((np.uint8(12), np.int64(16)), (12, 16)),
    "position_hidden_units": (np.uint16(30), 30),
    "standardize": (np.array(True), True),
    "random_state": (np.uint32(3), 3),
    "verbose": (np.int64(0), 0),
    "warm_start": (np.bool_(False), False),
}


@pytest.fixture(scope="module")
def some(trials):
    return trials.sel(mouse_id="A")


def test_numbers_of_numpy_make_the_model_that_those_of_python_make(some, small, equal, tmp_path):
    params = {name: odd for name, (odd, _) in ODD.items()}
    model = small(**params)
    assert all(model.get_params()[name] is odd for name, odd in params.items())
    clone(model)  # finds every parameter as the constructor got it
    expected = small(**{name: value for name, (_, value) in ODD.items()}).fit(some).predict(some)
    assert equal(model.fit(some).predict(some), expected)
    model.save(tmp_path / "model")
    loaded = v1.load(tmp_path / "model")
    assert equal(loaded.predict(some), expected)
    assert {name: loaded.get_params()[name] for name in ODD} == {
        name: value for name, (_, value) in ODD.items()
    }


def test_numbers_of_numpy_do_not_wrap_around(some, small):
    model = small(max_epochs=np.uint8(3), warm_start=True).fit(some)

    def stop(record):
        if record["epoch"] == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        model.set_params(max_epochs=np.uint8(254)).fit(some, on_epoch=stop)
    assert len(model.history_) == 5


@pytest.mark.parametrize("values", [np.array([8, 16]), [np.uint8(8), np.uint8(16)]])
def test_a_search_over_an_array(some, small, values):
    search = GridSearchCV(small(max_epochs=1), {"batch_size": values}, cv=2, error_score="raise")
    search.fit(some)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_ensembles(some, small, equal):
    made = [
        v1.EnsembleRegressor(small(max_epochs=1), kind(2), kind(1), random_state=kind(0)).fit(some)
        for kind in (int, np.uint8)
    ]
    assert equal(*(ensemble.predict(some) for ensemble in made))


def test_functions(some, small):
    model = small(max_epochs=1).fit(some)
    one, other = (
        receptive_fields(model, kind(200), batch_size=kind(50), random_state=kind(0))["A"]
        for kind in (int, np.uint8)
    )
    np.testing.assert_array_equal(one, other)
    images = some.get("stimuli", "A")
    for scale in (np.float32(0.5), np.array(0.5)):
        np.testing.assert_array_equal(
            CenterCrop(scale).fit_transform(images), CenterCrop(0.5).fit_transform(images)
        )
    size = np.array([6, 8], dtype=np.uint8)
    assert ResizeStimuli(size).fit_transform(images).shape[-2:] == (6, 8)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (v1.CNNRegressor, "hidden_channels", 10**12),
        (v1.CNNRegressor, "hidden_channels", 2**31 - 1),
        (v1.CNNRegressor, "n_layers", 10**9),
        (v1.CNNRegressor, "position_hidden_units", 10**20),
        (v1.CNNRegressor, "position_hidden_layers", 10**9),
        (v1.CNNRegressor, "image_size", (10**9, 10**9)),
        (v1.V1TRegressor, "embed_dim", 10**12),
        (v1.V1TRegressor, "mlp_dim", 2**31 - 1),
        (v1.V1TRegressor, "n_heads", 10**12),
        (v1.V1TRegressor, "n_blocks", 10**9),
    ],
)
def test_absurd_sizes_are_named(some, small, kind, name, value):
    with pytest.raises((ValueError, MemoryError), match=name):
        small(kind, **{name: value}).fit(some)


def test_absurd_numbers_of_models_and_pixels_are_named(small):
    with pytest.raises(ValueError, match="n_candidates"):
        v1.EnsembleRegressor(small(), 10**12, 1).fit(np.ones((4, 1, 12, 16)), None, np.eye(4))
    with pytest.raises(ValueError, match="image_size"):
        ResizeStimuli((10**6, 10**6)).fit_transform(np.zeros((2, 1, 12, 16)))


@pytest.mark.parametrize("name", ["n_neurons", "n_trials", "n_channels", "n_test_images"])
def test_absurd_recordings_are_named(name):
    with pytest.raises(ValueError, match=f"{name}=1000000000000 makes recordings that no memory"):
        v1.make_v1_recordings(**{name: 10**12})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"image_size": (5.5, 3)}, "image_size=.*whole numbers"),
        ({"image_size": ("8", "9")}, "image_size=.*whole numbers"),
        ({"image_size": (None, 9)}, "image_size=.*whole numbers"),
        ({"batch_size": True}, "'batch_size' parameter of"),
        ({"n_layers": np.True_}, "'n_layers' parameter of"),
        ({"lr": True}, "'lr' parameter of"),
        ({"clip_norm": Fraction(1, 2)}, r"'clip_norm' parameter of.*Fraction\(1, 2\)"),
        ({"batch_size": 2**70}, "'batch_size' parameter of"),
        ({"init_sigma": 1e300}, "'init_sigma' parameter of"),
        ({"betas": ("a", 0.9)}, "betas=.*two numbers"),
        ({"behavior_columns": ["running_speed"] * 2}, "names a column twice"),
    ],
)
def test_values_that_mean_nothing_are_named(params, message, small, trials):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(trials)


def test_pairs_may_be_arrays(small, trials):
    est = small(image_size=np.array([10, 14]), betas=np.array([0.9, 0.99]), max_epochs=1)
    assert est.fit(trials).module_.cropper.output_size == (10, 14)


def test_masked_values_are_no_parameters(some):
    with pytest.raises(ValueError, match=r"^lr is masked"):
        v1.CNNRegressor(lr=np.ma.masked_array(0.01, True)).fit(some)
    with pytest.raises(ValueError, match=r"^ResizeStimuli: image_size is masked_array"):
        ResizeStimuli(np.ma.masked_array([8, 10], [1, 0])).fit(some)
    with pytest.raises(ValueError, match=r"threshold is masked"):
        v1.metrics.feve([[1.0], [2.0]], [[1.0], [2.0]], image_ids=[0, 0], threshold=np.ma.masked)
