"""What `read_nwb_movies` makes of files in the layouts of labs, held against loops over frames."""

from itertools import pairwise

import h5py
import numpy as np
import pytest
from pynwb import TimeSeries
from pynwb.image import ImageSeries

import v1tlearn as v1
from tests.datasets.nwb_files import (
    add_frames,
    add_movie,
    add_plane,
    add_table,
    add_traces,
    add_units,
    make_images,
    new,
    write,
)
from tests.kept_files import VIST

N_FRAMES = 20
MOVIE = make_images(3, n_images=N_FRAMES)


def read(path, *args, **params):
    return v1.read_nwb_movies(path, *args, **{"positions": "none"} | params)


def counted(trains, edges):
    """Spikes of each unit in each frame, one by one."""
    return [
        [sum(start <= t < stop for t in train) for train in trains]
        for start, stop in pairwise(edges)
    ]


def visual_coding(path, *, apart=1 / 30, repeats=(2, 1), seed=0, spoil=lambda nwb: None):
    """Two-photon imaging whose frames stamp those of the movie; blocks of repeats, a pause."""
    made = np.random.default_rng(seed)
    n = 200
    clock = 5.0 + apart * (np.arange(n) + made.uniform(-0.1, 0.1, n))
    traces = made.random((n, 4)).astype("f4")
    starts, block = [], 10
    for count in repeats:
        starts += [block + N_FRAMES * k for k in range(count)]
        block += N_FRAMES * count + 30
    stamps = np.concatenate([np.arange(s, s + N_FRAMES) for s in starts])
    nwb = new()
    series = add_movie(nwb, MOVIE)
    add_frames(nwb, np.tile(np.arange(N_FRAMES), len(starts)), clock[stamps], series)
    add_traces(nwb, add_plane(nwb, 1, 4), traces, name="dff", timestamps=clock)
    spoil(nwb)
    write(nwb, path)
    return clock, traces, starts


def test_repeats_of_a_movie_that_is_indexed_frame_by_frame(tmp_path):
    clock, traces, starts = visual_coding(tmp_path / "a.nwb")
    recording = read(tmp_path / "a.nwb")
    assert dict(recording.sizes) == {
        "trial": 3, "time": N_FRAMES, "channel": 1, "height": 8, "width": 12, "neuron": 4
    }  # fmt: skip
    assert recording["image_id"].values.tolist() == [0, 0, 0]
    assert recording["n_frames"].values.tolist() == [N_FRAMES] * 3
    np.testing.assert_array_equal(recording["presentation"], [0, 20, 40])
    np.testing.assert_array_equal(recording["onset"], clock[starts])
    step = np.concatenate([np.diff(clock[10:50]), np.diff(clock[80:100])]).mean()
    for trial, start in enumerate(starts):
        np.testing.assert_array_equal(recording["stimuli"][trial, :, 0], MOVIE)
        expected = traces[start : start + N_FRAMES].copy()  # one sample per frame, as it is
        if trial > 0 and clock[start + N_FRAMES] < clock[start + N_FRAMES - 1] + step:
            expected[-1] = traces[start + N_FRAMES - 1 : start + N_FRAMES + 1].mean(axis=0)
        np.testing.assert_allclose(recording["responses"][trial], expected, rtol=1e-6)
    assert recording["responses"].attrs["units"] == "dF/F"
    assert recording["responses"].attrs["reduction"] == "mean"
    assert v1.Trials(recording).frame_rate("mouse 1") == pytest.approx(30, rel=1e-2)
    part = recording["stimuli"].isel(trial=[2, 0], time=slice(3, 9, 2), width=4)
    np.testing.assert_array_equal(part[:, :, 0], np.stack([MOVIE[3:9:2, :, 4]] * 2))


