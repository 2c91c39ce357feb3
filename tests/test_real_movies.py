"""Models that see time on real recordings of movies, which stay outside the repository.

The folder with `rat_retina` is named by the environment variable V1TLEARN_TEST_DATA;
`--log-cli-level=INFO` shows the scores.
"""

import logging

import numpy as np
import pytest
import scipy.io

import v1tlearn as v1

BINS = 5  # of 1.667 ms, that make a frame
FRAME_RATE = 600 / BINS
N_SEQUENCES = 16  # of 36 s each, of 50
N_LAGS = 36  # 0.3 s
FIELD_DIMS = ("neuron", "row", "column")
LN_LEVEL = (0.51, 0.82)  # published correlations of LN models with the PSTH, from cell to cell

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def movie_of(pixels):
    """Frames (n_frames, 1, 1, 31) of pixels (31, n_bins), which change every ten bins."""
    return (255 * pixels[:, ::BINS].T).astype("u1")[:, None, None]


def counts_of(spikes):
    """Spikes (n_frames, 6) of spikes (6, n_bins)."""
    return spikes.reshape(len(spikes), -1, BINS).sum(2).T.astype("f4")


@pytest.fixture(scope="module")
def bars(real_recordings):
    """Six ganglion cells under moving bars (Mahuas et al. 2020): to train on, and repeats."""
    folder = real_recordings / "rat_retina"
    names = ["stimulus", "spikes_train"]
    given = scipy.io.loadmat(folder / "nonrepeat_data_bars.mat", variable_names=names)
    chosen = np.linspace(0, 49, N_SEQUENCES).astype(int)
    train = v1.Trials.from_arrays(
        {"rat": np.stack([movie_of(given["stimulus"][:, 0, :, i]) for i in chosen])},
        None,
        {"rat": np.stack([counts_of(given["spikes_train"][:, :, i]) for i in chosen])},
        frame_rate=FRAME_RATE,
        image_ids={"rat": chosen},
    )
    held_out = scipy.io.loadmat(folder / "test_data_bars.mat")
    movie = v1.Trials.from_arrays(
        {"rat": movie_of(held_out["stimulus_test"][:, 0])[None]}, frame_rate=FRAME_RATE
    )
    repeats = np.stack([counts_of(held_out["spikes_test"][:, :, i]) for i in range(54)])
    return train, movie, repeats


def with_fields(trials):
    """The same trials with receptive fields, maps of their spike-triggered averages."""
    averages = v1.inspection.spike_triggered_average(trials, N_LAGS)["rat"]
    fields = v1.inspection.space_time_components(averages)["receptive_field"].values
    recording = trials.recordings["rat"].to_dataset()
    return v1.Trials({"rat": recording.assign(receptive_field=(FIELD_DIMS, fields))})


def parts_of_bars(frames):
    """Features of a grid of 5 x 5 patches: each column a seventh of the bar, all rows alike."""
    parts = (frames[:, 0, 0] / 127.5 - 1).unfold(1, 7, 6)  # (n, 5, 7) of 31 pixels
    return parts.repeat(1, 5, 1)


def correlations(one, other):
    """Correlation over time of each cell."""
    pairs = zip(one.T, other.T, strict=True)
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in pairs])


def test_models_of_movies_predict_rat_retina(bars):
    """Trained on other sequences; those of validation are split off from these.

    Receptive fields of Vi-ST, too, are those of the sequences to train on.
    """
    train, movie, repeats = bars
    options = {"window_frames": 128, "batch_size": 8, "random_state": 0}
    models = {
        "LN": v1.MovieLNRegressor(n_lags=N_LAGS, max_epochs=15, **options),
        "CNN": v1.MovieCNNRegressor(
            n_layers=2, hidden_channels=8, input_kernel=(1, 9), hidden_kernel=1,
            input_time_kernel=25, hidden_time_kernel=12, head="softplus", readout="factorized",
            space_init=0.3, channel_init=0.3, max_epochs=10, **options,
        ),
        "Vi-ST": v1.ViSTRegressor(
            parts_of_bars, n_layers=4, channels=16, kernels=((1, 25), (1, 13)), dropout=0.1,
            loss="poisson", max_epochs=6, warmup_epochs=1, lr=3e-3, start_lr=1e-3,
            average_from=None, weight_decay=0.01, **options,
        ),
    }  # fmt: skip
    halves = correlations(repeats[::2].mean(0), repeats[1::2].mean(0))
    found = {"half of the repeats": halves, "ceiling": np.sqrt(2 * halves / (1 + halves))}
    train = with_fields(train)
    for name, model in models.items():
        predicted = model.fit(train).predict(movie).get("rat")[0]
        found[name] = correlations(predicted, repeats.mean(0))
    table = "\n".join(
        f"{name:>20}  {'  '.join(f'{value:.3f}' for value in values)}"
        for name, values in found.items()
    )
    told = "correlation with the PSTH of each cell; published LN models: %s\n%s"
    logger.info(told, LN_LEVEL, table)
    for name in ("CNN", "Vi-ST"):
        assert (found[name] > found["LN"] + 0.02).all()
        assert found[name].min() > LN_LEVEL[0] + 0.1
        assert found[name].max() > LN_LEVEL[1]
        assert (found[name] < found["ceiling"]).all()
