"""What `read_nwb` refuses: nothing of a file is guessed, bent or left out without a word."""

import h5py
import numpy as np
import pytest
from pynwb.image import ImageSeries

import v1tlearn as v1
from tests.datasets.nwb_files import (
    add_indices,
    add_plane,
    add_table,
    add_traces,
    add_units,
    calcium,
    make_images,
    new,
    templates,
    write,
)
from tests.sweeps import quick


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("nwb") / "calcium.nwb"
    calcium(path)
    return path.read_bytes()


@pytest.fixture
def path(intact, tmp_path):
    path = tmp_path / "mouse.nwb"
    path.write_bytes(intact)
    return path


TRACES = "processing/ophys/DfOverF/plane"
SHOWN = "stimulus/presentation/shown"
SPEED = "processing/behavior/BehavioralTimeSeries/speed"


def put(path, name, change):
    """Change what a dataset holds."""
    with h5py.File(path, "a") as file:
        values = file[name][()]
        change(values)
        file[name][...] = values


def set_at(place, value):
    def change(values):
        values[place] = value

    return change


@pytest.mark.parametrize(
    ("name", "change", "said"),
    quick(
        [
            (
                f"{SHOWN}/timestamps",
                set_at(3, 2.5),
                r"timestamps of shown do not rise: 3 s .* 2.5 s",
            ),
            (f"{SHOWN}/timestamps", set_at(3, np.nan), r"timestamps of shown hold nan at place 3"),
            (
                f"{SHOWN}/timestamps",
                set_at(29, 99.0),
                r"1 of 30 windows were not recorded.*at 99 s",
            ),
            (
                f"{SHOWN}/timestamps",
                set_at(0, -0.5),
                r"1 of 30 windows were not recorded.*at -0.5 s",
            ),
            (f"{SHOWN}/timestamps", set_at(3, 3.3), r"presentation 3 of shown follows 0.3 s after"),
            (f"{SHOWN}/data", set_at(3, 6), r"shows image 6 in row 3.*whole numbers from 0 to 5"),
            (f"{TRACES}/data", set_at((15, 1), np.inf), r"responses hold infinite values"),
            (f"{SPEED}/data", set_at(22, np.nan), r"in 1 of 30 trials behaviour \(speed\) is NaN"),
            (f"{SPEED}/timestamps", set_at(22, 1.05), r"timestamps of .*speed do not rise"),
        ],
        0,
        2,
        5,
        6,
        7,
    ),
)
def test_values_that_cannot_be_are_refused(path, name, change, said):
    put(path, name, change)
    with pytest.raises(ValueError, match=rf"mouse.nwb: .*{said}"):
        v1.read_nwb(path, window=(0.1, 0.6), behaviors={"speed": "speed"})


def test_trials_that_were_not_recorded_are_dropped_or_marked_when_asked(path):
    put(path, f"{SHOWN}/timestamps", set_at(29, 99.0))
    marked = v1.read_nwb(path, incomplete="nan")["responses"]
    assert np.isnan(marked[29]).all()
    assert not np.isnan(marked[:29]).any()
    dropped = v1.read_nwb(path, incomplete="drop", behaviors={"speed": "speed"})
    assert dropped["presentation"].values.tolist() == list(range(29))
    np.testing.assert_array_equal(dropped["responses"], marked[:29])


def test_trials_without_behaviour_are_dropped_when_asked(path):
    put(path, f"{SPEED}/data", set_at(22, np.nan))
    dropped = v1.read_nwb(path, incomplete="drop", behaviors={"speed": "speed"})
    assert dropped["presentation"].values.tolist() == list(range(1, 30))
    with pytest.raises(ValueError, match="pass incomplete='drop'"):
        v1.read_nwb(path, incomplete="nan", behaviors={"speed": "speed"})


def test_a_sample_that_is_nan_is_a_response_that_was_not_recorded(path):
    put(path, f"{TRACES}/data", set_at((12, 1), np.nan))
    missing = np.isnan(v1.read_nwb(path, window=(0.1, 0.6))["responses"].values)
    assert np.argwhere(missing).tolist() == [[0, 1]]


