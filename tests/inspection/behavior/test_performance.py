"""Scores in thirds of a behaviour: by hand, under no effect, and with one."""

import numpy as np
import pytest
from scipy import stats

import v1tlearn as v1
from v1tlearn.inspection import BehaviorPerformanceDisplay, performance_by_behavior, with_behavior


def test_thirds_by_hand(cnn, test):
    mixed = test[np.random.default_rng(0).permutation(len(test))]
    found = performance_by_behavior(cnn, mixed, "running_speed", n_shuffles=0)
    predictions = cnn.predict(mixed)
    for mouse, own in found.items():
        speed = mixed.get("behaviors", mouse)[:, 2]
        order = np.argsort(speed)
        assert own["n_trials"].values.tolist() == [14, 13, 13]
        for group, rows in enumerate(np.array_split(order, 3)):
            true, predicted = (x.get(mouse)[rows] for x in (mixed.responses, predictions))
            expected = [
                stats.pearsonr(t, p).statistic for t, p in zip(true.T, predicted.T, strict=True)
            ]
            np.testing.assert_allclose(own["score"][group], expected, atol=1e-5)
            assert float(own["lowest"][group]) == pytest.approx(speed[rows].min())
            assert float(own["highest"][group]) == pytest.approx(speed[rows].max())
        scores = own["score"].values
        np.testing.assert_allclose(own["difference"], scores[2] - scores[0])
        assert float(own["improvement"]) == pytest.approx(scores[2].mean() / scores[0].mean() - 1)
        assert float(own["p_value"]) == stats.wilcoxon(scores[2] - scores[0]).pvalue
        assert own["neuron"].values.tolist() == test[mouse]["neuron"].values.tolist()


def noisy_where_small(test, column, n_neurons=40):
    """A model that knows the rates, of neurons whose noise falls with the behaviour."""
    rng = np.random.default_rng(0)
    recordings = {}
    for mouse in test.mice:
        own = test[mouse]
        values = own["behaviors"].sel(behavior=column).values
        rank = values.argsort().argsort() / len(values)
        rates = rng.random((len(values), n_neurons))
        noise = rng.normal(size=rates.shape) * (1.0 - 0.9 * rank)[:, None]
        own = own[["stimuli", "behaviors"]].drop_vars("neuron", errors="ignore")
        own["responses"] = (("trial", "neuron"), (rates + noise).astype(np.float32))
        own["expected_responses"] = (("trial", "neuron"), rates.astype(np.float32))
        recordings[mouse] = own
    trials = v1.Trials(recordings)

    class Knows:
        def fit(self, trials):
            return self

        def predict(self, trials):
            return trials.expected_responses

    return trials, Knows()


@pytest.mark.slow
def test_states_that_are_predicted_better_are_found_and_others_are_not(test):
    trials, model = noisy_where_small(test, "pupil_dilation")
    for own in performance_by_behavior(model, trials, n_shuffles=40).values():
        assert float(own["improvement"]) > 0.5
        assert float(own["p_value"]) < 1e-4
        assert float(own["share_improved"]) > 0.8
        assert float(own["difference"].mean()) > own["difference_shuffled"].max()
    control = performance_by_behavior(model, trials, "pupil_y", n_shuffles=40, random_state=1)
    inside = [
        own["difference_shuffled"].min()
        <= own["difference"].mean()
        <= own["difference_shuffled"].max()
        for own in control.values()
    ]
    assert all(inside)


def test_metrics_of_repeats(known, test):
    found = performance_by_behavior(
        known, test, "pupil_x", metric="average_correlation", n_groups=2, n_shuffles=1
    )
    assert found["A"].attrs["metric"] == "average_correlation"
    assert found["A"].sizes["group"] == 2
    own = performance_by_behavior(
        known, test, "pupil_x", metric=v1.metrics.average_correlation, n_groups=2, n_shuffles=1
    )
    np.testing.assert_array_equal(own["B"]["score"], found["B"]["score"])


def test_ties_at_the_border_are_told(known, test):
    still = with_behavior(test, {"running_speed": 0.0})
    with pytest.warns(UserWarning, match=r"mouse 'A': 100% of the trials have the value \[0.0\]"):
        performance_by_behavior(known, still.sel(mouse_id="A"), "running_speed", n_shuffles=0)


def test_errors_say_what_to_do(known, test):
    with pytest.raises(ValueError, match="metric='r2': expected one of"):
        performance_by_behavior(known, test, metric="r2")
    with pytest.raises(ValueError, match="has 5 trials: expected at least 6"):
        performance_by_behavior(known, test.sel(mouse_id="A")[:5])
    with pytest.raises(ValueError, match=r"column asks for \['pupil'\]"):
        performance_by_behavior(known, test, "pupil")
    with pytest.raises(TypeError, match="gave no DataArray"):
        performance_by_behavior(known, test, metric=lambda *a, **k: 0.0)


def test_a_dot_per_neuron(figures, cnn, test):
    display = BehaviorPerformanceDisplay.from_estimator(cnn, test, n_shuffles=0)
    assert len(display.axes_) == 2
    for axis, (mouse, own) in zip(display.axes_, display.performance.items(), strict=True):
        dots = np.asarray(axis.collections[0].get_offsets())
        np.testing.assert_allclose(dots.T, own["score"].values[[0, -1]])
        assert axis.get_title().startswith(f"mouse {mouse}: ")
        assert axis.get_xlim() == axis.get_ylim()
    assert display.ax_.get_xlabel() == "smallest third of pupil dilation"
    assert display.ax_.get_ylabel() == "single-trial correlation,\nlargest third"
    with pytest.raises(ValueError, match="at least one mouse"):
        BehaviorPerformanceDisplay({})
