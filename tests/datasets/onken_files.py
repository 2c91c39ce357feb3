"""Small files in the layout of Onken et al. (2016), written by SciPy."""

import numpy as np
import scipy.io

SHAPE = (12, 10)  # height and width
N_FRAMES = {1: 9, 2: 6}
FILES = {"Movie1Exp1": (1, 1), "Movie2Exp2": (1, 2), "Movie2Exp1": (2, 1), "Movie1Exp2": (2, 2)}
N_NEURONS = {1: 3, 2: 4}
N_TRIALS = {1: 5, 2: 4}  # per movie


def frames(movie):
    """Frames (n, height, width)."""
    return np.random.default_rng(movie).integers(0, 256, (N_FRAMES[movie], *SHAPE)).astype("u1")


def trains(name):
    """Times in milliseconds, (neurons, trials), some of them behind the movie."""
    movie, recording = FILES[name]
    rng = np.random.default_rng(10 * movie + recording)
    out = np.empty((N_NEURONS[recording], N_TRIALS[movie]), object)
    for place in np.ndindex(out.shape):
        out[place] = np.sort(rng.uniform(0, 1000 / 30 * (N_FRAMES[movie] + 1), rng.integers(0, 8)))
    return out


def outlines(recording):
    """A box for each cell, in pixels from 1."""
    out = np.empty((1, N_NEURONS[recording]), object)
    for cell in range(N_NEURONS[recording]):
        left, top = cell + 0.5, 2 * recording + 0.5
        out[0, cell] = np.array(
            [[left, left + 5, left + 5, left], [top, top, top + 6, top + 6]], float
        )
    return out


def write_onken(root, *, compressed=True):
    """Write the data set."""
    for movie in N_FRAMES:
        folder = root / "Stimuli" / f"Movie{movie}"
        folder.mkdir(parents=True)
        for number, frame in enumerate(frames(movie), 1):
            frame.T.tofile(folder / f"frame{number}.raw")  # MATLAB writes column by column
    for folder in ("Spikes", "ReceptiveFields"):
        (root / "NeuralData" / folder).mkdir(parents=True)
    for name, (_, recording) in FILES.items():
        held = {"Spikes": {"Spikes": trains(name)}}
        held["ReceptiveFields"] = {"ReceptiveFields": outlines(recording)}
        for folder, values in held.items():
            path = root / "NeuralData" / folder / f"{name}.mat"
            scipy.io.savemat(path, values, do_compression=compressed)
    return root
