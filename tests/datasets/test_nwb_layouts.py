"""Images in the layouts of public sets: blank sweeps, omitted images, invalid regions and times."""

import numpy as np
import pytest
from pynwb.base import Images
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries

import v1tlearn as v1
from tests.datasets.nwb_files import (
    RATE,
    add_plane,
    add_table,
    add_traces,
    add_units,
    make_images,
    new,
    templates,
    write,
)

WINDOW = (0.1, 0.6)


def read(path, *args, **params):
    return v1.read_nwb(path, *args, **{"positions": "none", "window": WINDOW} | params)


def add_cells(nwb, n_samples=130, n_neurons=3, seed=0):
    """Traces of one plane; gives their table and what was written."""
    traces = np.random.default_rng(seed).random((n_samples, n_neurons))
    regions = add_plane(nwb, 1, n_neurons)
    add_traces(nwb, regions, traces)
    return regions, traces


def means(traces, onsets):
    starts = [round(RATE * (onset + WINDOW[0])) for onset in onsets]
    return np.array([traces[start : start + 5].mean(axis=0) for start in starts])


def test_natural_scenes_whose_names_count_them_and_blank_sweeps(tmp_path):
    """Visual Coding by two-photon imaging: no order of images, -1 as an unsigned integer."""
    nwb = new()
    images = make_images(n_images=12)
    each = [GrayscaleImage(name=f"NaturalScene{n}", data=image) for n, image in enumerate(images)]
    scenes = Images(name="natural_scenes_template", images=each, description="d")
    nwb.add_stimulus_template(scenes)
    shown = np.array([2, -1, 11, 10, 2])
    onsets = 1.0 + np.arange(5)
    nwb.add_stimulus(
        IndexSeries(
            name="natural_scenes_stimulus", data=shown.astype("u4"), unit="N/A",
            indexed_images=scenes, timestamps=onsets,
        )
    )  # fmt: skip
    _, traces = add_cells(nwb)
    path = write(nwb, tmp_path / "a.nwb")
    recording = read(path, blanks=[-1])
    assert recording["image_name"].values.tolist() == [f"NaturalScene{n}" for n in (2, 11, 10, 2)]
    np.testing.assert_array_equal(recording["stimuli"][:, 0], images[[2, 11, 10, 2]])
    expected = means(traces, onsets[[0, 2, 3, 4]])
    np.testing.assert_allclose(recording["responses"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"shows image 4294967295 in row 1.*pass blanks"):
        read(path)


def test_omitted_images_have_no_end_and_invalid_regions_are_told(tmp_path):
    """Visual Behavior: a table of presentations, omissions without an end, regions by validity."""
    nwb = new()
    nwb.add_stimulus_template(templates(make_images()))
    names = ["image 1", "omitted", "image 0", "image 1"]
    onsets = 1.0 + np.arange(4)
    nwb.add_trial_column(name="image_name", description="d")
    for onset, name in zip(onsets, names, strict=True):
        stop = np.nan if name == "omitted" else onset + 0.25
        nwb.add_trial(start_time=onset, stop_time=stop, image_name=name)
    regions, traces = add_cells(nwb)
    regions.add_column("valid_roi", "d", data=[True, False, True])
    regions.add_column("cell_specimen_id", "d", data=[11, 12, 13])
    path = write(nwb, tmp_path / "a.nwb")
    with pytest.warns(UserWarning, match=r"1 of 3 regions .* invalid by valid_roi.*neurons=") as w:
        everything = read(path, blanks=["omitted"], neuron_labels=["cell_specimen_id"])
    assert len(w) == 1
    np.testing.assert_array_equal(everything["stimuli"][:, 0], make_images()[[1, 0, 1]])
    np.testing.assert_allclose(everything["responses"], means(traces, onsets[[0, 2, 3]]), rtol=1e-6)
    assert everything["cell_specimen_id"].values.tolist() == [11, 12, 13]
    valid = read(path, blanks=["omitted"], neurons={"valid_roi": True})
    assert valid["neuron"].values.tolist() == [0, 2]
    np.testing.assert_array_equal(valid["responses"], everything["responses"][:, [0, 2]])
    with pytest.raises(ValueError, match=r"shows \['omitted'\] in 1 rows|row 1 of trials stops"):
        read(path, neurons={"valid_roi": True})
    with pytest.raises(ValueError, match=r"neurons names 'quality'; expected columns of .*regions"):
        read(path, blanks=["omitted"], neurons={"quality": "good", "valid_roi": True})
    with pytest.raises(UserWarning, match=r"^[^ ]*a.nwb: 1 of 3 regions"):  # where they are errors
        read(path, blanks=["omitted"])
    with pytest.raises(ValueError, match=r"neuron_labels names 'area'"):
        read(path, blanks=["omitted"], neurons={"valid_roi": True}, neuron_labels=["area"])


def test_windows_in_invalid_times_were_not_recorded(tmp_path):
    nwb = new()
    nwb.add_stimulus_template(templates(make_images()))
    add_table(nwb, 1.0 + np.arange(4), {"frame": [0, 1, 2, 3]})
    _, traces = add_cells(nwb)
    nwb.add_invalid_time_interval(start_time=2.55, stop_time=3.05)
    path = write(nwb, tmp_path / "a.nwb")
    with pytest.raises(ValueError, match=r"1 of 4 windows were not recorded .* presentation 1 of"):
        read(path)
    marked = read(path, incomplete="nan")["responses"].values
    assert np.isnan(marked).all(axis=1).tolist() == [False, True, False, False]
    kept = [0, 2, 3]
    np.testing.assert_allclose(marked[kept], means(traces, 1.0 + np.array(kept)), rtol=1e-6)


def test_windows_partly_beyond_the_spikes_are_missing_not_zero(tmp_path):
    nwb = new()
    nwb.add_stimulus(
        ImageSeries(name="s", data=make_images(), unit="g", format="raw", rate=1.0)
    )  # onsets from 0 to 5 s
    dense = np.linspace(1.3, 4.9, 3000)
    add_units(nwb, [dense, [2.5, 3.5]], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    counts = read(path, reduction="sum", incomplete="nan")["responses"].values
    # the windows of 0 and 1 s begin before the first spike, that of 5 s behind the last one
    lost = np.isnan(counts).all(axis=1)
    assert lost.tolist() == [True, True, False, False, False, True]
    expected = [[np.sum((t >= o + 0.1) & (t < o + 0.6)) for t in (dense, np.array([2.5, 3.5]))]
                for o in (2, 3, 4)]  # fmt: skip
    np.testing.assert_array_equal(counts[2:5], expected)


def test_blinks_are_bridged_as_far_as_is_asked(tmp_path):
    nwb = new()
    nwb.add_stimulus_template(templates(make_images()))
    add_table(nwb, 1.0 + np.arange(3), {"frame": [0, 1, 2]})
    add_cells(nwb)
    from pynwb import TimeSeries

    pupil = np.random.default_rng(0).random((60, 2))
    pupil[12:14, 1] = np.nan  # 0.3 s between the numbers around it
    pupil[22:27, 1] = np.nan  # 0.6 s
    nwb.add_acquisition(TimeSeries(name="pupil", data=pupil, unit="mm", rate=10.0))
    path = write(nwb, tmp_path / "a.nwb")
    asked = {"behaviors": {"pupil_x": ("pupil", 0), "pupil_dilation": ("pupil", 1)}}
    with pytest.raises(ValueError, match=r"in 1 of 3 trials behaviour"):
        read(path, **asked, behavior_gaps=0.31)
    recording = read(path, **asked, behavior_gaps=0.7)
    there = ~np.isnan(pupil[:, 1])
    whole = np.interp(np.arange(60), np.flatnonzero(there), pupil[there, 1])
    expected = [
        [x[10 * o + 1 : 10 * o + 6].mean() for x in (pupil[:, 0], whole)] for o in (1, 2, 3)
    ]
    np.testing.assert_allclose(recording["behaviors"], expected, rtol=1e-6)
