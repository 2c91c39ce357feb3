"""Models, trials and labelled data for calls of analyses: made once each, not to be changed."""

import functools

import numpy as np
import xarray as xr

import v1tlearn as v1
from tests.mice import two_mice
from v1tlearn import inspection

COMMON = {"max_epochs": 1, "batch_size": 16, "random_state": 0, "device": "cpu"}
CNN = {**COMMON, "n_layers": 2, "hidden_channels": 2, "input_kernel": 3, "hidden_kernel": 3}
VIT = {**COMMON, "patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 1}
VIT |= {"embed_dim": 4, "mlp_dim": 4}
ALIGNER = {**COMMON, "map_size": (3, 4), "map_channels": 2, "hidden_channels": 2, "n_layers": 2}
ALIGNER |= {"input_kernel": 3, "hidden_units": (6,), "neural_channels": 2, "embed_dim": 4}
ALIGNER |= {"n_heads": 1}


@functools.cache
def recordings(part="all"):
    """Mice A (4 neurons) and B (3) with behaviour; 5 test images shown 3 times."""
    if part == "movies":
        return v1.make_movie_recordings(
            1, 2, 3, 1, 2, n_frames=12, image_shape=(8, 8), random_state=0
        )
    return two_mice(n_neurons=[4, 3], n_trials=20, n_test_images=5, n_repeats=3)


@functools.cache
def trials(part):
    """Of the training, the test, or of movies."""
    if part == "movies":
        return v1.Trials(recordings("movies")).sel(tier="train")
    return v1.Trials(recordings()).sel(tier=part)


@functools.cache
def model(name):
    """A model of `MODELS`, fitted to the training."""
    return MODELS[name]().fit(trials("movies" if name == "movie" else "train"))


MODELS = {
    "cnn": lambda: v1.CNNRegressor(**CNN, shift="both"),
    "blind": lambda: v1.LNRegressor(**{**CNN, "n_layers": 1}, behavior_mode="none", shift="none"),
    "v1t": lambda: v1.V1TRegressor(**VIT),
    "full": lambda: v1.FullModelRegressor(
        **COMMON, channels=(2, 2), kernels=(3, 3), space_init=0.3
    ),
    "aligner": lambda: v1.DINAAligner(**ALIGNER),
    "attentive": lambda: v1.DINAAligner(**ALIGNER, neural_tower="attention"),
    "ridge": lambda: v1.RidgeDecoder(30.0),
    "movie": lambda: v1.MovieLNRegressor(**COMMON, window_frames=8, n_lags=3),
}


@functools.cache
def labelled(name):
    """Arrays and datasets of xarray that analyses give to others."""
    return LABELLED[name]()


def _properties():
    values = {
        "preferred_orientation": [0.0, 40, 100, 10],
        "preferred_spatial_frequency": [0.1, 0.15, 0.2, 0.1],
        "preferred_diameter": [4.0, 5, 6, 5],
    }
    ids = trials("test").neuron_ids("A")
    return xr.Dataset({name: ("neuron", own) for name, own in values.items()}, {"neuron": ids})


def _centers():
    ids = trials("test").neuron_ids("A")
    values = {"center_x": ("neuron", [4.0, 8, 9, 7]), "center_y": ("neuron", [5.0, 6, 7, 6])}
    return xr.Dataset(values, {"neuron": ids})


def _noise(*shape, dims, **coords):
    return xr.DataArray(np.random.default_rng(0).normal(size=shape), dims=dims, coords=coords)


LABELLED = {
    "fields": lambda: inspection.receptive_fields(model("blind"), method="gradient")["A"],
    "maps": lambda: inspection.attention_rollout(model("v1t"), trials("test"))["A"],
    "averages": lambda: inspection.spike_triggered_average(trials("movies"), n_lags=3)["A"],
    "places": lambda: inspection.readout_positions(model("blind"))["A"],
    "centers": _centers,
    "properties": _properties,
    "stimuli": lambda: inspection.gratings(
        (12, 16), orientation=(0, 90), phase=(0, 90), spatial_frequency=0.1
    ),
    "curves": lambda: inspection.tuning_curves(
        model("blind"),
        inspection.gratings((12, 16), orientation=(0, 45, 90, 135), phase=(0, 90, 180, 270),
                            spatial_frequency=(0.1, 0.2)),
    )["A"],
    "blank": lambda: inspection.tuning_curves(
        model("blind"), np.full((1, 1, 12, 16), 127.5, "f4")
    )["A"][:, 0],
    "curve": lambda: inspection.manipulation_curve(
        model("aligner"), trials("test"), n_bootstrap=5, n_permutations=3, random_state=0
    ),
    "table": lambda: v1.score_table(model("blind"), trials("test"), n_bootstrap=0),
    "decoded": lambda: model("ridge").predict(trials("test")),
    "responses": lambda: model("blind").predict(trials("test")),
    "rf_maps": lambda: _noise(4, 6, 8, dims=("neuron", "row", "column"),
                              neuron=trials("test").neuron_ids("A")),
    "rf_maps_b": lambda: _noise(3, 6, 8, dims=("neuron", "row", "column"),
                                neuron=trials("test").neuron_ids("B")),
}  # fmt: skip
