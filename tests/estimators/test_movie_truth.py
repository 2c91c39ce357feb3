"""What simulated cells do in time is found by models that see time, and by no others.

`--log-cli-level=INFO` shows the scores.
"""

import logging

import numpy as np
import pytest

import v1tlearn as v1

logger = logging.getLogger(__name__)
LN = {"n_lags": 12, "max_epochs": 40, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_movie_recordings(
            1, 8, 36, 3, 6, n_frames=90, image_shape=(10, 14), behavior=False, random_state=0
        )
    )


def fit(model, trials):
    return model.fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))


@pytest.fixture(scope="module")
def fitted(trials):
    return fit(v1.MovieLNRegressor(**LN), trials)


def average(model, trials):
    """Correlation with the average over repeats."""
    test = trials.sel(tier="test")
    return v1.metrics.average_correlation(test.responses, model.predict(test))


def in_another_order(trials):
    """The same frames with the same responses, whose order tells nothing."""
    rng = np.random.default_rng(0)
    mice = {}
    for mouse, one in trials.recordings.items():
        dataset = one.to_dataset()
        orders = {}
        for image in np.unique(dataset["image_id"]):
            orders[image] = rng.permutation(dataset.sizes["time"])
        changed = {}
        for name in ("stimuli", "responses", "expected_responses"):
            values = dataset[name].values.copy()
            for trial, image in enumerate(dataset["image_id"].values):
                values[trial] = values[trial][orders[image]]
            changed[name] = (dataset[name].dims, values)
        mice[mouse] = dataset.assign(changed)
    return v1.Trials(mice)


@pytest.mark.slow
def test_filters_and_latencies_of_simulated_cells_are_recovered(trials, fitted):
    recording, found = trials.recordings["A"], fitted.kernels("A")[:, :, 0]
    in_time = recording["temporal_filter"].values[:, : LN["n_lags"]]
    fields = recording["receptive_field"].values
    true = np.einsum("nl,nhw->nlhw", in_time, fields)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(found, true, strict=True)]
    logger.info("correlation of kernels with the true ones: %s", np.round(alike, 2))
    assert np.median(alike) > 0.85
    assert min(alike) > 0.75
    peaks = np.einsum("nlhw,nhw->nl", found, fields).argmax(1)
    logger.info("latencies in frames: %s, true: %s", peaks, in_time.argmax(1))
    assert np.abs(peaks - in_time.argmax(1)).max() <= 1


@pytest.mark.slow
def test_time_adds_what_a_shuffled_order_takes_away(trials, fitted):
    frames = fit(v1.MovieLNRegressor(**(LN | {"n_lags": 1})), trials)
    shuffled = in_another_order(trials)
    control = fit(v1.MovieLNRegressor(**LN), shuffled)
    with_time, without, lost = (
        average(fitted, trials),
        average(frames, trials),
        average(control, shuffled),
    )
    told = (with_time, without, lost)
    logger.info("with time %.3f, frame by frame %.3f, shuffled %.3f", *told)
    assert with_time > without + 0.3
    assert lost < without + 0.1


@pytest.mark.slow
def test_networks_that_see_time_beat_those_of_frames(trials):
    """Convolutions, with and without a memory, and V1T with a filter in time behind it."""
    small = {"random_state": 0, "device": "cpu", "behavior_mode": "none"}
    layers = small | {"n_layers": 2, "hidden_channels": 8, "input_kernel": 5, "hidden_kernel": 3}
    vit = small | {"n_blocks": 1, "n_heads": 2, "embed_dim": 16, "mlp_dim": 32, "patch_size": 4}
    vit |= {"patch_stride": 2, "lr": 0.005, "core_l1": 0.0}
    of_time = {"max_epochs": 20, "batch_size": 4, "lr": 0.01}
    models = {
        "CNN, frame by frame": v1.CNNRegressor(**layers, max_epochs=10),
        "CNN": v1.MovieCNNRegressor(**layers, **of_time),
        "recurrent CNN": v1.MovieCNNRegressor(
            **layers, **of_time, recurrent=True, input_time_kernel=5, hidden_time_kernel=1
        ),
        "V1T, frame by frame": v1.V1TRegressor(**vit, max_epochs=10, batch_size=128),
        "V1T with a filter": v1.V1TRegressor(**vit, max_epochs=20, batch_size=4, readout_lags=12),
    }
    scores = {name: average(fit(model, trials), trials) for name, model in models.items()}
    for name, score in scores.items():
        logger.info("%s: %.3f", name, score)
    assert scores["CNN"] > scores["CNN, frame by frame"] + 0.3
    assert scores["recurrent CNN"] > scores["CNN, frame by frame"] + 0.2
    assert scores["V1T with a filter"] > scores["V1T, frame by frame"] + 0.2


def direction_preferred(model, frequency):
    """Vectors of the responses of each cell to gratings that drift in eight directions."""
    y, x = np.mgrid[:10, :14]
    turns = frequency * np.arange(60)[:, None, None] / 30
    angles = np.arange(8) * np.pi / 4
    rates = 0.0
    for period in (4, 5, 6):  # pixels
        gratings = [
            127.5 + 100 * np.cos(2 * np.pi * ((np.cos(a) * x + np.sin(a) * y) / period - turns))
            for a in angles
        ]
        movies = np.stack(gratings).astype("u1")[:, :, None]
        rates = rates + model.predict({"A": movies})["A"][:, 20:].mean(1)
    return (rates * np.exp(1j * angles)[:, None]).sum(0) / rates.sum(0)


@pytest.mark.slow
def test_the_direction_that_motion_cells_prefer_is_found():
    trials = v1.Trials(
        v1.make_movie_recordings(
            1, 8, 50, 3, 6, image_shape=(10, 14), behavior=False, cells="motion", random_state=0
        )
    )
    recording = trials.recordings["A"]
    frequency = float(recording["preferred_frequency"].median())
    layers = {"n_layers": 2, "hidden_channels": 12, "input_kernel": 7, "hidden_kernel": 1}
    layers |= {"random_state": 0, "device": "cpu"}
    with_time = v1.MovieCNNRegressor(
        **layers, input_time_kernel=9, max_epochs=25, lr=0.01, batch_size=4
    )
    models = {"with time": with_time, "frames": v1.CNNRegressor(**layers, max_epochs=8)}
    scores, found = {}, {}
    for name, model in models.items():
        scores[name] = average(fit(model, trials), trials)
        found[name] = direction_preferred(model, frequency)
    turned = found["with time"] * np.exp(-1j * recording["preferred_direction"].values)
    errors = np.degrees(np.abs(np.angle(turned)))
    logger.info("correlation %s; errors in degrees %s", scores, errors.round())
    logger.info("selectivity %s", {name: np.abs(v).round(2) for name, v in found.items()})
    assert np.median(errors) < 20
    assert (errors < 45).sum() >= 6  # of 8; by chance one in four
    assert np.median(np.abs(found["with time"])) > 0.1
    assert np.abs(found["frames"]).max() < 0.02  # frames of gratings have no direction
    assert scores["with time"] > scores["frames"] + 0.2
