"""Views of recordings: making, indexing, labels, preprocessing and files."""

import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from tests.spoilt import spoil
from tests.trials.labelled import FLAT_MICE, FLAT_ROWS, NAMES, SIZES, N, Scale, recording, same
from v1tlearn.model_selection import tier_split
from v1tlearn.trials import _steps

# ------------------------------------------------------------------------------------- making


def test_the_three_forms_of_recordings(recordings):
    same(v1.Trials(recordings), FLAT_MICE, FLAT_ROWS)
    same(v1.Trials(xr.DataTree.from_dict(recordings)), FLAT_MICE, FLAT_ROWS)
    alone = v1.Trials(recordings["A"])
    assert alone.mice == ["mouse"]
    np.testing.assert_array_equal(alone.get("responses", "mouse"), recordings["A"]["responses"])
    assert v1.Trials(recordings["A"].assign_attrs(mouse_id="B7")).mice == ["B7"]


def test_dimensions_of_recordings_go_by_their_names(recordings):
    turned = {m: r.transpose(*sorted(r.dims, reverse=True)) for m, r in recordings.items()}
    assert turned["A"]["stimuli"].dims[0] == "width"
    same(v1.Trials(turned), FLAT_MICE, FLAT_ROWS)
    for m in SIZES:
        np.testing.assert_array_equal(v1.Trials(turned).positions(m), recordings[m]["position"])


def test_masked_responses_of_recordings_are_not_recorded_and_masked_labels_are_refused(recordings):
    one = recordings["A"]
    gaps = np.arange(21).reshape(7, 3) % 4 == 1
    counts = np.ma.masked_array(np.arange(21, dtype="i4").reshape(7, 3), gaps, fill_value=-999)
    got = v1.Trials(one.assign(responses=(("trial", "neuron"), counts))).get("responses", "mouse")
    np.testing.assert_array_equal(got, np.where(gaps, np.nan, counts.data))
    ids = np.ma.masked_array(np.arange(7), np.arange(7) == 5)
    with pytest.raises(ValueError, match=r"image_id: 1 of 7 ids are missing.*trial 5"):
        v1.Trials(one.assign_coords(image_id=("trial", ids)))


def test_labels_that_files_hold_as_bytes_are_text(recordings):
    asked = {"image_id": [b"a", b"b"] * 3 + [b"a"], "tier": [b"train"] * 6 + [b"test"]}
    labels = {name: ("trial", np.array(values)) for name, values in asked.items()}
    areas = np.array(["V1", "LM", ""]).astype("S")
    trials = v1.Trials(recordings["A"].assign_coords(labels | {"area": ("neuron", areas)}))
    assert trials.image_ids.tolist() == ["a", "b"] * 3 + ["a"]
    assert len(trials.sel(tier="test")) == 1
    assert trials.sel(area="LM").n_neurons == {"mouse": 1}


def test_mouse_ids_become_text(recordings):
    trials = v1.Trials({7: recordings["A"], 8: recordings["B"]})
    assert trials.mice == ["7", "8"]
    assert set(trials.mouse_ids) == {"7", "8"}
    assert len(trials.sel(mouse_id=7)) == 7


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda r: np.zeros((3, 1, 4, 6)), TypeError, "from_arrays"),
        (lambda r: {"A": np.zeros(3)}, TypeError, "mouse 'A' is a ndarray"),
        (lambda r: {}, ValueError, "there is no mouse"),
        (lambda r: xr.DataTree(), ValueError, "expected at least one child"),
        (
            lambda r: {"A": r["A"].drop_vars("stimuli")},
            ValueError,
            "mouse 'A': stimuli are missing",
        ),
        (
            lambda r: {"A": r["A"].rename(height="row")},
            ValueError,
            "mouse 'A', stimuli: dims are.*expected",
        ),
        (lambda r: {"A": r["A"].isel(trial=slice(0))}, ValueError, "mouse 'A', stimuli: is empty"),
        (
            lambda r: {"A": r["A"].assign(responses=r["A"]["responses"].rename(neuron="unit"))},
            ValueError,
            "mouse 'A', responses: dims are.*expected",
        ),
        (lambda r: {None: r["A"]}, ValueError, "mouse ids.*missing"),
        (lambda r: r["A"].assign_attrs(mouse_id=np.nan), ValueError, "mouse_id.*missing"),
        (
            lambda r: {"A": r["A"].assign_coords(image_id=("trial", [0, np.nan, 1, 2, 2, 2, 2]))},
            ValueError,
            "mouse 'A', image_id: 1 of 7 ids are missing.*trial 1",
        ),
        (
            lambda r: {"A": r["A"].assign_coords(trial_id=("trial", list("abc") + [""] * 4))},
            ValueError,
            "mouse 'A', trial_id: 4 of 7 ids are missing.*trials 3, 4, 5, 6",
        ),
        (lambda r: {"a/b": r["A"]}, ValueError, "mouse id 'a/b'"),
        (lambda r: {1: r["A"], "1": r["B"]}, ValueError, "duplicate mouse ids.*'1'"),
    ],
)
def test_what_is_no_recording(recordings, wrong, error, match):
    with pytest.raises(error, match=match):
        v1.Trials(wrong(recordings))


