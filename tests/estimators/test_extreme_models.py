"""Extreme but legal data for models of movies, alignments, decoders, ensembles, searches, transfer.

Each gives finite numbers, or one of our errors that says why not.
"""

import warnings
from functools import cache

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.base import clone

import v1tlearn as v1
from tests.backbones import DINOV2
from tests.estimators.conftest import SMALL
from tests.estimators.test_dina import TINY
from tests.mice import two_mice
from v1tlearn.search import HyperbandSearch

QUICK = {"max_epochs": 1, "random_state": 0, "device": "cpu"}
WINDOWS = QUICK | {"window_frames": 8}
CNN = v1.CNNRegressor(**SMALL[v1.CNNRegressor], **QUICK, lr=2e-3, batch_size=16)
MOVIE_CNN = {"n_layers": 2, "hidden_channels": 3, "input_kernel": 5, "hidden_kernel": 3}
VIT = {"n_blocks": 1, "n_heads": 1, "embed_dim": 6, "mlp_dim": 6, "patch_stride": 5}
VIST = QUICK | {
    "image_size": (8, 12), "grid": 4, "condition": "video", "n_layers": 2, "channels": 6,
    "kernels": ((1, 5),), "window_frames": 40, "batch_size": 3, "steps_per_epoch": 2,
    "warmup_epochs": 0,
}  # fmt: skip


@cache
def of_other_mice():
    return clone(CNN).fit(v1.Trials(two_mice(random_state=1)).sel(tier="train"))


class Transferred(v1.CNNRegressor):
    """Fits readouts around a core that was trained on other data."""

    def fit(self, *parts, image_ids=None):
        trials = v1.Trials.from_arrays(*parts, image_ids=image_ids)
        return of_other_mice().transfer(trials, max_epochs=1, random_state=0)


OF_IMAGES = {
    "minimodels": v1.MinimodelRegressor(**SMALL[v1.MinimodelRegressor], **QUICK),
    "ensemble": v1.EnsembleRegressor(CNN, 2, 2, combine="learned_per_mouse", random_state=0),
    "search": HyperbandSearch(CNN, {"lr": loguniform(1e-4, 1e-2)}, n_trials=2, random_state=0),
    "transfer": Transferred(),
    "bfloat16": clone(CNN).set_params(precision="bfloat16", ema_decay=0.9, clip_norm=1.0),
    "in parts": v1.V1TRegressor(**VIT, micro_batch_size=5, ema_decay=0.9, batch_size=16, **QUICK),
    "alignment": v1.DINAAligner(**TINY | {"max_epochs": 1}),
    "alignment by attention": v1.DINAAligner(
        **TINY | {"max_epochs": 1, "neural_tower": "attention", "response_scale": "std"},
        loss_weights=(1.0, 1.0, 1.0), map_scale="minmax", selection="loss",
    ),
    "ridge": v1.RidgeDecoder(),
    "reduced rank": v1.RidgeDecoder(alpha=1.0, rank=2, standardize=False),
}  # fmt: skip
OF_LARGE_IMAGES = {
    "pretrained": v1.PretrainedViTRegressor(
        DINOV2, weights=None, block=1, lr=0.01, space_init=0.3, **QUICK
    )
}
OF_MOVIES = {
    "movie LN": v1.MovieLNRegressor(n_lags=5, **WINDOWS),
    "movie CNN": v1.MovieCNNRegressor(**MOVIE_CNN, **WINDOWS),
    "recurrent": v1.MovieCNNRegressor(**MOVIE_CNN, recurrent=True, memory_frames=5, **WINDOWS),
    "V1T in time": v1.V1TRegressor(**VIT, readout_lags=5, batch_size=4, **WINDOWS),
    "Vi-ST": v1.ViSTRegressor(**VIST),
    "Vi-ST, Poisson": v1.ViSTRegressor(**VIST, loss="poisson"),
    "frames": CNN,
}
MODELS = OF_IMAGES | OF_LARGE_IMAGES | OF_MOVIES


def by_trial(kept):
    """A mask over trials that goes with arrays of any number of dimensions."""
    return lambda values: kept(np.arange(len(values))).reshape(-1, *[1] * (values.ndim - 1))


def spike_once(responses, neurons):
    out = responses.astype(np.float32)
    out[..., neurons] = 0
    out.reshape(-1, out.shape[-1])[5, neurons] = 1
    return out


