"""Recordings of the salamander retina, read from files in their layout."""

import itertools
import pickle

import numpy as np
import pytest
import scipy.io

import v1tlearn as v1
from tests.datasets.onken_files import (
    FILES,
    N_FRAMES,
    N_NEURONS,
    N_TRIALS,
    SHAPE,
    frames,
    outlines,
    trains,
    write_onken,
)


@pytest.fixture(scope="module", params=[True, False], ids=["deflated", "plain"])
def folder(request, tmp_path_factory):
    return write_onken(tmp_path_factory.mktemp("onken"), compressed=request.param)


@pytest.fixture
def read(folder):
    return v1.read_onken2016(folder, frame_shape=SHAPE, grid=(4, 5))


def test_recordings_follow_the_schema_and_the_table_tells_what_files_are(read):
    v1.validate_recordings(read)
    assert list(read.children) == ["recording1", "recording2"]
    for number in (1, 2):
        recording = read[f"recording{number}"]
        assert recording.sizes["neuron"] == N_NEURONS[number]
        ids = ["movie1"] * N_TRIALS[1] + ["movie2"] * N_TRIALS[2]
        assert recording["image_id"].values.tolist() == ids
        expected = [N_FRAMES[1]] * N_TRIALS[1] + [N_FRAMES[2]] * N_TRIALS[2]
        assert recording["n_frames"].values.tolist() == expected
        assert recording["time"].values[1] == pytest.approx(1 / 30)


def test_frames_are_those_of_the_movies_in_all_repeats(read):
    stimuli = read["recording2"]["stimuli"]
    for trial in range(stimuli.sizes["trial"]):
        movie = 1 if trial < N_TRIALS[1] else 2
        shown = stimuli[trial].values
        np.testing.assert_array_equal(shown[: N_FRAMES[movie], 0], frames(movie))
        assert (shown[N_FRAMES[movie] :] == 0).all()


def test_any_part_of_the_stimuli_is_that_of_the_whole(read):
    stimuli = read["recording1"]["stimuli"]
    whole = stimuli.copy(data=stimuli.values)
    for key in [
        (3,),
        (slice(2, 7), slice(1, 8, 3)),
        (-1, 4, 0, 2, 3),
        ([6, 0], slice(None), 0, slice(3, 5)),
        (slice(0, 0),),
        (slice(None), 2, slice(None), [1, 5]),
    ]:
        np.testing.assert_array_equal(stimuli[key].values, whole[key].values)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stimuli)).values, whole.values)


def test_spikes_are_counted_in_frames_and_those_behind_the_movie_left_out(read):
    left_out = 0
    for name in ("Movie1Exp1", "Movie2Exp1"):
        movie = FILES[name][0]
        first = 0 if movie == 1 else N_TRIALS[1]
        for (neuron, trial), times in np.ndenumerate(trains(name)):
            edges = 1000 / 30 * np.arange(N_FRAMES[movie] + 1)
            counts = [((times >= a) & (times < b)).sum() for a, b in itertools.pairwise(edges)]
            left_out += len(times) - sum(counts)
            found = read["recording1"]["responses"].values[first + trial, :, neuron]
            np.testing.assert_array_equal(found[: N_FRAMES[movie]], counts)
            assert np.isnan(found[N_FRAMES[movie] :]).all()
    assert left_out > 0
    assert read["recording1"]["responses"].attrs["n_spikes_left_out"] == left_out


def test_receptive_fields_are_the_outlines_filled(read):
    for number in (1, 2):
        expected = v1.receptive_fields_from_outlines(
            outlines(number)[0], SHAPE, (4, 5), first_pixel=1
        )
        found = read[f"recording{number}"]["receptive_field"]
        assert found.dims == ("neuron", "row", "column")
        np.testing.assert_array_equal(found.values, expected)


def test_a_model_trains_on_one_movie_and_is_scored_on_the_other(read):
    trials = v1.Trials(read)
    model = v1.LNRegressor(n_layers=1, hidden_channels=2, max_epochs=1, validation_fraction=0)
    model.fit(trials.sel(image_id="movie1"))
    test = trials.sel(image_id="movie2")
    assert np.isfinite(v1.metrics.average_correlation(test.responses, model.predict(test)))


def test_single_files_can_be_read_with_a_table_of_ones_own(folder):
    one = v1.read_onken2016(folder, ["Movie1Exp2"], frame_shape=SHAPE, grid=None)
    assert list(one.children) == ["recording2"]
    assert set(one["recording2"]["image_id"].values) == {"movie2"}
    assert "receptive_field" not in one["recording2"]
    other = v1.read_onken2016(
        folder, table={"Movie1Exp2": (1, 7)}, frame_shape=SHAPE, frame_rate=10, grid=None
    )
    assert set(other["recording7"]["image_id"].values) == {"movie1"}
    assert other["recording7"]["time"].values[1] == pytest.approx(0.1)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    root = write_onken(tmp_path)
    with pytest.raises(ValueError, match="are one recording in the table, but hold"):
        v1.read_onken2016(
            root, table={"Movie1Exp1": (1, 1), "Movie1Exp2": (2, 1)}, frame_shape=SHAPE
        )
    with pytest.raises(ValueError, match="are both recording 1 to movie 1"):
        v1.read_onken2016(
            root, table={"Movie1Exp1": (1, 1), "Movie2Exp1": (1, 1)}, frame_shape=SHAPE
        )
    with pytest.raises(ValueError, match=r"files holds \['Movie3'\], the table knows"):
        v1.read_onken2016(root, ["Movie3"], frame_shape=SHAPE)
    fields = root / "NeuralData" / "ReceptiveFields" / "Movie2Exp1.mat"
    scipy.io.savemat(fields, {"ReceptiveFields": outlines(2)})
    with pytest.raises(ValueError, match="ReceptiveFields of 4 cells, Spikes of 3"):
        v1.read_onken2016(root, frame_shape=SHAPE)


def test_frames_that_are_missing_or_of_another_size_are_refused(tmp_path):
    root = write_onken(tmp_path)
    with pytest.raises(ValueError, match="has 120 bytes, expected 129600"):
        v1.read_onken2016(root)
    (root / "Stimuli" / "Movie1" / "frame4.raw").unlink()
    with pytest.raises(ValueError, match="frame 4 is missing, of 1 to 9"):
        v1.read_onken2016(root, frame_shape=SHAPE)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        v1.read_onken2016(tmp_path / "away")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotADirectoryError, match="is no folder"):
        v1.read_onken2016(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="Stimuli/Movie1 is missing"):
        v1.read_onken2016(tmp_path)


def test_damaged_files_are_named(tmp_path):
    root = write_onken(tmp_path)
    path = root / "NeuralData" / "Spikes" / "Movie1Exp1.mat"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"Movie1Exp1.mat"):
        v1.read_onken2016(root, frame_shape=SHAPE)
    scipy.io.savemat(path, {"Spikes": np.zeros((3, 5))})
    with pytest.raises(ValueError, match=r"Movie1Exp1.mat.*holds no cells"):
        v1.read_onken2016(root, frame_shape=SHAPE)