def test_flat_arrays_keep_the_callers_order(recordings):
    order = np.random.default_rng(0).permutation(len(FLAT_ROWS))
    mice, rows = FLAT_MICE[order], FLAT_ROWS[order]
    parts = [recordings[m].isel(trial=r) for m, r in zip(mice, rows, strict=True)]
    view = v1.Trials.from_arrays(
        np.stack([p["stimuli"].values for p in parts]),
        np.stack([p["behaviors"].values for p in parts]),
        [p["responses"].values for p in parts],
        mice,
        image_ids=rows % 3,
        tiers=np.where(rows % 2, "test", "train"),
    )
    np.testing.assert_array_equal(view.mouse_ids, mice)
    np.testing.assert_array_equal(view.image_ids, rows % 3)
    np.testing.assert_array_equal(view.tiers, np.where(rows % 2, "test", "train"))
    for vector, part in zip(np.asarray(view.responses), parts, strict=True):
        np.testing.assert_array_equal(vector, part["responses"])
    for m in SIZES:
        expected = recordings[m].isel(trial=rows[mice == m])
        for name in ("stimuli", "behaviors", "responses"):
            np.testing.assert_array_equal(view.get(name, m), expected[name])


# ----------------------------------------------------------------------------------- indexing

MASK = np.arange(N) % 3 == 1


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        np.int64(5),
        slice(None),
        slice(2, 9, 3),
        slice(None, None, -1),
        slice(5, 5),
        [3, 3, 0, -2],
        [],
        np.array([], dtype=int),
        np.array([10, 1, 7], dtype=np.uint8),
        MASK,
        list(MASK),
        np.zeros(N, dtype=bool),
        (np.array([2, 8]), Ellipsis),
        (slice(3), Ellipsis),
        xr.DataArray([4, 1]),
    ],
    ids=repr,
)
def test_indices_select_what_numpy_selects(trials, key):
    numpy_key = key[0] if isinstance(key, tuple) else key
    if isinstance(numpy_key, list) and not numpy_key:
        numpy_key = slice(0)
    mice, rows = np.atleast_1d(FLAT_MICE[numpy_key]), np.atleast_1d(FLAT_ROWS[numpy_key])
    view = trials[key]
    same(view, mice, rows)
    part = trials.responses[key]
    np.testing.assert_array_equal(part.mouse_ids, mice)
    np.testing.assert_array_equal(part.image_ids, view.image_ids)
    for vector, expected in zip(np.asarray(part), np.asarray(view.responses), strict=True):
        np.testing.assert_array_equal(vector, expected)


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (N, f"trial {N} of {N}"),
        (-N - 1, f"trial {-N - 1} of {N}"),
        ([0, 99], "trial 99"),
        (np.zeros(3, dtype=bool), r"mask of shape \(3,\) came for 12"),
        (True, "mask of shape"),
        (1.0, "not by float64"),
        (np.zeros((2, 2), dtype=int), r"shape \(2, 2\)"),
        ((0, 0), "2 indices"),
    ],
)
def test_indices_that_do_not_fit(trials, key, match):
    for view in (trials, trials.responses):
        with pytest.raises(IndexError, match=match):
            view[key]