def without_some(responses):
    lost = np.random.default_rng(0).random(responses.shape) < 0.3
    return np.where(lost, np.nan, responses).astype(np.float32)


def with_nan(behaviors):
    out = behaviors.astype(np.float32)
    out.reshape(-1, out.shape[-1])[3, 0] = np.nan
    return out


every_fifth = by_trial(lambda n: n % 5 == 0)
odd = by_trial(lambda n: n % 2 == 1)
RESPONSES = {
    "tiny": lambda r: (1e-8 * r).astype(np.float32),
    "huge": lambda r: (1e8 * r).astype(np.float32),
    "constant neuron": lambda r: np.concatenate([np.full_like(r[..., :1], 3), r], -1),
    "constant": lambda r: np.full_like(r, 3),
    "one neuron": lambda r: r[..., :1],
    "silent neuron": lambda r: np.concatenate([np.zeros_like(r[..., :1]), r], -1),
    "silent": np.zeros_like,
    "one spike of a neuron": lambda r: spike_once(r, slice(1)),
    "one spike of all": lambda r: spike_once(r, slice(None)),
    "not all recorded": without_some,
    "trials not recorded": lambda r: np.where(every_fifth(r), np.nan, r).astype(np.float32),
    "dF/F": lambda r: (r - r.reshape(-1, r.shape[-1]).mean(0)).astype(np.float32),
    "negative": lambda r: -r.astype(np.float32) - 1,
    "on a pedestal": lambda r: r.astype(np.float32) + 1e5,
    "float16 responses": lambda r: r.astype(np.float16),
    "whole": lambda r: np.round(3 * r).astype(np.int64),
}
STIMULI = {
    "black": np.zeros_like,
    "white": lambda s: np.full_like(s, 255),
    "shares": lambda s: (s / 255).astype(np.float32),
    "standardized": lambda s: ((s - s.mean()) / s.std()).astype(np.float32),
    "float16": lambda s: s.astype(np.float16),
    "int16": lambda s: s.astype(np.int16),
    "bool": lambda s: s > 128,
    "a constant column": lambda s: np.concatenate([np.full_like(s[..., :1], 7), s[..., 1:]], -1),
    "one column": lambda s: np.concatenate([s[..., :1], np.full_like(s[..., 1:], 7)], -1),
    "small": lambda s: (1e-6 * s).astype(np.float32),
    "of low contrast": lambda s: 128 + 1e-6 * (s - 128.0),
    "one image": lambda s: np.repeat(s[:1], len(s), 0),
    "two images": lambda s: np.where(odd(s), s[:1], s[1:2]),
}
BEHAVIOR = {
    "NaN in behaviour": with_nan,
    "constant behaviour": lambda b: np.full_like(b, 1e6),
    "no movement": np.zeros_like,
    "huge behaviour": lambda b: (1e20 * b).astype(np.float32),
    "an outlier": lambda b: np.where(by_trial(lambda n: n == 2)(b), 1e8, b),
}
TRIALS = {
    "reversed": lambda v: v[::-1],
    "in random order": lambda v: v[np.random.default_rng(0).permutation(len(v))],
    "two trials": lambda v: v[:2],
    "one trial": lambda v: v[:1],
}
CASES = {
    **{case: (None, None, change) for case, change in RESPONSES.items()},
    **{case: (change, None, None) for case, change in STIMULI.items()},
    **{case: (None, change, None) for case, change in BEHAVIOR.items()},
    **{case: (change, change, change) for case, change in TRIALS.items()},
    "no behaviour": (None, lambda b: None, None),
}

# Images and behaviour reach a model in the same way whatever its loss, whatever wraps it, and in
# whatever parts batches pass: of these models few such cases are asked.
ALSO = {"black", "one image", "constant behaviour", "NaN in behaviour", "no behaviour"}
FEWER = {
    "Vi-ST, Poisson": {*RESPONSES, *TRIALS},
    "ensemble": {*RESPONSES, *TRIALS, *ALSO},
    "search": {*RESPONSES, *TRIALS, *ALSO},
    "transfer": {*RESPONSES, *TRIALS, *ALSO},
    "in parts": {*RESPONSES, *TRIALS},
}

