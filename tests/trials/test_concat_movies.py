"""Joining sessions whose longest movies are of different lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1

RATE = 10.0


def session(lengths, seed=0, dtype="u1", rate=RATE):
    """Movies of one mouse, behaviour and responses, as another file would hold them."""
    rng = np.random.default_rng(seed)
    stimuli = [rng.integers(1, 256, (k, 1, 4, 6)).astype(dtype) for k in lengths]
    behaviors = [rng.random((k, 3)) for k in lengths]
    responses = [rng.random((k, 2)).astype("f4") for k in lengths]
    return v1.Trials.from_arrays(
        {"A": stimuli}, {"A": behaviors}, {"A": responses}, frame_rate=rate,
        image_ids={"A": [f"{seed}-{n}" for n in range(len(lengths))]},
    )  # fmt: skip


def check_ends(values, n_frames, dtype):
    for trial, n in zip(values, n_frames, strict=True):
        rest = trial[n:]
        assert (np.isnan(rest) if np.dtype(dtype).kind == "f" else rest == 0).all()
        assert np.isfinite(trial[:n]).all()


@given(
    lengths=st.lists(
        st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=2, max_size=3
    ),
    dtype=st.sampled_from(["u1", "f4"]),
)  # fmt: skip
def test_each_movie_keeps_its_frames_and_ends_there(lengths, dtype):
    parts = [session(own, seed, dtype) for seed, own in enumerate(lengths)]
    joined = v1.concat(parts)
    every = [n for own in lengths for n in own]
    assert joined.n_frames.tolist() == every
    assert joined.frame_rate("A") == (None if max(every) < 2 else pytest.approx(RATE))
    for name in ("stimuli", "behaviors", "responses"):
        values = joined.get(name, "A")
        assert values.shape[1] == max(every)
        assert values.dtype == parts[0].get(name, "A").dtype
        given = [trial for part in parts for trial in part.get(name, "A")]
        for found, wanted, n in zip(values, given, every, strict=True):
            np.testing.assert_array_equal(found[:n], wanted[:n])
    check_ends(joined.get("stimuli", "A"), [max(own) for own in lengths for _ in own], dtype)
    check_ends(joined.get("responses", "A"), every, "f4")
    v1.validate_recordings(joined.recordings)
    answers = v1.concat([part.responses for part in parts])
    assert answers.n_frames.tolist() == every
    np.testing.assert_array_equal(answers.get("A"), joined.get("responses", "A"))
    np.testing.assert_array_equal(answers["A"]["time"], joined.responses["A"]["time"])


def test_movies_of_files_stay_there_and_are_read_in_part(tmp_path):
    parts = [session([5, 3], 0), session([9, 2, 4], 1)]
    for number, part in enumerate(parts):
        part.to_netcdf(tmp_path / f"{number}.nc")
    joined = v1.concat([v1.open_recordings(tmp_path / f"{n}.nc") for n in range(2)])
    expected = v1.concat(parts).recordings["A"]
    keys = [slice(None), slice(6, 9), slice(1, 7, 2), [0, 8, 5, 5], slice(None, None, -3), 6, 2]
    for name in ("stimuli", "responses"):
        assert not joined["A"][name].variable._in_memory
        for frames in keys:
            for rows in (slice(None), [4, 0, 2], 1):
                key = {"trial": rows, "time": frames}
                np.testing.assert_array_equal(
                    joined["A"][name].isel(key), expected[name].isel(key)
                )  # fmt: skip
    last = joined["A"]["stimuli"].isel(time=6, width=2, trial=[3, 0])
    np.testing.assert_array_equal(last, expected["stimuli"].isel(time=6, width=2, trial=[3, 0]))
    v1.save_recordings(joined, tmp_path / "both.nc")
    again = v1.Trials.open(tmp_path / "both.nc")
    assert again.n_frames.tolist() == [5, 3, 9, 2, 4]
    np.testing.assert_array_equal(again.get("responses", "A"), expected["responses"])


def test_models_learn_from_sessions_of_different_lengths():
    parts = [session([20, 16], 0), session([30, 24], 1)]
    model = v1.MovieLNRegressor(
        n_lags=3, window_frames=8, max_epochs=1, validation_fraction=0, device="cpu",
        random_state=0,
    )  # fmt: skip
    joined = v1.concat(parts)
    predictions = model.fit(joined).predict(joined).get("A")
    assert np.isfinite(predictions[2]).all()
    check_ends(predictions, joined.n_frames, "f4")
    for place, part in ((0, parts[0]), (2, parts[1])):
        alone = model.predict(part).get("A")
        np.testing.assert_allclose(
            predictions[place : place + 2, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5
        )


def test_whole_numbers_of_responses_do_not_end_in_nan():
    recordings = [session(own).recordings for own in ([5, 5], [3, 3])]
    for tree in recordings:
        tree["A"]["responses"] = tree["A"]["responses"].astype("i2")
    with pytest.raises(ValueError, match=r"mouse 'A', responses: movies of up to 3 .* int16 has"):
        v1.concat(recordings)
    both = v1.concat([recordings[0], recordings[0].copy(deep=True)])
    assert both["A"]["responses"].dtype == np.int16


@pytest.mark.parametrize("lengths", [[5, 5], [4, 3]])
def test_frames_are_of_one_rate(lengths):
    slow = session(lengths, rate=RATE / 2)
    with pytest.raises(ValueError, match=r"mouse 'A', time: part 0 and part 1 .*times of frames"):
        v1.concat([session([5, 4]), slow])
    with pytest.raises(ValueError, match="units 's' and 'frame'"):
        v1.concat([session([5, 4]), session(lengths, rate=None)])
