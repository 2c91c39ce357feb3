"""`Responses`: labels, arrays, averages, tables and files."""

import pickle

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.trials.labelled import FLAT_MICE, SIZES, N
from v1tlearn.trials import Responses

# ----------------------------------------------------------------------------------- responses


def test_the_matrix_of_one_mouse_is_labelled(trials):
    matrix = trials.responses[[8, 4, 2]]["A"]
    assert matrix.dims == ("trial", "neuron")
    assert matrix.attrs == {"units": "Hz"}
    np.testing.assert_array_equal(matrix, trials._recordings["A"]["responses"][[4, 2]])
    np.testing.assert_array_equal(matrix["neuron"], [1000, 1001, 1002])
    np.testing.assert_array_equal(matrix["image_id"], [1, 2])
    np.testing.assert_array_equal(matrix["tier"], ["train", "train"])
    np.testing.assert_array_equal(matrix["trial_id"], [2, 4])
    with pytest.raises(ValueError, match="unknown mouse 'Z'"):
        trials.responses["Z"]
    with pytest.raises(ValueError, match=r"no responses of mouse 'B' here, only of \['A'\]"):
        trials[:7].responses["B"]


def test_predictions_bear_the_labels_of_their_trials(trials):
    view = trials[[9, 3, 7, 1]]
    values = {"A": np.array([[1.0] * 3, [2.0] * 3]), "B": np.array([[3.0] * 5, [4.0] * 5])}
    predictions = Responses.from_arrays(values, like=view)
    assert [v[0] for v in np.asarray(predictions)] == [3.0, 1.0, 4.0, 2.0]
    np.testing.assert_array_equal(predictions.image_ids, view.image_ids)
    np.testing.assert_array_equal(predictions.tiers, view.tiers)
    assert [v[0] for v in np.asarray(predictions[[3, 0]])] == [2.0, 3.0]
    np.testing.assert_array_equal(predictions[[3, 0]]["A"], [[2.0] * 3])
    np.testing.assert_array_equal(predictions["A"]["trial_id"], [3, 5])
    with pytest.raises(ValueError, match="mouse 'A': 1 response vectors came for 2"):
        Responses.from_arrays({**values, "A": values["A"][:1]}, like=view)


def test_the_array_of_responses(trials):
    array = np.asarray(trials.responses)
    assert array.shape == (N,)
    assert [len(v) for v in array] == [SIZES[m][1] for m in FLAT_MICE]
    assert np.asarray(trials[:0].responses).shape == (0,)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(trials.responses, copy=False)


@pytest.mark.parametrize("source", ["trials", "opened"])
def test_responses_are_pickled_without_stimuli(request, source):
    trials = request.getfixturevalue(source)
    target = trials.responses[[9, 3, 3]]
    copy = pickle.loads(pickle.dumps(target))
    assert "stimuli" not in copy._recordings["A"]
    for vector, expected in zip(np.asarray(copy), np.asarray(target), strict=True):
        np.testing.assert_array_equal(vector, expected)
    xr.testing.assert_identical(copy["A"], target["A"])
    np.testing.assert_array_equal(copy.image_ids, target.image_ids)
    np.testing.assert_array_equal(copy[1:].tiers, target[1:].tiers)


def test_pickled_responses_of_unlabelled_trials_keep_their_images():
    images = np.arange(5 * 24, dtype=np.uint8).reshape(5, 1, 4, 6)[[0, 1, 2, 1, 0]]
    target = v1.Trials.from_arrays(images, None, np.ones((5, 2))).responses
    copy = pickle.loads(pickle.dumps(target[1:]))
    assert copy.image_ids[0] == copy.image_ids[2] == target.image_ids[1]
    np.testing.assert_array_equal(copy.tiers, [""] * 4)
    assert copy["mouse"].shape == (4, 2)
