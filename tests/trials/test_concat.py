"""Joining: mice side by side, one mouse along its trials, and what must agree."""

import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from tests.trials.labelled import FLAT_MICE, FLAT_ROWS, SIZES, N, known_neurons, recording, same
from v1tlearn.preprocessing import CenterCrop, TrialStandardizer


def session(mouse="A", first=0, **labels):
    """Some trials of a mouse whose trials nobody else has, as another file would hold them."""
    part = recording(mouse, **labels)
    return part.assign(
        stimuli=part["stimuli"] + np.uint8(first), responses=part["responses"] + first
    )


# ------------------------------------------------------------------------------------ recordings


@pytest.mark.parametrize(
    "form",
    [
        lambda a, b: [{"A": a}, {"B": b}],
        lambda a, b: [xr.DataTree.from_dict({"A": a}), xr.DataTree.from_dict({"B": b})],
        lambda a, b: [a.assign_attrs(mouse_id="A"), b.assign_attrs(mouse_id="B")],
        lambda a, b: [xr.DataTree.from_dict({"A": a})["A"], xr.DataTree.from_dict({"B": b})["B"]],
        lambda a, b: [xr.DataTree.from_dict({"A": a})["A"], {"B": b}],
        lambda a, b: (part for part in [{"A": a}, {"B": xr.DataTree(b)}]),
        lambda a, b: [{"A": a, "B": b}],
    ],
    ids=["dicts", "trees", "datasets", "children", "mixed forms", "generator", "one"],
)
def test_mice_stand_side_by_side(form, recordings):
    tree = v1.concat(form(recordings["A"], recordings["B"]))
    assert isinstance(tree, xr.DataTree)
    assert list(tree.children) == ["A", "B"]
    for mouse in "AB":
        joined = tree[mouse].to_dataset()
        joined.attrs.pop("mouse_id", None)
        xr.testing.assert_identical(joined, recordings[mouse])
        assert np.shares_memory(joined["stimuli"].values, recordings[mouse]["stimuli"].values)


def test_sessions_of_a_mouse_are_joined_as_xarray_joins_them(recordings):
    first, second = known_neurons("A"), known_neurons("A").isel(trial=[5, 0, 2])
    joined = v1.concat([{"A": first}, {"B": known_neurons("B")}, {"A": second}])
    assert list(joined.children) == ["A", "B"]
    expected = xr.concat(
        [first, second],
        "trial",
        data_vars="minimal",
        coords="minimal",
        compat="equals",
        join="exact",
    )
    xr.testing.assert_identical(joined["A"].to_dataset(), expected)
    v1.validate_recordings(joined)
    again = v1.concat([v1.Trials({"A": first})["A"], first.assign_attrs(mouse_id="A")])
    assert again["A"].sizes["trial"] == 14


def test_attributes_that_all_parts_share_stay():
    parts = [recording("A").assign_attrs(setup="2p", session=n, mouse_id="A") for n in (1, 2)]
    assert v1.concat(parts)["A"].attrs == {"setup": "2p", "mouse_id": "A"}
    trees = [xr.DataTree.from_dict({"A": part}) for part in parts]
    for tree, day in zip(trees, "12", strict=True):
        tree.attrs = {"lab": "here", "day": day}
    assert v1.concat(trees).attrs == {"lab": "here"}