def test_slow_traces_are_read_on_lines_between_samples(tmp_path):
    made = np.random.default_rng(0)
    nwb = new()
    frames = 1.0 + np.arange(N_FRAMES) / 25
    nwb.add_stimulus(
        ImageSeries(name="movie", data=MOVIE, unit="g", format="raw", rate=25.0, starting_time=1.0)
    )
    traces = made.normal(size=(30, 3))
    add_traces(nwb, add_plane(nwb, 1, 3), traces, rate=8.0, starting_time=0.1)
    path = write(nwb, tmp_path / "a.nwb")
    recording = read(path)
    clock = 0.1 + np.arange(30) / 8
    expected = [np.interp(frames + 0.02, clock, trace) for trace in traces.T]
    np.testing.assert_allclose(recording["responses"][0], np.transpose(expected), rtol=1e-5)
    assert recording["responses"].attrs["reduction"] == "line"
    np.testing.assert_allclose(recording["time"], np.arange(N_FRAMES) / 25)
    np.testing.assert_array_equal(recording["stimuli"][0, :, 0], MOVIE)
    assert "image_id" not in recording
    with pytest.raises(ValueError, match=r"a sample every 0.125 s, the window is 0.04 s long"):
        read(path, reduction="mean")


def neuropixels(path, *, blank=True):
    """A row per frame, templates elsewhere, units with a peak channel; as Allen's Neuropixels."""
    made = np.random.default_rng(1)
    starts = [2.0, 4.0]
    rows = [(s + k / 30, float(k)) for s in starts for k in range(N_FRAMES)]
    rows += [(6.0, -1.0)] if blank else []
    order = made.permutation(len(rows))
    rows = [rows[n] for n in order]
    nwb = new()
    columns = {"frame": [frame for _, frame in rows], "split": ["train"] * len(rows)}
    onsets = [onset for onset, _ in rows]
    add_table(nwb, onsets, columns, seconds=1 / 30, name="natural_movie_one_presentations")
    device = nwb.create_device(name="probe")
    group = nwb.create_electrode_group("probeA", description="d", location="V", device=device)
    for channel, area in ((850, "VISp"), (851, "VISl")):
        nwb.add_electrode(group=group, id=channel, location=area)
    nwb.add_unit_column("peak_channel_id", "d")
    nwb.add_unit_column("quality", "d")
    nwb.add_unit_column("snr", "d")
    trains = [np.sort(made.uniform(0, 8, 400)) for _ in range(3)]
    for n, (train, peak) in enumerate(zip(trains, (851, 850, 851), strict=True)):
        told = {"peak_channel_id": peak, "quality": "noise" if n == 1 else "good"}
        nwb.add_unit(spike_times=train, id=900 + n, snr=[2.5, np.nan, 1.0][n], **told)
    write(nwb, path)
    return trains, starts


def test_a_row_per_frame_units_and_their_quality(tmp_path):
    trains, starts = neuropixels(tmp_path / "a.nwb")
    told = {"templates": MOVIE, "blanks": [-1], "tiers": "split"}
    recording = read(tmp_path / "a.nwb", **told, neuron_labels=["snr", "quality"])
    for trial, start in enumerate(starts):
        edges = [start + k / 30 for k in range(N_FRAMES)] + [start + 19 / 30 + 1 / 30]
        np.testing.assert_array_equal(recording["responses"][trial], counted(trains, edges))
        np.testing.assert_array_equal(recording["stimuli"][trial, :, 0], MOVIE)
    assert recording["responses"].attrs["units"] == "spikes"
    assert recording["area"].values.tolist() == ["VISl", "VISp", "VISl"]
    assert recording["quality"].values.tolist() == ["good", "noise", "good"]
    np.testing.assert_array_equal(recording["snr"], [2.5, np.nan, 1.0])
    assert recording["tier"].values.tolist() == ["train", "train"]
    good = read(tmp_path / "a.nwb", **told, neurons={"quality": "good"})
    assert good["neuron"].values.tolist() == [900, 902]
    np.testing.assert_array_equal(good["responses"], recording["responses"][..., [0, 2]])
    rates = read(tmp_path / "a.nwb", **told, reduction="rate")["responses"]
    np.testing.assert_allclose(rates, recording["responses"] * 30, rtol=1e-5)
    assert rates.attrs["units"] == "spikes/s"
    with pytest.raises(ValueError, match=r"asks for 'god' in quality of units.*such as \['good'"):
        read(tmp_path / "a.nwb", **told, neurons={"quality": "god"})
    with pytest.raises(ValueError, match=r"frame -1.0|image -1.0 in row"):
        read(tmp_path / "a.nwb", templates=MOVIE)


