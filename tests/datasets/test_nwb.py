"""What `read_nwb` makes of files that pynwb wrote, held against loops over what was written."""

import pickle

import h5py
import numpy as np
import pytest
from hdmf.backends.hdf5 import H5DataIO
from pynwb import TimeSeries
from pynwb.image import ImageSeries

import v1tlearn as v1
from tests.datasets.nwb_files import (
    RATE,
    add_indices,
    add_plane,
    add_table,
    add_traces,
    add_units,
    calcium,
    make_images,
    new,
    of_recording,
    templates,
    units,
    write,
)

WINDOW = (0.1, 0.6)


def by_hand(traces, onsets, window=WINDOW, rate=RATE):
    """Samples of each window, found one by one; edges in whole milliseconds, to be exact."""
    out = []
    for onset in onsets:
        start, stop = (round(1000 * (onset + end)) for end in window)
        inside = [n for n in range(len(traces)) if start <= round(1000 * n / rate) < stop]
        out.append([traces[n] for n in inside])
    return out


@pytest.fixture(scope="module")
def imaged(tmp_path_factory):
    path = tmp_path_factory.mktemp("nwb") / "calcium.nwb"
    return path, calcium(path)


def test_traces_are_averaged_in_the_window_after_each_onset(imaged):
    path, held = imaged
    recording = v1.read_nwb(path, window=WINDOW)
    onsets = 1.0 + np.arange(30)
    expected = [np.mean(np.array(s, "f8"), axis=0) for s in by_hand(held["traces"], onsets)]
    np.testing.assert_allclose(recording["responses"], expected, rtol=1e-6)
    assert recording["responses"].dtype == np.float32
    assert recording["responses"].attrs["units"] == "dF/F"
    np.testing.assert_array_equal(recording["onset"], onsets)
    np.testing.assert_array_equal(recording["trial_id"], np.arange(30))


@pytest.mark.parametrize(
    ("reduction", "scale", "unit"), [("sum", 1, "dF/F"), ("rate", 2, "dF/F/s")]
)
def test_sums_and_rates_are_of_the_same_samples(imaged, reduction, scale, unit):
    path, held = imaged
    responses = v1.read_nwb(path, window=WINDOW, reduction=reduction)["responses"]
    expected = [np.sum(s, axis=0) * scale for s in by_hand(held["traces"], 1.0 + np.arange(30))]
    np.testing.assert_allclose(responses, expected, rtol=1e-5)
    assert responses.attrs["units"] == unit


def test_indices_lead_to_templates_in_their_order(imaged):
    path, held = imaged
    recording = v1.read_nwb(path)
    np.testing.assert_array_equal(recording["image_id"], held["shown"])
    assert recording["image_name"].values.tolist() == [f"image {n}" for n in held["shown"]]
    assert recording["stimuli"].dtype == np.uint8
    np.testing.assert_array_equal(recording["stimuli"][:, 0], held["images"][held["shown"]])
    picked = recording["stimuli"].isel(trial=[7, 2], height=slice(1, 5), width=3)
    np.testing.assert_array_equal(picked[:, 0], held["images"][held["shown"][[7, 2]], 1:5, 3])


def test_behaviour_is_averaged_in_its_own_window_with_conversion_and_offset(imaged):
    path, held = imaged
    wanted = {
        "pupil_dilation": "PupilTracking/area",
        "running_speed": "speed",
        "pupil_x": ("behavior/EyeTracking/place", 0),
        "pupil_y": ("place", 1),
    }
    recording = v1.read_nwb(path, behaviors=wanted, behavior_window=(0.0, 0.5))
    onsets = 1.0 + np.arange(30)
    speed = [np.mean(s) for s in by_hand(held["speed"], onsets, (0, 0.5), 20)]
    pupil = np.array([np.mean(s, axis=0) for s in by_hand(held["pupil"], onsets, (0, 0.5), 20)])
    expected = np.column_stack([2 * pupil[:, 0] + 1, speed, pupil])
    np.testing.assert_allclose(recording["behaviors"], expected, rtol=1e-6)
    assert recording["behavior"].values.tolist() == list(wanted)
    said = "pupil_dilation: px^2; running_speed: cm/s; pupil_x: px; pupil_y: px"
    assert recording["behaviors"].attrs["units"] == said


