"""Spikes counted in bins."""

import itertools

import numpy as np
import pytest

from v1tlearn import bin_spikes


def test_a_spike_at_an_edge_belongs_to_the_bin_that_begins_there():
    np.testing.assert_array_equal(bin_spikes([0, 10, 10, 29.9], [0, 10, 20, 30]), [1, 2, 1])


def test_counts_are_those_of_one_comparison_per_bin():
    rng = np.random.default_rng(0)
    edges = np.cumsum(rng.uniform(0.5, 2, 30))
    times = rng.uniform(edges[0], edges[-1], 500)
    expected = [((times >= low) & (times < high)).sum() for low, high in itertools.pairwise(edges)]
    np.testing.assert_array_equal(bin_spikes(times, edges), expected)


def test_nested_trains_keep_their_shape_and_silent_ones_count_nothing():
    trains = np.empty((2, 3), object)
    for place in np.ndindex(trains.shape):
        trains[place] = np.arange(place[1])[:, None] + 0.5  # a column vector of MATLAB's
    counts = bin_spikes(trains, [0, 1, 2])
    assert counts.shape == (2, 3, 2)
    np.testing.assert_array_equal(counts[1], [[0, 0], [1, 0], [1, 1]])
    np.testing.assert_array_equal(bin_spikes(trains.tolist(), [0, 1, 2]), counts)


@pytest.mark.parametrize("late", [-0.1, 2.0, 5.0])
def test_spikes_outside_of_all_bins_are_refused_or_dropped_on_request(late):
    with pytest.raises(ValueError, match=r"1 spikes, the first at .* lie outside .*from 0 to 2"):
        bin_spikes([0.5, late], [0, 1, 2])
    np.testing.assert_array_equal(bin_spikes([0.5, late], [0, 1, 2], outside="drop"), [1, 0])


@pytest.mark.parametrize(
    ("times", "edges", "message"),
    [
        ([0.5], [0, 1, 1], "edges do not rise"),
        ([0.5], [0], r"edges have shape \(1,\)"),
        ([np.nan], [0, 1], "NaN or infinite"),
        (np.zeros((3, 4)), [0, 1], r"shape \(3, 4\): expected the times of one train"),
        ([[[0.5], [0.1]], [[0.2]]], [0, 1], r"spike_times\[1\] holds \(1,\) trains"),
    ],
)
def test_times_and_edges_that_are_none_are_refused(times, edges, message):
    with pytest.raises(ValueError, match=message):
        bin_spikes(times, edges)


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match="expected times of spikes"):
        bin_spikes(["a"], [0, 1])
