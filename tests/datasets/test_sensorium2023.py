"""Movies in the layout of Sensorium 2023."""

import pickle
import warnings

import numpy as np
import pytest

import v1tlearn as v1
from tests.datasets.sensorium2023_files import (
    LONGEST,
    N_FRAMES,
    N_NEURONS,
    NAME,
    TIERS,
    write_movies,
)
from tests.datasets.sensorium_files import pack, save

pytestmark = pytest.mark.filterwarnings("ignore:read_sensorium2023 left out")

KEPT = np.flatnonzero(TIERS != "none")


@pytest.fixture
def mouse(tmp_path):
    return tmp_path / NAME


def check(recording, data):
    """Compare with what the files hold."""
    for row, trial in enumerate(KEPT):
        n = N_FRAMES[trial]
        shown = recording["stimuli"].values[row, :n, 0]
        np.testing.assert_array_equal(shown, np.moveaxis(data["videos"][trial], -1, 0)[:n])
        responses = recording["responses"].values[row]
        if TIERS[trial] == "live_main":
            assert np.isnan(responses).all()
        else:
            np.testing.assert_array_equal(
                responses[:n], data["responses"][trial].T[:n].astype("f4")
            )
        assert np.isnan(responses[n:]).all()
        if "behavior" in data:
            both = np.concatenate([data["behavior"][trial], data["pupil_center"][trial]])
            np.testing.assert_array_equal(
                recording["behaviors"].values[row, :n], both.T[:n].astype("f4")
            )


def test_a_folder_is_read_into_the_schema(mouse):
    data = write_movies(mouse)
    recordings = v1.read_sensorium2023(mouse)
    v1.validate_recordings(recordings)
    assert list(recordings.children) == ["29156-11-10"]
    recording = recordings["29156-11-10"]
    assert recording["stimuli"].dims == ("trial", "time", "channel", "height", "width")
    assert recording["n_frames"].values.tolist() == N_FRAMES[KEPT].tolist()
    assert recording.sizes["time"] == LONGEST
    assert recording["time"].values[1] == pytest.approx(1 / 30)
    columns = ["pupil_dilation", "running_speed", "pupil_x", "pupil_y"]
    assert recording["behavior"].values.tolist() == columns
    tiers = ["train", "train", "validation", "test", "train", "final_test"]
    assert recording["tier"].values.tolist() == tiers
    assert recording["trial_tier"].values.tolist() == TIERS[KEPT].tolist()
    assert recording["position"].shape == (N_NEURONS, 3)
    np.testing.assert_array_equal(recording["behaviors_std"].values, [1.5] * 4)
    check(recording, data)


def test_a_zip_reads_like_its_folder(mouse, tmp_path):
    write_movies(mouse)
    folder = v1.read_sensorium2023(mouse).load()
    other = tmp_path / "zips"
    other.mkdir()
    packed = pack(mouse, other / f"{NAME}.zip", top=NAME)
    assert v1.read_sensorium2023(packed).load().identical(folder)
    assert v1.read_sensorium2023(other).load().identical(folder)


def test_a_cache_gives_the_same_and_is_read_from_the_second_time_on(mouse, tmp_path):
    write_movies(mouse)
    plain = v1.read_sensorium2023(mouse).load()
    cache = tmp_path / "cache"
    for _ in range(2):
        cached = v1.read_sensorium2023(mouse, cache=cache)
        for name in ("stimuli", "behaviors", "responses"):
            one, other = cached["29156-11-10"][name], plain["29156-11-10"][name]
            for row, n in enumerate(N_FRAMES[KEPT]):
                np.testing.assert_array_equal(one.values[row, :n], other.values[row, :n])
        assert cached["29156-11-10"]["n_frames"].identical(plain["29156-11-10"]["n_frames"])
        v1.validate_recordings(cached)
        cached.close()
    assert len(list(cache.glob("*.nc"))) == 1


def test_videos_of_uint8_stay_so_and_need_no_padding(mouse):
    data = write_movies(mouse, dtype="u1", padded=False)
    recording = v1.read_sensorium2023(mouse)["29156-11-10"]
    assert recording["stimuli"].dtype == np.uint8
    check(recording, data)


def test_without_behaviour_responses_tell_where_trials_end(mouse):
    data = write_movies(mouse, behavior=False)
    recording = v1.read_sensorium2023(mouse)["29156-11-10"]
    assert "behaviors" not in recording
    assert recording["n_frames"].values.tolist() == N_FRAMES[KEPT].tolist()
    check(recording, data)