def test_files_stay_on_disk(tmp_path, recordings):
    paths = [tmp_path / "1.nc", tmp_path / "2.nc"]
    parts = {"1": session(first=0), "2": session(first=50).isel(trial=slice(4))}
    for path, part in zip(paths, parts.values(), strict=True):
        v1.save_recordings({"A": part}, path)
    joined = v1.concat([v1.open_recordings(path) for path in paths])
    assert not joined["A"]["stimuli"].variable._in_memory
    assert not joined["A"]["responses"].variable._in_memory
    expected = v1.concat([{"A": part} for part in parts.values()])
    keys = [slice(None), slice(5, 9), [10, 0, 7, 7], slice(None, None, -2), 8, slice(0), [2]]
    for key in keys:
        for name in ("stimuli", "responses"):
            np.testing.assert_array_equal(
                joined["A"][name].isel(trial=key), expected["A"][name].isel(trial=key)
            )
    np.testing.assert_array_equal(
        joined["A"]["stimuli"][[9, 2], 0, 1:3, [4, 0]],
        expected["A"]["stimuli"][[9, 2], 0, 1:3, [4, 0]],
    )
    copy = pickle.loads(pickle.dumps(v1.Trials(joined)[[10, 3]].sel(neuron=1002)))
    assert not copy._recordings["A"].variables["stimuli"]._in_memory
    np.testing.assert_array_equal(
        copy.get("responses", "A"), expected["A"]["responses"][[10, 3]][:, [2]]
    )
    responses = v1.concat([v1.Trials.open(path).responses[::-1] for path in paths])
    turned = np.concatenate([part["responses"][::-1] for part in parts.values()])
    for key in keys:
        if key != 8:
            np.testing.assert_array_equal(responses[key].get("A"), turned[key])
    np.testing.assert_array_equal(responses.sel(neuron=1002).get("A"), turned[:, [2]])
    copied = pickle.dumps(responses)
    np.testing.assert_array_equal(pickle.loads(copied).get("A"), turned)
    assert str(paths[1]).encode() in copied  # where they stay
    v1.save_recordings(joined, tmp_path / "both.nc")
    xr.testing.assert_equal(v1.open_recordings(tmp_path / "both.nc").load(), expected)
    for path in paths:
        with pytest.raises(ValueError, match=r"mouse 'A', stimuli is read lazily from"):
            v1.save_recordings(joined, path)


def test_a_file_and_memory_go_together(tmp_path):
    v1.save_recordings({"A": session(first=0)}, tmp_path / "1.nc")
    mixed = v1.concat([v1.Trials.open(tmp_path / "1.nc"), v1.Trials({"A": session(first=50)})])
    assert not mixed._recordings["A"].variables["stimuli"]._in_memory
    whole = v1.concat([{"A": session(first=first)} for first in (0, 50)])["A"]
    for key in (slice(None), [13, 2, 7, 7, 0], slice(5, 9)):
        view = mixed[key].sel(neuron=[1002, 1001])
        for name in ("stimuli", "responses"):
            expected = whole[name].isel(trial=key)
            if name == "responses":
                expected = expected.isel(neuron=[2, 1])
            np.testing.assert_array_equal(view.get(name, "A"), expected)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda d: d.assign_coords(neuron=[1000, 7, 1002]),
            "neuron: part 0 and part 1 differ at 1 of 3 places, first at 1: 1001 and 7",
        ),
        (lambda d: d.isel(neuron=[0, 2, 1]), "neuron: .*first at 1: 1001 and 1002.*same order"),
        (
            lambda d: d.isel(neuron=[0, 1]),
            "(neuron|responses|position).*: part 0 and part 1 have the sizes",
        ),
        (
            lambda d: d.isel(behavior=[1, 0, 2]),
            "behavior: .*'pupil_dilation' and 'pupil_dilation_d.*columns",
        ),
        (
            lambda d: d.assign_coords(position=d["position"] + 1),
            "position: part 0 and part 1 differ",
        ),
        (
            lambda d: d.assign_coords(area=("neuron", ["V1"] * 3)),
            "part 0 has no area, which another",
        ),
        (lambda d: d.drop_vars("tier"), "part 1 has no tier"),
        (lambda d: d.drop_vars("image_id"), "part 1 has no image_id"),
        (lambda d: d.drop_vars("behaviors"), "part 1 has no behaviors"),
        (lambda d: d.isel(width=slice(5)), "stimuli: .*'width': 6.*'width': 5"),
        (
            lambda d: d.assign(stimuli=d["stimuli"].astype("f4")),
            "stimuli: .*dtypes uint8 and float32",
        ),
        (
            lambda d: d.assign(responses=d["responses"].astype("f8")),
            "responses: .*float32 and float64",
        ),
        (
            lambda d: d.assign(responses=d["responses"].assign_attrs(units="a.u.")),
            "responses: .*units 'Hz' and 'a.u.'",
        ),
        (
            lambda d: d.assign_coords(image_id=d["image_id"].astype(str)),
            "image_id: .*bring the labels to one kind",
        ),
        (
            lambda d: d.assign_coords(image_id=d["image_id"].astype("u8")),
            "image_id: .*int64 and uint64",
        ),
    ],
)
def test_what_differs_is_named_and_refused(change, match):
    first, second = recording("A"), change(session(first=50))
    joins = (
        lambda: v1.concat([{"A": first}, {"A": second}]),
        lambda: v1.concat([v1.Trials({"A": first}), v1.Trials({"A": second})]),
    )
    for join in joins:
        with pytest.raises(ValueError, match=rf"mouse 'A'.*{match}"):
            join()