# Why a model may refuse: in words of ours.
REASONS = {
    "constant": "no neuron's responses vary|none of . neurons ever varies",
    "silent": "is silent|none of . neurons ever varies",
    "one neuron": "attention over neurons needs at least 2",
    "one spike of all": "there is no variance to explain",
    "not all recorded": "no window of 40 frames fits",
    "trials not recorded": "no response was recorded in|are NaN in all of its"
    "|has responses of all neurons",
    "black": "all (trials show one image|images are equal)",
    "white": "all (trials show one image|images are equal)",
    "bool": "stimuli has dtype bool: expected grey levels",
    "of low contrast": "no image has contrast",
    "one image": "all (trials show one image|images are equal)",
    "two images": "show one image",
    "NaN in behaviour": "behaviors hold NaN",
    "two trials": "to train on: expected at least 2|trials? of the validation set"
    "|validation trials show one image",
    "one trial": "show one image",
    "no behaviour": "the core takes behaviour by",
}
REFUSED_BY_ALL = ("constant", "silent", "bool", "one trial")
# Without a validation set, windows of one movie are enough to train on.
TAKEN_ALL_THE_SAME = [("Vi-ST", "one trial"), ("Vi-ST, Poisson", "one trial")]


@pytest.fixture(scope="module")
def recorded():
    """Stimuli, behaviour and responses per mouse, for each kind of model."""
    kinds = {
        "images": two_mice(),
        "large": two_mice(n_neurons=5, n_trials=40, n_repeats=3, image_shape=(28, 42)),
        "movies": v1.make_movie_recordings(
            2, [3, 4], 6, 1, 1, n_frames=50, image_shape=(10, 14), random_state=0
        ),
    }
    out = {}
    for kind, recordings in kinds.items():
        trials = v1.Trials(recordings).sel(tier="train")
        names = ("stimuli", "behaviors", "responses")
        out[kind] = [{m: np.array(trials.get(n, m)) for m in trials.mice} for n in names]
    return out


def parts_of(recorded, name, case):
    kind = "movies" if name in OF_MOVIES else "large" if name in OF_LARGE_IMAGES else "images"
    parts = []
    for values, change in zip(recorded[kind], CASES[case], strict=True):
        parts.append(values if change is None else {m: change(v) for m, v in values.items()})
    if name.startswith("Vi-ST") or parts[1]["A"] is None:
        parts[1] = None
    return parts


def numbers_of(model, parts):
    """Everything that a model gives for the data that it is fitted to, in one list."""
    ids = {mouse: np.arange(len(values)) for mouse, values in parts[0].items()}
    model = clone(model).fit(*parts, image_ids=ids)
    history = [record["loss"] for record in getattr(model, "history_", [])]
    if isinstance(model, v1.RidgeDecoder):
        given = [model.predict(parts[2]).values, model.score(*parts)]
    elif isinstance(model, v1.DINAAligner):
        maps = [model.transform_images(parts[0]), model.transform_responses(parts[2])]
        given = [*(m.values for m in maps), model.score(parts[0], None, parts[2])]
    else:
        given = [*model.predict(*parts[:2]).values(), model.score(*parts)]
    return [history, *given]


def check(name, case, recorded):
    parts = parts_of(recorded, name, case)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = numbers_of(MODELS[name], parts)
        except (ValueError, TypeError) as error:
            with pytest.raises(type(error), match=REASONS.get(case, "no reason to refuse")):
                raise
            return
    assert case not in REFUSED_BY_ALL or (name, case) in TAKEN_ALL_THE_SAME
    assert all(np.isfinite(values).all() for values in found)
    assert {w.category for w in caught} <= {UserWarning}  # and none of NumPy's
    assert all(w.filename == __file__ for w in caught)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("movie LN", "huge"),
        ("recurrent", "not all recorded"),
        ("V1T in time", "black"),
        ("frames", "constant behaviour"),
        ("minimodels", "one spike of all"),
        ("ensemble", "dF/F"),
        ("search", "dF/F"),
        ("bfloat16", "on a pedestal"),
        ("alignment", "one spike of a neuron"),
        ("alignment by attention", "of low contrast"),
        ("ridge", "tiny"),
    ],
)
def test_numbers_are_finite_or_it_is_said_why_not(name, case, recorded):
    check(name, case, recorded)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case"), [(n, case) for n in MODELS for case in CASES if case in FEWER.get(n, CASES)]
)
def test_so_they_are_of_every_model(name, case, recorded):
    check(name, case, recorded)
