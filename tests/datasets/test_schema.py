import sys

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from v1tlearn.datasets.given_recordings import recordings_to_dict
from v1tlearn.datasets.schema import (
    BEHAVIOR_NAMES,
    behavior_attrs,
    check_structure,
    default_behavior_names,
    validate_recordings,
)


def recording(n_trials=6, n_neurons=4):
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                rng.random((n_trials, 1, 5, 7)).astype("f4"),
            ),
            "behaviors": (("trial", "behavior"), rng.random((n_trials, 3)).astype("f4")),
            "responses": (("trial", "neuron"), rng.random((n_trials, n_neurons)).astype("f4")),
            "stimuli_mean": ((), 1.0),
            "responses_std": ("neuron", np.ones(n_neurons)),
        },
        coords={
            "behavior": list(BEHAVIOR_NAMES[:3]),
            "tier": ("trial", ["train"] * (n_trials - 2) + ["validation", "final_test"]),
            "image_id": ("trial", np.arange(n_trials)),
            "neuron": np.arange(100, 100 + n_neurons),
            "area": ("neuron", ["V1"] * n_neurons),
            "position": (("neuron", "axis"), rng.random((n_neurons, 3))),
        },
    )


def with_value(name, index, value):
    def change(dataset):
        values = dataset[name].values.copy()
        values[index] = value
        return dataset.assign({name: (dataset[name].dims, values)})

    return change


def test_a_recording_with_everything_passes_in_both_forms():
    validate_recordings({"A": recording()})
    validate_recordings(xr.DataTree.from_dict({"A": recording(), "b.c d-1": recording(3, 9)}))


def test_stimuli_alone_are_a_recording():
    validate_recordings({"A": recording()[["stimuli"]]})


def test_nan_in_responses_means_not_recorded_and_passes():
    validate_recordings({"A": with_value("responses", (2, 1), np.nan)(recording())})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("stimuli"), "stimuli are missing .*behaviors"),
        (lambda d: d.transpose("trial", "channel", "width", ...), "stimuli: dims are"),
        (
            lambda d: d.drop_vars("responses").assign(responses=(("t", "neuron"), np.ones((5, 4)))),
            "responses: dims are .*same number of trials",
        ),
        (
            lambda d: d.drop_vars(["image_id", "tier"]).assign_coords(tier=("t", ["train"] * 5)),
            r"tier: dims are \('t',\) .*expected \('trial',\) with 6 values",
        ),
        (with_value("tier", 0, "Train"), "tier: unknown 'Train'; expected only train, validation"),
        (with_value("stimuli", (3, 0, 1, 1), np.nan), "stimuli: nan in trial 3"),
        (with_value("stimuli", (0, 0, 1, 1), np.inf), "stimuli: inf in trial 0"),
        (with_value("behaviors", (5, 2), np.nan), "behaviors: nan in trial 5"),
        (with_value("responses", (4, 2), -np.inf), "responses: -inf in trial 4"),
        (with_value("neuron", 1, 100), "neuron: 1 names occur more than once, the first is 100"),
        (with_value("behavior", 0, "running_speed"), "behavior: 1 names occur more than once"),
        (lambda d: d.drop_vars("behavior"), "behaviors: the 3 columns have no names"),
        (lambda d: d.assign_coords(behavior=[1, 2, 3]), r"behavior: names are \[1, 2, 3\]"),
        (lambda d: d.isel(trial=slice(0)), "stimuli: is empty.*at least one trial"),
        (lambda d: d.isel(neuron=slice(0)), "responses: is empty.*at least one neuron"),
        (lambda d: d.isel(axis=slice(1)), "position: dims are .*2 or 3 axes"),
        (with_value("position", (1, 1), np.nan), "position: holds NaN .*expected finite numbers"),
        (lambda d: d.assign_coords(area=("trial", ["V1"] * 6)), "area: dims are"),
        (lambda d: d.assign_coords(position=d.position.astype(str)), "position: dtype is <U"),
        (
            lambda d: d.reset_coords("tier"),
            r"tier: is a data variable, expected a coordinate: dataset.set_coords\('tier'\)",
        ),
        (lambda d: d.reset_coords("area"), "area: is a data variable"),
        (lambda d: d.assign_coords(tier=d.tier.astype("S")), "tier: labels are bytes.*astype"),
        (
            lambda d: d.assign_coords(tier=d.tier.astype("S").astype(object)),
            "tier: labels are bytes, expected strings",
        ),
        (lambda d: d.assign(stimuli=d.stimuli.astype(bool)), "stimuli: dtype is bool"),
        (lambda d: d.assign(responses=d.responses.astype(complex)), "responses: dtype is complex"),
        (lambda d: d.assign(stimuli_mean=("trial", np.ones(6))), "stimuli_mean: dims are"),
        (lambda d: d.assign(stimuli_mean=((), "x")), "stimuli_mean: dtype is <U1"),
    ],
)
def test_errors_name_the_mouse_the_variable_and_what_came(change, message):
    with pytest.raises(ValueError, match=rf"mouse 'B'.*{message}"):
        validate_recordings({"A": recording(), "B": change(recording())})


