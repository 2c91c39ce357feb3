"""Responses as numbers: like with like, and with scalars; everything else is refused."""

import operator
import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import KFold
from sklearn.utils import _safe_indexing

import v1tlearn as v1
from tests.trials.labelled import SIZES, N, known_neurons
from v1tlearn.trials import Responses

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
NUMBERS = [2, -1.5, 0, True, np.float64(3), np.int32(2), np.array(0.5)]


def trials():
    return v1.Trials({mouse: known_neurons(mouse) for mouse in SIZES})


def drawn(seed, view):
    rng = np.random.default_rng(seed)
    values = {}
    for mouse, n in view.n_neurons.items():
        matrix = rng.normal(size=(len(view.rows(mouse)[0]), n))
        matrix[rng.random(matrix.shape) < 0.2] = np.nan
        matrix[rng.random(matrix.shape) < 0.1] = 0
        values[mouse] = matrix
    return Responses.from_arrays(values, like=view, name="predictions")


@given(
    key=st.lists(st.integers(0, N - 1), min_size=1, max_size=12),
    operation=st.sampled_from(OPERATORS),
    number=st.sampled_from(NUMBERS),
    seed=st.integers(0, 9),
)
def test_it_is_that_of_the_matrices(key, operation, number, seed):
    view = trials()[np.asarray(key)].sel(neuron=[1001, 1000])
    one, other = drawn(seed, view), drawn(seed + 1, view)
    with np.errstate(all="ignore"):
        for mouse in view.mice:
            a, b = one.get(mouse), other.get(mouse)
            cases = [
                (operation(one, other), operation(a, b)),
                (operation(one, number), operation(a, number)),
                (-one, -a),
                (abs(one), np.abs(a)),
                (np.exp(one), np.exp(a)),
                (np.maximum(one, other), np.maximum(a, b)),
                (np.minimum(number, one), np.minimum(number, a)),
            ]
            if operation is not operator.pow:
                cases.append((operation(number, one), operation(number, a)))
            for answer, expected in cases:
                assert isinstance(answer, Responses)
                np.testing.assert_array_equal(answer.get(mouse), expected)
                np.testing.assert_array_equal(answer.image_ids, view.image_ids)
                np.testing.assert_array_equal(answer.neuron_ids(mouse), [1001, 1000])
                np.testing.assert_array_equal(answer[::-1].get(mouse), expected[::-1])


def test_precision_names_and_units():
    view = trials()
    r, e = view.responses, view.expected_responses
    assert (r + e).get("A").dtype == (2 * r).get("A").dtype == np.float32
    assert (r - e).name is None
    assert (r - e)["A"].name is None
    assert (r + r).name == (2 * r).name == (-r).name == "responses"
    hertz = {"units": "Hz"}
    for answer in (r - e, 2 * r, r / 2, r * 2, abs(r), -r, r + 1, np.maximum(r, e)):
        assert answer["A"].attrs == hertz
    for answer in (r / e, r * e, 1 / r, r**2, np.sqrt(r)):
        assert answer["A"].attrs == {}
    other = v1.Trials({"A": known_neurons("A")}).responses
    other._attrs = {"A": {"units": "a.u."}}
    assert (view[:7].responses + other)["A"].attrs == {}


def test_undefined_results_are_nan_without_a_warning():
    r = trials().responses - trials().responses
    assert np.isnan((r / r).get("A")).all()
    assert np.isinf((1 / r).get("A")).all()


