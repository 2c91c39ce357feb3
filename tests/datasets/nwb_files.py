"""NWB files as labs write them, by pynwb: calcium imaging with templates, and units with images."""

from datetime import UTC, datetime

import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.base import ImageReferences, Images
from pynwb.behavior import BehavioralTimeSeries, EyeTracking, PupilTracking, SpatialSeries
from pynwb.file import Subject
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries
from pynwb.ophys import DfOverF, ImageSegmentation, OpticalChannel

N_IMAGES, SHAPE = 6, (8, 12)
RATE = 10.0  # samples of traces per second


def new(**params):
    """A file that holds a subject and nothing else."""
    told = {"session_description": "images", "identifier": "session 7"}
    told |= {"session_start_time": datetime(2026, 1, 2, tzinfo=UTC)}
    return NWBFile(
        **told | {"subject": Subject(subject_id="mouse 1", species="Mus musculus")} | params
    )


def write(nwb, path):
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    return path


def make_images(seed=0, n_images=N_IMAGES, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 256, (n_images, *shape), dtype=np.uint8)


def templates(images, name="templates", *, ordered=True):
    """Single images, and their order."""
    each = [GrayscaleImage(name=f"image {n}", data=image) for n, image in enumerate(images)]
    order = {"order_of_images": ImageReferences(name="order_of_images", data=each)}
    return Images(name=name, images=each[::-1], description="shown", **(order if ordered else {}))


def add_indices(nwb, shown, target, *, name="shown", first=1.0, apart=1.0, **params):
    """Presentations of templates, one a second."""
    if "rate" not in params:
        params.setdefault("timestamps", first + apart * np.arange(len(shown)))
    indices = {"data": np.asarray(shown, "u4"), "unit": "N/A", "indexed_images": target}
    nwb.add_stimulus(IndexSeries(name=name, **indices | params))


def add_plane(nwb, number, n_neurons, *, spacing=(2.0, 4.0), **params):
    """An imaging plane whose regions are two pixels each; gives the table of regions."""
    device = nwb.devices.get("scope") or nwb.create_device(name="scope")
    light = OpticalChannel(name="green", description="d", emission_lambda=510.0)
    told = {"grid_spacing": list(spacing), "grid_spacing_unit": "micrometers"} if spacing else {}
    plane = nwb.create_imaging_plane(
        name=f"plane {number}", optical_channel=light, description="d", device=device,
        excitation_lambda=920.0, indicator="GCaMP6s", location=f"V{number}", **told | params,
    )  # fmt: skip
    module = nwb.processing.get("ophys") or nwb.create_processing_module("ophys", "d")
    if "ImageSegmentation" not in module.data_interfaces:
        module.add(ImageSegmentation())
    segmented = module["ImageSegmentation"].create_plane_segmentation(
        name=f"regions {number}", description="d", imaging_plane=plane
    )
    for n in range(n_neurons):
        mask = np.zeros((10, 10), "f4")
        mask[n, 2], mask[n, 6] = 3.0, 1.0
        segmented.add_roi(image_mask=mask)
    return segmented


def add_traces(nwb, regions, data, *, name="plane", **params):
    """Traces of all regions of a plane."""
    module = nwb.processing["ophys"]
    if "DfOverF" not in module.data_interfaces:
        module.add(DfOverF())
    if "timestamps" not in params:
        params = {"rate": RATE, "starting_time": 0.0} | params
    rows = regions.create_roi_table_region("all", list(range(len(regions))))
    series = {"data": data, "rois": rows, "unit": "dF/F"}
    module["DfOverF"].create_roi_response_series(name=name, **series | params)


def add_behavior(nwb, speed, pupil, *, rate=20.0):
    """Speed with timestamps, and the place and size of the pupil at a rate."""
    module = nwb.create_processing_module("behavior", "d")
    times = np.arange(len(speed)) / rate
    series = TimeSeries(name="speed", data=speed, unit="cm/s", timestamps=times)
    module.add(BehavioralTimeSeries(time_series=series))
    sized = TimeSeries(
        name="area", data=pupil[:, 0], unit="px^2", rate=rate, conversion=2.0, offset=1.0
    )
    module.add(PupilTracking(time_series=sized))
    placed = SpatialSeries(
        name="place", data=pupil, unit="px", rate=rate, reference_frame="upper left"
    )
    module.add(EyeTracking(spatial_series=placed))


def calcium(path, *, n_trials=30, n_neurons=4, seed=0, shape=SHAPE, behavior=True):
    """Images once a second, traces of one plane, behaviour; gives what was written."""
    made = np.random.default_rng(seed)
    held = {
        "images": make_images(seed, shape=shape),
        "shown": made.integers(0, N_IMAGES, n_trials),
        "traces": made.random((int(RATE) * (n_trials + 2), n_neurons)).astype("f4"),
        "speed": made.random(20 * (n_trials + 2)),
        "pupil": made.random((20 * (n_trials + 2), 2)),
    }
    nwb = new()
    stack = templates(held["images"])
    nwb.add_stimulus_template(stack)
    add_indices(nwb, held["shown"], stack)
    add_traces(nwb, add_plane(nwb, 1, n_neurons), held["traces"])
    if behavior:
        add_behavior(nwb, held["speed"], held["pupil"])
    write(nwb, path)
    return held


