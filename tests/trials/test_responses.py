"""`Responses`: labels, arrays, averages, tables and files."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from tests.trials.labelled import FLAT_MICE, SIZES, N, known_neurons, recording
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


# ------------------------------------------------------------------------------------- selections


def test_responses_know_what_they_are(trials, recordings):
    assert trials.responses.name == trials.responses["A"].name == "responses"
    simulated = v1.Trials({"A": known_neurons("A")})
    assert simulated.expected_responses.name == "expected_responses"
    assert simulated.expected_responses["A"].attrs == {"units": "Hz"}
    made = Responses.from_arrays({"A": np.ones((2, 3))}, like=trials[:2], name="predictions")
    assert made.name == made["A"].name == made[::-1].load().name == "predictions"
    assert pickle.loads(pickle.dumps(made)).name == "predictions"
    assert made["A"].attrs == {"units": "Hz"}


def test_matrices_bear_all_that_is_known_of_the_neurons():
    trials = v1.Trials({"A": known_neurons("A"), "B": known_neurons("B")})
    matrix = trials.responses["A"]
    for name in ("neuron", "area", "layer", "depth"):
        np.testing.assert_array_equal(matrix[name], known_neurons("A")[name])
    np.testing.assert_array_equal(matrix["position_x"], known_neurons("A")["position"][:, 0])
    np.testing.assert_array_equal(matrix["position_y"], known_neurons("A")["position"][:, 1])
    some = trials.responses.sel(neuron={"A": [1002, 1000]})
    np.testing.assert_array_equal(some.positions("A"), known_neurons("A")["position"][[2, 0]])
    np.testing.assert_array_equal(
        some["A"]["position_y"], known_neurons("A")["position"][[2, 0], 1]
    )
    np.testing.assert_array_equal(some["A"]["area"], ["V1", "V1"])
    np.testing.assert_array_equal(
        matrix.groupby("area").mean().sel(area="LM"), matrix.isel(neuron=1)
    )


@pytest.mark.parametrize("key", [slice(None), [9, 3, 3, 0], slice(0)], ids=str)
def test_responses_are_written_and_read_back(key, tmp_path):
    trials = v1.Trials({mouse: known_neurons(mouse) for mouse in SIZES})[key]
    predictions = trials.responses.sel(neuron={"A": [1002, 1000]} if len(trials) else None) * 2
    predictions.name = "predictions"
    if not len(predictions):
        with pytest.raises(ValueError, match="no trials"):
            predictions.to_netcdf(tmp_path / "p.nc")
        return
    predictions.to_netcdf(tmp_path / "p.nc")
    again = Responses.open(tmp_path / "p.nc")
    assert again.name == "predictions"
    np.testing.assert_array_equal(again.mouse_ids, predictions.mouse_ids)
    np.testing.assert_array_equal(again.image_ids, predictions.image_ids)
    np.testing.assert_array_equal(again.tiers, predictions.tiers)
    for one, other in zip(np.asarray(again), np.asarray(predictions), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    for mouse in predictions.mice:
        xr.testing.assert_identical(again[mouse], predictions[mouse])
        np.testing.assert_array_equal(again.positions(mouse), predictions.positions(mouse))
    assert again[::-1].n_neurons == predictions.n_neurons
    again.to_netcdf(tmp_path / "p.nc")  # in memory: the file may be replaced
    xr.testing.assert_identical(Responses.open(tmp_path / "p.nc")["A"], again["A"])


def test_a_file_that_is_written_anew_while_it_is_read_gives_what_it_holds_then(
    tmp_path, monkeypatch
):
    trials = v1.Trials({mouse: known_neurons(mouse) for mouse in SIZES})
    for name, factor in (("first", 1), ("second", 2)):
        (trials.responses * factor).to_netcdf(tmp_path / name)
    path, load, others = tmp_path / "r.nc", xr.DataTree.load, ["second", "first"]
    shutil.copyfile(tmp_path / "first", path)

    def late(tree, **options):
        if others:
            shutil.copyfile(tmp_path / others.pop(0), path)
        return load(tree, **options)

    monkeypatch.setattr(xr.DataTree, "load", late)
    found = Responses.open(path)
    assert not others
    np.testing.assert_array_equal(found["A"], trials.responses["A"])


def test_images_known_by_their_content_keep_their_ids_in_a_file(tmp_path):
    images = np.arange(5 * 24, dtype=np.uint8).reshape(5, 1, 4, 6)[[0, 1, 2, 1, 0]]
    target = v1.Trials.from_arrays(images, None, np.ones((5, 2))).responses[1:]
    target.to_netcdf(tmp_path / "r.nc")
    np.testing.assert_array_equal(Responses.open(tmp_path / "r.nc").image_ids, target.image_ids)


def test_files_of_responses_and_of_recordings_are_told_apart(trials, tmp_path):
    trials.responses.to_netcdf(tmp_path / "responses.nc")
    trials.to_netcdf(tmp_path / "recordings.nc")
    with pytest.raises(ValueError, match=r"responses alone: read it with Responses\.open"):
        v1.Trials.open(tmp_path / "responses.nc")
    with pytest.raises(ValueError, match=r"does not hold responses.*Trials\.open\(path\)"):
        Responses.open(tmp_path / "recordings.nc")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        Responses.open(tmp_path / "other.nc")


def test_values_that_do_not_fit_the_labels(trials):
    with pytest.raises(ValueError, match="mouse 'A': vectors of 2 responses came for 3 neurons"):
        Responses.from_arrays({"A": np.ones((7, 2))}, like=trials[:7])
    with pytest.raises(ValueError, match=r"mouse 'A': values have the shape \(7,\)"):
        Responses.from_arrays({"A": np.ones(7)}, like=trials[:7])
    with pytest.raises(ValueError, match=r"values of mouse 'A' are missing: there are \['B'\]"):
        Responses.from_arrays({"B": np.ones((4, 5))}, like=trials[:7])


# ------------------------------------------------------------------------------- means and tables


def with_gaps(mouse):
    """Responses of which some were not recorded, and one neuron never."""
    part = known_neurons(mouse)
    values = part["responses"].values.copy()
    values[::3, 0] = values[:, 1] = np.nan
    return part.assign(responses=part["responses"].copy(data=values))


def trials_with_gaps():
    return v1.Trials({mouse: with_gaps(mouse) for mouse in SIZES})


@given(key=st.lists(st.integers(0, N - 1), min_size=1, max_size=20))
def test_means_are_those_of_xarray(key):
    trials = trials_with_gaps()
    view = trials.responses[np.asarray(key)]
    parts = {m: view[m].astype(float) for m in view.mice}
    over_trials, over_neurons = view.mean("trial"), view.mean("neuron")
    assert over_trials.dims == ("unit",)
    for mouse, part in parts.items():
        own = over_trials.sel(mouse=mouse)
        assert own.dims == ("neuron",)
        np.testing.assert_array_equal(own["neuron"], part["neuron"])
        np.testing.assert_array_equal(own["area"], part["area"])
        np.testing.assert_allclose(own, part.mean("trial"))
        np.testing.assert_allclose(over_neurons.values[view.rows(mouse)[0]], part.mean("neuron"))
    np.testing.assert_array_equal(over_neurons["mouse"], view.mouse_ids)
    np.testing.assert_array_equal(over_neurons["tier"], view.tiers)

    images = view.mean("image_id")
    assert isinstance(images, Responses)
    pairs = list(dict.fromkeys(zip(view.mouse_ids.tolist(), view.image_ids.tolist(), strict=True)))
    assert list(zip(images.mouse_ids.tolist(), images.image_ids.tolist(), strict=True)) == pairs
    for mouse, part in parts.items():
        expected = part.groupby("image_id").mean().sel(image_id=images[mouse]["image_id"].values)
        np.testing.assert_allclose(images[mouse], expected, rtol=1e-6)
        assert images.get(mouse).dtype == np.float32
        np.testing.assert_array_equal(images[mouse]["area"], part["area"])


def test_labels_that_repeats_share_stay_with_their_image(trials):
    images = trials.sel(tier="test").responses.mean("image_id")
    np.testing.assert_array_equal(images.tiers, ["test"] * len(images))
    assert images.name == "responses"
    assert images["A"].attrs == {"units": "Hz"}
    np.testing.assert_array_equal(images["A"]["trial_id"], [5, 3, 1])  # no image twice
    mixed = trials.responses.mean("image_id")
    assert "trial_id" not in mixed["A"].coords
    assert mixed.sel(mouse_id="A").tiers.tolist() == [""] * 3


def test_means_are_selected_combined_and_averaged_again(trials):
    images = trials.responses.sel(neuron=[1001, 1000]).mean("image_id")
    np.testing.assert_array_equal(images.sel(neuron=1000, image_id=0).get("A"), [[3.0]])
    np.testing.assert_array_equal((images - images).get("B"), np.zeros((3, 2)))
    assert len(pickle.loads(pickle.dumps(images)).mean("trial")) == 6


def test_units_and_names_of_means(trials):
    for dim in ("trial", "neuron"):
        assert trials.responses.mean(dim).attrs == {"units": "Hz"}
        assert trials.responses.mean(dim).name == "responses"
    mixed = trials.responses
    mixed._attrs = mixed._attrs | {"B": {"units": "a.u."}}
    assert mixed.mean("trial").attrs == {}
    with pytest.raises(ValueError, match="dim is 'time': expected 'trial', 'neuron' or 'image_id'"):
        trials.responses.mean("time")
    for dim in (None, ["trial"], 0):
        with pytest.raises(
            TypeError, match=r"expected one of .* as in responses.mean\(\"trial\"\)"
        ):
            trials.responses.mean(dim)
    with pytest.raises(TypeError, match="expected one of"):
        trials.responses.mean()


def test_names_are_text_that_no_label_has(trials):
    for name in ("trial", "mouse", "neuron", "tier", "image_id"):
        responses = trials.responses
        responses.name = name
        with pytest.raises(ValueError, match=f"the responses are called '{name}', as a column"):
            responses.to_dataframe()
    for name in (1, ["a"]):
        with pytest.raises(TypeError, match="expected text or None"):
            responses.name = name


def test_there_is_a_folder_to_write_into(trials, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing"):
        trials.responses.to_netcdf(tmp_path / "missing" / "r.nc")
    with pytest.raises(TypeError, match=r"to_netcdf\(path\)"):
        trials.responses.to_netcdf(3)


def test_the_table_has_one_row_per_trial_and_neuron():
    trials = trials_with_gaps()[[9, 3, 8]]
    table = trials.responses.to_dataframe()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns[:5]) == ["mouse", "trial", "image_id", "tier", "neuron"]
    assert {"area", "layer", "depth", "position_x", "trial_id"} <= set(table.columns)
    assert len(table) == 3 + 2 * 5
    for row in table.itertuples():
        values = trials.responses[[row.trial]][row.mouse].sel(neuron=row.neuron)
        np.testing.assert_array_equal(row.responses, values[0])
        assert row.image_id == trials.image_ids[row.trial]
        assert row.tier == trials.tiers[row.trial]
        assert row.area == values["area"]
    wide = table[table.mouse == "B"].pivot(index="trial", columns="neuron", values="responses")
    np.testing.assert_array_equal(wide, trials.responses.get("B"))
    assert "value" in (trials.responses - trials.expected_responses).to_dataframe()
    assert list(trials[:0].responses.to_dataframe().columns) == [
        "mouse",
        "trial",
        "image_id",
        "neuron",
        "responses",
    ]
    untiered = v1.Trials({"A": recording("A").drop_vars("tier")}).responses.to_dataframe()
    assert "tier" not in untiered