def test_neurons_have_ids_an_area_and_the_centres_of_their_masks(imaged):
    recording = v1.read_nwb(imaged[0])
    assert recording["neuron"].values.tolist() == [0, 1, 2, 3]
    assert set(recording["area"].values) == {"V1"}
    # masks weigh column 2 three times as much as column 6, pixels are 2 x 4 micrometres
    np.testing.assert_allclose(recording["position"], [[2 * n, 4 * 3.0] for n in range(4)])
    assert recording["position"].attrs["units"] == "um"


def test_a_recording_goes_through_a_file_and_a_fit(imaged, tmp_path):
    recording = v1.read_nwb(imaged[0], behaviors={"running_speed": "speed"})
    v1.validate_recordings(recording)
    v1.save_recordings(recording, tmp_path / "a.nc")
    trials = v1.Trials.open(tmp_path / "a.nc")
    assert trials.mice == ["mouse 1"]
    stored = trials.recordings["mouse 1"]
    np.testing.assert_array_equal(stored["stimuli"], recording["stimuli"])
    np.testing.assert_array_equal(trials.responses["mouse 1"], recording["responses"])
    model = v1.CNNRegressor(
        n_layers=1, hidden_channels=2, input_kernel=3, max_epochs=1, random_state=0, device="cpu"
    )
    fitted = [model.fit(v1.Trials(recording)).predict(v1.Trials(recording)), model.predict(trials)]
    np.testing.assert_array_equal(*(one["mouse 1"].values for one in fitted))
    copy = pickle.loads(pickle.dumps(recording))
    np.testing.assert_array_equal(copy["stimuli"], recording["stimuli"])


def test_a_recording_of_ours_comes_back_from_a_file_that_pynwb_wrote(tmp_path):
    made = v1.make_v1_recordings(1, 5, 20, 2, 3, image_shape=(8, 12), random_state=0)["A"]
    path = of_recording(made, tmp_path / "a.nwb")
    found = v1.read_nwb(path, window=(0.0, 0.5), behaviors={"running_speed": "running_speed"})
    np.testing.assert_array_equal(found["stimuli"], made["stimuli"])
    np.testing.assert_allclose(found["responses"], made["responses"], rtol=1e-6)
    np.testing.assert_allclose(found["behaviors"][:, 0], made["behaviors"][:, 2], rtol=1e-6)
    same = made["image_id"].values[:, None] == made["image_id"].values
    np.testing.assert_array_equal(
        found["image_id"].values[:, None] == found["image_id"].values, same
    )


def test_what_takes_recordings_says_how_a_file_becomes_one(imaged):
    said = rf"Trials\(v1tlearn.read_nwb\('{imaged[0]}'\)\)"
    with pytest.raises(TypeError, match=said):
        v1.CNNRegressor().fit(str(imaged[0]))
    with pytest.raises(TypeError, match=r"open it, v1tlearn.read_nwb\("):
        v1.Trials(imaged[0])


def test_a_file_that_is_written_anew_is_refused(tmp_path):
    calcium(tmp_path / "a.nwb")
    recording = v1.read_nwb(tmp_path / "a.nwb")
    (tmp_path / "a.nwb").unlink()
    calcium(tmp_path / "a.nwb", seed=1)
    with pytest.raises(ValueError, match=r"a.nwb was written anew"):
        recording["stimuli"].load()


# --------------------------------------------------------------------------------------- planes


def two_planes(path):
    nwb = new()
    stack = templates(make_images())
    nwb.add_stimulus_template(stack)
    add_indices(nwb, [0, 1, 2, 0], stack)
    made = np.random.default_rng(0)
    data = [made.random((80, n)) for n in (2, 3)]
    for number, values in enumerate(data):
        regions = add_plane(
            nwb, number, values.shape[1], origin_coords=[1e-4, 0.0, number * 3e-5]
        )  # meters, as by default
        shift = {"starting_time": 0.05 * number}
        add_traces(nwb, regions, values, name=f"plane_{number}", **shift)
    write(nwb, path)
    return data