def test_any_part_is_that_of_the_whole_and_pickles(mouse):
    write_movies(mouse)
    lazy = v1.read_sensorium2023(mouse)["29156-11-10"].to_dataset()
    whole = lazy.copy(deep=True).load()
    for key in [
        {"trial": 2, "time": slice(3, 8, 2)},
        {"trial": [4, 0]},
        {"trial": slice(1, 1)},
        {"time": -1},
    ]:
        for name in ("stimuli", "behaviors", "responses"):
            np.testing.assert_array_equal(lazy[name].isel(key).values, whole[name].isel(key).values)
    neurons = lazy["responses"].isel(neuron=[2, 1], trial=1)
    np.testing.assert_array_equal(neurons.values, whole["responses"].values[1][:, [2, 1]])
    assert pickle.loads(pickle.dumps(lazy)).identical(lazy)


def test_trials_group_movies_that_are_the_same(mouse):
    data = write_movies(mouse)
    save(mouse, "data/videos/1", data["videos"][4][..., : N_FRAMES[4]])
    for folder in ("responses", "behavior", "pupil_center"):
        save(mouse, f"data/{folder}/1", data[folder][4][..., : N_FRAMES[4]])
    ids = v1.Trials(v1.read_sensorium2023(mouse)).image_ids
    assert ids[1] == ids[4]
    assert len(set(ids)) == len(KEPT) - 1


def test_what_is_left_out_is_told_and_tiers_of_the_release_are_not(mouse):
    write_movies(mouse)
    with pytest.warns(UserWarning, match="the 1 trials of tier 'none'") as told:
        v1.read_sensorium2023(mouse)
    assert len(told) == 1
    assert "oracle" not in str(told[0].message)
    save(mouse, "meta/trials/tiers", np.where(TIERS == "none", "train", TIERS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        v1.read_sensorium2023(mouse)


def test_each_reader_names_the_other_one(mouse, tmp_path):
    write_movies(mouse)
    with pytest.raises(ValueError, match=r"movies .*, but read_sensorium2023 does"):
        v1.read_sensorium(mouse)
    images = tmp_path / "static"
    save(images, "data/images/0", np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match=r"images .*, but read_sensorium does"):
        v1.read_sensorium2023(images)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("behavior/0", np.zeros((4, LONGEST)), r"expected \(2, time\)"),
        ("pupil_center/0", np.zeros(2), r"expected \(2, time\), pupil_x"),
        ("responses/0", np.zeros(LONGEST), r"expected \(neurons, time\)"),
        ("videos/0", np.zeros((1, 6, 8, LONGEST)), r"expected \(height, width, time\)"),
        ("behavior/1", np.full((2, LONGEST), np.nan), None),
        ("behavior/2", np.zeros((3, LONGEST)), r"expected \(2, 'time'\) as in 0.npy"),
    ],
)
def test_files_of_other_shapes_are_named(mouse, name, values, message):
    write_movies(mouse)
    save(mouse, f"data/{name}", values)
    if message is None:  # the pupil's centre still tells where the trial ends
        with pytest.raises(ValueError, match=r"behavior/1.npy: nan in frame 0 of 9"):
            v1.read_sensorium2023(mouse).load()
        return
    with pytest.raises(ValueError, match=message):
        v1.read_sensorium2023(mouse)


@pytest.mark.parametrize(
    ("frame", "value", "message"),
    [
        (3, np.nan, "1.npy: nan in frame 3 of 9"),
        (3, np.inf, "1.npy: inf in frame 3 of 9"),
        (10, 1.0, "numbers in frame 10, though the trial ends after 9"),
    ],
)
def test_videos_that_end_elsewhere_or_hold_gaps_are_refused_when_read(mouse, frame, value, message):
    data = write_movies(mouse)
    data["videos"][1][2, 3, frame] = value
    save(mouse, "data/videos/1", data["videos"][1])
    recording = v1.read_sensorium2023(mouse)["29156-11-10"]
    with pytest.raises(ValueError, match=message):
        recording["stimuli"].load()


def test_missing_trials_and_folders_are_named(mouse):
    write_movies(mouse)
    (mouse / "data" / "behavior" / "6.npy").unlink()
    with pytest.raises(ValueError, match="7 files in data/videos but 6 in data/behavior"):
        v1.read_sensorium2023(mouse)
    for trial in range(len(TIERS)):
        (mouse / "data" / "responses" / f"{trial}.npy").unlink()
    with pytest.raises(ValueError, match="data/responses is missing or empty"):
        v1.read_sensorium2023(mouse)


@pytest.mark.parametrize("trial", [0, 2])
def test_a_trial_without_frames_in_one_file_is_named(mouse, trial):
    write_movies(mouse)
    np.save(mouse / f"data/pupil_center/{trial}.npy", np.zeros((2, 0)))
    with pytest.raises(ValueError, match=rf"pupil_center/{trial}\.npy"):
        v1.read_sensorium2023(mouse).load()
