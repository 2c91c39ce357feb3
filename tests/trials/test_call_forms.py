"""The forms in which arrays of several mice are handed over, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import v1tlearn as v1

RNG = np.random.default_rng(0)
N, NEURONS = {"A": 4, "B": 3}, {"A": 2, "B": 5}
STIMULI = {m: RNG.integers(0, 256, (n, 1, 4, 6), dtype=np.uint8) for m, n in N.items()}
BEHAVIORS = {m: RNG.normal(size=(n, 3)) for m, n in N.items()}
RESPONSES = {m: RNG.gamma(1, 1, (N[m], NEURONS[m])) for m in N}
IMAGE_IDS = {"A": np.array([0, 1, 2, 0]), "B": np.array([1, 5, 2])}
TIERS = {"A": np.array(["train"] * 3 + ["test"]), "B": np.array(["train", "test", "train"])}
POSITIONS = {m: RNG.normal(size=(NEURONS[m], 3)) for m in N}
NAMES = ["pupil_dilation", "pupil_dilation_derivative", "running_speed"]
# The trials of both mice in a mixed order.
MICE = np.array(["B", "A", "A", "B", "A", "B", "A"])
ROWS = np.array([0, 0, 1, 1, 2, 2, 3])


def flat(parts):
    return [parts[m][i] for m, i in zip(MICE, ROWS, strict=True)]


def padded(parts):
    out = np.full((len(MICE), max(NEURONS.values())), np.nan)
    for row, vector in zip(out, flat(parts), strict=True):
        row[: len(vector)] = vector
    return out


def objects(parts):
    out = np.empty(len(MICE), dtype=object)
    out[:] = flat(parts)
    return out


def check(trials, mice=("A", "B")):
    assert sorted(trials.mice) == sorted(mice)
    for mouse in mice:
        source = "A" if mouse == "mouse" else mouse
        np.testing.assert_array_equal(trials.get("stimuli", mouse), STIMULI[source])
        np.testing.assert_array_equal(trials.get("behaviors", mouse), BEHAVIORS[source])
        np.testing.assert_array_equal(trials.get("responses", mouse), RESPONSES[source])
        rows = trials.mouse_ids == mouse
        np.testing.assert_array_equal(trials.image_ids[rows], IMAGE_IDS[source])
        np.testing.assert_array_equal(trials.tiers[rows], TIERS[source])
        np.testing.assert_array_equal(trials.positions(mouse), POSITIONS[source])
        assert trials.behavior_names(mouse) == NAMES
        assert trials.n_neurons[mouse] == NEURONS[source]


def make(**replaced):
    """Dicts of everything, some of it replaced."""
    arguments = {
        "stimuli": STIMULI,
        "behaviors": BEHAVIORS,
        "responses": RESPONSES,
        "image_ids": IMAGE_IDS,
        "tiers": TIERS,
        "positions": POSITIONS,
    }
    return v1.Trials.from_arrays(**{**arguments, **replaced})


def as_lists(*mice, kind=list):
    names = ("stimuli", "behaviors", "responses", "image_ids", "tiers", "positions")
    parts = (STIMULI, BEHAVIORS, RESPONSES, IMAGE_IDS, TIERS, POSITIONS)
    return {name: kind(part[m] for m in mice) for name, part in zip(names, parts, strict=True)}


# ----------------------------------------------------------------------------- the four forms


def test_dicts_per_mouse():
    trials = make()
    check(trials)
    assert trials.mouse_ids.tolist() == ["A"] * 4 + ["B"] * 3
    check(make(mouse_ids=["B", "A"]))


@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_of_recordings(kind):
    trials = v1.Trials.from_arrays(**as_lists("B", "A", kind=kind), mouse_ids=["B", "A"])
    check(trials)
    assert trials.mouse_ids.tolist() == ["B"] * 3 + ["A"] * 4


@pytest.mark.parametrize("responses", [flat, objects, padded])
def test_flat_arrays_with_a_mouse_per_trial(responses):
    trials = v1.Trials.from_arrays(
        np.stack(flat(STIMULI)),
        np.stack(flat(BEHAVIORS)),
        responses(RESPONSES),
        MICE,
        image_ids=np.array(flat(IMAGE_IDS)),
        tiers=flat(TIERS),
        positions=POSITIONS,
    )
    check(trials)
    assert trials.mouse_ids.tolist() == MICE.tolist()
    for vector, expected in zip(np.asarray(trials.responses), flat(RESPONSES), strict=True):
        np.testing.assert_array_equal(vector, expected)


@pytest.mark.parametrize("mouse_ids", [None, "A"])
def test_plain_arrays_of_one_mouse(mouse_ids):
    arrays = {name: part[0] for name, part in as_lists("A").items()}
    mouse = "mouse" if mouse_ids is None else "A"
    check(v1.Trials.from_arrays(**arrays, mouse_ids=mouse_ids), [mouse])
    vectors = {**arrays, "responses": list(arrays["responses"])}
    check(v1.Trials.from_arrays(**vectors, mouse_ids=mouse_ids), [mouse])


def test_only_flat_matrices_have_padding():
    """Neurons that were never recorded stay neurons wherever each mouse has its own matrix."""
    matrix = RESPONSES["A"].copy()
    matrix[:, 1] = np.nan
    assert make(responses={**RESPONSES, "A": matrix}).n_neurons == NEURONS
    as_list = as_lists("A", "B") | {"responses": [matrix, RESPONSES["B"]]}
    assert v1.Trials.from_arrays(**as_list, mouse_ids=["A", "B"]).n_neurons == NEURONS
    assert v1.Trials.from_arrays(STIMULI["A"], None, matrix).n_neurons == {"mouse": 2}
    both = padded(RESPONSES)
    both[MICE == "A", 0] = np.nan  # not at the right end
    trials = v1.Trials.from_arrays(np.stack(flat(STIMULI)), None, both, MICE)
    assert trials.n_neurons == {"B": 5, "A": 2}
    assert np.isnan(trials.responses.get("A")[:, 0]).all()


def test_integer_ids_become_text():
    keys = {"A": 7, "B": np.int64(8)}
    by_dict = v1.Trials.from_arrays({keys[m]: s for m, s in STIMULI.items()})
    by_list = v1.Trials.from_arrays(list(STIMULI.values()), mouse_ids=[7, 8])
    by_trial = v1.Trials.from_arrays(np.stack(flat(STIMULI)), mouse_ids=[8, 7, 7, 8, 7, 8, 7])
    for trials in (by_dict, by_list, by_trial):
        assert sorted(trials.mice) == ["7", "8"]
        np.testing.assert_array_equal(trials.get("stimuli", "8"), STIMULI["B"])


def test_what_may_be_left_out():
    trials = v1.Trials.from_arrays(STIMULI)
    assert trials.get("behaviors", "A") is None
    assert trials.n_neurons == {"A": 0, "B": 0}
    some = make(behaviors={"B": BEHAVIORS["B"]}, positions={"A": POSITIONS["A"], "B": None})
    assert some.behavior_names("A") is None
    assert some.behavior_names("B") == NAMES
    assert some.positions("B") is None
    lists = as_lists("A", "B") | {"behaviors": [None, BEHAVIORS["B"]]}
    assert v1.Trials.from_arrays(**lists, mouse_ids=["A", "B"]).behavior_names("A") is None


def test_stimuli_keep_their_dtype():
    assert make().get("stimuli", "A").dtype == np.uint8
    floats = {m: s.astype("f8") for m, s in STIMULI.items()}
    assert make(stimuli=floats).get("stimuli", "A").dtype == np.float64


# ---------------------------------------------------------------------------- behaviour names


def test_three_and_five_columns_have_names_without_being_named():
    five = v1.Trials.from_arrays(STIMULI["A"], np.ones((4, 5)))
    assert five.behavior_names("mouse") == [*NAMES, "pupil_x", "pupil_y"]
    with pytest.raises(ValueError, match="mouse 'A': behaviors have 4 columns without names"):
        make(behaviors={**BEHAVIORS, "A": np.ones((4, 4))})


def test_columns_bring_their_names_or_are_given_them():
    names = ["lick", "speed"]
    table = pd.DataFrame(np.arange(8.0).reshape(4, 2), columns=names)
    array = xr.DataArray(table.to_numpy(), dims=("trial", "behavior"), coords={"behavior": names})
    for named in (table, array):
        assert v1.Trials.from_arrays(STIMULI["A"], named).behavior_names("mouse") == names
        same = v1.Trials.from_arrays(STIMULI["A"], named, behavior_names=names)
        assert same.behavior_names("mouse") == names
        with pytest.raises(ValueError, match=r"\['speed', 'lick'\].*called \['lick', 'speed'\]"):
            v1.Trials.from_arrays(STIMULI["A"], named, behavior_names=names[::-1])
    given = v1.Trials.from_arrays(STIMULI["A"], np.ones((4, 2)), behavior_names=names)
    assert given.behavior_names("mouse") == names
    flat_table = pd.DataFrame(np.arange(14.0).reshape(7, 2), columns=names, index=range(7, 0, -1))
    trials = v1.Trials.from_arrays(np.stack(flat(STIMULI)), flat_table, None, MICE)
    np.testing.assert_array_equal(trials.get("behaviors", "B"), flat_table.to_numpy()[MICE == "B"])


@pytest.mark.parametrize(
    ("behaviors", "names", "match"),
    [
        (np.ones((4, 2)), ["a", "b", "c"], "has 2 columns but behavior_names has 3"),
        (np.ones((4, 2)), ["a", "a"], "bear the same name"),
        (np.ones(4), None, r"shape \(4,\): expected \(trials, columns\)"),
        (np.ones((3, 3)), None, "different numbers of trials: stimuli 4, behaviors 3"),
    ],
)
def test_behaviour_that_does_not_fit(behaviors, names, match):
    with pytest.raises(ValueError, match=f"mouse 'mouse': .*{match}"):
        v1.Trials.from_arrays(STIMULI["A"], behaviors, behavior_names=names)


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("replaced", "error", "match"),
    [
        ({"stimuli": {}}, ValueError, "empty dict"),
        ({"stimuli": {1: STIMULI["A"], "1": STIMULI["B"]}}, ValueError, r"duplicate.*\['1'\]"),
        ({"mouse_ids": ["A", "C"]}, ValueError, r"mouse_ids are \['A', 'C'\], but"),
        ({"responses": RESPONSES["A"]}, TypeError, "stimuli is a dict, but responses is a ndarray"),
        ({"responses": {"A": RESPONSES["A"]}}, ValueError, "responses has the mice.*same keys"),
        ({"behaviors": {**BEHAVIORS, "Z": 1}}, ValueError, "behaviors has the mice"),
        ({"image_ids": {"A": [0] * 4}}, ValueError, "image_ids has the mice"),
        ({"positions": {"Z": POSITIONS["A"]}}, ValueError, r"unknown mice \['Z'\]"),
        ({"positions": POSITIONS["A"]}, TypeError, "positions is a ndarray for 2 mice"),
        (
            {"positions": {"A": POSITIONS["A"][:1]}},
            ValueError,
            "mouse 'A': positions has 1 rows for 2 neurons",
        ),
        ({"positions": {"A": np.ones((2, 4))}}, ValueError, "mouse 'A'.*positions has shape"),
        (
            {"stimuli": {**STIMULI, "B": STIMULI["B"][:, 0]}},
            ValueError,
            r"mouse 'B': stimuli has shape \(3, 4, 6\).*stimuli\[:, None\]",
        ),
        (
            {"stimuli": {**STIMULI, "B": STIMULI["B"][:0]}},
            ValueError,
            "mouse 'B': stimuli is empty",
        ),
        (
            {"stimuli": {**STIMULI, "B": STIMULI["B"].astype(str)}},
            TypeError,
            "mouse 'B': stimuli has dtype <U3",
        ),
        (
            {"responses": {**RESPONSES, "B": RESPONSES["B"][:2]}},
            ValueError,
            "mouse 'B': different numbers of trials: stimuli 3, behaviors 3, responses 2",
        ),
        (
            {"responses": {**RESPONSES, "B": RESPONSES["B"][0]}},
            ValueError,
            r"mouse 'B': responses has shape \(5,\)",
        ),
        (
            {"tiers": {**TIERS, "A": TIERS["A"][:, None]}},
            ValueError,
            r"mouse 'A': tiers has shape \(4, 1\)",
        ),
        (
            {"image_ids": {**IMAGE_IDS, "A": [1, 2]}},
            ValueError,
            "mouse 'A': different numbers of trials.*image_ids 2",
        ),
    ],
)
def test_dicts_that_do_not_fit(replaced, error, match):
    with pytest.raises(error, match=match):
        make(**replaced)


@pytest.mark.parametrize(
    ("replaced", "error", "match"),
    [
        ({"mouse_ids": None}, ValueError, "list of 2 recordings without mouse_ids"),
        ({"mouse_ids": ["A"]}, ValueError, "mouse_ids has 1 entries"),
        ({"mouse_ids": ["A", "A"]}, ValueError, r"duplicate mouse ids \['A'\]"),
        ({"mouse_ids": [["A"], ["B"]]}, ValueError, r"mouse_ids has shape \(2, 1\).*in one row"),
        ({"mouse_ids": [b"\xff", "B"]}, ValueError, r"the id b'\\xff' is bytes that are no text"),
        ({"stimuli": [STIMULI["A"], np.ndarray]}, TypeError, "stimuli: the class ndarray came"),
        ({"responses": [np.ndarray, RESPONSES["B"]]}, TypeError, "responses: the class ndarray"),
        ({"stimuli": [], "mouse_ids": []}, ValueError, "empty list"),
        ({"responses": [RESPONSES["A"]]}, ValueError, "responses has 1 entries"),
        ({"behaviors": BEHAVIORS}, TypeError, "behaviors is a dict"),
        ({"positions": [POSITIONS["A"]]}, ValueError, "positions has 1 entries for 2 recordings"),
    ],
)
def test_lists_that_do_not_fit(replaced, error, match):
    with pytest.raises(error, match=match):
        v1.Trials.from_arrays(**{**as_lists("A", "B"), "mouse_ids": ["A", "B"], **replaced})


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"mouse_ids": MICE[:3]}, ValueError, r"7 trials but mouse_ids has shape \(3,\)"),
        ({"responses": flat(RESPONSES)[:5]}, ValueError, "7 trials but responses has 5"),
        ({"responses": RESPONSES}, TypeError, "stimuli is one array, but responses is a dict"),
        (
            {"responses": [np.ones(2 + i) for i in range(7)]},
            ValueError,
            r"mouse 'B': responses are vectors of the shapes \[\(2,\), \(5,\), \(7,\)\]",
        ),
        ({"stimuli": "images"}, TypeError, "stimuli is a str: expected an array"),
        ({"positions": [1, 2]}, TypeError, "positions is a list for 2 mice"),
        ({"mouse_ids": [b"\xff", *MICE[1:]]}, ValueError, "bytes that are no text in UTF-8"),
        ({"stimuli": np.ndarray}, TypeError, "stimuli: the class ndarray came"),
        ({"stimuli": np.array(2.0)}, TypeError, r"stimuli is a ndarray of shape \(\): expected"),
        ({"responses": 3}, TypeError, "responses is a int: expected an array or a list"),
        ({"image_ids": len}, TypeError, "image_ids is a builtin_function_or_method: expected"),
        (
            {"behaviors": torch.ones(7, 3).to_sparse()},
            TypeError,
            "behaviors is a Tensor of which no rows can be taken",
        ),
    ],
)
def test_flat_arrays_that_do_not_fit(arguments, error, match):
    given = {"stimuli": np.stack(flat(STIMULI)), "responses": flat(RESPONSES), "mouse_ids": MICE}
    with pytest.raises(error, match=match):
        v1.Trials.from_arrays(**{**given, **arguments})


def test_responses_are_numbers():
    words = np.full((4, 2), "a")
    with pytest.raises(TypeError, match="mouse 'mouse': responses has dtype <U1"):
        v1.Trials.from_arrays(STIMULI["A"], None, words)
    table = pd.DataFrame({"a": ["x"] * 4, "b": 1.0})
    with pytest.raises(TypeError, match="mouse 'mouse': behaviors has dtype"):
        v1.Trials.from_arrays(STIMULI["A"], table)
    numbers = np.array([[1.0, 2.0]] * 4, dtype=object)
    assert v1.Trials.from_arrays(STIMULI["A"], None, numbers).get("responses", "mouse").dtype == (
        np.float64
    )


def test_views_are_no_arrays_of_trials():
    trials = v1.Trials.from_arrays(np.zeros((3, 1, 4, 6)), None, np.ones((3, 2)))
    for came in (trials.stimuli, trials):
        with pytest.raises(TypeError, match="give the trials themselves"):
            v1.Trials.from_arrays(came, None, trials.responses)