def add_units(nwb, trains, *, observed=None, electrodes=True):
    """Units, each with two electrodes of its own."""
    if electrodes:
        probe = nwb.create_device(name="probe")
        group = nwb.create_electrode_group("shank", description="d", location="V1", device=probe)
        for n in range(2 * len(trains)):
            where = {"x": 10.0 * n, "y": 20.0 * n, "z": 1.0, "location": f"L{n // 2}"}
            nwb.add_electrode(group=group, **where)
    for n, times in enumerate(trains):
        told = {"electrodes": [2 * n, 2 * n + 1]} if electrodes else {}
        told |= {"obs_intervals": observed[n]} if observed is not None else {}
        nwb.add_unit(spike_times=times, id=100 + n, **told)


def units(path, *, n_trials=20, n_units=3, seed=0):
    """Images one after the other, each a frame of a series, and units."""
    made = np.random.default_rng(seed)
    held = {
        "images": make_images(seed, n_images=n_trials),
        "onsets": 1.0 + np.arange(n_trials) * 0.8,
        "trains": [np.sort(made.uniform(0, n_trials + 1, 200)) for _ in range(n_units)],
    }
    nwb = new()
    series = ImageSeries(
        name="scenes", data=held["images"], unit="grey", format="raw", timestamps=held["onsets"]
    )
    nwb.add_stimulus(series)
    add_units(nwb, held["trains"])
    write(nwb, path)
    return held


def add_movie(nwb, movie, name="movie", **params):
    """Frames among the templates, without times, as movies are kept that were shown often."""
    told = {"unit": "n.a.", "format": "raw", "rate": float("nan"), "starting_time": float("nan")}
    series = ImageSeries(name=name, data=movie, **told | params)
    nwb.add_stimulus_template(series)
    return series


def add_frames(nwb, shown, times, series, name="movie_stimulus"):
    """Which frame was shown when, by the link that is deprecated and in use."""
    indices = IndexSeries.__new__(IndexSeries, in_construct_mode=True)
    indices.__init__(
        name=name, data=np.asarray(shown, "u4"), unit="N/A", timestamps=np.asarray(times),
        indexed_timeseries=series,
    )  # fmt: skip
    indices._in_construct_mode = False
    nwb.add_stimulus(indices)


def add_table(nwb, onsets, columns, *, seconds=0.5, name=None):
    """A table of intervals, that of trials without a name."""
    if name is None:
        for column in columns:
            nwb.add_trial_column(name=column, description="d")
        for n, onset in enumerate(onsets):
            row = {column: values[n] for column, values in columns.items()}
            nwb.add_trial(start_time=onset, stop_time=onset + seconds, **row)
        return
    from pynwb.epoch import TimeIntervals

    table = TimeIntervals(name=name, description="d")
    for column in columns:
        table.add_column(name=column, description="d")
    for n, onset in enumerate(onsets):
        row = {column: values[n] for column, values in columns.items()}
        table.add_row(start_time=onset, stop_time=onset + seconds, **row)
    nwb.add_time_intervals(table)


def of_recording(recording, path):
    """A recording as a file of calcium imaging: what is read after each image is its response."""
    ids, first = np.unique(recording["image_id"].values, return_index=True)
    images = recording["stimuli"].values[first, 0]
    shown = np.searchsorted(ids, recording["image_id"].values)
    responses, speed = recording["responses"].values, recording["behaviors"].values[:, 2]
    nwb = new()
    stack = templates(images)
    nwb.add_stimulus_template(stack)
    add_indices(nwb, shown, stack, first=0.0)
    rate = int(RATE)
    traces = np.repeat(np.concatenate([responses, responses[:1]]), rate, axis=0)
    regions = add_plane(nwb, 1, 0)
    regions.id.extend(range(responses.shape[1]))
    masks = np.zeros((responses.shape[1], 32, 32), "u1")
    masks.reshape(len(masks), -1)[np.arange(len(masks)), 7 * np.arange(len(masks))] = 1
    regions.add_column("image_mask", "d", data=masks)
    add_traces(nwb, regions, traces, name="dff")
    module = nwb.create_processing_module("behavior", "d")
    times = np.arange(len(traces)) / RATE
    speeds = np.repeat(np.append(speed, 0.0), rate)
    series = TimeSeries(name="running_speed", data=speeds, unit="cm/s", timestamps=times)
    module.add(BehavioralTimeSeries(time_series=series))
    return write(nwb, path)


def movie_shown_often(path, *, n_frames=40, repeats=6, n_neurons=5):
    """A movie, shown again and again, and traces that are stamped as its frames are."""
    made = np.random.default_rng(0)
    nwb = new(subject=Subject(subject_id="mouse1", species="Mus musculus"))
    series = add_movie(nwb, make_images(n_images=n_frames, shape=(18, 32)), "natural_movie_one")
    clock = 10 + np.arange(repeats * n_frames + 2) / 30
    shown = np.tile(np.arange(n_frames), repeats)
    add_frames(nwb, shown, clock[:-2], series, "natural_movie_one_stimulus")
    traces = made.gamma(2.0, 0.1, (len(clock), n_neurons))
    add_traces(nwb, add_plane(nwb, 1, n_neurons), traces, name="dff", timestamps=clock)
    return write(nwb, path)
