"""Stimuli and behaviour of trials as labelled views, and one mouse as a `Dataset`."""

import pickle

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.trials.labelled import FLAT_MICE, NAMES, SIZES, N, Scale, recording
from v1tlearn.preprocessing import CenterCrop, Grayscale, ResizeStimuli, TrialStandardizer

KEYS = [slice(None), slice(2, 9, 3), [9, 3, 3, 0], FLAT_MICE != "B", -1]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("name", ["stimuli", "behaviors"])
def test_they_are_sliced_as_trials_are(trials, name, key):
    view, part = trials[key], getattr(trials, name)[key]
    assert len(part) == len(view)
    assert part.shape == view.shape
    assert part.mice == view.mice
    np.testing.assert_array_equal(part.mouse_ids, view.mouse_ids)
    np.testing.assert_array_equal(part.image_ids, view.image_ids)
    np.testing.assert_array_equal(part.tiers, view.tiers)
    for mouse in view.mice:
        np.testing.assert_array_equal(part.get(mouse), view.get(name, mouse))
        array = part[mouse]
        assert array.name == name
        assert array.dims == recording(mouse)[name].dims
        np.testing.assert_array_equal(array, view.get(name, mouse))
        for label in ("image_id", "tier", "trial_id"):
            np.testing.assert_array_equal(array[label], view.recordings[mouse][label])
    values = np.asarray(part)
    assert values.dtype == object
    for mouse in view.mice:
        for place, value in zip(view.rows(mouse)[0], view.get(name, mouse), strict=True):
            np.testing.assert_array_equal(values[place], value)


def test_they_are_selected_by_label(trials):
    test = trials.stimuli.sel(tier="test", mouse_id="A")
    np.testing.assert_array_equal(test["A"]["tier"], ["test"] * 3)
    assert test.mice == ["A"]
    assert len(trials.behaviors.sel(image_id=[0, 1])) == len(trials.sel(image_id=[0, 1]))


def test_behaviour_bears_the_names_of_its_columns(trials, recordings):
    np.testing.assert_array_equal(trials.behaviors["A"]["behavior"], NAMES)
    unnamed = v1.Trials({"A": recordings["A"].drop_vars("behavior")})
    np.testing.assert_array_equal(unnamed.behaviors["A"]["behavior"], NAMES)


def test_pixels_are_counted_from_the_upper_left_one(trials):
    images = trials.stimuli["A"]
    np.testing.assert_array_equal(images["height"], [0, 1, 2, 3])
    np.testing.assert_array_equal(images["width"], np.arange(6))
    assert images["height"].attrs["units"] == "pixel"
    np.testing.assert_array_equal(trials["A"]["height"], [0, 1, 2, 3])
    own = recording("A").assign_coords(height=[8.0, 6.0, 4.0, 2.0])
    np.testing.assert_array_equal(v1.Trials({"A": own}).stimuli["A"]["height"], [8, 6, 4, 2])