def test_iteration_ends(trials):
    assert [t.mouse_ids[0] for t in trials] == FLAT_MICE.tolist()


INDICES = st.one_of(
    st.lists(st.integers(-100, 100), max_size=8),
    st.slices(12),
    st.integers(0, 2**12 - 1),  # bits of a mask
)


@given(keys=st.lists(INDICES, max_size=4))
def test_any_sequence_of_slicings_is_that_of_numpy(keys):
    view = v1.Trials({mouse: recording(mouse) for mouse in SIZES})
    responses = view.responses
    places = np.arange(N)
    for key in keys:
        if isinstance(key, list):
            key = [k % (2 * len(places)) - len(places) for k in key] if len(places) else []
            key = np.asarray(key, dtype=int)
        elif isinstance(key, int):
            key = (key >> np.arange(len(places))) % 2 == 1
        view, responses, places = view[key], responses[key], places[key]
    same(view, FLAT_MICE[places], FLAT_ROWS[places])
    for vector, expected in zip(np.asarray(responses), np.asarray(view.responses), strict=True):
        np.testing.assert_array_equal(vector, expected)


def test_slicing_copies_only_an_index(trials):
    view = trials[np.arange(N)[::2]][1:]
    assert view._recordings is trials._recordings
    np.testing.assert_array_equal(view.rows("A")[1], [2, 4, 6])
    np.testing.assert_array_equal(view.rows("B")[1], [1, 3])
    stimuli = trials._recordings["A"]["stimuli"].values
    assert np.shares_memory(trials[1:4].get("stimuli", "A"), stimuli)
    size = len(pickle.dumps(view._index)) + len(pickle.dumps(view._steps))
    assert size < 1000


# --------------------------------------------------------------------------------------- labels


def test_sel_takes_one_label_or_several(trials):
    same(trials.sel(tier="test"), FLAT_MICE[FLAT_ROWS % 2 == 1], FLAT_ROWS[FLAT_ROWS % 2 == 1])
    of_a = FLAT_MICE == "A"
    same(trials.sel(mouse_id="A"), FLAT_MICE[of_a], FLAT_ROWS[of_a])
    both = np.isin(FLAT_MICE, ["A", "C"]) & (FLAT_ROWS % 2 == 0)
    for several in (["C", "A"], ("A", "C"), {"A", "C"}, np.array(["A", "C"]), iter("AC")):
        same(trials.sel(tier="train", mouse_id=several), FLAT_MICE[both], FLAT_ROWS[both])
    same(trials.sel(tier=["train", "test"]), FLAT_MICE, FLAT_ROWS)
    same(trials.sel(), FLAT_MICE, FLAT_ROWS)
    assert len(trials.sel(tier=[])) == 0


def test_sel_of_a_label_that_is_not_there(trials, recordings):
    with pytest.raises(ValueError, match=r"tier 'final_test'.*\['test', 'train'\]"):
        trials.sel(tier=["train", "final_test"])
    with pytest.raises(ValueError, match=r"mouse_id 'Z'.*\['A', 'B', 'C'\]"):
        trials.sel(mouse_id="Z")
    unlabelled = v1.Trials({"A": recordings["A"].drop_vars("tier")})
    with pytest.raises(ValueError, match="there is no tier here"):
        unlabelled.sel(tier="train")
    with pytest.raises(ValueError, match="no tier here"):
        trials[:0].sel(tier="train")


def test_tiers_are_empty_text_where_there_are_none(recordings):
    trials = v1.Trials({"A": recordings["A"].drop_vars("tier"), "B": recordings["B"]})
    np.testing.assert_array_equal(trials.tiers, [""] * 7 + ["train", "test"] * 2)
    stimuli = {m: trials.get("stimuli", m) for m in trials.mice}
    tiers = {m: trials.tiers[trials.rows(m)[0]] for m in trials.mice}
    again = v1.Trials.from_arrays(stimuli, tiers=tiers)
    np.testing.assert_array_equal(again.tiers, trials.tiers)
    tier_split(trials.tiers, test="test", train=["train", ""])
    for missing in (None, np.nan, "nan"):
        with pytest.raises(ValueError, match="tiers: 1 of 4 ids are missing"):
            v1.Trials.from_arrays(np.ones((4, 1, 2, 2)), tiers=["train", "", missing, ""])


