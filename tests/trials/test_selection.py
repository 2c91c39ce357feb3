"""Selecting by label: what `sel` keeps is what xarray's `isel` of the recordings keeps."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from tests.trials.labelled import FLAT_MICE, FLAT_ROWS, SIZES, known_neurons, recording

IDS = {mouse: 1000 + np.arange(neurons) for mouse, (_, neurons) in SIZES.items()}


@pytest.fixture
def recordings():
    return {mouse: known_neurons(mouse) for mouse in SIZES}


def like_isel(view, neurons, trials=None):
    """Every way to ask a view answers as the recordings cut by hand do."""
    cut = {}
    for mouse, picked in neurons.items():
        part = known_neurons(mouse).isel(neuron=picked)
        cut[mouse] = part if trials is None else part.isel(trial=trials[mouse])
    expected = v1.Trials(cut)
    assert view.mice == list(cut)
    assert view.n_neurons == expected.n_neurons
    np.testing.assert_array_equal(view.mouse_ids, expected.mouse_ids)
    for mouse in view.mice:
        xr.testing.assert_identical(
            view.recordings[mouse].to_dataset(), expected.recordings[mouse].to_dataset()
        )
        xr.testing.assert_identical(view[mouse], expected[mouse])
        np.testing.assert_array_equal(view.neuron_ids(mouse), cut[mouse]["neuron"])
        np.testing.assert_array_equal(view.positions(mouse), cut[mouse]["position"])
        for name in ("responses", "expected_responses"):
            values = view.get(name, mouse)
            assert values.dtype == cut[mouse][name].dtype
            np.testing.assert_array_equal(values, cut[mouse][name])
            target, other = getattr(view, name), getattr(expected, name)
            xr.testing.assert_identical(target[mouse], other[mouse])
        assert target.n_neurons == view.n_neurons
    for one, other in zip(np.asarray(view.responses), np.asarray(expected.responses), strict=True):
        np.testing.assert_array_equal(one, other)


ALL = {mouse: np.arange(neurons) for mouse, (_, neurons) in SIZES.items()}


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"neuron": 1001}, {m: [1] for m in SIZES}),
        ({"neuron": [1001, 1000]}, {m: [1, 0] for m in SIZES}),
        ({"neuron": np.array([1001, 1000], dtype="u2")}, {m: [1, 0] for m in SIZES}),
        ({"neuron": {1001, 1000}}, {m: [0, 1] for m in SIZES}),
        ({"neuron": {"B": [1004, 1001]}}, ALL | {"B": [4, 1]}),
        ({"neuron": {"B": np.arange(5) > 2, "A": 1002}}, ALL | {"B": [3, 4], "A": [2]}),
        ({"neuron": {"B": [False, True, False, False, True]}}, ALL | {"B": [1, 4]}),
        ({"mouse_id": "A", "neuron": np.array([True, False, True])}, {"A": [0, 2]}),
        ({"neuron": xr.DataArray([1001, 1000], dims="neuron")}, {m: [1, 0] for m in SIZES}),
        ({"area": "V1"}, ALL | {"A": [0, 2]}),
        ({"area": ["V1", "LM"]}, ALL),
        ({"layer": "L4"}, {"A": [1], "B": [1, 3], "C": [1]}),
        ({"area": "V1", "layer": "L2/3"}, {"A": [0, 2], "B": [0, 2, 4], "C": [0]}),
        ({"depth": 100}, {m: [0, 1] for m in SIZES}),
        ({"mouse_id": ["A", "B"], "depth": 101}, {"A": [2], "B": [2, 3]}),
        ({"neuron": [1004, 1001, 1000], "layer": "L2/3"}, {"A": [0], "B": [4, 0], "C": [0]}),
        ({"area": None, "neuron": None}, ALL),
    ],
    ids=str,
)
def test_neurons_are_selected_by_id_mask_and_label(trials, asked, kept):
    like_isel(trials.sel(**asked), kept)
    target = trials.responses.sel(**asked)
    for mouse, picked in kept.items():
        xr.testing.assert_identical(target[mouse], trials.sel(**asked).responses[mouse])
        np.testing.assert_array_equal(target.get(mouse), trials.get("responses", mouse)[:, picked])


def test_text_ids_and_numbers_of_neurons_without_ids():
    named = recording("A").assign_coords(neuron=["u1", "u7", "u9"])
    bare = recording("B").drop_vars("neuron")
    trials = v1.Trials({"A": named, "B": bare})
    np.testing.assert_array_equal(trials.neuron_ids("B"), np.arange(5))
    some = trials.sel(neuron={"A": "u7", "B": [4, 0]})
    assert trials.sel(neuron={"B": ["4", "0"]}).neuron_ids("B").tolist() == [4, 0]
    np.testing.assert_array_equal(some.responses["A"]["neuron"], ["u7"])
    # the numbers stay those of the recording, wherever they go
    np.testing.assert_array_equal(some.responses["B"]["neuron"], [4, 0])
    np.testing.assert_array_equal(some.recordings["B"]["neuron"], [4, 0])
    again = some.sel(mouse_id="B", neuron=4)
    np.testing.assert_array_equal(again.get("responses", "B"), bare["responses"][:, [4]])
    np.testing.assert_array_equal(v1.Trials(again.recordings).neuron_ids("B"), [4])
    assert "neuron" not in trials.responses["B"].coords


def test_a_mask_made_of_responses_knows_its_neurons(trials):
    of_a = trials.sel(mouse_id="A")
    mask = of_a.responses["A"].mean("trial") > of_a.responses["A"].mean("trial")[0]
    np.testing.assert_array_equal(of_a.sel(neuron=mask).neuron_ids("A"), [1001, 1002])
    with pytest.raises(ValueError, match=r"mouse 'A': the mask is of the neurons.*another order"):
        of_a.sel(neuron=mask[::-1])
    scores = trials.responses.mean("trial")
    np.testing.assert_array_equal(
        trials.sel(neuron=scores > scores.isel(unit=1)).neuron_ids("A"), [1002]
    )
    kept = trials.sel(neuron=(scores.neuron != 1001) & (scores.neuron != 1000), mouse_id=["A", "B"])
    assert {m: kept.neuron_ids(m).tolist() for m in kept.mice} == {
        "A": [1002],
        "B": [1002, 1003, 1004],
    }
    with pytest.raises(ValueError, match=r"says nothing about the mice \['B', 'C'\]"):
        trials.sel(neuron=(scores > 0)[:3])
    with pytest.raises(TypeError, match=r"expected a mask of all of them, such as scores > 0\.3"):
        trials.sel(neuron=scores)


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        ({"neuron": 999}, ValueError, r"no neuron with the id \[999\]: mouse 'A' has 3 with"),
        ({"neuron": [1000, 999]}, ValueError, r"no neuron with the id \[999\]"),
        ({"neuron": "u7"}, ValueError, r"no neuron with the id \['u7'\]"),
        ({"neuron": {"A": [1004]}}, ValueError, r"mouse 'A' has no neuron with the id \[1004\]"),
        ({"neuron": {"Z": [1]}}, ValueError, r"unknown mice \['Z'\].*\['A', 'B', 'C'\]"),
        ({"neuron": 1004}, ValueError, r"mice 'A', 'C' would be left.*mouse_id=\['B'\]"),
        ({"neuron": []}, ValueError, "no neuron fits"),
        ({"neuron": {"A": []}}, ValueError, "mouse 'A' would be left without neurons"),
        ({"neuron": [1000, 1000]}, ValueError, r"mouse 'A': the neurons \[1000\] are asked"),
        ({"neuron": np.ones(3, bool)}, ValueError, r"one mask.*mice \['A', 'B', 'C'\]"),
        ({"neuron": {"A": np.ones(4, bool)}}, ValueError, r"'A': a mask of shape \(4,\).*3 neu"),
        ({"neuron": {"A": np.zeros(3, bool)}}, ValueError, "'A' would be left"),
        ({"neuron": slice(1000, 1002)}, TypeError, "not by a slice"),
        ({"neuron": {"A": None}}, TypeError, "mouse 'A': neurons are selected by"),
        ({"area": "AL"}, ValueError, r"no neuron with area \['AL'\]: these have \['LM', 'V1'\]"),
        ({"area": "LM"}, ValueError, r"mice 'B', 'C' would be left"),
        ({"tiers": "train"}, TypeError, "unexpected keyword 'tiers', did you mean 'tier'"),
        ({"areas": "V1"}, TypeError, "'areas', did you mean 'area'"),
        ({"mouse": "A"}, TypeError, "'mouse', did you mean 'mouse_id'"),
        ({"height": 3}, TypeError, r"unexpected keyword 'height': These.*tier, mouse_id.*area"),
    ],
    ids=str,
)
def test_what_cannot_be_selected_is_refused(trials, asked, error, match):
    for view in (trials, trials.responses, trials.stimuli):
        with pytest.raises(error, match=match):
            view.sel(**asked)


def test_a_mouse_without_the_label_is_named(recordings):
    trials = v1.Trials({"A": recordings["A"], "B": recordings["B"].drop_vars("area")})
    with pytest.raises(ValueError, match=r"mouse 'B': the recording has no area.*\['A'\]"):
        trials.sel(area="V1")
    assert trials.sel(mouse_id="A", area="V1").n_neurons == {"A": 2}
    bare = v1.Trials({"A": recordings["A"][["stimuli"]]})
    with pytest.raises(ValueError, match="mouse 'A' has no neurons"):
        bare.sel(neuron=1)


def test_trials_are_selected_by_any_of_their_labels(trials):
    rows = {m: np.flatnonzero(np.arange(n) % 3 == 1) for m, (n, _) in SIZES.items() if n > 1}
    like_isel(trials.sel(image_id=1), {m: ALL[m] for m in rows}, rows)
    assert trials.sel(trial_id=[6, 3]).mouse_ids.tolist() == ["A", "A", "B"]
    with pytest.raises(ValueError, match=r"no trial with image_id 77: these trials have \[0, 1, 2"):
        trials.sel(image_id=[0, 77])
    assert trials.responses.sel(image_id=2, tier="train").mouse_ids.tolist() == ["A", "B"]


def test_images_without_ids_are_selected_by_the_hash_of_their_content():
    images = np.arange(3 * 24, dtype=np.uint8).reshape(3, 1, 4, 6)[[0, 1, 0, 2]]
    trials = v1.Trials.from_arrays(images)
    wanted = trials.image_ids[0]
    np.testing.assert_array_equal(trials.sel(image_id=wanted).rows("mouse")[1], [0, 2])


@st.composite
def selections(draw):
    """Neurons to keep per mouse, as ids in any order or as a mask."""
    asked, kept = {}, dict(ALL)
    for mouse, (_, neurons) in SIZES.items():
        kind = draw(st.sampled_from(["ids", "mask", "all"]))
        if kind == "all":
            continue
        places = draw(st.permutations(range(neurons)))[: draw(st.integers(1, neurons))]
        if kind == "mask":
            places = sorted(places)
            asked[mouse] = np.isin(np.arange(neurons), places)
        else:
            asked[mouse] = IDS[mouse][places].tolist()
        kept[mouse] = np.asarray(places)
    return asked, kept


@given(first=selections(), key=st.lists(st.integers(0, 11), min_size=1, max_size=8))
def test_selecting_neurons_and_slicing_trials_commute(first, key):
    asked, kept = first
    trials = v1.Trials({mouse: known_neurons(mouse) for mouse in SIZES})
    key = np.asarray(key)
    mice = [m for m in SIZES if m in FLAT_MICE[key]]
    rows = {m: FLAT_ROWS[key][FLAT_MICE[key] == m] for m in mice}
    view = trials.sel(neuron=asked)[key]
    np.testing.assert_array_equal(view.mouse_ids, FLAT_MICE[key])
    other = trials[key].sel(neuron={m: a for m, a in asked.items() if m in mice})
    for mouse in mice:
        expected = known_neurons(mouse).isel(trial=rows[mouse], neuron=kept[mouse])
        for answer in (view, other, trials.responses.sel(neuron=asked)[key]):
            matrix = (
                answer.get(mouse)
                if answer is not view and answer is not other
                else (answer.get("responses", mouse))
            )
            np.testing.assert_array_equal(matrix, expected["responses"])
            np.testing.assert_array_equal(answer.neuron_ids(mouse), expected["neuron"])
        xr.testing.assert_identical(view.recordings[mouse].to_dataset(), expected)


@given(first=selections(), bits=st.integers(1, 2**5 - 1))
def test_selections_of_selections_compose(first, bits):
    asked, kept = first
    trials = v1.Trials({mouse: known_neurons(mouse) for mouse in SIZES}).sel(neuron=asked)
    masks = {m: (bits >> np.arange(len(places))) % 2 == 1 for m, places in kept.items()}
    masks = {m: mask for m, mask in masks.items() if mask.any()}
    for view in (trials.sel(neuron=masks), trials.responses.sel(neuron=masks)):
        for mouse, places in kept.items():
            left = places[masks[mouse]] if mouse in masks else places
            np.testing.assert_array_equal(view.neuron_ids(mouse), IDS[mouse][left])
            target = getattr(view, "responses", view)
            np.testing.assert_array_equal(
                target.get(mouse), recording(mouse)["responses"].values[:, left]
            )


def test_a_selection_copies_an_index_and_reads_nothing(trials, tmp_path):
    view = trials.sel(neuron={"A": [1000]}, tier="test")
    assert all(view._recordings[m] is trials._recordings[m] for m in SIZES)
    trials.to_netcdf(tmp_path / "r.nc")
    opened = v1.Trials.open(tmp_path / "r.nc")
    some = opened.sel(neuron=[1001, 1000])[[9, 3, 3, 0]]
    assert not some.responses._sources["A"]._in_memory
    np.testing.assert_array_equal(
        some.responses.get("A"), trials.get("responses", "A")[[3, 3, 0]][:, [1, 0]]
    )
    copy = pickle.loads(pickle.dumps(some))
    assert not copy._recordings["A"].variables["stimuli"]._in_memory
    xr.testing.assert_identical(
        copy.recordings["A"].to_dataset(), some.recordings["A"].to_dataset()
    )
    some.to_netcdf(tmp_path / "some.nc")
    xr.testing.assert_equal(v1.Trials.open(tmp_path / "some.nc")["A"].load(), some["A"].load())


def test_a_pickled_selection_holds_only_its_neurons():
    n = 400
    wide = v1.Trials.from_arrays(np.zeros((50, 1, 2, 2), "u1"), None, np.ones((50, n), "f4"))
    one = wide.sel(neuron=7)
    for whole, part in ((wide, one), (wide.responses, one.responses)):
        assert len(pickle.dumps(part)) < len(pickle.dumps(whole)) - 0.9 * 4 * 50 * n
        copy = pickle.loads(pickle.dumps(part))
        np.testing.assert_array_equal(copy.neuron_ids("mouse"), [7])
        np.testing.assert_array_equal(copy["mouse"]["neuron"], [7])


def test_wide_recordings_are_read_in_blocks_that_agree():
    rng = np.random.default_rng(0)
    values = rng.random((700, 9))
    trials = v1.Trials.from_arrays(np.zeros((700, 1, 1, 1), "u1"), None, values)
    order, neurons = rng.integers(0, 700, 900), [8, 2, 5]
    np.testing.assert_array_equal(
        trials[order].sel(neuron=neurons).get("responses", "mouse"), values[order][:, neurons]
    )


def test_labels_of_neurons_follow_the_selection(trials):
    labels = trials.sel(neuron={"A": [1002, 1000]}).neuron_labels("A")
    assert {name: values.tolist() for name, values in labels.items()} == {
        "neuron": [1002, 1000],
        "area": ["V1", "V1"],
        "layer": ["L2/3", "L2/3"],
    }
    assert list(trials.responses.neuron_labels("B")) == ["neuron", "area", "layer"]
    bare = v1.Trials.from_arrays(np.zeros((3, 1, 4, 6)), None, np.ones((3, 2)))
    assert bare.neuron_labels("mouse") == {}
    assert bare.sel(neuron=1).neuron_labels("mouse")["neuron"].tolist() == [1]


def test_an_empty_view_has_nothing_to_select_from(trials):
    for empty in (trials[:0].sel(neuron=1000), trials.sel(tier=[], neuron={})):
        assert len(empty) == 0
        assert empty.n_neurons == {}


def test_ids_may_come_as_a_series_or_a_tensor(trials):
    for ids in (pd.Series([1001, 1000]), pd.Index([1001, 1000]), torch.tensor([1001, 1000])):
        np.testing.assert_array_equal(trials.sel(neuron=ids).neuron_ids("A"), [1001, 1000])
    mask = pd.Series([True, False, True], index=[1000, 1001, 1002])
    np.testing.assert_array_equal(trials.sel(neuron={"A": mask}).neuron_ids("A"), [1000, 1002])


def units(**masks):
    """A mask over the units of several mice, as scores are labelled."""
    pairs = [(m, unit) for m in masks for unit in IDS[m].tolist()]
    index = pd.MultiIndex.from_tuples(pairs, names=["mouse", "neuron"])
    return pd.Series(np.concatenate(list(masks.values())), index=index)


def test_masks_of_pandas_go_by_their_index(trials):
    one = trials.sel(mouse_id="B")
    mask = pd.Series(np.arange(5) > 2, index=IDS["B"])
    assert one.sel(neuron=mask).neuron_ids("B").tolist() == [1003, 1004]
    assert trials.sel(neuron={"B": mask}).neuron_ids("B").tolist() == [1003, 1004]
    for other in (mask.iloc[::-1], mask.reset_index(drop=True)):
        with pytest.raises(ValueError, match=r"mouse 'B': the mask is of .*mask\.to_numpy\(\)"):
            one.sel(neuron=other)
    assert one.sel(neuron=mask.to_numpy()).neuron_ids("B").tolist() == [1003, 1004]
    both = units(A=np.arange(3) > 0, B=np.arange(5) > 2)
    some = trials.sel(mouse_id=["A", "B"]).sel(neuron=both)
    assert some.neuron_ids("A").tolist() == [1001, 1002]
    assert some.neuron_ids("B").tolist() == [1003, 1004]
    with pytest.raises(ValueError, match=r"says nothing about the mice \['C'\]"):
        trials.sel(neuron=both)
    with pytest.raises(TypeError, match=r"levels \['m', 'n'\]"):
        trials.sel(neuron=both.rename_axis(["m", "n"]))


def test_a_mask_that_names_its_mouse_is_of_that_mouse(trials):
    mask = xr.DataArray(np.arange(3) > 0, dims="neuron", coords={"neuron": IDS["A"], "mouse": "A"})
    assert trials.sel(mouse_id="A").sel(neuron=mask).neuron_ids("A").tolist() == [1001, 1002]
    assert trials.sel(neuron={"A": mask}).n_neurons == {"A": 2, "B": 5, "C": 2}
    with pytest.raises(ValueError, match=r"of mouse 'A', these trials .* write neuron=\{'A'"):
        trials.sel(neuron=mask)
    with pytest.raises(ValueError, match="of mouse 'A', these trials are of"):
        trials.sel(mouse_id="C").sel(neuron=mask)
    with pytest.raises(ValueError, match=r"mouse 'B': the neurons that came are of mouse \['A'\]"):
        trials.sel(neuron={"B": mask})


def test_scores_that_were_kept_are_no_mask(trials):
    scores = trials.responses.mean("trial")
    for wanted in (scores[scores > 1], scores[scores > 1]["unit"]):
        with pytest.raises(TypeError, match=r"expected a mask of all of them, such as scores > 0"):
            trials.sel(neuron=wanted)
    own = scores.sel(mouse="A")
    with pytest.raises(TypeError, match=r"the mask, such as scores > 0\.3"):
        trials.sel(mouse_id="A").sel(neuron=own[own > 1])


@pytest.mark.parametrize("value", [True, np.True_, np.array(True)])
def test_one_truth_value_is_no_mask(trials, value):
    for wanted in (value, {"A": value}):
        with pytest.raises(TypeError, match="expected unit ids, or a mask"):
            trials.sel(neuron=wanted)


def test_an_iterator_selects_in_every_mouse(trials):
    some = trials.sel(neuron=(unit for unit in [1001, 1000]))
    assert [some.neuron_ids(m).tolist() for m in some.mice] == [[1001, 1000]] * 3
    assert trials.sel(neuron={"A": iter([1002])}).neuron_ids("A").tolist() == [1002]


@pytest.mark.parametrize(
    "wanted",
    [
        np.ma.masked_array([True, True, False], [False, True, False]),
        np.ma.masked_array([1000, 1001], [False, True]),
        np.ma.masked_array(["1000", "1001"], [False, True]),
    ],
    ids=["mask", "numbers", "text"],
)
def test_masked_neurons_are_refused(trials, wanted):
    with pytest.raises(ValueError, match=r"neuron: 1 of \d .*missing.*neuron 1"):
        trials.sel(mouse_id="A", neuron=wanted)


def test_masked_indices_are_refused(trials):
    for key in (
        np.ma.masked_array([0, 1, 2], [False, True, False]),
        np.ma.masked_array(np.ones(len(trials), bool), np.arange(len(trials)) == 1),
    ):
        for view in (trials, trials.responses, trials.stimuli):
            with pytest.raises(ValueError, match=r"index of trials: 1 of .* masked.*trial 1"):
                view[key]


def test_masks_of_trials_go_by_their_labels(trials):
    n = len(trials)
    mask = np.arange(n) % 3 == 0
    order = np.random.default_rng(0).permutation(n)
    expected = trials[mask].image_ids
    for labelled in (pd.Series(mask), xr.DataArray(mask, dims="trial"), pd.Series(mask).to_numpy()):
        np.testing.assert_array_equal(trials[labelled].image_ids, expected)
    for permuted in (
        pd.Series(mask).iloc[order],
        pd.Series(mask, index=np.arange(n) + 7),
        xr.DataArray(mask, dims="trial", coords={"trial": np.arange(n)})[order],
    ):
        for view in (trials, trials.responses):
            with pytest.raises(IndexError, match="the mask of trials bears the labels trial"):
                view[permuted]


@pytest.mark.parametrize("label", ["image_id", "tier", "mouse_id"])
def test_truth_values_are_no_labels(trials, label):
    for wanted in (True, [True, False], np.arange(len(trials)) > 3):
        with pytest.raises(TypeError, match=f"{label} holds truth values"):
            trials.sel(**{label: wanted})