def test_windows_may_overlap_when_asked(path):
    with pytest.raises(
        ValueError, match=r"so do 29 in all, but the window is 1.5 s.*read_nwb_movies"
    ):
        v1.read_nwb(path, window=(0.0, 1.5))
    found = v1.read_nwb(path, window=(0.0, 1.5), overlapping=True)["responses"]
    with h5py.File(path, "r") as file:
        traces = file[f"{TRACES}/data"][()]
    expected = [traces[10 * onset : 10 * onset + 15].mean(axis=0) for onset in range(1, 31)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def stamped(path, times):
    """Traces with timestamps of their own."""
    nwb = new()
    stack = templates(make_images())
    nwb.add_stimulus_template(stack)
    add_indices(nwb, [0, 1, 2], stack)
    data = np.arange(len(times) * 2.0).reshape(-1, 2)
    add_traces(nwb, add_plane(nwb, 1, 2), data, timestamps=times)
    return write(nwb, path), data


def test_a_gap_in_the_timestamps_is_no_sample_and_jitter_is_none(tmp_path):
    times = np.arange(60) / 10
    times = times + np.random.default_rng(0).uniform(0, 0.02, 60)
    path, data = stamped(tmp_path / "a.nwb", times)
    found = v1.read_nwb(path, window=(0.05, 0.55))["responses"]
    expected = [data[(times >= o + 0.05) & (times < o + 0.55)].mean(axis=0) for o in (1, 2, 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    path, _ = stamped(tmp_path / "b.nwb", np.delete(times, [23, 24]))
    with pytest.raises(ValueError, match=r"1 of 3 windows were not recorded.*presentation 1 of"):
        v1.read_nwb(path, window=(0.05, 0.55))
    assert np.isnan(v1.read_nwb(path, incomplete="nan")["responses"][1]).all()


def test_a_window_between_samples_is_refused(path):
    with pytest.raises(ValueError, match=r"a sample every 0.1 s, the window is 0.05 s long"):
        v1.read_nwb(path, window=(0.0, 0.05))


def test_intervals_that_overlap_are_refused(tmp_path):
    nwb = new()
    nwb.add_stimulus_template(templates(make_images()))
    add_table(nwb, [1.0, 2.0, 3.0], {"frame": [0, 1, 2]}, seconds=1.2)
    add_units(nwb, [np.linspace(0, 9, 50)], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    with pytest.raises(ValueError, match=r"row 1 of trials starts at 2 s, before the one before"):
        v1.read_nwb(path)


def scenes(path, *, trains=True, **params):
    nwb = new()
    told = {"name": "scenes", "data": make_images(), "unit": "g", "format": "raw", "rate": 1.0}
    nwb.add_stimulus(ImageSeries(**told | params))
    if trains:
        add_units(nwb, [np.linspace(0, 9, 50)], electrodes=False)
    return write(nwb, path)


def test_images_in_other_files_are_named(tmp_path):
    external = {"data": None, "external_file": ["movie.avi"], "format": "external", "rate": None}
    external["timestamps"] = [0.0, 1.0]
    path = scenes(tmp_path / "a.nwb", **external, starting_frame=[0], dimension=[8, 12])
    with pytest.raises(ValueError, match=r"in other files, \['movie.avi'\], which are not read"):
        v1.read_nwb(path)
    given = v1.read_nwb(path, templates=make_images()[:2], positions="none", incomplete="nan")
    np.testing.assert_array_equal(given["stimuli"][:, 0], make_images()[:2])


def test_images_with_transparency_are_refused(tmp_path):
    path = scenes(tmp_path / "a.nwb", data=np.zeros((5, 8, 12, 4), "u1"))
    with pytest.raises(ValueError, match=r"shape \(8, 12, 4\); expected .*drop transparency"):
        v1.read_nwb(path)


def test_images_that_are_not_finite_are_refused(tmp_path):
    data = np.zeros((6, 8, 12))
    data[4, 2, 2] = np.nan
    with pytest.raises(ValueError, match="image 4 holds NaN or Inf"):
        v1.read_nwb(scenes(tmp_path / "a.nwb", data=data), positions="none")


def test_a_file_without_responses_or_images_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"a.nwb: there are no responses"):
        v1.read_nwb(scenes(tmp_path / "a.nwb", trains=False))
    with pytest.raises(ValueError, match=r"b.nwb: there are no series of images"):
        v1.read_nwb(write(new(), tmp_path / "b.nwb"))


def test_templates_whose_order_is_not_told_are_not_counted(tmp_path):
    nwb = new()
    stack = templates(make_images(), ordered=False)
    nwb.add_stimulus_template(stack)
    add_table(nwb, [1.0, 2.0], {"frame": [1, 2]})
    add_units(nwb, [np.linspace(0, 9, 50)], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    counted = v1.read_nwb(path, positions="none")  # "image 0" to "image 5" are numbers from 0
    np.testing.assert_array_equal(counted["stimuli"][:, 0], make_images()[[1, 2]])
    with pytest.raises(ValueError, match="whose order is not told; expected order_of_images"):
        v1.read_nwb(path, first_index=1)


def test_images_of_several_sizes_are_refused(tmp_path):
    nwb = new()
    images = [*make_images(), make_images(shape=(4, 4))[0]]
    nwb.add_stimulus_template(templates(images))
    add_table(nwb, [1.0, 2.0], {"frame": [0, 1]})
    add_units(nwb, [np.linspace(0, 9, 50)], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    with pytest.raises(ValueError, match=r"differ in shape: \[\(4, 4\), \(8, 12\)\]"):
        v1.read_nwb(path)


def test_transposed_traces_are_named(tmp_path):
    nwb = new()
    stack = templates(make_images())
    nwb.add_stimulus_template(stack)
    add_indices(nwb, [0, 1], stack)
    regions = add_plane(nwb, 1, 2)
    add_traces(nwb, regions, np.zeros((2, 2)))
    path = write(nwb, tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        attrs = dict(file[f"{TRACES}/data"].attrs)
        del file[f"{TRACES}/data"]
        file[f"{TRACES}/data"] = np.zeros((2, 50))
        file[f"{TRACES}/data"].attrs.update(attrs)
    with pytest.raises(ValueError, match=r"shape \(2, 50\) for 2 regions.*it is transposed"):
        v1.read_nwb(path)


def test_a_plane_without_the_size_of_its_pixels_is_read_with_a_warning(tmp_path):
    nwb = new()
    stack = templates(make_images())
    nwb.add_stimulus_template(stack)
    add_indices(nwb, [0, 1], stack)
    regions = add_plane(nwb, 1, 2, spacing=None)
    regions.add_column("depth", "um", data=[1.0, 2.0])
    regions.add_column("across", "um", data=[3.0, 4.0])
    add_traces(nwb, regions, np.ones((50, 2)))
    path = write(nwb, tmp_path / "a.nwb")
    with pytest.warns(UserWarning, match=r"plane 'plane 1' does not tell the size of its pixels"):
        v1.read_nwb(path)
    found = v1.read_nwb(path, positions=("across", "depth"))["position"]
    assert found.values.tolist() == [[3.0, 1.0], [4.0, 2.0]]
    with pytest.raises(ValueError, match=r"the columns of .*regions 1 are .*'depth', 'across'"):
        v1.read_nwb(path, positions=("x", "y"))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"window": (0.5, 0.1)}, r"window is \(0.5, 0.1\): expected two times"),
        ({"behavior_window": 3}, r"behavior_window is 3: expected two times"),
        ({"window": ("0", "0.5")}, r"^window is \('0', '0.5'\): expected two times"),
        ({"window": "05"}, r"^window is '05': expected two times"),
        ({"window": (False, True)}, r"^window is \(False, True\): expected two times"),
        ({"window": (0.0, np.nan)}, r"^window is \(0.0, nan\): expected two times"),
        ({"window": [[0.0, 0.5]]}, r"^window is \[\[0.0, 0.5\]\]: expected two times"),
        ({"window": (0.0, [0.5])}, r"^window is \(0.0, \[0.5\]\): expected two times"),
        ({"behavior_window": (0, True)}, r"^behavior_window is \(0, True\): expected two times"),
        ({"reduction": "max"}, "reduction is 'max': expected one of"),
        ({"incomplete": True}, "incomplete is True: expected one of"),
        ({"first_index": 2}, "first_index is 2: expected one of"),
        ({"stimulus": "other"}, r"stimulus 'other' is not there; .*'shown'"),
        ({"tiers": "split"}, "tiers is 'split', shown has no columns"),
        ({"where": {"a": 1}}, "where came for shown, a series"),
        (
            {"behaviors": {"pupil_x": "place"}},
            r"place has 2 columns.*\('behavior/EyeTracking/place'",
        ),
        ({"behaviors": {"speed": ("speed", 1)}}, "speed has 1 columns, the behaviour"),
        ({"templates": np.zeros((2, 2))}, r"templates have shape \(2, 2\)"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(path, params, said):
    with pytest.raises(ValueError, match=said):
        v1.read_nwb(path, **params)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"behavior_window": (0.0, 0.5)}, "^behavior_window came without behaviors: expected"),
        (
            {"behavior_gaps": 0.5, "behaviors": {}},
            "^behavior_gaps came without behaviors: expected",
        ),
        (
            {"templates": make_images(), "image_axes": ("width", "height")},
            r"^image_axes=\('width', 'height'\) came with an array of templates.*np.swapaxes",
        ),
    ],
)
def test_arguments_without_an_effect_are_refused(path, params, said):
    with pytest.raises(ValueError, match=said):
        v1.read_nwb(path, **params)


@pytest.mark.parametrize("reader", [v1.read_nwb, v1.read_nwb_movies])
@pytest.mark.parametrize(
    ("blanks", "said"),
    [
        ("3", "^blanks='3': expected a list of values"),
        (3, "^blanks=3: expected a list of values"),
        ([True], r"^blanks=\[True\] holds True: expected numbers or texts"),
        ([np.False_], r"^blanks=.* holds False: expected numbers or texts"),
        ([[1]], r"^blanks=\[\[1\]\] holds \[1\]: expected numbers or texts"),
    ],
)
def test_blanks_are_a_list_of_numbers_or_texts(path, reader, blanks, said):
    with pytest.raises(TypeError, match=said):
        reader(path, blanks=blanks)


@pytest.mark.parametrize("reader", [v1.read_nwb, v1.read_nwb_movies])
@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"behaviors": ["speed"]}, r"^behaviors=\['speed'\]: expected series by the names of"),
        (
            {"behaviors": {1: "speed"}},
            r"^behaviors=\{1: 'speed'\}: expected series by the names of",
        ),
        ({"behaviors": {"x": ("place", 0, 1)}}, r"^behaviors\['x'\]=\('place', 0, 1\): expected"),
        ({"behaviors": {"x": ("place", True)}}, r"^behaviors\['x'\]=\('place', True\): expected"),
        ({"behaviors": {"x": ("place", "0")}}, r"^behaviors\['x'\]=\('place', '0'\): expected"),
        ({"behaviors": {"x": 3}}, r"^behaviors\['x'\]=3: expected the name of a series"),
        ({"positions": None}, "^positions=None: expected names"),
        ({"positions": "xy"}, r"^positions='xy': expected one of \('auto', 'none'\), or columns"),
        ({"responses": []}, r"^responses=\[\]: expected a name"),
        ({"responses": 3}, "^responses=3: expected names"),
        ({"where": {"a": np.array([1, 2])}}, r"^where\['a'\]=array.*array.tolist"),
        ({"where": ["a"]}, r"^where=\['a'\]: expected labels by column"),
        ({"neurons": {"a": np.array([1, 2])}}, r"^neurons\['a'\]=array.*array.tolist"),
        ({"neurons": "good"}, "^neurons='good': expected labels by column"),
        ({"neuron_labels": None}, "^neuron_labels=None: expected names"),
        ({"templates": np.zeros((2, 8, 12), bool)}, r"^templates have shape .* and dtype bool"),
        ({"stimulus": ["shown"]}, r"^stimulus=\['shown'\]: expected a name, as text"),
        ({"image_column": ["frame"]}, r"^image_column=\['frame'\]: expected a name, as text"),
        ({"tiers": ["split"]}, r"^tiers=\['split'\]: expected a name, as text"),
    ],
)
def test_arguments_of_another_kind_are_told_by_their_name(path, reader, params, said):
    with pytest.raises((TypeError, ValueError), match=said):
        reader(path, **params)