def test_image_ids_of_numbers_and_text_are_compared_as_text(recordings):
    named = recordings["B"].assign_coords(image_id=("trial", np.array(["0", "1", "x", "yy"])))
    ids = v1.Trials({"A": recordings["A"], "B": named}).image_ids
    np.testing.assert_array_equal(ids, ["0", "1", "2", "0", "1", "2", "0", "0", "1", "x", "yy"])
    big = recordings["B"].assign_coords(image_id=("trial", np.arange(4, dtype="u8") + 2**63))
    ids = v1.Trials({"A": recordings["A"], "B": big}).image_ids
    assert ids[-1] == str(2**63 + 3)  # not rounded to a float
    small = recordings["B"].assign_coords(image_id=("trial", np.arange(4, dtype="u1")))
    assert v1.Trials({"A": recordings["A"], "B": small}).image_ids.dtype.kind == "i"


def test_without_ids_the_content_tells_the_image():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 2, 4, 6), dtype=np.uint8)
    trials = v1.Trials.from_arrays({"A": images, "B": images[[3, 3, 0]].astype("f4")})
    ids = trials.image_ids
    assert len(set(ids[:5])) == 5
    np.testing.assert_array_equal(ids[5:], ids[[3, 3, 0]])
    np.testing.assert_array_equal(trials[::-1].image_ids, ids[::-1])
    np.testing.assert_array_equal(v1.Trials(trials.recordings).image_ids, ids)
    mixed = v1.Trials.from_arrays(
        {"A": images, "B": images[:1]}, image_ids={"A": np.arange(5), "B": None}
    )
    np.testing.assert_array_equal(mixed.image_ids, [*map(str, range(5)), ids[0]])


def test_names_positions_and_sizes(trials, recordings):
    assert trials.behavior_names("A") == NAMES
    np.testing.assert_array_equal(trials.positions("B"), recordings["B"]["position"])
    assert trials[:2].recorded_trials("A") == 7
    assert trials.has("responses", "A")
    assert not trials.has("expected_responses", "A")
    bare = v1.Trials({"A": recordings["A"][["stimuli"]]})
    assert bare.n_neurons == {"A": 0}
    assert bare.positions("A") is None
    assert bare.behavior_names("A") is None
    assert bare.get("behaviors", "A") is None
    unnamed = recordings["A"].drop_vars("behavior")
    assert v1.Trials({"A": unnamed}).behavior_names("A") == NAMES


def test_asking_for_what_is_not_there(trials, recordings):
    with pytest.raises(ValueError, match="unknown mouse 'Z'"):
        trials.get("stimuli", "Z")
    with pytest.raises(ValueError, match="unknown mouse 'Z'"):
        trials.rows("Z")
    with pytest.raises(ValueError, match="no variable 'stimulus'"):
        trials.get("stimulus", "A")
    without = v1.Trials({"A": recordings["A"], "B": recordings["B"].drop_vars("responses")})
    with pytest.raises(ValueError, match="mouse 'B' has no responses"):
        without.responses  # noqa: B018
    assert len(without[:7].responses) == 7
    with pytest.raises(ValueError, match="mouse 'A' has no expected_responses"):
        trials.expected_responses  # noqa: B018


def test_views_as_recordings_and_back(trials):
    view = trials[[8, 2, 2, 9]]
    again = v1.Trials(view.recordings)
    same(again, ["A", "A", "B", "B"], [2, 2, 1, 2])
    assert again.recordings["A"]["responses"].attrs == {"units": "Hz"}
    np.testing.assert_array_equal(again.recordings["A"]["trial_id"], [4, 4])


def test_blocks_pass_once_through_a_mouse(trials):
    view = trials[::-1]
    blocks = list(view.blocks("A", 3))
    assert [len(b) for b in blocks] == [3, 3, 1]
    rows = np.concatenate([b.rows("A")[1] for b in blocks])
    np.testing.assert_array_equal(rows, np.arange(7)[::-1])
    assert all(b.mice == ["A"] for b in blocks)


