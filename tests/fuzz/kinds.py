"""Kinds of models for sequences of calls, each as small as it can be, and the data they are given.

An answer is one array per trial, whatever the method that gives it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import uniform
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.fuzz.arguments import tiny
from tests.fuzz.parameters import small
from v1tlearn.search import HyperbandSearch

TRAINING = {"max_epochs": 2, "random_state": 0, "device": "cpu", "batch_size": 8}
DATA = ("A", "AB")  # whose trials are trained on and asked for
WRONG = ("NaN", "infinite", "silent", "other size", "unknown mouse")


@functools.cache
def images(name):
    """Trials of images: of some mice, or of both with something wrong; not to be changed."""
    rng = np.random.default_rng(0)
    n, sizes = 16, {"A": 3, "B": 2}
    stimuli = {m: rng.integers(0, 256, (n, 1, 8, 9)).astype("f4") for m in sizes}
    responses = {m: rng.gamma(1.0, 1.0, (n, k)).astype("f4") for m, k in sizes.items()}
    behaviors = {m: rng.random((n, 3), dtype="f4") for m in sizes}
    ids = {m: [f"{m}{i}" for i in range(n)] for m in sizes}
    return _trials(name, stimuli, behaviors, responses, image_ids=ids)


@functools.cache
def movies(name):
    """The same of movies."""
    rng = np.random.default_rng(0)
    n, sizes = 5, {"A": 3, "B": 2}
    stimuli = {m: rng.integers(0, 256, (n, 44, 1, 8, 8)).astype("f4") for m in sizes}
    responses = {m: rng.gamma(1.0, 1.0, (n, 44, k)).astype("f4") for m, k in sizes.items()}
    return _trials(name, stimuli, None, responses, frame_rate=30.0)


def _trials(name, stimuli, behaviors, responses, **labels):
    given = [stimuli, responses] if behaviors is None else [stimuli, behaviors, responses]
    given += [v for v in labels.values() if isinstance(v, dict)]
    if name == "NaN":
        stimuli["B"][0, ..., 2] = np.nan
    elif name == "infinite":
        responses["B"][1, ..., 0] = np.inf
    elif name == "silent":
        responses["B"][:] = 0
    elif name == "other size":
        stimuli.update({m: a[..., :-1] for m, a in stimuli.items()})
    elif name == "unknown mouse":
        for by_mouse in given:
            by_mouse["C"] = by_mouse.pop("B")
    else:
        for by_mouse in given:
            for mouse in set(by_mouse) - set(name):
                del by_mouse[mouse]
    return v1.Trials.from_arrays(stimuli, behaviors, responses, **labels)


def _predicted(model, trials):
    return list(np.asarray(model.predict(trials)))


def _maps(model, trials):
    images = np.asarray(model.transform_images(trials))
    return list(np.concatenate([images, np.asarray(model.transform_responses(trials))], axis=1))


def _images(model, trials):
    return list(np.asarray(model.predict(trials)))


@dataclass(frozen=True)
class Kind:
    """How a model is made, asked and changed.

    Attributes
    ----------
    make : callable
    trials : callable
        Of the name of some data.
    answer : callable
        Of a fitted model and trials: one array per trial.
    settings, bad : list of dict
        Parameters that may be changed between calls, and those that `fit` refuses.
    refused : tuple of str
        Data that `fit` refuses, and then leaves the model as it was.
    unanswered : tuple of str
        Data that a model of both mice has no answer to.
    """

    make: Callable[[], Any]
    trials: Callable[[str], Any] = images
    answer: Callable[[Any, Any], list[np.ndarray]] = _predicted
    settings: list[dict[str, Any]] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    refused: tuple[str, ...] = ("NaN", "infinite", "silent")
    unanswered: tuple[str, ...] = ("NaN", "other size", "unknown mouse")


SETTINGS = [{"lr": 0.01}, {"max_epochs": 1}, {"max_epochs": 0}, {"random_state": 3}]
SETTINGS += [{"warm_start": True}, {"warm_start": False}, {"batch_size": 3}]
BAD = [{"lr": -1.0}, {"max_epochs": 1.5}, {"batch_size": True}, {"device": "nowhere"}]


def _of_part(part, changes):
    return [{f"{part}__{name}": value for name, value in own.items()} for own in changes]


@functools.cache
def _full_model():
    return small(v1.FullModelRegressor).fit(images("AB"))


def _minimodel():
    own = {"hidden_channels": 2, "hidden_kernel": 3, "validation_fraction": 0.3}
    return v1.MinimodelRegressor(full_model=_full_model(), **TRAINING, **own)


def _movie_cnn():
    kernels = {"input_kernel": 3, "hidden_kernel": 3, "input_time_kernel": 3}
    kernels |= {"hidden_time_kernel": 2, "n_layers": 2, "hidden_channels": 2}
    return v1.MovieCNNRegressor(**TRAINING, **kernels, window_frames=8)


def _vist():
    own = {"grid": 4, "n_layers": 1, "channels": 3, "kernels": ((1, 3),), "window_frames": 40}
    own |= {"condition": "none"}
    own |= {"steps_per_epoch": 1, "warmup_epochs": 0, "validation_fraction": 0}
    return v1.ViSTRegressor(**TRAINING, **own)


def _aligner():
    own = {"map_size": (4, 6), "map_channels": 2, "hidden_channels": 3, "n_layers": 2}
    own |= {"input_kernel": 3, "hidden_units": (6,), "neural_channels": 2, "embed_dim": 4}
    return v1.DINAAligner(**TRAINING, **own)


def _member():
    return tiny(validation_fraction=0.3)


def _search():
    return HyperbandSearch(
        tiny(v1.CNNRegressor, max_epochs=2),
        {"lr": uniform(0.001, 0.01)},
        n_trials=2,
        min_epochs=1,
        validation_fraction=0.3,
        random_state=0,
    )


def _standardized():
    return make_pipeline(
        v1.TrialStandardizer(), v1.CenterCrop(0.8), tiny(v1.CNNRegressor, standardize=False)
    )


def _resized():
    return make_pipeline(v1.ResizeStimuli((6, 7)), _member())


KINDS = {
    "MovieLNRegressor": Kind(
        lambda: v1.MovieLNRegressor(**TRAINING, window_frames=8, n_lags=3),
        movies, settings=SETTINGS, bad=[*BAD, {"n_lags": 0}],
    ),
    "MovieCNNRegressor": Kind(
        _movie_cnn, movies, settings=SETTINGS, bad=[*BAD, {"hidden_time_kernel": 0}],
    ),
    "ViSTRegressor": Kind(
        _vist, movies, settings=[s for s in SETTINGS if "max_epochs" not in s],
        bad=[*BAD, {"window_frames": 3}, {"warmup_epochs": 7}],
    ),
    "MinimodelRegressor": Kind(
        _minimodel, settings=SETTINGS, bad=[*BAD, {"full_model": 3}, {"shift": "readout"}],
    ),
    "DINAAligner": Kind(
        _aligner, answer=_maps,
        settings=[{"image_lr": 0.01}, *[s for s in SETTINGS if "lr" not in s]],
        bad=[{"neural_lr": -1}, *BAD[1:], {"map_size": (3,)}, {"temperature": 0}],
    ),
    "RidgeDecoder": Kind(
        v1.RidgeDecoder, answer=_images,
        settings=[{"alpha": 2.0}, {"rank": 2}, {"rank": None}, {"n_folds": 3}],
        bad=[{"alpha": -1}, {"rank": 0}, {"n_folds": 1}, {"standardize": "x"}],
        refused=("NaN", "infinite"), unanswered=("infinite", "unknown mouse"),
    ),
    "EnsembleRegressor": Kind(
        lambda: v1.EnsembleRegressor(_member(), n_candidates=2, n_members=2, random_state=0),
        settings=[{"n_members": 1}, {"combine": "rates"}, {"random_state": 3},
                  *_of_part("estimator", [{"lr": 0.01}, {"max_epochs": 2}])],
        bad=[{"n_members": 3}, {"combine": "x"}, *_of_part("estimator", [{"lr": -1}])],
    ),
    "HyperbandSearch": Kind(
        _search, settings=[{"random_state": 3}, {"n_trials": 1}, {"reduction_factor": 2}],
        bad=[{"n_trials": 0}, {"space": {"x": [1]}},
             {"min_epochs": 7}],
    ),
    "TrialStandardizer, CenterCrop": Kind(
        _standardized, settings=[*_of_part("cnnregressor", SETTINGS), {"centercrop__scale": 0.9}],
        bad=[*_of_part("cnnregressor", BAD), {"centercrop__scale": 0}, {"centercrop__scale": 2}],
    ),
    "ResizeStimuli": Kind(
        _resized,
        settings=[*_of_part("lnregressor", SETTINGS), {"resizestimuli__image_size": (7, 6)}],
        bad=[*_of_part("lnregressor", BAD), {"resizestimuli__image_size": (0, 3)}],
        unanswered=("NaN", "unknown mouse"),
    ),
}  # fmt: skip