@pytest.mark.parametrize("asked", ["DfOverF", ["plane_0", "ophys/DfOverF/plane_1"]])
def test_planes_stand_one_behind_the_other_each_with_its_clock(tmp_path, asked):
    data = two_planes(tmp_path / "a.nwb")
    recording = v1.read_nwb(tmp_path / "a.nwb", responses=asked, window=WINDOW)
    onsets = 1.0 + np.arange(4)
    first = [np.mean(s, axis=0) for s in by_hand(data[0], onsets)]
    second = [np.mean(s, axis=0) for s in by_hand(data[1], onsets - 0.05)]
    np.testing.assert_allclose(recording["responses"], np.hstack([first, second]), rtol=1e-6)
    names = [f"ophys/DfOverF/plane_{p}/{n}" for p, n in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))]
    assert recording["neuron"].values.tolist() == names
    assert recording["area"].values.tolist() == ["V0"] * 2 + ["V1"] * 3
    np.testing.assert_allclose(recording["position"][:, 0], [100, 102, 100, 102, 104])
    np.testing.assert_allclose(recording["position"][:, 2], [0, 0, 30, 30, 30])


@pytest.mark.parametrize("told", [(0,), (1,), ()])
def test_positions_on_planes_of_which_only_some_tell_where_they_lie_are_left_out(tmp_path, told):
    nwb = new()
    stack = templates(make_images())
    nwb.add_stimulus_template(stack)
    add_indices(nwb, [0, 1, 2, 0], stack)
    for number in (0, 1):
        origin = {"origin_coords": [1e-3, 2e-3, 0.0]} if number in told else {}
        regions = add_plane(nwb, number, 2, **origin)
        add_traces(nwb, regions, np.ones((80, 2)), name=f"plane_{number}")
    path = write(nwb, tmp_path / "a.nwb")
    if not told:  # both count from their own corner
        found = v1.read_nwb(path, responses="DfOverF")["position"]
        np.testing.assert_allclose(found, [[0, 12], [2, 12]] * 2)
        return
    said = rf"left out: the plane 'plane {1 - told[0]}' does not tell where it lies \(origin_coords"
    with pytest.warns(UserWarning, match=said):
        assert "position" not in v1.read_nwb(path, responses="DfOverF")
    one = v1.read_nwb(path, responses=f"plane_{told[0]}")["position"]
    np.testing.assert_allclose(one[:, :2], [[1000, 2012], [1002, 2012]])


def test_masks_may_be_lists_of_pixels(tmp_path):
    nwb = new()
    stack = templates(make_images())
    nwb.add_stimulus_template(stack)
    add_indices(nwb, [0, 1], stack)
    regions = add_plane(nwb, 1, 0, spacing=(2.0, 4.0, 5.0))
    regions.add_roi(pixel_mask=[(1, 2, 1.0), (3, 2, 3.0)])
    regions.add_roi(pixel_mask=[(0, 5, 0.5)])
    add_traces(nwb, regions, np.ones((50, 2)))
    path = write(nwb, tmp_path / "a.nwb")
    found = v1.read_nwb(path)["position"].values
    np.testing.assert_allclose(found, [[2 * 2.5, 4 * 2], [0, 4 * 5]])


def test_several_series_are_listed_where_one_is_to_be_chosen(tmp_path):
    two_planes(tmp_path / "a.nwb")
    said = r"a.nwb: there are several responses.*'ophys/DfOverF/plane_0', 'ophys/DfOverF/plane_1'"
    with pytest.raises(ValueError, match=said):
        v1.read_nwb(tmp_path / "a.nwb")
    with pytest.raises(ValueError, match=r"responses 'plane_2' is not there.*plane_0"):
        v1.read_nwb(tmp_path / "a.nwb", responses="plane_2")