def test_parts_are_counted_as_they_came(recordings):
    other = session(first=50).isel(neuron=[0, 1])
    with pytest.raises(ValueError, match="part 1 and part 3"):
        v1.concat(
            [{"B": recordings["B"]}, {"A": recordings["A"]}, {"C": recordings["C"]}, {"A": other}]
        )


def test_statistics_of_one_part_are_not_those_of_both(recordings):
    def described(mean, **more):
        return recording("A").assign(stimuli_mean=mean, stimuli_std=2.0, **more)

    same_ones = v1.concat([{"A": described(100.0)}, {"A": described(100.0)}])
    assert float(same_ones["A"]["stimuli_mean"]) == 100
    with pytest.warns(UserWarning, match="mouse 'A': responses_mean, stimuli_mean are left out"):
        joined = v1.concat(
            [{"A": described(100.0)}, {"A": described(90.0, responses_mean=("neuron", np.ones(3)))}]
        )
    assert "stimuli_mean" not in joined["A"]
    assert "responses_mean" not in joined["A"]
    assert float(joined["A"]["stimuli_std"]) == 2


# ---------------------------------------------------------------------------------------- trials


@given(keys=st.lists(st.lists(st.integers(0, N - 1), max_size=6), min_size=1, max_size=4))
def test_views_of_one_recording_are_joined_by_index(keys):
    trials = v1.Trials({mouse: recording(mouse) for mouse in SIZES})
    joined = v1.concat([trials[np.asarray(key, dtype=int)] for key in keys])
    places = np.concatenate([np.asarray(key, dtype=int) for key in keys])
    np.testing.assert_array_equal(joined.mouse_ids, FLAT_MICE[places])
    for mouse in joined.mice:
        assert joined._recordings[mouse] is trials._recordings[mouse]
        rows = FLAT_ROWS[places][FLAT_MICE[places] == mouse]
        np.testing.assert_array_equal(
            joined.get("responses", mouse), recording(mouse)["responses"][rows]
        )
    for part in (joined.responses, v1.concat([trials.responses[np.asarray(k, int)] for k in keys])):
        for vector, place in zip(np.asarray(part), places, strict=True):
            np.testing.assert_array_equal(vector, np.asarray(trials.responses)[place])


@given(
    keys=st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=6), min_size=2, max_size=3),
    neurons=st.sampled_from([None, [1001, 1000]]),
)
def test_sessions_are_joined_like_arrays(keys, neurons):
    """Each part from recordings of its own, so that nothing is shared."""
    views, vectors = [], []
    for number, key in enumerate(keys):
        trials = v1.Trials({mouse: session(mouse, 10 * number) for mouse in SIZES})
        view = trials[np.asarray(key)]
        views.append(view if neurons is None else view.sel(neuron=neurons))
        vectors += list(np.asarray(views[-1].responses))
    joined = v1.concat(views)
    answers = [np.asarray(joined.responses), np.asarray(v1.concat([v.responses for v in views]))]
    for answer in answers:
        assert len(answer) == len(vectors)
        assert all(map(np.array_equal, answer, vectors))
    for name in ("mouse_ids", "image_ids", "tiers"):
        parts = np.concatenate([getattr(view, name) for view in views])
        np.testing.assert_array_equal(getattr(joined, name), parts)
        np.testing.assert_array_equal(getattr(v1.concat([v.responses for v in views]), name), parts)
    images = np.concatenate([np.asarray(view.stimuli) for view in views])
    for one, other in zip(np.asarray(joined.stimuli), images, strict=True):
        np.testing.assert_array_equal(one, other)


def test_mice_of_several_trials(recordings):
    parts = [v1.Trials({m: recordings[m]}) for m in SIZES]
    joined = v1.concat(parts)
    same(joined, FLAT_MICE, FLAT_ROWS)
    stimuli = recordings["A"]["stimuli"].values
    assert np.shares_memory(joined.get("stimuli", "A"), stimuli)
    assert len(v1.concat([part[:0] for part in parts])) == 0
    same(v1.concat([parts[0][:0], parts[0]]), ["A"] * 7, np.arange(7))


