"""Splits within movies: what each side holds, and that no frame is on both."""

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.model_selection import split_in_time
from v1tlearn.trials.folding import fold_time, unfold_time


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_movie_recordings(2, [3, 4], 4, 2, 3, n_frames=(30, 40), random_state=0)
    )


def sides(n, test_size, gap, n_blocks):
    """Frames of either side, by loops."""
    borders = [round(n * block / n_blocks) for block in range(n_blocks + 1)]
    train, test = [], []
    for block in range(n_blocks):
        start = borders[block] + (gap if block else 0)
        cut = borders[block + 1] - round(test_size * (borders[block + 1] - start))
        train.append(range(start, cut - gap))
        test.append(range(cut, borders[block + 1]))
    return train, test


@pytest.mark.parametrize(("gap", "n_blocks"), [(0, 1), (4, 1), (2, 2)])
def test_both_sides_are_whole_and_leave_the_gap_out(trials, gap, n_blocks):
    both = split_in_time(trials, 0.4, gap=gap, n_blocks=n_blocks)
    for side, view in enumerate(both):
        v1.validate_recordings(view.recordings)
        assert len(view) == n_blocks * len(trials)
        for mouse in trials.mice:
            whole = trials[trials.rows(mouse)[0]]
            own = view[view.rows(mouse)[0]]
            for trial, count in enumerate(whole.n_frames):
                for block, frames in enumerate(sides(count, 0.4, gap, n_blocks)[side]):
                    part = trial * n_blocks + block
                    assert own.n_frames[part] == len(frames)
                    for name in ("stimuli", "behaviors", "responses"):
                        found = own.get(name, mouse)[part]
                        wanted = whole.get(name, mouse)[trial, frames.start : frames.stop]
                        np.testing.assert_array_equal(found[: len(frames)], wanted)
                    assert np.isnan(own.get("responses", mouse)[part, len(frames) :]).all()
                    assert own.image_ids[part] == (
                        f"{whole.image_ids[trial]}[{frames.start}:{frames.stop}]"
                    )


def test_time_begins_anew_and_first_frame_tells_where_it_did(trials):
    _, test = split_in_time(trials, 0.5)
    one = test["A"]
    assert one["time"].values[0] == 0
    assert test.frame_rate("A") == pytest.approx(30)
    counts = trials["A"]["n_frames"].values
    np.testing.assert_array_equal(one["first_frame"] + one["n_frames"], counts)
    again = split_in_time(test, 0.5)[1]["A"]
    np.testing.assert_array_equal(again["first_frame"] + again["n_frames"], counts)
    assert (again["first_frame"] > one["first_frame"].values).all()


def test_repeats_are_cut_alike_though_one_ended_early():
    tree = v1.make_movie_recordings(1, 2, 2, 1, 2, n_frames=20, random_state=0)
    one = tree["A"].to_dataset()
    short = int(np.flatnonzero(one["tier"].values == "test")[0])
    counts = one["n_frames"].values.copy()
    counts[short] = 12
    there = (np.arange(20) < counts[:, None])[..., None]
    one = one.assign_coords(n_frames=("trial", counts)).assign(
        responses=(one["responses"].dims, np.where(there, one["responses"], np.nan)),
        expected_responses=(
            one["responses"].dims,
            np.where(there, one["expected_responses"], np.nan),
        ),
    )
    trials = v1.Trials({"A": one}).sel(tier="test")
    train, test = split_in_time(trials, 0.5)
    assert sorted(train.n_frames) == [10, 10]
    assert sorted(test.n_frames) == [2, 10]
    movie = trials.image_ids[0]
    assert set(test.image_ids) == {f"{movie}[10:20]"}  # still repeats of one stimulus
    assert test.responses.mean("image_id").n_frames.tolist() == [10]


def test_parts_are_read_from_files_when_they_are_used(trials, tmp_path):
    trials.to_netcdf(tmp_path / "movies.nc")
    stored = v1.Trials.open(tmp_path / "movies.nc")
    for one, other in zip(split_in_time(stored, 0.3), split_in_time(trials, 0.3), strict=True):
        assert not one._recordings["A"].variables["stimuli"]._in_memory
        np.testing.assert_array_equal(one.get("stimuli", "B"), other.get("stimuli", "B"))
        np.testing.assert_array_equal(
            one["B"]["stimuli"][1:3, 4].values, other.get("stimuli", "B")[1:3, 4]
        )


def test_cut_movies_are_fitted_and_scored_without_a_word_of_leaks(trials, recwarn):
    train, test = split_in_time(trials.sel(tier="train"), 0.3, gap=2)
    model = v1.CNNRegressor(
        hidden_channels=2, n_layers=1, max_epochs=1, random_state=0, device="cpu"
    ).fit(train)
    assert np.isfinite(model.score(test))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_size": 1.0}, "test_size is 1.0, expected between 0 and 1"),
        ({"gap": -1}, "gap is -1, expected a whole number from 0"),
        ({"n_blocks": 0}, "n_blocks is 0, expected a whole number from 1"),
        ({"test_size": 0.01}, "frames is too short to be split"),
        ({"gap": 40}, "frames is too short to be split into 1 blocks .* gap of 40 frames"),
    ],
)
def test_splits_that_leave_nothing_are_refused(trials, arguments, message):
    with pytest.raises(ValueError, match=message):
        split_in_time(trials, **arguments)


def test_a_view_of_movies_without_trials_has_no_frames_and_is_not_split(trials):
    assert trials[:0].n_frames.tolist() == []
    assert trials[:0].n_frames.dtype == trials.n_frames.dtype
    with pytest.raises(ValueError, match="there are no trials to split"):
        split_in_time(trials[:0])


def test_images_are_not_cut():
    with pytest.raises(ValueError, match="the trials are images"):
        split_in_time(v1.Trials.from_arrays(np.zeros((4, 1, 5, 5), "u1")))


def test_split_by_movie_keeps_repeats_on_one_side(trials):
    train, test = v1.model_selection.image_train_test_split(trials, 0.4, random_state=0)
    assert not set(train.image_ids) & set(test.image_ids)
    assert len(train) + len(test) == len(trials)


def test_folded_and_unfolded_responses_are_the_same(trials):
    view = trials[[5, 17, 2, 19]]
    frames = fold_time(view.responses)
    assert len(frames) == view.n_frames.sum()
    values = {mouse: frames.get(mouse) for mouse in frames.mice}
    for mouse, matrix in unfold_time(values, like=view).items():
        np.testing.assert_array_equal(matrix, view.get("responses", mouse))


def test_folding_leaves_images_as_they_are():
    images = v1.Trials.from_arrays(np.zeros((4, 1, 5, 5), "u1"))
    assert fold_time(images) is images