# ------------------------------------------------------------------------------- preprocessing


def test_steps_are_applied_when_data_are_read_and_only_to_what_is_read(trials):
    step = Scale({"A": 2.0, "B": -1.0, "C": 0.0})
    view = trials.with_step(step).with_step(step)[[9, 3, 1]]
    assert step.calls == []
    np.testing.assert_allclose(view.get("behaviors", "A"), 4 * trials[[3, 1]].get("behaviors", "A"))
    assert step.calls == [("behaviors", "A", 2)] * 2
    assert view.get("stimuli", "B").max() == 102
    assert trials.get("stimuli", "B").dtype == np.uint8
    # labels, responses and the exported recordings stay as recorded
    np.testing.assert_array_equal(view.responses.get("A"), trials[[3, 1]].responses.get("A"))
    np.testing.assert_array_equal(
        view.recordings["A"]["behaviors"], trials.recordings["A"]["behaviors"][[3, 1]]
    )
    assert pickle.loads(pickle.dumps(view)).get("stimuli", "B").max() == 102


def test_steps_are_applied_to_some_trials_after_the_others(trials, monkeypatch):
    step = Scale({"A": 2.0, "B": -1.0, "C": 0.5})
    view = trials.with_step(step)[[9, 3, 1, 3, 8]]
    whole = {(n, m): view.get(n, m) for n in ("stimuli", "behaviors") for m in view.mice}
    n_calls = len(step.calls)
    assert n_calls == len(whole)
    monkeypatch.setattr(_steps, "_PROCESSED_BYTES", 1)
    for (name, mouse), values in whole.items():
        found = view.get(name, mouse)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
    assert {n for *_, n in step.calls[n_calls:]} == {1}
    assert view[:0].get("stimuli", "A").shape == (0, *whole["stimuli", "A"].shape[1:])


# --------------------------------------------------------------------------------------- files


def test_open_reads_no_data(trials, tmp_path):
    v1.save_recordings(trials.recordings, tmp_path / "r.nc", compression=None)
    for name, kept in (("stimuli", [2]), ("responses", [])):  # reading others is an error
        spoil(tmp_path / "r.nc", trials.get(name, "B"), kept)
    opened = v1.Trials.open(tmp_path / "r.nc")
    view = opened.sel(mouse_id=["A", "B"])[[9, 1, 1]]
    target = view.responses[::-1]
    view.mouse_ids, view.image_ids, view.tiers, view.n_neurons, view.recordings, repr(view)
    view.behavior_names("A"), view.positions("A"), view._repr_html_(), target.image_ids
    np.testing.assert_array_equal(view.get("stimuli", "B"), trials.get("stimuli", "B")[[2]])
    for part, name in ((view, "responses"), (opened, "stimuli")):
        with pytest.raises(ValueError, match="damaged"):
            part.get(name, "B")


@pytest.mark.parametrize(
    "key", [slice(None), slice(None, None, -1), [5, 5, 0, 9, 2, 5, 11], [], [6, 3]], ids=repr
)
def test_lazily_opened_and_in_memory_are_the_same(trials, opened, key):
    key = key or slice(0)
    same(opened[key], FLAT_MICE[key], FLAT_ROWS[key])
    for mouse in SIZES:
        for name in ("stimuli", "responses"):
            one, other = trials[key].get(name, mouse), opened[key].get(name, mouse)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_a_view_of_a_file_is_written_to_another(opened, tmp_path):
    view = opened[[9, 3, 3, 0]]
    view.to_netcdf(tmp_path / "part.nc")
    same(v1.Trials.open(tmp_path / "part.nc"), ["A", "A", "A", "B"], [3, 3, 0, 2])


def test_lazy_trials_are_pickled_by_path(opened):
    copy = pickle.loads(pickle.dumps(opened[::-2]))
    assert not copy._recordings["A"].variables["stimuli"]._in_memory
    same(copy, FLAT_MICE[::-2], FLAT_ROWS[::-2])


def test_trials_do_not_pass_for_an_array(trials):
    with pytest.raises(TypeError, match=r"Trials are no array.*trials\.get"):
        np.asarray(trials)