def test_values_are_left_alone_on_request():
    validate_recordings(
        {"A": with_value("stimuli", (3, 0, 1, 1), np.nan)(recording())}, check_values=False
    )


class _Unread:
    """An array that fails where its values are asked for."""

    def __init__(self, shape, dtype="f4"):
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)

    def __array_function__(self, *args):
        raise AssertionError("values were read")

    __array_ufunc__ = __array__ = __getitem__ = __array_function__


def unread_recording(n_trials, n_neurons):
    arrays = {
        "stimuli": (("trial", "channel", "height", "width"), (n_trials, 1, 144, 256)),
        "behaviors": (("trial", "behavior"), (n_trials, 5)),
        "responses": (("trial", "neuron"), (n_trials, n_neurons)),
    }
    return xr.Dataset(
        {name: (dims, _Unread(shape)) for name, (dims, shape) in arrays.items()},
        coords={
            "tier": ("trial", np.resize(["train", "validation", "test"], n_trials)),
            "image_id": ("trial", np.arange(n_trials)),
            "behavior": list(BEHAVIOR_NAMES),
            "neuron": np.arange(n_neurons),
            "position": (("neuron", "axis"), np.zeros((n_neurons, 3))),
        },
    )


def test_the_structure_is_checked_without_reading_or_walking_through_trials():
    """Python does the same work for a hundred times as many trials and neurons."""
    work = []
    for n_trials, n_neurons in ((60, 80), (60, 80), (6000, 8000)):  # the first time imports
        dataset, events = unread_recording(n_trials, n_neurons), []
        sys.setprofile(lambda _, event, what, events=events: events.append(event))
        try:
            check_structure("A", dataset)
        finally:
            sys.setprofile(None)
        work.append(len(events))
    assert work[2] == work[1]


def test_the_structure_needs_stimuli_only():
    check_structure("A", recording()[["stimuli"]].drop_vars(["tier", "image_id"]))
    check_structure("A", recording().drop_vars(["behavior", "neuron", "tier", "image_id", "area"]))


@pytest.mark.parametrize("mouse", ["", "a/b", " a", "a ", ".", ".."])
def test_a_mouse_id_must_name_a_group_of_a_file(mouse):
    with pytest.raises(ValueError, match="cannot name a group"):
        validate_recordings({mouse: recording()})


@pytest.mark.parametrize(
    ("recordings", "error", "message"),
    [
        (recording(), ValueError, r'the Dataset holds variables .*give {"mouse": dataset}'),
        ([recording()], TypeError, "a list came that holds them: name the mice"),
        ({"A": recording().stimuli}, TypeError, "mouse 'A' is a DataArray: expected an xarray"),
        ({1: recording(), "1": recording()}, ValueError, "duplicate mouse ids: '1'"),
        ({}, ValueError, "there is no mouse"),
        (xr.DataTree(), ValueError, "there is no mouse"),
        (xr.DataTree(recording()), ValueError, "the root of the DataTree holds variables"),
    ],
)
def test_anything_but_recordings_is_refused(recordings, error, message):
    with pytest.raises(error, match=message):
        recordings_to_dict(recordings)


WITH_EYES = xr.DataTree.from_dict({"A": recording(), "A/eye": recording(), "B": recording()})
TAKERS = {
    "Trials": lambda recordings, path: v1.Trials(recordings),
    "concat": lambda recordings, path: v1.concat([recordings]),
    "validate_recordings": lambda recordings, path: v1.validate_recordings(recordings),
    "save_recordings": v1.save_recordings,
    "write_sensorium": v1.write_sensorium,
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("nested", "message"),
    [
        (WITH_EYES, r"mouse 'A': has groups below it \(eye\)"),
        (WITH_EYES["A"], r"mouse 'A': has groups below it \(eye\)"),
        ({"M": WITH_EYES["A"]}, r"mouse 'M': has groups below it \(eye\)"),
        (
            xr.DataTree.from_dict({"day1/A": recording(), "day1/B": recording()}),
            r"mouse 'day1': has groups below it \(A, B\)",
        ),
        (
            xr.DataTree.from_dict({"/": recording().drop_dims("neuron"), "A": recording()}),
            "the root of the DataTree holds variables .*stimuli",
        ),
    ],
    ids=["tree", "child", "dict", "deeper", "root"],
)
def test_nested_groups_are_never_dropped(taker, nested, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        TAKERS[taker](nested, tmp_path / "r")
    assert not list(tmp_path.iterdir())


def test_default_names_exist_for_three_and_five_columns_only():
    assert default_behavior_names(3) == [
        "pupil_dilation",
        "pupil_dilation_derivative",
        "running_speed",
    ]
    assert default_behavior_names(5)[3:] == ["pupil_x", "pupil_y"]
    with pytest.raises(ValueError, match=r"4 columns without names.*behavior_names with 4"):
        default_behavior_names(4)
    with pytest.raises(ValueError, match=r"^mouse 'A': behaviors have 4 columns"):
        default_behavior_names(4, "A")


def test_units_are_listed_for_known_columns():
    assert behavior_attrs(["running_speed", "whisking"])["units"] == "running_speed: cm/s"
