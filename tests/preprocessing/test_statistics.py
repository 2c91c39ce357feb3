import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.preprocessing.statistics import trial_statistics
from v1tlearn.trials import Trials

NAMES = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]


def make_trials(images, behaviors=None, names=NAMES):
    variables = {"stimuli": (("trial", "channel", "height", "width"), images)}
    coords = {}
    if behaviors is not None:
        variables["behaviors"] = (("trial", "behavior"), behaviors)
        coords["behavior"] = list(names)
    return Trials({"A": xr.Dataset(variables, coords)})


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@given(seed=st.integers(0, 1000), n=st.integers(1, 700))
def test_population_statistics_of_any_dtype(dtype, seed, n):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 1, 2, 3)).astype(dtype)
    behaviors = 1e4 + rng.standard_normal((n, 5))
    got = trial_statistics(make_trials(images, behaviors), "A")
    assert got.stimuli_mean == pytest.approx(images.astype(float).mean(), rel=1e-12)
    assert got.stimuli_std == pytest.approx(images.astype(float).std(), rel=1e-10, abs=1e-9)
    np.testing.assert_allclose(got.behaviors_mean, behaviors.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(got.behaviors_std, behaviors.std(axis=0), rtol=1e-8, atol=1e-9)


def test_sums_of_uint8_are_exact():
    images = np.zeros((3, 1, 100, 100), "uint8")
    images[0, 0, 0, 0] = 1
    got = trial_statistics(make_trials(images), "A")
    n = 30_000
    assert got.stimuli_mean == 1 / n
    assert got.stimuli_std == np.sqrt(n - 1) / n
    assert got.behaviors_mean is None


def test_only_the_trials_of_the_view_count():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 2, 3, 4), dtype="uint8")
    behaviors = rng.standard_normal((20, 5))
    rows = [3, 5, 6, 17]
    got = trial_statistics(make_trials(images, behaviors)[rows], "A")
    assert got.stimuli_mean == pytest.approx(images[rows].mean())
    np.testing.assert_allclose(got.behaviors_std, behaviors[rows].std(axis=0))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_does_not_vary_is_divided_by_its_size(dtype):
    images = np.full((300, 1, 3, 3), 0.1 if dtype == "float32" else 7, dtype)
    behaviors = np.tile([0.1, -1e6, 2.0, 0.3, 0.0], (300, 1))
    scaling = trial_statistics(make_trials(images, behaviors), "A").scaling(NAMES)
    assert scaling["image_std"] == scaling["image_mean"] == pytest.approx(images.flat[0])
    np.testing.assert_allclose(scaling["behavior_scale"], [0.1, 1e6, 2.0, 0.3, 1.0], rtol=1e-15)
    black = trial_statistics(make_trials(0 * images, behaviors), "A").scaling(NAMES)
    assert (black["image_mean"], black["image_std"]) == (0, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_varies_by_rounding_only_does_not_vary(dtype):
    rng = np.random.default_rng(0)
    unit = 1 + np.finfo(dtype).eps * rng.integers(0, 2, (300, 14))
    images, behaviors = (0.1 * unit[:, :9]).astype(dtype), (3.7 * unit[:, 9:]).astype(dtype)
    assert behaviors.std() > 0
    found = trial_statistics(make_trials(images.reshape(300, 1, 3, 3), behaviors), "A")
    assert found.stimuli_std == 0
    np.testing.assert_array_equal(found.behaviors_std, 0)


def test_only_the_pupil_position_is_centred():
    rng = np.random.default_rng(0)
    behaviors = rng.standard_normal((50, 4)) + 3
    names = ["pupil_y", "running_speed", "whisking", "pupil_x"]
    trials = make_trials(np.zeros((50, 1, 2, 2), "uint8"), behaviors, names)
    scaling = trial_statistics(trials, "A").scaling(names)
    mean, std = behaviors.mean(axis=0), behaviors.std(axis=0)
    np.testing.assert_allclose(scaling["behavior_shift"], mean * [1, 0, 0, 1])
    np.testing.assert_allclose(scaling["behavior_scale"], std)
    assert "behavior_shift" not in trial_statistics(
        make_trials(behaviors[:, :, None, None]), "A"
    ).scaling(None)


def test_nan_in_one_behaviour_column_stays_there():
    behaviors = np.random.default_rng(0).standard_normal((50, 5))
    behaviors[3, 3], behaviors[4, 0] = np.nan, np.inf
    got = trial_statistics(make_trials(np.zeros((50, 1, 2, 2), "uint8"), behaviors), "A")
    np.testing.assert_array_equal(np.isnan(got.behaviors_std), [1, 0, 0, 1, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_errors_name_the_mouse(value):
    images = np.zeros((300, 1, 2, 2), "float32")
    images[280, 0, 0, 0] = value
    with pytest.raises(
        ValueError, match=r"'A': stimuli hold NaN or infinite .* in trial 280: leave"
    ):
        trial_statistics(make_trials(images), "A")
    with pytest.raises(ValueError, match="mouse 'A' has no trials"):
        trial_statistics(make_trials(images)[:0], "A")