def test_a_pickled_view_holds_only_its_mice(recordings):
    trials = v1.Trials(recordings)
    of_b = pickle.loads(pickle.dumps(trials.sel(mouse_id="B")[::2]))
    assert list(of_b._recordings) == ["B"]
    assert of_b.mice == ["B"]
    np.testing.assert_array_equal(
        of_b.get("stimuli", "B"), trials.sel(mouse_id="B")[::2].get("stimuli", "B")
    )


def test_labels_may_come_as_data_variables(recordings):
    plain = {m: ds.reset_coords(["image_id", "tier"]) for m, ds in recordings.items()}
    trials, usual = v1.Trials(plain), v1.Trials(recordings)
    np.testing.assert_array_equal(trials.image_ids, usual.image_ids)
    np.testing.assert_array_equal(trials.tiers, usual.tiers)


# ------------------------------------------------------------------------- children of DataTrees


def nested(recordings):
    """A tree whose mice inherit a coordinate from above, as `from_dict` of shared axes makes it."""
    bare = {mouse: part.drop_vars("behavior") for mouse, part in recordings.items()}
    return xr.DataTree.from_dict({"/": xr.Dataset(coords={"behavior": NAMES}), **bare})


def test_a_child_of_a_tree_is_one_mouse(recordings):
    for tree in (xr.DataTree.from_dict(recordings), nested(recordings)):
        alone = v1.Trials(tree["B"])
        assert alone.mice == ["B"]
        assert alone.behavior_names("B") == NAMES
        xr.testing.assert_identical(alone.recordings["B"].to_dataset(), recordings["B"])
        same(v1.Trials({"A": tree["A"], "B": tree["B"], "C": tree["C"]}), FLAT_MICE, FLAT_ROWS)
        renamed = v1.Trials({"X": tree["A"]})
        np.testing.assert_array_equal(renamed.get("responses", "X"), recordings["A"]["responses"])
        same(v1.Trials(tree), FLAT_MICE, FLAT_ROWS)
        same(v1.Trials(v1.concat([tree[m] for m in SIZES])), FLAT_MICE, FLAT_ROWS)


def test_a_group_of_mice_in_a_deeper_tree(recordings):
    deep = xr.DataTree.from_dict({f"day1/{mouse}": part for mouse, part in recordings.items()})
    same(v1.Trials(deep["day1"]), FLAT_MICE, FLAT_ROWS)
    assert v1.Trials(deep["day1/C"]).mice == ["C"]
    with pytest.raises(ValueError, match=r"mouse 'day1': has groups below it \(A, B, C\).*tree"):
        v1.Trials(deep)


def test_a_tree_of_one_dataset_without_a_name(recordings):
    assert v1.Trials(xr.DataTree(recordings["A"])).mice == ["mouse"]
    assert v1.Trials(xr.DataTree(recordings["A"].assign_attrs(mouse_id="Q"))).mice == ["Q"]


def test_children_are_checked_written_and_opened(recordings, tmp_path):
    tree = nested(recordings)
    v1.validate_recordings(tree["A"])
    v1.validate_recordings({"A": tree["A"], "B": tree["B"]})
    v1.validate_recordings(recordings["A"].assign_attrs(mouse_id="A"))
    broken = recordings["A"].assign(behaviors=recordings["A"]["behaviors"] * np.nan)
    with pytest.raises(ValueError, match="mouse 'A', behaviors: nan in trial 0"):
        v1.validate_recordings(xr.DataTree.from_dict({"A": broken})["A"])
    v1.save_recordings(tree["A"], tmp_path / "a.nc")
    opened = v1.open_recordings(tmp_path / "a.nc")
    assert list(opened.children) == ["A"]
    xr.testing.assert_equal(opened["A"].to_dataset().load(), recordings["A"])
    v1.save_recordings(opened["A"], tmp_path / "again.nc")
    same_one = v1.Trials(v1.open_recordings(tmp_path / "again.nc")["A"])
    np.testing.assert_array_equal(same_one.get("stimuli", "A"), recordings["A"]["stimuli"])
    files = v1.write_sensorium(tree["A"], tmp_path / "mice")
    assert v1.Trials(v1.read_sensorium(files)).mice == ["A"]