def test_the_upper_row_is_drawn_above():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    image = np.zeros((1, 1, 4, 6), "u1")
    image[0, 0, 0] = 255
    array = v1.Trials.from_arrays(image).stimuli["mouse"][0, 0]
    for plot in (array.plot.imshow, array.plot.pcolormesh):
        figure, axes = pyplot.subplots(figsize=(2, 2))
        plot(
            ax=axes,
            yincrease=False,
            add_colorbar=False,
            add_labels=False,
            cmap="gray",
            vmin=0,
            vmax=255,
        )
        axes.set_axis_off()
        figure.subplots_adjust(0, 0, 1, 1)
        figure.canvas.draw()
        drawn = np.asarray(figure.canvas.buffer_rgba())[..., 0].astype(int)
        pyplot.close(figure)
        assert drawn[: len(drawn) // 8].mean() > 200
        assert drawn[-len(drawn) // 8 :].mean() < 50


def test_attributes_stay_while_they_are_true(recordings):
    for ds in recordings.values():
        ds["stimuli"].attrs = {"units": "1", "long_name": "grey level, 0 to 255"}
        ds["behaviors"].attrs = {"units": "cm/s"}
    trials = v1.Trials(recordings)
    assert trials.stimuli["A"].attrs["units"] == "1"
    assert trials.behaviors["A"].attrs == {"units": "cm/s"}
    cropped = CenterCrop(0.5).fit_transform(trials)
    assert cropped.stimuli["A"].attrs == {}
    assert cropped.behaviors["A"].attrs == {"units": "cm/s"}
    scaled = TrialStandardizer().fit_transform(trials)
    assert scaled.stimuli["A"].attrs == scaled.behaviors["A"].attrs == {}
    images_only = TrialStandardizer(behaviors=False).fit_transform(trials)
    assert images_only.behaviors["A"].attrs == {"units": "cm/s"}
    assert scaled.responses["A"].attrs == {"units": "Hz"}


def test_steps_are_applied(trials):
    view = trials.with_step(Scale({"A": 2.0, "B": -1.0, "C": 0.0}))[[9, 3, 1]]
    np.testing.assert_allclose(view.stimuli["A"], 2.0 * trials[[3, 1]].get("stimuli", "A"))
    np.testing.assert_allclose(view.behaviors["B"], -trials[[9]].get("behaviors", "B"))
    np.testing.assert_array_equal(view.stimuli["A"]["image_id"], [0, 1])
    np.testing.assert_array_equal(view.stimuli["A"]["height"], [0, 1, 2, 3])


@pytest.mark.parametrize("step", [CenterCrop(0.5), ResizeStimuli((2, 3)), Grayscale()])
def test_images_may_change_their_size(step):
    images = np.arange(3 * 2 * 4 * 6, dtype="u1").reshape(3, 2, 4, 6)
    trials = v1.Trials.from_arrays({"A": images}, None, {"A": np.ones((3, 2))})
    view = step.fit_transform(trials)
    expected = view.get("stimuli", "A")
    np.testing.assert_array_equal(view.stimuli["A"], expected)
    dataset = view["A"]
    np.testing.assert_array_equal(dataset["stimuli"], expected)
    assert dataset.sizes["height"] == expected.shape[2]
    np.testing.assert_array_equal(dataset["responses"], trials.get("responses", "A"))
    assert v1.Trials(dataset).get("stimuli", "A").shape == expected.shape


def test_one_mouse_is_a_dataset_of_its_trials(trials):
    view = trials[[9, 3, 3, 0]].sel(neuron={"A": [1002, 1000]})
    dataset = view["A"]
    expected = recording("A").isel(trial=[3, 3, 0], neuron=[2, 0])
    xr.testing.assert_identical(
        dataset.drop_vars(["height", "width"]), expected.assign_attrs(mouse_id="A")
    )
    again = v1.Trials(dataset)
    assert again.mice == ["A"]
    np.testing.assert_array_equal(again.image_ids, [0, 0, 0])


def test_a_dataset_of_a_preprocessed_view_is_what_estimators_see(recordings):
    ds = recordings["A"].assign(
        stimuli_mean=100.0,
        behaviors_mean=("behavior", np.ones(3)),
        responses_mean=("neuron", np.ones(3)),
    )
    trials = v1.Trials({"A": ds})
    cropped = CenterCrop(0.5).fit_transform(trials)["A"]
    assert cropped["stimuli"].shape == (7, 1, 2, 3)
    assert "stimuli_mean" not in cropped  # of the recorded images
    assert "behaviors_mean" in cropped
    scaled = TrialStandardizer().fit_transform(trials)["A"]
    assert not {"stimuli_mean", "behaviors_mean"} & set(scaled.variables)
    np.testing.assert_array_equal(scaled["responses_mean"], [1, 1, 1])
    np.testing.assert_array_equal(scaled["tier"], ds["tier"])


def test_a_preprocessed_mouse_is_a_dataset_whatever_others_lack(recordings):
    without = v1.Trials({"A": recordings["A"], "B": recordings["B"].drop_vars("behaviors")})
    cropped = CenterCrop(0.5).fit_transform(without)
    assert "behaviors" in cropped["A"]
    assert "behaviors" not in cropped["B"]
    for mouse in "AB":
        np.testing.assert_array_equal(cropped[mouse].stimuli, cropped.get("stimuli", mouse))


def test_files_are_read_when_numbers_are_needed(opened, trials):
    assert not opened["A"]["stimuli"].variable._in_memory
    assert not opened.stimuli["A"].variable._in_memory
    np.testing.assert_array_equal(opened.stimuli[[3, 3, 1]]["A"], trials.stimuli[[3, 3, 1]]["A"])
    copy = pickle.loads(pickle.dumps(opened.stimuli[[9, 3]]))
    np.testing.assert_array_equal(copy["B"], trials.stimuli[[9]]["B"])


def test_what_is_not_there_is_named(trials, recordings):
    without = v1.Trials({"A": recordings["A"], "B": recordings["B"].drop_vars("behaviors")})
    with pytest.raises(ValueError, match=r"mouse 'B' has no behaviors.*\['A'\]"):
        without.behaviors  # noqa: B018
    assert len(without.sel(mouse_id="A").behaviors) == SIZES["A"][0]
    for view in (trials, trials.stimuli, trials.responses):
        for error in (KeyError, ValueError):  # as of a dict, and as of the other methods
            with pytest.raises(error, match=r"^unknown mouse 'Z'"):
                view["Z"]
    for view in (trials[:7], trials[:7].stimuli):
        with pytest.raises(KeyError, match=r"no trial of mouse 'B' here, only of \['A'\]"):
            view["B"]
    assert "A" in trials
    assert "Z" not in trials
    assert "B" not in trials[:7].responses
    with pytest.raises(ValueError, match="one entry per trial"):
        np.asarray(trials.stimuli, dtype=float)
    assert len(np.asarray(trials.stimuli)) == N


def test_steps_that_are_functions_are_pickled(trials):
    view = CenterCrop(0.5).fit_transform(trials)
    copy = pickle.loads(pickle.dumps(view.stimuli))
    np.testing.assert_array_equal(copy["A"], view.stimuli["A"])
