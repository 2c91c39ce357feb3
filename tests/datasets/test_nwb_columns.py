"""Columns and series of NWB files whose stored numbers are not what they say."""

import numpy as np
import pytest
from hdmf.common import EnumData
from pynwb import TimeSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.epoch import TimeIntervals
from pynwb.misc import IntervalSeries

import v1tlearn as v1
from tests.datasets.nwb_files import (
    RATE,
    add_indices,
    add_plane,
    add_traces,
    add_units,
    make_images,
    new,
    templates,
    write,
)

SHOWN = np.array([3, 3, 2, 1, 0])


def imaged(n_neurons=3):
    """A file with traces of one plane and templates, without presentations."""
    nwb = new()
    stack = templates(make_images())
    nwb.add_stimulus_template(stack)
    regions = add_plane(nwb, 1, n_neurons)
    traces = np.random.default_rng(0).integers(1, 100, (int(RATE) * 7, n_neurons)).astype("i2")
    add_traces(nwb, regions, traces)
    return nwb, stack, regions


def add_intervals(nwb, **column):
    """A table of presentations with one column more."""
    table = TimeIntervals(name="presentations", description="d")
    for onset in 1.0 + np.arange(len(SHOWN)):
        table.add_row(start_time=onset, stop_time=onset + 0.5)
    table.add_column(description="d", **column)
    nwb.add_time_intervals(table)


def test_an_image_column_of_lists_is_refused(tmp_path):
    nwb, _, _ = imaged()
    add_intervals(nwb, name="frame", data=SHOWN.tolist(), index=[1, 2, 3, 4, 5])
    path = write(nwb, tmp_path / "lists.nwb")
    with pytest.raises(ValueError, match=r"frame of .*presentations holds lists; expected one"):
        v1.read_nwb(path)


@pytest.mark.filterwarnings("ignore:EnumData is experimental:UserWarning")
def test_categories_are_read_by_what_they_stand_for(tmp_path):
    nwb, _, regions = imaged()
    names = [f"image {n}" for n in range(5, -1, -1)]
    add_intervals(nwb, name="image_name", data=SHOWN, col_cls=EnumData, enum=names)
    kinds = {"col_cls": EnumData, "enum": ["excitatory", "inhibitory"]}
    regions.add_column(name="kind", description="d", data=[1, 0, 1], **kinds)
    path = write(nwb, tmp_path / "categories.nwb")
    read = v1.read_nwb(path, neurons={"kind": "inhibitory"}, neuron_labels=["kind"])
    assert read["image_name"].values.tolist() == [names[n] for n in SHOWN]
    assert np.array_equal(read["stimuli"].values[:, 0], make_images()[5 - SHOWN])
    assert read["neuron"].values.tolist() == [0, 2]
    assert read["kind"].values.tolist() == ["inhibitory", "inhibitory"]


def test_lists_are_neither_labels_nor_positions_of_neurons(tmp_path):
    nwb, stack, regions = imaged()
    add_indices(nwb, SHOWN, stack)
    regions.add_column(name="snr", description="d", data=[5.0, 6.0, 7.0], index=[1, 2, 3])
    path = write(nwb, tmp_path / "lists.nwb")
    for params in (
        {"neuron_labels": ["snr"]},
        {"neurons": {"snr": 1}},
        {"positions": ("snr", "snr")},
    ):
        with pytest.raises(ValueError, match=r"snr of .*regions 1 holds lists; expected one value"):
            v1.read_nwb(path, **params)


def test_where_intervals_begin_and_end_is_no_behaviour(tmp_path):
    nwb, stack, _ = imaged()
    add_indices(nwb, SHOWN, stack)
    told = {"data": np.array([1, -1] * 7, "i1"), "timestamps": np.arange(14) / 2}
    nwb.create_processing_module("behavior", "d").add(IntervalSeries(name="running", **told))
    path = write(nwb, tmp_path / "intervals.nwb")
    with pytest.raises(ValueError, match="running holds where intervals begin and end; expected"):
        v1.read_nwb(path, window=(0, 0.5), behaviors={"running": "running"})


def test_what_each_channel_is_multiplied_with_counts(tmp_path):
    nwb, stack, _ = imaged()
    add_indices(nwb, SHOWN, stack)
    add_units(nwb, [[1.0, 2.0]])
    electrodes = nwb.create_electrode_table_region([0, 1], "d")
    told = {"data": np.full((140, 2), 3, "i2"), "conversion": 0.5, "offset": 1.0, "rate": 20.0}
    told |= {"electrodes": electrodes, "channel_conversion": [10.0, 100.0]}
    nwb.add_acquisition(ElectricalSeries(name="emg", **told))
    path = write(nwb, tmp_path / "channels.nwb")
    read = v1.read_nwb(path, "shown", "DfOverF/plane", behaviors={"emg": ("emg", 1)})
    assert np.array_equal(read["behaviors"].values, np.full((5, 1), 3 * 0.5 * 100 + 1))


@pytest.mark.parametrize("conversion", [0.0, np.nan, np.inf])
def test_a_conversion_that_leaves_no_values_is_refused(tmp_path, conversion):
    nwb, stack, regions = imaged()
    add_indices(nwb, SHOWN, stack)
    add_traces(nwb, regions, np.ones((70, 3), "i2"), name="raw", conversion=conversion)
    told = {"data": np.ones(140), "unit": "cm/s", "rate": 20.0, "conversion": conversion}
    nwb.create_processing_module("behavior", "d").add(TimeSeries(name="speed", **told))
    path = write(nwb, tmp_path / "conversion.nwb")
    with pytest.raises(ValueError, match=f"raw has the conversion {conversion:g} and"):
        v1.read_nwb(path, responses="DfOverF/raw")
    with pytest.raises(ValueError, match=f"speed has the conversion {conversion:g} and"):
        v1.read_nwb(path, responses="DfOverF/plane", behaviors={"speed": "speed"})