@pytest.mark.parametrize("chunks", [(700, 300), (3300, 100)])
def test_blocks_of_any_chunks_give_the_same(tmp_path, chunks):
    nwb = new()
    stack = templates(make_images())
    nwb.add_stimulus_template(stack)
    add_indices(nwb, np.arange(60) % 6, stack, apart=5.4)
    data = np.random.default_rng(0).normal(size=(3300, 1400))  # 37 MB, more than is read at once
    data[1095, 7] = np.nan
    regions = add_plane(nwb, 1, 0)
    regions.id.extend(range(1400))
    regions.add_column("image_mask", "d", data=np.ones((1400, 2, 2), "u1"))
    add_traces(nwb, regions, H5DataIO(data, chunks=chunks))
    write(nwb, tmp_path / "a.nwb")
    found = v1.read_nwb(tmp_path / "a.nwb", window=(0.1, 1.3), positions="none")["responses"]
    onsets = 1.0 + 5.4 * np.arange(60)
    expected = [data[round(10 * o) + 1 : round(10 * o) + 13].mean(axis=0) for o in onsets]
    assert np.isnan(expected).sum() == 1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------- units


def counted(trains, onsets, window=WINDOW):
    return np.array(
        [
            [sum(o + window[0] <= t < o + window[1] for t in train) for train in trains]
            for o in onsets
        ]
    )


def test_spikes_of_units_are_counted_after_each_image_of_a_series(tmp_path):
    held = units(tmp_path / "a.nwb")
    recording = v1.read_nwb(tmp_path / "a.nwb", window=WINDOW)
    expected = counted(held["trains"], held["onsets"])
    np.testing.assert_allclose(recording["responses"], expected / 0.5)
    assert recording["responses"].attrs["units"] == "spikes/s"
    counts = v1.read_nwb(tmp_path / "a.nwb", window=WINDOW, reduction="sum")["responses"]
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(recording["stimuli"][:, 0], held["images"])
    assert "image_id" not in recording
    assert len(set(v1.Trials(recording).image_ids)) == len(held["images"])
    assert recording["neuron"].values.tolist() == [100, 101, 102]
    assert recording["area"].values.tolist() == ["L0", "L1", "L2"]
    np.testing.assert_allclose(recording["position"], [[5, 10, 1], [25, 50, 1], [45, 90, 1]])


@pytest.mark.parametrize("first", [[[0.0, 3.7]], [[2.3, 3.7], [0.0, 2.3]]])  # in pieces that meet
def test_units_that_were_not_observed_are_not_recorded(first, tmp_path):
    nwb, onsets = new(), 1.0 + np.arange(6)
    nwb.add_stimulus(
        ImageSeries(name="scenes", data=make_images(), unit="grey", format="raw", timestamps=onsets)
    )
    trains = [[1.2, 2.3, 5.4], [1.3, 6.2]]
    observed = [first, [[0.0, 2.0], [4.0, 9.0]]]
    add_units(nwb, trains, observed=observed)
    write(nwb, tmp_path / "a.nwb")
    found = v1.read_nwb(tmp_path / "a.nwb", window=WINDOW, reduction="sum")["responses"].values
    nan = np.nan
    expected = [[1, 1], [1, nan], [0, nan], [nan, 0], [nan, 0], [nan, 1]]
    np.testing.assert_array_equal(found, expected)


def test_units_without_places_of_electrodes_are_read_with_a_warning(tmp_path):
    nwb = new()
    data = make_images()
    nwb.add_stimulus(ImageSeries(name="s", data=data, unit="g", format="raw", rate=1.0))
    add_units(nwb, [np.linspace(0, 7, 50)], electrodes=False)
    write(nwb, tmp_path / "a.nwb")
    with pytest.warns(
        UserWarning, match="positions of neurons are left out: the units do not name"
    ):
        v1.read_nwb(tmp_path / "a.nwb")
    assert "position" not in v1.read_nwb(tmp_path / "a.nwb", positions="none")


# --------------------------------------------------------------------------------------- tables


def with_table(path, columns, images=None, onsets=None, target="stack", **params):
    nwb = new()
    images = make_images() if images is None else images
    if target == "stack":
        nwb.add_stimulus_template(
            ImageSeries(name="stack", data=images, unit="grey", format="raw", rate=1.0)
        )
    elif target is not None:
        nwb.add_stimulus_template(templates(images, ordered=target == "ordered"))
    n = len(next(iter(columns.values())))
    onsets = 1.0 + np.arange(n) if onsets is None else onsets
    add_table(nwb, onsets, columns, **params)
    add_units(nwb, [np.linspace(0, n + 2, 200)], electrodes=False)
    return write(nwb, path)