@pytest.mark.parametrize(
    ("templates", "said"),
    [
        ([np.zeros((8, 12)), np.zeros((4, 4))], "^templates is a ragged list"),
        (np.array(["a", "b"]), "^templates has dtype <U1: expected numbers"),
        (
            np.ma.masked_equal(np.arange(192).reshape(2, 8, 12), 3),
            "^templates: 1 of 192 values are",
        ),
    ],
)
def test_templates_are_numbers_in_one_array(path, templates, said):
    with pytest.raises((TypeError, ValueError), match=said):
        v1.read_nwb(path, templates=templates)


@pytest.mark.parametrize("value", ["no", 1, None])
def test_a_flag_is_a_truth_value(path, value):
    with pytest.raises(TypeError, match=rf"^overlapping is {value!r}, expected True or False"):
        v1.read_nwb(path, overlapping=value)


@pytest.mark.parametrize("window", [[0, 1], np.array([0, 1]), (np.float32(0), np.int64(1))])
def test_windows_are_any_two_numbers(path, window):
    responses = v1.read_nwb(path, window=window)["responses"]
    assert responses.attrs["window"] == [0.0, 1.0]


def test_labels_and_names_may_come_alone_or_in_lists(path):
    alone = v1.read_nwb(path, responses="plane", behaviors={"x": ("place", np.int64(1))})
    listed = v1.read_nwb(path, responses=("plane",), behaviors={"x": ["place", 1]})
    assert alone.identical(listed)


