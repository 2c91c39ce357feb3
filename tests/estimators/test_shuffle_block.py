"""Mice of different lengths, of images and of movies, drawn in blocks from their files."""

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.estimators import _runs

LENGTHS = {"A": 50, "B": 23}


def images():
    rng = np.random.default_rng(0)
    stimuli = {m: rng.integers(0, 256, (n, 1, 12, 16), np.uint8) for m, n in LENGTHS.items()}
    responses = {m: rng.exponential(size=(n, 4)).astype("f4") for m, n in LENGTHS.items()}
    ids = {m: np.arange(n) for m, n in LENGTHS.items()}
    return v1.Trials.from_arrays(stimuli, None, responses, image_ids=ids)


def movies():
    rng = np.random.default_rng(0)
    n_frames, n_movies = 20, {"A": 7, "B": 3}
    shape = (n_frames, 1, 12, 16)
    stimuli = {m: rng.integers(0, 256, (n, *shape), np.uint8) for m, n in n_movies.items()}
    responses = {m: rng.exponential(size=(n, n_frames, 4)) for m, n in n_movies.items()}
    ids = {m: np.arange(n) for m, n in n_movies.items()}
    return v1.Trials.from_arrays(stimuli, None, responses, image_ids=ids, frame_rate=10)


COMMON = {"random_state": 0, "max_epochs": 4, "validation_fraction": 0}


def image_model(**parameters):
    chosen = {"hidden_channels": 2, "batch_size": 6, "shuffle_block": 4} | COMMON | parameters
    return v1.LNRegressor(**chosen)


def movie_model(**parameters):
    chosen = {"n_lags": 3, "batch_size": 2, "shuffle_block": 2, "window_frames": 5}
    return v1.MovieLNRegressor(**(chosen | COMMON | parameters))


@pytest.fixture
def drawn(monkeypatch):
    """Rows per mouse of every step, of each epoch that was drawn."""
    epochs, draw = [], _runs.block_batches

    def block_batches(*args, **kwargs):
        steps = draw(*args, **kwargs)
        epochs.append([{mouse: rows.tolist() for mouse, rows in step.items()} for step in steps])
        return steps

    monkeypatch.setattr(_runs, "block_batches", block_batches)
    return epochs


def weights(model):
    return {name: value.tolist() for name, value in model.module_.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "made"), [(images, image_model), (movies, movie_model)])
def test_a_fit_from_files_that_is_interrupted_draws_on_as_before(make, made, tmp_path, drawn):
    make().to_netcdf(tmp_path / "a.nc")
    trials = v1.Trials.open(tmp_path / "a.nc")
    kept = weights(made(low_memory=False).fit(make()))
    whole = list(drawn)
    assert len(whole) == 4
    drawn.clear()
    folder = tmp_path / "checkpoints"
    stopped = made(low_memory=True)
    stopped.fit(trials, checkpoint_dir=folder, on_epoch=lambda record: record["epoch"] == 2)
    n_before = len(drawn)
    going_on = made(low_memory=True).fit(trials, checkpoint_dir=folder)
    assert n_before < len(drawn)
    assert drawn == whole  # the same order, from the same seed, wherever trials lie
    assert weights(going_on) == kept
    assert weights(made(low_memory=True, random_state=1).fit(trials)) != kept


def test_each_mouse_goes_through_its_own_trials_before_one_comes_again(drawn):
    image_model(max_epochs=2).fit(images())
    for steps in drawn:
        assert len(steps) == -(-max(LENGTHS.values()) // 6)
        for mouse, n in LENGTHS.items():
            rows = [row for step in steps for row in step[mouse]]
            for start in range(0, len(rows) - n + 1, n):
                assert sorted(rows[start : start + n]) == list(range(n))