def read(path, **params):
    return v1.read_nwb(path, **{"positions": "none"} | params)


def test_a_table_of_trials_leads_to_images_tiers_and_blanks(tmp_path):
    shown, tiers = [2, -1, 0, 2], ["train", "train", "test", "validation"]
    path = with_table(tmp_path / "a.nwb", {"image_index": shown, "split": tiers})
    recording = read(path, blanks=[-1], tiers="split")
    assert recording["image_id"].values.tolist() == [2, 0, 2]
    assert recording["tier"].values.tolist() == ["train", "test", "validation"]
    assert recording["presentation"].values.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(recording["stimuli"][:, 0], make_images()[[2, 0, 2]])
    with pytest.raises(ValueError, match=r"shows image -1 in row 1.*pass blanks"):
        read(path)


def test_rows_of_a_table_are_selected_and_images_found_by_name(tmp_path):
    names = ["image 3", "gray", "image 1", "image 3"]
    columns = {"image_name": names, "stimulus_name": ["scenes", "scenes", "other", "scenes"]}
    path = with_table(tmp_path / "a.nwb", columns, target="unordered", name="presentations")
    recording = read(path, where={"stimulus_name": "scenes"}, blanks=["gray"])
    assert recording["image_name"].values.tolist() == ["image 3", "image 3"]
    np.testing.assert_array_equal(recording["stimuli"][:, 0], make_images()[[3, 3]])
    with pytest.raises(ValueError, match=r"presentations shows \['gray'\] in 1 rows"):
        read(path)


def test_rows_out_of_order_keep_their_place_and_tell_their_time(tmp_path):
    path = with_table(tmp_path / "a.nwb", {"frame": [0, 1, 2]}, onsets=[3.0, 1.0, 2.0])
    recording = read(path)
    assert recording["image_id"].values.tolist() == [0, 1, 2]
    assert recording["trial_id"].values.tolist() == [2, 0, 1]


def test_images_of_the_caller_stand_in_for_those_that_the_file_lacks(tmp_path):
    path = with_table(tmp_path / "a.nwb", {"frame": [0.0, 1.0, 5.0]}, target=None)
    images = np.random.default_rng(0).random((6, 3, 4, 5))
    recording = read(path, templates=images)
    np.testing.assert_array_equal(recording["stimuli"], images[[0, 1, 5]].astype("f4"))
    with pytest.raises(ValueError, match="there are no templates of images"):
        read(path)


