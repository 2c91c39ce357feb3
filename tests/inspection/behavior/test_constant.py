"""Trials with constant behaviour, and what models predict for them."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.inspection.behavior.conftest import SMALL
from v1tlearn.inspection import behavior_gain, readout_shifts, with_behavior


def test_named_columns_are_constant_and_all_else_is_as_it_was(trials, test):
    still = with_behavior(test[::-1], {"running_speed": 3, "pupil_x": "mean"})
    for mouse in test.mice:
        before, after = test[::-1][mouse], still[mouse]
        assert (after["behaviors"].sel(behavior="running_speed") == 3).all()
        mean = before["behaviors"].sel(behavior="pupil_x").astype(float).mean()
        np.testing.assert_allclose(after["behaviors"].sel(behavior="pupil_x"), mean, rtol=1e-6)
        others = ["pupil_dilation", "pupil_dilation_derivative", "pupil_y"]
        assert (
            after["behaviors"].sel(behavior=others).equals(before["behaviors"].sel(behavior=others))
        )
        assert after.drop_vars("behaviors").identical(before.drop_vars("behaviors"))
    assert test.get("behaviors", "A")[:, 2].std() > 0  # the trials that came stay


def test_values_by_mouse_and_medians(test):
    given = {"running_speed": {"A": 1.0, "B": "median"}}
    changed = with_behavior(test, given)
    assert (changed.get("behaviors", "A")[:, 2] == 1).all()
    median = np.median(test.get("behaviors", "B")[:, 2].astype(float))
    np.testing.assert_allclose(changed.get("behaviors", "B")[:, 2], median, rtol=1e-6)


def test_predictions_are_those_of_recordings_with_that_behaviour(cnn, test):
    values = {"running_speed": 4.0, "pupil_dilation": 30.0}
    predicted = cnn.predict(with_behavior(test, values))
    recordings = {}
    for mouse in test.mice:
        own = test[mouse].copy(deep=True)
        for name, value in values.items():
            own["behaviors"].loc[{"behavior": name}] = value
        recordings[mouse] = own
    expected = cnn.predict(v1.Trials(recordings))
    for mouse in test.mice:
        np.testing.assert_allclose(predicted.get(mouse), expected.get(mouse), rtol=1e-6)
    assert not np.allclose(predicted.get("A"), cnn.predict(test).get("A"), rtol=1e-6)


def test_constants_are_in_the_units_of_the_recordings_in_a_pipeline(trials, test):
    train = trials.sel(tier="train")
    pipeline = make_pipeline(v1.TrialStandardizer(), v1.CNNRegressor(**SMALL, standardize=False))
    pipeline.fit(train, train.responses)
    outside = pipeline.predict(with_behavior(test, {"running_speed": 5.0}))
    steps = pipeline[:-1].transform(test)
    inside = pipeline[-1].predict(with_behavior(steps, {"running_speed": 5.0}))
    np.testing.assert_array_equal(outside.get("B"), inside.get("B"))


def test_padding_of_movies_stays():
    rng = np.random.default_rng(0)
    lengths = (5, 3, 4)
    trials = v1.Trials.from_arrays(
        [[rng.random((n, 1, 4, 5)) for n in lengths]],
        [[rng.random((n, 3)) for n in lengths]],
        [[rng.random((n, 2)) for n in lengths]],
        mouse_ids=["A"],
    )
    values = with_behavior(trials, {"running_speed": "mean"}).get("behaviors", "A")
    for movie, n in zip(values, lengths, strict=True):
        assert np.ptp(movie[:n, 2]) == 0
        assert np.isnan(movie[n:]).all()


def test_errors_say_what_to_do(test):
    with pytest.raises(ValueError, match=r"mouse 'A': behaviors asks for \['speed'\].*running"):
        with_behavior(test, {"speed": 1.0})
    with pytest.raises(ValueError, match=r"'running_speed'\] is nan: expected a finite number"):
        with_behavior(test, {"running_speed": np.nan})
    with pytest.raises(ValueError, match="is 'most': expected a finite number, 'mean'"):
        with_behavior(test, {"running_speed": "most"})
    with pytest.raises(ValueError, match="has no value of mouse 'B'"):
        with_behavior(test, {"running_speed": {"A": 1}})
    with pytest.raises(ValueError, match=r"names the mice \['C'\]"):
        with_behavior(test, {"running_speed": {"A": 1, "B": 1, "C": 1}})
    with pytest.raises(TypeError, match="behaviors is a float: expected a dict"):
        with_behavior(test, 1.0)
    with pytest.raises(ValueError, match="at least one column"):
        with_behavior(test, {})
    plain = v1.Trials({m: test.recordings[m].to_dataset().drop_vars("behaviors") for m in "AB"})
    with pytest.raises(ValueError, match="mouse 'A' has no behaviour"):
        with_behavior(plain, {"running_speed": 1.0})


# ----------------------------------------------------------------------------------- gain, shift


def test_gain_of_a_known_model(known, weights, test):
    found = behavior_gain(known, test, "running_speed", low=0, high={"A": 20.0, "B": 10.0})
    np.testing.assert_allclose(found["A"]["log_gain"], 2 * weights["A"][2], rtol=1e-5)
    np.testing.assert_allclose(found["B"]["log_gain"], weights["B"][2], rtol=1e-5)
    assert float(found["A"]["at_high"]) == 20
    assert found["B"]["neuron"].values.tolist() == test["B"]["neuron"].values.tolist()
    default = behavior_gain(known, test, "running_speed")["A"]
    spread = test.get("behaviors", "A")[:, 2].astype(float).std()
    np.testing.assert_allclose(default["log_gain"], weights["A"][2] * 2 * spread / 10, rtol=1e-4)


def test_gain_is_zero_where_behaviour_does_not_enter(blind, test):
    found = behavior_gain(blind, test, "running_speed")
    assert all((own["log_gain"] == 0).all() for own in found.values())


def test_gain_refuses_what_does_not_vary(known, test):
    still = with_behavior(test, {"running_speed": 1.0})
    with pytest.raises(ValueError, match=r"'running_speed' does not vary.*give low= and high="):
        behavior_gain(known, still, "running_speed")
    with pytest.raises(ValueError, match="high has no value of mouse 'B'"):
        behavior_gain(known, test, "running_speed", low=0.0, high={"A": 1.0})


def test_shifts_are_those_of_the_shifter(cnn, test):
    import torch

    found = readout_shifts(cnn, test[::-1])
    for mouse, own in found.items():
        statistics = cnn.statistics_[mouse]
        pupil = test[::-1].get("behaviors", mouse)[:, 3:].astype(float)
        pupil = (pupil - statistics["behavior_shift"][3:]) / statistics["behavior_scale"][3:]
        with torch.no_grad():
            expected = cnn.module_.shifter(mouse)(torch.from_numpy(pupil).float())
        np.testing.assert_allclose(own, expected, atol=1e-6)
        assert own["axis"].values.tolist() == ["x", "y"]


def test_readouts_that_do_not_move(blind, test):
    with pytest.raises(ValueError, match="mouse 'A': its readouts do not move"):
        readout_shifts(blind, test)