def test_labels_go_on_as_before(tmp_path):
    view = trials()[[9, 3, 3, 0]]
    answer = view.responses - view.expected_responses
    matrix = answer["A"]
    np.testing.assert_array_equal(matrix["area"], view.responses["A"]["area"])
    np.testing.assert_array_equal(matrix["trial_id"], view.responses["A"]["trial_id"])
    assert np.asarray(answer).dtype == object
    assert np.asarray(answer).shape == (4,)
    copy = pickle.loads(pickle.dumps(answer))
    xr.testing.assert_identical(copy["A"], matrix)
    answer.to_netcdf(tmp_path / "a.nc")
    again = Responses.open(tmp_path / "a.nc")
    assert again.name is None
    np.testing.assert_array_equal((again - answer).get("A"), np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (lambda t: t.responses[:3], r"\{'A': 7, 'B': 4, 'C': 1\} and \{'A': 3\}"),
        (lambda t: t.responses[::-1], "in another order"),
        (lambda t: t.responses.sel(mouse_id="A"), r"trials per mouse are"),
        (lambda t: t.responses.sel(neuron=[1000, 1001]), "mouse 'A': responses of 3 and of 2 neu"),
        (
            lambda t: t.responses.sel(neuron={"A": [1000, 1002, 1001]}),
            "mouse 'A': the unit ids differ, first at place 1: 1001 and 1002",
        ),
        (
            lambda t: t.responses[[1, 0, *range(2, N)]],
            "mouse 'A': image_id of trial 0 is 0 in one and 1 in the other",
        ),
        (
            lambda t: t.responses[[3, 1, 2, 0, *range(4, N)]],
            "mouse 'A': tier of trial 0 is 'train' in one and 'test' in the other",
        ),
        (
            lambda t: t.responses[[6, *range(1, 6), 0, *range(7, N)]],
            "mouse 'A': trial_id of trial 0 is 6 in one and 0 in the other",
        ),
    ],
)
def test_only_like_goes_with_like(other, match):
    view = trials()
    for operation in OPERATORS:
        with pytest.raises(ValueError, match=match):
            operation(view.responses, other(view))


def test_the_same_trials_of_other_recordings_are_alike():
    one, other = trials().responses, trials().responses
    np.testing.assert_array_equal((one - other).get("B"), np.zeros((4, 5)))
    bare = {m: known_neurons(m).drop_vars(["tier", "trial_id", "neuron"]) for m in SIZES}
    np.testing.assert_array_equal((one - v1.Trials(bare).responses).get("B"), np.zeros((4, 5)))


@pytest.mark.parametrize(
    "other",
    [
        np.ones(N),
        [1.0] * N,
        {"A": 1},
        "2",
        None,
        xr.DataArray(np.ones(3), dims="neuron"),
        np.ones(1),
    ],
    ids=lambda o: type(o).__name__,
)
def test_anything_else_is_refused(other):
    for operation in OPERATORS:
        with pytest.raises(TypeError, match=r"Responses combine with numbers and with Responses"):
            operation(trials().responses, other)
    with pytest.raises(TypeError):
        other + trials().responses


def test_functions_that_are_not_elementwise_are_refused():
    r = trials().responses
    for call in (lambda: np.add.reduce(r), lambda: np.modf(r), lambda: np.add(r, 1, out=r)):
        with pytest.raises(TypeError, match="elementwise functions"):
            call()


def test_nothing_is_compared_because_of_what_was_not_recorded():
    r = trials().responses
    for compare in (operator.gt, operator.le, operator.eq, operator.ne, np.greater, np.equal):
        for other in (0, r + 1, np.ones(N), np.float32(1)):
            with pytest.raises(TypeError, match=r'responses\["A"\] > 0'):
                compare(r, other)
            with pytest.raises(TypeError):
                compare(other, r)
    assert r == r
    assert r != "test"
    assert r in {r: 1}


def test_integers_do_not_wrap_around():
    counts = known_neurons("A")
    values = np.arange(counts.responses.size, dtype=np.uint8).reshape(counts.responses.shape)
    counts["responses"] = counts.responses.copy(data=values)
    r = v1.Trials({"A": counts}).responses
    for answer, expected in ((r - 3, values - 3.0), (-r, -1.0 * values), (r * 200, values * 200.0)):
        np.testing.assert_array_equal(answer.get("A"), expected)


def test_complex_numbers_are_no_responses():
    with pytest.raises(TypeError, match="mouse 'A': add gives complex numbers"):
        trials().responses + 1j


def test_tools_of_scikit_learn_take_them_as_before():
    view = trials()
    r = view.responses
    np.testing.assert_array_equal(_safe_indexing(r, [3, 1]).rows("A")[1], [3, 1])
    for train, _ in KFold(3).split(view, r):
        assert len(_safe_indexing(r, train)) == len(train)
    assert clone(DummyRegressor(constant=3)).constant == 3
    error = (r - view.expected_responses) ** 2
    assert error.mean("trial").sizes["unit"] == sum(n for _, n in SIZES.values())
    same = v1.metrics.single_trial_correlation(
        r.sel(mouse_id=["A", "B"]), 2 * r.sel(mouse_id=["A", "B"]) + 1
    )
    assert same == pytest.approx(1)