@pytest.mark.parametrize("reader", [v1.read_nwb, v1.read_nwb_movies])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_the_caller_whose_channels_come_last_are_refused(tmp_path, reader, channels):
    path = with_table(tmp_path / "a.nwb", {"frame": [0.0, 1.0, 5.0]}, target=None)
    images = make_images(shape=(8, 12, channels))
    said = (
        rf"^templates have shape \(6, 8, 12, {channels}\), 8 channels: expected 1 or 3, .*moveaxis"
    )
    with pytest.raises(ValueError, match=said):
        reader(path, templates=images)
    with pytest.raises(ValueError, match=r"^templates have shape \(6, 4, 8, 12\), 4 channels"):
        reader(path, templates=make_images(shape=(4, 8, 12)))
    moved = read(path, templates=np.moveaxis(images, -1, 1))["stimuli"]
    np.testing.assert_array_equal(moved, images[[0, 1, 5]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("blanks", "said"),
    [
        ([77], r"blanks names 77, which no row of image_index of trials holds.* as \[2, 1, 0\]"),
        (["0"], r"blanks names '0', which no row"),
        ([np.nan], r"blanks names nan, which no row"),
    ],
)
def test_blanks_that_are_nowhere_are_told(tmp_path, blanks, said):
    path = with_table(tmp_path / "a.nwb", {"image_index": [2, 1, 0, 2]})
    with pytest.warns(UserWarning, match=rf"a.nwb: {said}"):
        kept = read(path, blanks=blanks)["presentation"]
    assert kept.values.tolist() == [0, 1, 2, 3]


def test_blanks_are_looked_for_in_all_rows_and_may_come_as_an_array(tmp_path):
    columns = {"image_index": [2, -1, 0, 2], "kind": ["a", "b", "a", "a"]}
    path = with_table(tmp_path / "a.nwb", columns)
    for params in ({}, {"where": {"kind": "a"}}):
        kept = read(path, blanks=np.array([-1]), **params)["presentation"]
        assert kept.values.tolist() == [0, 2, 3]


def test_columns_and_templates_are_listed_where_one_is_to_be_chosen(tmp_path):
    nwb = new()
    for name in ("a", "b"):
        nwb.add_stimulus_template(templates(make_images(), name=name))
    add_table(nwb, [1.0, 2.0], {"frame": [0, 1], "image_name": ["image 0", "image 1"]})
    add_units(nwb, [np.linspace(0, 5, 50)], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    with pytest.raises(ValueError, match=r"frame, image_name may say.*image_column"):
        read(path)
    with pytest.raises(ValueError, match=r"several templates of images, 'a', 'b'"):
        read(path, image_column="frame")
    assert len(read(path, image_column="frame", templates="b")["trial"]) == 2


# --------------------------------------------------------------------------- images and indices


def test_a_deprecated_link_of_indices_counted_from_one_is_followed_when_asked(tmp_path):
    nwb = new()
    nwb.add_stimulus_template(
        ImageSeries(name="stack", data=make_images(), unit="grey", format="raw", rate=1.0)
    )
    each = templates(make_images(1))
    nwb.add_stimulus_template(each)
    add_indices(nwb, [1, 6, 3], each)
    add_units(nwb, [np.linspace(0, 7, 50)], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:  # as pynwb wrote it once
        series = file["stimulus/presentation/shown"]
        del series["indexed_images"]
        series["indexed_timeseries"] = h5py.SoftLink("/stimulus/templates/stack")
    with pytest.raises(ValueError, match=r"shows image 6 in row 1.*pass first_index=1"):
        read(path)
    recording = read(path, first_index=1)
    assert recording["image_id"].values.tolist() == [0, 5, 2]
    np.testing.assert_array_equal(recording["stimuli"][:, 0], make_images()[[0, 5, 2]])


def test_colours_become_channels_conversion_is_applied_and_sides_are_turned(tmp_path):
    nwb = new()
    data = np.random.default_rng(0).integers(0, 999, (4, 7, 5, 3), dtype=np.uint16)
    series = ImageSeries(
        name="s", data=data, unit="g", format="raw", rate=1.0, conversion=0.25, offset=3.0
    )
    nwb.add_stimulus(series)
    add_units(nwb, [np.linspace(0, 7, 50)], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    stimuli = read(path)["stimuli"]
    np.testing.assert_allclose(stimuli, data.transpose(0, 3, 1, 2) * 0.25 + 3)
    assert stimuli.dtype == np.float32
    turned = read(path, image_axes=("width", "height"))["stimuli"]
    np.testing.assert_array_equal(turned, stimuli.transpose("trial", "channel", "width", "height"))


def test_memory_is_that_of_what_is_read(tmp_path):
    import tracemalloc

    nwb = new()
    images = np.zeros((200, 256, 256), np.uint8)
    nwb.add_stimulus(ImageSeries(name="s", data=images, unit="g", format="raw", rate=1.0))
    add_units(nwb, [np.linspace(0, 210, 50)], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    read(path)
    tracemalloc.start()
    try:
        recording = read(path)
        recording["stimuli"][:3].load()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 3


def test_series_that_are_named_alike_are_told_apart_by_their_place(tmp_path):
    nwb = new()
    nwb.add_stimulus(ImageSeries(name="s", data=make_images(), unit="g", format="raw", rate=1.0))
    add_units(nwb, [np.linspace(0, 9, 50)], electrodes=False)
    for module, factor in (("one", 1.0), ("two", 2.0)):
        values = np.full(90, factor)
        nwb.create_processing_module(module, "d").add(
            TimeSeries(name="speed", data=values, unit="m/s", rate=10.0)
        )
    path = write(nwb, tmp_path / "a.nwb")
    assert set(read(path, behaviors={"v": "two/speed"})["behaviors"].values.ravel()) == {2.0}
    with pytest.raises(ValueError, match=r"'speed' fits '(one|two)/speed', '(one|two)/speed'"):
        read(path, behaviors={"v": "speed"})