def test_paths_that_lead_to_no_file_are_told(tmp_path):
    with pytest.raises(TypeError, match=r"The call is read_nwb\(path\)"):
        v1.read_nwb(3)
    with pytest.raises(FileNotFoundError, match=r"a.nwb is missing: expected a file of NWB"):
        v1.read_nwb(tmp_path / "a.nwb")
    with pytest.raises(IsADirectoryError, match="a folder, expected a file"):
        v1.read_nwb(tmp_path)


def test_folders_of_zarr_are_named(tmp_path):
    folder = tmp_path / "sub-1.nwb.zarr"
    folder.mkdir()
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(ValueError, match=r"sub-1.nwb.zarr: it is a folder of Zarr.*export"):
        v1.read_nwb(folder)


def test_files_of_another_kind_are_named(tmp_path, path):
    other = tmp_path / "other.nwb"
    other.write_bytes(b"no file of HDF5" * 100)
    with pytest.raises(ValueError, match=r"other.nwb is no readable NWB file .*no file of HDF5"):
        v1.read_nwb(other)
    other.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(ValueError, match=r"other.nwb is no readable NWB file"):
        v1.read_nwb(other)
    with h5py.File(other, "w") as file:
        file["a"] = 1
    with pytest.raises(ValueError, match=r"other.nwb is no readable NWB file"):
        v1.read_nwb(other)


