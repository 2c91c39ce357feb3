"""Windows of Vi-ST against those of the published code, whose halves of movies are trials here.

It never begins a window at the last possible frame of a half; ours may, as the documentation tells.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from v1tlearn.training import RandomWindows
from v1tlearn.training.windows import window_starts

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "vist" / "windows.npz")
WINDOW, BATCH = int(REFERENCE["window"]), int(REFERENCE["batch"])
MOVIES = ("MOVIE01", "MOVIE03")  # of contiguous halves, and of interleaved frames
CASES = [(kind, movie) for kind in ("cross", "within") for movie in MOVIES]
each_case = pytest.mark.parametrize(("kind", "movie"), CASES)


def sequences(kind, movie):
    """Numbers of the frames of each trial: of both halves, or of that which is trained on."""
    halves = ("split_train", "split_test") if kind == "cross" else ("split_train",)
    return [REFERENCE[f"{movie}/{half}"] for half in halves]


def published_rows(lengths):
    """Which of our windows the published code has: all but the last one of each trial."""
    counts = np.array(lengths) - WINDOW + 1
    return np.setdiff1d(np.arange(counts.sum()), np.cumsum(counts) - 1)


@each_case
def test_windows_are_the_published_ones_and_the_last_of_each_trial(kind, movie):
    parts = sequences(kind, movie)
    lengths = np.array([len(part) for part in parts])
    starts = window_starts(lengths, WINDOW)
    frames = np.concatenate(parts)[starts[:, None] + np.arange(WINDOW)]
    wanted = REFERENCE[f"{kind}/{movie}/all_windows"]
    assert len(wanted) == REFERENCE[f"{kind}/{movie}/number_of_windows"]
    np.testing.assert_array_equal(frames[published_rows(lengths)], wanted)
    more = np.setdiff1d(np.arange(len(frames)), published_rows(lengths))
    np.testing.assert_array_equal(frames[more], [part[-WINDOW:] for part in parts])


@each_case
@pytest.mark.parametrize("seed", [0, 7])
def test_epochs_draw_windows_as_the_published_ones_do(kind, movie, seed):
    windows = REFERENCE[f"{kind}/{movie}/all_windows"]
    torch.manual_seed(seed)
    drawn = []
    for _ in range(2):
        torch.empty((), dtype=torch.int64).random_()  # which its data loader draws for workers
        steps = RandomWindows(len(windows) // BATCH)(
            {"A": len(windows)}, BATCH, torch.device("cpu")
        )
        drawn += [step["A"].numpy() for step in steps]
    found = windows[np.concatenate(drawn)]
    np.testing.assert_array_equal(found, REFERENCE[f"{kind}/{movie}/seed{seed}/windows"])