def test_selected_neurons_must_be_the_same(recordings):
    trials = v1.Trials(recordings)
    one, other = trials.sel(neuron=[1000, 1001]), trials.sel(neuron=[1001, 1000])
    assert v1.concat([one[:3], one[5:]]).n_neurons == dict.fromkeys(SIZES, 2)
    for kind in (lambda t: t, lambda t: t.responses):
        with pytest.raises(ValueError, match=r"mouse 'A', neuron: .*1000 and 1001"):
            v1.concat([kind(one[:3]), kind(other[:3])])
        with pytest.raises(ValueError, match=r"mouse 'A'.*(sizes|neurons)"):
            v1.concat([kind(one[:3]), kind(trials[:3])])


def test_the_same_preprocessing_is_kept_and_another_refused(recordings):
    train, test = (v1.Trials(recordings).sel(tier=tier) for tier in ("train", "test"))
    scale = TrialStandardizer().fit(v1.Trials(recordings))
    both = v1.concat([scale.transform(train), scale.transform(test)])
    np.testing.assert_array_equal(
        both.get("stimuli", "A"), scale.transform(v1.concat([train, test])).get("stimuli", "A")
    )
    crops = [CenterCrop(0.5).fit_transform(part) for part in (train, test)]
    assert v1.concat(crops).get("stimuli", "A").shape == (7, 1, 2, 3)
    for first, second in (
        (train, scale.transform(test)),
        (crops[0], CenterCrop(0.9).fit_transform(test)),
    ):
        with pytest.raises(ValueError, match="part 0 and part 1 were preprocessed in different"):
            v1.concat([first, second])


def test_images_without_ids_are_hashed_anew():
    images = np.arange(5 * 24, dtype=np.uint8).reshape(5, 1, 4, 6)
    parts = [
        v1.Trials.from_arrays({"A": images[key]}, None, {"A": np.ones((len(key), 2))})
        for key in ([0, 1, 2], [2, 4])
    ]
    ids = np.concatenate([part.image_ids for part in parts])
    np.testing.assert_array_equal(v1.concat(parts).image_ids, ids)
    np.testing.assert_array_equal(v1.concat([p.responses for p in parts]).image_ids, ids)


# ------------------------------------------------------------------------------------- responses


def test_responses_keep_name_units_and_labels(recordings):
    trials = v1.Trials(recordings)
    first = v1.Responses.from_arrays(
        {"A": np.ones((3, 3)), "B": np.zeros((1, 5))}, like=trials[[0, 8, 2, 4]], name="predictions"
    )
    second = v1.Responses.from_arrays(
        {"A": np.full((2, 3), 5.0)}, like=trials[[6, 1]], name="predictions"
    )
    both = v1.concat([first, second])
    assert both.name == "predictions"
    assert both["A"].attrs == {"units": "Hz"}
    assert [v[0] for v in np.asarray(both)] == [1, 0, 1, 1, 5, 5]
    np.testing.assert_array_equal(both["A"]["trial_id"], [6, 4, 2, 0, 5])
    with pytest.raises(ValueError, match=r"called \['predictions', 'responses'\]"):
        v1.concat([first, trials.responses])
    other = v1.Trials({"A": session(first=50).assign_coords(image_id=("trial", np.arange(7)))})
    other._recordings["A"]["responses"].attrs["units"] = "a.u."
    with pytest.raises(ValueError, match=r"mouse 'A': .*units 'Hz' and 'a\.u\.'"):
        v1.concat([trials.responses, other.responses])


# ----------------------------------------------------------------------------------- wrong calls


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ([], ValueError, "no parts"),
        ("r.nc", TypeError, "parts is a str: expected a list"),
        (["r.nc"], TypeError, "a str came.*open the files"),
        ([np.zeros(3)], TypeError, "from_arrays"),
        ([3], TypeError, "a int came"),
        (3, TypeError, "expected a list of the parts"),
        ([xr.Dataset({"stimuli": ("trial", [1])})], ValueError, "part 0: .*assign_attrs"),
    ],
)
def test_what_is_no_list_of_parts(parts, error, match):
    with pytest.raises(error, match=match):
        v1.concat(parts)


def test_kinds_do_not_mix(trials, recordings):
    for parts in ([trials, trials.responses], [trials, recordings], [recordings, trials.responses]):
        with pytest.raises(TypeError, match=r"several kinds came \(part 0 \w+, part 1 \w+\)"):
            v1.concat(parts)
    for alone in (trials, recordings, xr.DataTree.from_dict(recordings), recordings["A"]):
        with pytest.raises(TypeError, match="expected a list of the parts"):
            v1.concat(alone)
    with pytest.raises(TypeError, match="a Inputs came"):
        v1.concat([trials.stimuli])