def test_links_to_other_files_are_not_followed(path, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.zeros((320, 4))
    with h5py.File(path, "a") as file:
        del file[f"{TRACES}/data"]
        file[f"{TRACES}/data"] = h5py.ExternalLink(str(secret), "data")
    with pytest.raises(ValueError, match=r"mouse.nwb .*DfOverF/plane/data is a link to the file"):
        v1.read_nwb(path)


@pytest.mark.parametrize("kind", ["external", "virtual"])
def test_arrays_that_lie_in_other_files_are_not_read(path, tmp_path, kind):
    other = tmp_path / "secret"
    other.write_bytes(bytes(10_240))
    with h5py.File(path, "a") as file:
        del file[f"{TRACES}/data"]
        if kind == "external":
            where = [(str(other), 0, 10_240)]
            file.create_dataset(f"{TRACES}/data", (320, 4), "f8", external=where)
        else:
            layout = h5py.VirtualLayout((320, 4), "f8")
            layout[:] = h5py.VirtualSource(str(other), "data", (320, 4))
            file.create_virtual_dataset(f"{TRACES}/data", layout)
    with pytest.raises(ValueError, match=r"mouse.nwb .*DfOverF/plane/data is in other files"):
        v1.read_nwb(path)


def test_arrays_that_no_file_of_this_size_holds_are_refused(path):
    with h5py.File(path, "a") as file:
        del file[f"{SPEED}/data"]
        file.create_dataset(f"{SPEED}/data", (10**12,), "f8", chunks=(1000,))
    with pytest.raises(ValueError, match=r"speed/data would be 8000000000000 bytes, the file has"):
        v1.read_nwb(path, behaviors={"speed": "speed"})