def test_clips_of_a_video_in_intervals_of_a_table_and_planes_with_clocks_of_their_own(tmp_path):
    made = np.random.default_rng(2)
    nwb = new()
    frames = make_images(5, n_images=90)
    stamps = 2.0 + (np.arange(90) + made.uniform(-0.05, 0.05, 90)) / 10
    nwb.add_acquisition(
        ImageSeries(name="Video_stimulus", data=frames, unit="g", format="raw", timestamps=stamps)
    )
    names, starts = ["b", "a", "b"], [2.0, 4.5, 8.0]
    add_table(nwb, starts, {"condition_hash": names}, seconds=2.0, name="Clip")
    traces = [made.normal(size=(200, n)) for n in (2, 3)]
    for number, values in enumerate(traces):
        regions = add_plane(nwb, number, values.shape[1])
        add_traces(
            nwb, regions, values, name=f"s{number}", rate=16.0, starting_time=0.01 + 0.03 * number
        )
    speed = made.random(200)
    speed[36:38] = np.nan  # a blink at 3.6 s, two samples long
    module = nwb.create_processing_module("behavior", "d")
    module.add(TimeSeries(name="speed", data=speed, unit="m/s", rate=10.0))
    path = write(nwb, tmp_path / "a.nwb")
    asked = ("Video_stimulus", "DfOverF")
    params = {"trials": "Clip", "image_column": "condition_hash", "behaviors": {"v": "speed"}}
    recording = read(path, *asked, **params, behavior_gaps=0.31, frame_rate=10)
    assert recording["image_name"].values.tolist() == names
    assert recording["image_id"].values.tolist() == [1, 0, 1]
    np.testing.assert_allclose(recording["time"], np.arange(20) / 10)
    for trial, start in enumerate(starts):
        own = [n for n in range(90) if start - 0.01 <= stamps[n] < start + 2.0 - 0.01]
        np.testing.assert_array_equal(recording["stimuli"][trial, : len(own), 0], frames[own])
        assert recording["n_frames"][trial] == len(own)
        for place, n in enumerate(own):
            begin = stamps[n]
            end = stamps[n + 1]
            for clock, shift, columns in ((traces[0], 0.01, [0, 1]), (traces[1], 0.04, [2, 3, 4])):
                inside = [k for k in range(200) if begin <= shift + k / 16 < end]
                np.testing.assert_allclose(
                    recording["responses"][trial, place, columns], clock[inside].mean(axis=0),
                    rtol=1e-5,
                )  # fmt: skip
    whole = np.where(np.isnan(speed), np.interp(np.arange(200), [35, 38], speed[[35, 38]]), speed)
    first = [k for k in range(20) if stamps[k] >= 2.0 - 0.01]
    for place, k in enumerate(first):  # samples as often as frames, some of which have none
        inside = [n for n in range(200) if stamps[k] <= n / 10 < stamps[k + 1]]
        middle = np.interp((stamps[k] + stamps[k + 1]) / 2, np.arange(200) / 10, whole)
        expected = whole[inside].mean() if inside else middle
        np.testing.assert_allclose(recording["behaviors"][0, place, 0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"in 1 of 3 trials behaviour \(v\) is NaN"):
        read(path, *asked, **params)
    kept = read(path, *asked, **params, incomplete="drop")
    assert kept["presentation"].values.tolist() == [1, 2]


def test_a_table_names_movies_of_different_lengths(tmp_path):
    made = np.random.default_rng(4)
    nwb = new()
    movies = {"short": make_images(6, n_images=6), "long": make_images(7, n_images=9)}
    for name, movie in movies.items():
        add_movie(nwb, movie, name, rate=10.0, starting_time=0.0)
    names, starts = ["long", "short", "none", "long"], [1.0, 3.0, 4.0, 5.0]
    nwb.add_trial_column("movie", "d")
    for name, start in zip(names, starts, strict=True):
        n = len(movies.get(name, [0]))
        nwb.add_trial(start_time=start, stop_time=start + n / 10, movie=name)
    trains = [np.sort(made.uniform(0, 8, 300)) for _ in range(2)]
    add_units(nwb, trains, electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    recording = read(path, "trials", image_column="movie", blanks=["none"])
    assert recording["image_name"].values.tolist() == ["long", "short", "long"]
    assert recording["n_frames"].values.tolist() == [9, 6, 9]
    for trial, (name, start) in enumerate([("long", 1.0), ("short", 3.0), ("long", 5.0)]):
        n = len(movies[name])
        np.testing.assert_array_equal(recording["stimuli"][trial, :n, 0], movies[name])
        edges = start + np.arange(n + 1) / 10
        np.testing.assert_array_equal(recording["responses"][trial, :n], counted(trains, edges))
        assert np.isnan(recording["responses"][trial, n:]).all()
    ids = recording["image_id"].values
    assert ids[0] == ids[2] != ids[1]
    with pytest.raises(ValueError, match=r"names \['none'\], which are no templates"):
        read(path, "trials", image_column="movie")
    asked = {"stimulus": "trials", "image_column": "movie", "blanks": ["none"]}
    for given in (movies["long"], "long"):
        with pytest.raises(
            ValueError, match=r"templates came for trials, whose movie names movies"
        ):
            read(path, **asked, templates=given)
    with pytest.raises(ValueError, match=r"first_index came for trials, whose movie names movies"):
        read(path, **asked, first_index=1)
    with pytest.warns(UserWarning, match=r"blanks names 'gray', which no row of movie of trials"):
        read(path, **asked | {"blanks": ["none", "gray"]})


def shown_once(path, times, *, numbers=None, trains=None):
    nwb = new()
    series = add_movie(nwb, MOVIE)
    numbers = np.arange(len(times)) if numbers is None else numbers
    add_frames(nwb, numbers, times, series)
    add_units(nwb, trains or [np.linspace(0, 9, 400)], electrodes=False)
    return write(nwb, path)


def test_a_frame_that_stood_for_two_is_two_and_tells_the_movies_apart(tmp_path):
    times = 1.0 + np.arange(N_FRAMES) / 20
    late = np.where(np.arange(N_FRAMES) > 6, times + 1 / 20, times) + 3.0
    train = np.sort(np.random.default_rng(0).uniform(0, 9, 500))
    both = np.concatenate([times, late])
    numbers = np.tile(np.arange(N_FRAMES), 2)
    recording = read(shown_once(tmp_path / "a.nwb", both, numbers=numbers, trains=[train]))
    assert recording["n_frames"].values.tolist() == [20, 21]
    assert recording["image_id"].values.tolist() == [0, 1]
    held = [*range(7), 6, *range(7, 20)]
    np.testing.assert_array_equal(recording["stimuli"][1, :, 0], MOVIE[held])
    edges = [*late[:7], (late[6] + late[7]) / 2, *late[7:], late[-1] + 1 / 20]
    np.testing.assert_array_equal(recording["responses"][1], counted([train], edges))


def test_another_frame_rate_takes_every_second_frame(tmp_path):
    times = 1.0 + np.arange(N_FRAMES) / 20
    train = np.sort(np.random.default_rng(0).uniform(0, 9, 500))
    path = shown_once(tmp_path / "a.nwb", times, trains=[train])
    slow = read(path, frame_rate=10)
    np.testing.assert_array_equal(slow["stimuli"][0, :, 0], MOVIE[1::2])  # in the middle of both
    np.testing.assert_allclose(slow["time"], np.arange(10) / 10)
    edges = [*times[::2], times[-1] + 1 / 20]
    np.testing.assert_array_equal(slow["responses"][0], counted([train], edges))
    fast = read(path, frame_rate=40)
    np.testing.assert_array_equal(fast["stimuli"][0, :, 0], np.repeat(MOVIE, 2, axis=0))


def test_frames_in_any_order_are_one_movie_where_gaps_are_asked_for(tmp_path):
    numbers = np.random.default_rng(0).integers(0, N_FRAMES, 60)
    path = shown_once(tmp_path / "a.nwb", 1.0 + np.arange(60) / 20, numbers=numbers)
    with pytest.raises(ValueError, match=r"would have one frame.*pass trials='gaps'"):
        read(path)
    recording = read(path, trials="gaps")
    np.testing.assert_array_equal(recording["stimuli"][0, :, 0], MOVIE[numbers])


def test_frames_that_were_not_recorded_are_missing_not_zero(tmp_path):
    def spoil(nwb):
        nwb.add_invalid_time_interval(start_time=6.4, stop_time=6.45, tags=["probe"])

    clock, _, starts = visual_coding(tmp_path / "a.nwb", spoil=spoil)
    with pytest.raises(ValueError, match=r"1 of 3 windows were not recorded as a whole"):
        read(tmp_path / "a.nwb")
    marked = read(tmp_path / "a.nwb", incomplete="nan")["responses"]
    ends = np.append(clock[1:], np.inf)
    lost = np.isnan(marked.values).all(axis=2)
    for trial, start in enumerate(starts):
        for frame in range(N_FRAMES):
            touched = clock[start + frame] < 6.45 and ends[start + frame] > 6.4
            assert lost[trial, frame] == touched
    assert 1 <= lost.sum() <= 3
    assert len(read(tmp_path / "a.nwb", incomplete="drop")["trial"]) == 2
    with h5py.File(tmp_path / "a.nwb", "a") as file:
        del file["intervals/invalid_times"]
        times = file["stimulus/presentation/movie_stimulus/timestamps"]
        times[40:] += clock[-1] + 0.001 - times[49]  # so that it ends behind the recording
    late = read(tmp_path / "a.nwb", incomplete="nan")["responses"].values[2]
    assert not np.isnan(late[:9]).any()
    assert np.isnan(late[10:]).all()


def test_frames_in_other_files_are_refused_and_may_be_passed(tmp_path):
    nwb = new()
    nwb.add_stimulus(
        ImageSeries(
            name="movie", unit="n.a.", format="external", external_file=["a.avi", "b.avi"],
            starting_frame=[0, 12], timestamps=1.0 + np.arange(N_FRAMES) / 20,
        )
    )  # fmt: skip
    add_units(nwb, [np.linspace(0, 9, 400)], electrodes=False)
    path = write(nwb, tmp_path / "a.nwb")
    said = r"in other files, \['a.avi', 'b.avi'\], which are not read.*templates=array"
    with pytest.raises(ValueError, match=said):
        read(path)
    given = np.memmap(tmp_path / "frames", np.uint8, "w+", shape=MOVIE.shape)
    given[:] = MOVIE
    np.testing.assert_array_equal(read(path, templates=given)["stimuli"][0, :, 0], MOVIE)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"frame_rate": 0}, "frame_rate is 0: expected frames per second"),
        ({"frame_rate": "10"}, "^frame_rate is '10': expected frames per second"),
        ({"frame_rate": [10]}, r"^frame_rate is \[10\]: expected frames per second"),
        ({"reduction": "max"}, "reduction is 'max': expected one of"),
        ({"behavior_gaps": -1}, "behavior_gaps is -1: expected seconds"),
        ({"trials": "trial"}, "there are no tables of intervals"),
        ({"tiers": "split"}, "tiers is 'split', movie_stimulus has no columns"),
        ({"stimulus": "other"}, "stimulus 'other' is not there"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(tmp_path, params, said):
    path = shown_once(tmp_path / "a.nwb", 1.0 + np.arange(N_FRAMES) / 20)
    with pytest.raises(ValueError, match=said):
        read(path, **params)
    with pytest.raises(TypeError, match=r"^trials=\['gaps'\]: expected a name, as text"):
        read(path, trials=["gaps"])


def test_models_of_movies_are_fitted_to_what_is_read(tmp_path):
    visual_coding(tmp_path / "a.nwb")
    recording = read(tmp_path / "a.nwb", frame_rate=30)
    v1.validate_recordings({"a": recording})
    v1.save_recordings({"a": recording}, tmp_path / "a.nc")
    trials, stored = v1.Trials({"a": recording}), v1.Trials.open(tmp_path / "a.nc")
    small = {
        "window_frames": 16,
        "max_epochs": 1,
        "random_state": 0,
        "device": "cpu",
        "validation_fraction": 0,
    }
    for model in (
        v1.MovieLNRegressor(**small),
        v1.MovieCNNRegressor(
            n_layers=2, hidden_channels=2, input_kernel=3, hidden_kernel=3, **small
        ),
        v1.ViSTRegressor(condition="none", **VIST | small),
    ):
        first, second = model.fit(trials).predict(trials), model.predict(stored)
        assert first["a"].shape == (3, N_FRAMES, 4)
        np.testing.assert_array_equal(first["a"].values, second["a"].values)
