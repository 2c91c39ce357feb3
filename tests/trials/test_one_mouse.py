"""What masks, names and labels of the arrays of one mouse say, and what is missing in them."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1

N, NEURONS = 6, 3
RNG = np.random.default_rng(0)
STIMULI = RNG.integers(0, 256, (N, 1, 4, 6), dtype=np.uint8)
BEHAVIORS = RNG.normal(size=(N, 3))
RESPONSES = RNG.gamma(1, 1, (N, NEURONS))
POSITIONS = RNG.normal(size=(NEURONS, 2))
UNITS = ["u7", "u2", "u9"]
NAMES = ["running_speed", "pupil_dilation", "lick"]
TRIALS = [31, 5, 12, 40, 2, 8]
ARRAYS = {"stimuli": STIMULI, "behaviors": BEHAVIORS, "responses": RESPONSES}
DIMS = {
    "stimuli": ("trial", "channel", "height", "width"),
    "behaviors": ("trial", "behavior"),
    "responses": ("trial", "neuron"),
}


def make(form="one", mouse_ids=None, positions=None, **arrays):
    """Trials of one mouse, called "mouse" or "A", whose arrays come in one of the four forms."""
    arrays = {**ARRAYS, **arrays}
    if form == "dict":
        arrays = {name: {"A": array} for name, array in arrays.items()}
        positions = None if positions is None else {"A": positions}
    elif form == "list":
        arrays, mouse_ids = {name: [array] for name, array in arrays.items()}, ["A"]
        positions = None if positions is None else [positions]
    elif form == "flat":
        mouse_ids = ["A"] * N
    return v1.Trials.from_arrays(**arrays, mouse_ids=mouse_ids, positions=positions)


def labelled(name, *, trial=None, **coords):
    own = {} if trial is None else {"trial": trial}
    return xr.DataArray(ARRAYS[name], dims=DIMS[name], coords=own | coords)


forms = pytest.mark.parametrize("form", ["one", "dict", "list", "flat"])

# ------------------------------------------------------------------------------------------- masks


@forms
@given(gaps=st.lists(st.booleans(), min_size=N * NEURONS, max_size=N * NEURONS))
def test_masked_responses_are_not_recorded(form, gaps):
    gaps = np.reshape(gaps, (N, NEURONS))
    if gaps.all(axis=0)[-1]:  # of flat arrays such a column is padding
        return
    counts = np.arange(N * NEURONS).reshape(N, NEURONS)
    masked = np.ma.masked_array(np.where(gaps, 10**6, counts), gaps)
    got = make(form, responses=masked).responses
    np.testing.assert_array_equal(got.get(got.mice[0]), np.where(gaps, np.nan, counts))


@pytest.mark.parametrize(
    "responses",
    [
        [np.ma.masked_array(row, row < 1) for row in RESPONSES],
        [[None if v < 1 else v for v in row] for row in RESPONSES],
        pd.DataFrame(RESPONSES).astype("Float64").mask(RESPONSES < 1),
        np.where(RESPONSES < 1, None, RESPONSES),
    ],
    ids=["vectors", "None", "NA", "objects"],
)
def test_whatever_is_missing_in_responses_is_not_recorded(responses):
    got = make(responses=responses).get("responses", "mouse")
    np.testing.assert_allclose(got, np.where(RESPONSES < 1, np.nan, RESPONSES))


def test_masks_of_nothing_change_nothing():
    got = make(**{name: np.ma.masked_array(array) for name, array in ARRAYS.items()})
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(got.get(name, "mouse"), array)
        assert type(got.get(name, "mouse")) is np.ndarray


@forms
@pytest.mark.parametrize("name", ["stimuli", "behaviors"])
def test_masked_inputs_are_refused_with_a_count(form, name):
    array = ARRAYS[name]
    mask = np.zeros(array.shape, dtype=bool)
    mask[[1, 4], ..., 0] = True
    whose = "mouse" if form == "one" else "A"
    with pytest.raises(
        ValueError, match=rf"mouse '{whose}': {name}: {mask.sum()} of {mask.size}.*trials 1, 4"
    ):
        make(form, **{name: np.ma.masked_array(array, mask)})


def test_masked_positions_are_refused():
    with pytest.raises(ValueError, match=r"positions: 1 of 6 values.*neuron 2"):
        make(positions=np.ma.masked_array(POSITIONS, np.arange(6).reshape(3, 2) == 5))


# ----------------------------------------------------------------------------------------- missing

MISSING = {
    "None": [1, 2, None, 1, 2, None],
    "NaN": np.array([1, 2, np.nan, 1, 2, np.nan]),
    "NaN beside text": ["a", "b", np.nan, "a", "b", np.nan],
    "NaN as text": np.array(["a", "b", np.nan, "a", "b", np.nan]),
    "NaT": np.array(["2020-01-01", "2020-01-02", "NaT"] * 2, dtype="M8[D]"),
    "NA": pd.array([1, 2, pd.NA] * 2),
    "masked": np.ma.masked_array([1, 2, 3] * 2, [0, 0, 1] * 2),
    "blank": ["a", "b", " ", "a", "b", ""],
    "bytes": [b"a", b"b", b""] * 2,
    "category": pd.Categorical(["a", "b", None] * 2),
}


OF_NO_TIER = ("blank", "bytes")  # as `Trials.tiers` says it


@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, k) for n in ("image_ids", "mouse_ids") for k in MISSING]
    + [("tiers", k) for k in MISSING if k not in OF_NO_TIER],
)
def test_missing_ids_are_refused_by_trial(name, kind):
    labels = MISSING[kind]
    with pytest.raises(ValueError, match=rf"{name}: 2 of 6 ids are missing.*trials 2, 5"):
        make(**{name: labels})


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT, "", b" "], ids=repr)
def test_a_mouse_without_id_is_refused(missing):
    for arguments in (
        ({"A": STIMULI, missing: STIMULI}, None, None),
        ([STIMULI, STIMULI], None, None, ["A", missing]),
        ([STIMULI, STIMULI], None, None, np.array(["A", missing], dtype=object)),
    ):
        with pytest.raises(ValueError, match=r"mouse_ids: 1 of 2 ids are missing.* 1:"):
            v1.Trials.from_arrays(*arguments)


def test_bytes_are_text():
    ids = np.array([b"a", b"b", b"a"] * 2)
    trials = make(image_ids=ids, tiers=np.array([b"train"] * 6), mouse_ids=np.array([b"M1"] * 6))
    assert trials.mice == ["M1"]
    assert trials.image_ids.tolist() == ["a", "b", "a"] * 2
    assert set(trials.tiers) == {"train"}
    with pytest.raises(ValueError, match=r"image_ids: the id b'\\xff' is bytes"):
        make(image_ids=[b"\xff", *ids[1:]])


@pytest.mark.parametrize("form", [dict, list])
def test_none_in_place_of_the_images_of_a_mouse(form):
    stimuli = {"A": STIMULI, "B": None}
    given = (stimuli,) if form is dict else ([*stimuli.values()], None, None, [*stimuli])
    with pytest.raises(ValueError, match="mouse 'B': stimuli is None"):
        v1.Trials.from_arrays(*given)


def test_ragged_lists_are_told_as_such():
    for name in ("stimuli", "behaviors"):
        ragged = ARRAYS[name].tolist()
        ragged[2] = ragged[2][:-1]
        with pytest.raises(ValueError, match=rf"mouse 'A': {name} is a ragged list: its 6 entries"):
            make("dict", **{name: ragged})


@pytest.mark.parametrize(
    "wrong",
    [
        RESPONSES.astype(str),
        RESPONSES.astype(complex),
        RESPONSES.astype(str).astype(object),
        np.zeros((N, NEURONS), "M8[s]"),
        np.zeros((N, NEURONS), [("a", "f4"), ("b", "f4")]),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("name", ["behaviors", "responses"])
def test_what_is_no_number_is_refused(name, wrong):
    with pytest.raises(TypeError, match=f"mouse 'mouse': {name} has dtype .*: expected numbers"):
        make(**{name: wrong})


# ------------------------------------------------------------------------------------------ labels


@forms
@given(data=st.data())
def test_dimensions_go_by_their_names(form, data):
    turned = {
        name: labelled(name).transpose(*data.draw(st.permutations(dims)))
        for name, dims in DIMS.items()
    }
    trials = make(form, **turned)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(trials.get(name, trials.mice[0]), array)


@forms
def test_positions_go_by_their_names_and_units(form):
    positions = xr.DataArray(POSITIONS, dims=("neuron", "axis"), coords={"neuron": UNITS})
    for given_as in (positions.T, positions[[2, 0, 1]], positions.to_pandas().iloc[[1, 2, 0]]):
        trials = make(form, responses=labelled("responses", neuron=UNITS), positions=given_as)
        np.testing.assert_array_equal(trials.positions(trials.mice[0]), POSITIONS)
    with pytest.raises(ValueError, match=r"positions and responses are of different neurons"):
        make(
            responses=labelled("responses", neuron=UNITS),
            positions=positions.assign_coords(neuron=["u7", "u2", "x"]),
        )


def test_unknown_dimensions_beside_known_ones_are_refused():
    wrong = labelled("responses").rename(trial="event").T
    with pytest.raises(ValueError, match=r"responses has the dimensions \('neuron', 'event'\)"):
        make(responses=wrong)
    other = labelled("responses").rename(neuron="behavior")
    with pytest.raises(ValueError, match=r"responses has the dimensions \('trial', 'behavior'\)"):
        make(responses=other)


def test_other_words_for_dimensions():
    words = {"trial": "samples", "neuron": "unit", "height": "y", "width": "x"}
    turned = {
        name: labelled(name).rename({d: words[d] for d in dims if d in words}).transpose()
        for name, dims in DIMS.items()
    }
    turned["responses"] = turned["responses"].assign_coords(unit=UNITS)
    trials = make(**turned)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(trials.get(name, "mouse"), array)
    assert trials.neuron_ids("mouse").tolist() == UNITS
    beside = turned["responses"].rename(unit="neuron").swap_dims(neuron="cells")
    assert beside.dims == ("cells", "samples")
    assert make(responses=beside).neuron_ids("mouse").tolist() == UNITS


def test_dimensions_without_names_go_by_their_place():
    trials = make(**{name: xr.DataArray(array) for name, array in ARRAYS.items()})
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(trials.get(name, "mouse"), array)


@forms
@pytest.mark.parametrize("kind", ["array", "frame"])
def test_unit_ids_and_names_of_columns_come_along(form, kind):
    given_as = {
        "behaviors": labelled("behaviors", behavior=NAMES),
        "responses": labelled("responses", neuron=UNITS),
    }
    if kind == "frame":
        given_as = {name: array.to_pandas() for name, array in given_as.items()}
    trials = make(form, **given_as)
    (mouse,) = trials.mice
    assert trials.behavior_names(mouse) == NAMES
    assert trials.neuron_ids(mouse).tolist() == UNITS
    assert trials.sel(neuron=["u9"]).responses.get(mouse)[:, 0].tolist() == RESPONSES[:, 2].tolist()


def test_columns_that_pandas_only_counts_name_no_neurons():
    trials = make(responses=pd.DataFrame(RESPONSES))
    assert "neuron" not in trials.neuron_labels("mouse")


def test_labels_of_trials_come_along():
    images = labelled("stimuli", image_id=("trial", list("abcabc")), tier=("trial", ["train"] * N))
    trials = make(stimuli=images)
    assert trials.image_ids.tolist() == list("abcabc")
    assert set(trials.tiers) == {"train"}
    assert make(stimuli=images, image_ids=np.arange(N)).image_ids.tolist() == [*range(N)]


ORDERS = {"another order": [1, 0, 2, 3, 4, 5], "other trials": None}


@forms
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["array", "frame"])
@pytest.mark.parametrize("label", ["trial", "image_id"])
def test_arrays_of_other_trials_are_refused(form, order, kind, label):
    if label == "image_id" and kind == "frame":
        label = "trial"
    other = [*TRIALS[:5], 77] if ORDERS[order] is None else [TRIALS[k] for k in ORDERS[order]]
    behaviors = labelled("behaviors", **{label: ("trial", TRIALS)}, behavior=NAMES)
    responses = labelled("responses", **{label: ("trial", other)}, neuron=UNITS)
    if kind == "frame":
        behaviors, responses = behaviors.to_pandas(), responses.to_pandas()
    with pytest.raises(ValueError, match=r"behaviors and responses are not of the same trials"):
        make(form, behaviors=behaviors, responses=responses)
    if label == "trial":
        make(form, behaviors=behaviors, responses=responses.to_numpy())


def test_labels_beside_ids_of_images():
    responses = labelled("responses", trial=TRIALS)
    ids = pd.Series(list("abcabc"), TRIALS)
    assert make(responses=responses, image_ids=ids).image_ids.tolist() == list("abcabc")
    with pytest.raises(ValueError, match=r"responses and image_ids are not of the same trials"):
        make(responses=responses, image_ids=ids[::-1])


# ------------------------------------------------------------------------------- odd but legal


@pytest.mark.parametrize(
    "flip",
    [
        lambda a: a[..., ::-1],
        lambda a: a[::-1],
        lambda a: a[:, :, ::-1] if a.ndim > 2 else a[:, ::-1],
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: torch.as_tensor(np.ascontiguousarray(a)),
    ],
    ids=["last", "first", "middle", "Fortran", "big-endian", "tensor"],
)
def test_numbers_however_they_lie_in_memory(flip):
    got = make(**{name: flip(array) for name, array in ARRAYS.items()})
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(got.get(name, "mouse"), np.asarray(flip(array)))


# --------------------------------------------------------------------------------- distinct labels

ODD_LABELS = {
    "signed and unsigned": ([-1, *(2**63 + i for i in range(5))], 6),
    "large beside a float": ([0.5, *(2**53 + i for i in range(5))], 6),
    "too large for any": ([2**70 + i for i in range(6)], 6),
    "whole numbers and text": ([1, 1.0, "x", 2, 2.5, "1"], 4),
    "whole numbers": ([1, 1.0, 2, 2.0, 3, 3], 3),
}


@pytest.mark.parametrize("labels", ODD_LABELS)
def test_ids_that_differ_stay_apart(labels):
    ids, n_distinct = ODD_LABELS[labels]
    assert len(set(make(image_ids=ids).image_ids.tolist())) == n_distinct
    assert len(make(mouse_ids=ids).mice) == n_distinct


def test_mice_keep_the_names_that_large_numbers_make():
    assert make(mouse_ids=[-1, 2**63, 2**63 + 1] * 2).mice == ["-1", str(2**63), str(2**63 + 1)]


def test_truth_values_beside_numbers_are_no_ids():
    with pytest.raises(TypeError, match=r"image_ids holds 1 truth values beside 5 numbers"):
        make(image_ids=[True, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("missing", ["NaN", "NA", "NAN", "none", "nat"])
def test_other_spellings_of_nothing_are_no_ids(missing):
    with pytest.raises(ValueError, match=r"1 of 6 ids are missing .* trial 2"):
        make(image_ids=["a", "b", missing, "c", "null", "na"])


@pytest.mark.parametrize("mouse", [np.ma.masked, np.ma.masked_array("A", True)])
def test_a_masked_mouse_is_refused(mouse):
    with pytest.raises(ValueError, match="mouse_ids: 1 of 1 ids are missing"):
        make(mouse_ids=mouse)


# ------------------------------------------------------------------------ axes, vectors, and masks


@pytest.mark.parametrize("kind", ["table", "labelled"])
def test_axes_of_positions_go_by_their_names(kind):
    places = RNG.normal(size=(NEURONS, 3))

    def as_kind(values, names):
        if kind == "table":
            return pd.DataFrame(values, columns=names)
        return xr.DataArray(values, dims=("neuron", "axis"), coords={"axis": names})

    got = make(positions=as_kind(places, ["z", "Y", "x"])).positions("mouse")
    np.testing.assert_array_equal(got, places[:, ::-1])
    got = make(positions=as_kind(places[:, :2], [0, 1])).positions("mouse")
    np.testing.assert_array_equal(got, places[:, :2])
    for names in (["x", "y", "depth"], ["x", "y", "area"], ["x", "x", "y"]):
        with pytest.raises(ValueError, match=r"positions has the axes \['x', .* expected x, y"):
            make(positions=as_kind(places, names))


def as_vectors(kind, order, names=UNITS):
    """One labelled vector per trial; the neurons of every second one in another order."""
    out = []
    for trial, row in enumerate(RESPONSES):
        places = order if trial % 2 else list(range(NEURONS))
        labels = [names[k] for k in places] if trial % 2 else [UNITS[k] for k in places]
        if kind == "Series":
            out.append(pd.Series(row[places], index=labels))
        else:
            out.append(xr.DataArray(row[places], dims="neuron", coords={"neuron": labels}))
    return out


def as_objects(vectors):
    out = np.empty(len(vectors), dtype=object)
    for place, vector in enumerate(vectors):
        out[place] = vector
    return out


@pytest.mark.parametrize("kind", ["Series", "DataArray"])
@pytest.mark.parametrize("hold", [list, as_objects])
def test_vectors_of_trials_are_aligned_by_their_neurons(kind, hold):
    trials = make(responses=hold(as_vectors(kind, [2, 0, 1])))
    np.testing.assert_array_equal(trials.responses.get("mouse"), RESPONSES)
    assert trials.neuron_ids("mouse").tolist() == UNITS
    with pytest.raises(ValueError, match="vectors of trials 0 and 1 hold different neurons"):
        make(responses=hold(as_vectors(kind, [0, 1, 2], ["u7", "u2", "u8"])))


@pytest.mark.parametrize("hold", [list, as_objects])
def test_metrics_align_vectors_of_trials(hold):
    vectors = hold(as_vectors("Series", [2, 0, 1]))
    pred = RESPONSES + np.arange(N * NEURONS).reshape(N, NEURONS) % 4
    expected = v1.metrics.single_trial_correlation(RESPONSES, pred)
    assert v1.metrics.single_trial_correlation(vectors, pred) == pytest.approx(expected, abs=1e-12)


def test_columns_of_several_mice_keep_their_names():
    table = pd.DataFrame(RESPONSES, columns=UNITS)
    trials = make(responses=table, mouse_ids=["A", "B"] * 3)
    assert trials.neuron_ids("B").tolist() == UNITS
