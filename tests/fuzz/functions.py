"""Calls of public functions, an argument or two changed: metrics, pictures, splits and spikes."""

import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import xarray as xr

import v1tlearn as v1
from tests.fuzz.arguments import arrays, fitted, in_form
from tests.fuzz.calling import alike, changed_argument, quiet
from tests.fuzz.harness import Wrong
from tests.fuzz.watched import check_refusal
from v1tlearn import inspection, metrics, model_selection, preprocessing

SKLEARN = Path(sklearn.utils.__file__).parent
IMAGE_IDS = np.repeat([f"i{n}" for n in range(4)], 3)


@functools.cache
def data():
    """Arrays and trials that calls are made of; not to be changed."""
    rng = np.random.default_rng(0)
    true = rng.gamma(1.0, 1.0, (12, 3)) + np.repeat(rng.gamma(2.0, 1.0, (4, 3)), 3, axis=0)
    return {
        "true": true,
        "pred": true + rng.normal(size=true.shape),
        "trace": rng.gamma(1.0, 1.0, 40),
        "traces": rng.gamma(1.0, 1.0, (40, 3)),
        "pictures": rng.random((3, 1, 16, 16)),
        "similar": rng.normal(size=(5, 7)),
        "seen": np.arange(5),
        "ranks": np.array([1, 3, 2, 7, 1]),
        "spikes": [np.sort(rng.random(9)), np.sort(rng.random(4))],
        "edges": np.linspace(0, 1, 11),
        "outlines": [np.array([[1.0, 5, 5, 1], [2, 2, 4, 4]]) + n for n in range(2)],
        "trials": v1.Trials.from_arrays(**in_form(arrays(), "dict")),
        "movies": v1.Trials.from_arrays(
            {"A": rng.random((3, 20, 1, 6, 6))},
            responses={"A": rng.gamma(1.0, 1.0, (3, 20, 2))},
            frame_rate=30.0,
        ),
    }


def _pair(**options):
    return {"y_true": "true", "y_pred": "pred", "image_ids": IMAGE_IDS, **options}


def _single(**options):
    return {"y_true": "true", "image_ids": IMAGE_IDS, **options}


def _pictures(**options):
    return {"images": "pictures", **options}


def _transformed(kind):
    """A transformer of trials, made and used."""
    return lambda trials, **parameters: kind(**parameters).fit_transform(trials)


_ONE_MEAN = {"multioutput": "uniform_average"}
_GRID = {"image_shape": (12, 16), "orientation": (0, 90), "x": None, "y": None, "contrast": 1.0}

# By name: the function and its arguments; words name arrays or trials of `data`.
FUNCTIONS: dict[str, tuple[Callable, dict[str, Any]]] = {
    "single_trial_correlation": (metrics.single_trial_correlation, _pair(**_ONE_MEAN)),
    "average_correlation": (metrics.average_correlation, _pair(**_ONE_MEAN)),
    "normalized_correlation": (metrics.normalized_correlation, _pair(**_ONE_MEAN)),
    "feve": (metrics.feve, _pair(threshold=0.15, strict=False, noise_term=True)),
    "fraction_oracle": (metrics.fraction_oracle, _pair(kind="jackknife")),
    "fev": (metrics.fev, _single(shown_once="left_out", first_repeats=None)),
    "oracle_correlation": (metrics.oracle_correlation, _single(kind="jackknife")),
    "fecv": (
        metrics.fecv,
        _single(categories=np.repeat(["a", "b"], 6), pairwise=False, small_difference=None),
    ),
    "noise_ceiling": (metrics.noise_ceiling, _single(n_bootstrap=5, level=0.9, random_state=0)),
    "correlation_over_time": (
        metrics.correlation_over_time,
        {"y_true": "traces", "y_pred": "traces", "summary": "signed"},
    ),
    "sd_kl": (
        metrics.sd_kl,
        {"y_true": "traces", "y_pred": "traces", "bandwidth": 0.3, "ceiling": 1.0,
         "grid_points": 50, "floor": 0.0},
    ),
    "spike_durations": (metrics.spike_durations, {"trace": "trace", "ceiling": 1.0}),
    "pixel_correlation": (
        metrics.pixel_correlation, {"images": "pictures", "reconstructions": "pictures"},
    ),
    "ssim": (
        metrics.ssim,
        {"images": "pictures", "reconstructions": "pictures", "low": 0.0, "high": 1.0,
         "clip": True},
    ),
    "similarity_ranks": (metrics.similarity_ranks, {"similarity": "similar"}),
    "seen_ranks": (metrics.seen_ranks, {"similarity": "similar", "seen": "seen"}),
    "mean_reciprocal_rank": (
        metrics.mean_reciprocal_rank, {"ranks": "ranks", "n_images": 7, "gallery_size": 5},
    ),
    "median_rank": (metrics.median_rank, {"ranks": "ranks", "n_images": 7, "gallery_size": 5}),
    "top_k_accuracy": (metrics.top_k_accuracy, {"ranks": "ranks", "n_images": 7, "k": 2}),
    "two_way_identification": (
        metrics.two_way_identification, {"ranks": "ranks", "n_images": 7},
    ),
    "downsample": (preprocessing.downsample, _pictures(factor=2)),
    "edges": (preprocessing.edges, _pictures(sigma=1.0)),
    "silhouettes": (preprocessing.silhouettes, _pictures(sigma=2.0)),
    "high_pass": (preprocessing.high_pass, _pictures(cutoff=3.0, kind="ideal")),
    "low_pass": (preprocessing.low_pass, _pictures(cutoff=3.0, kind="ideal")),
    "scramble_phases": (preprocessing.scramble_phases, _pictures(share=0.5, random_state=0)),
    "shuffle_patches": (preprocessing.shuffle_patches, _pictures(patch_size=4, random_state=0)),
    "spatial_frequencies": (preprocessing.spatial_frequencies, {"size": (8, 9)}),
    "CenterCrop": (_transformed(v1.CenterCrop), {"trials": "trials", "scale": 0.8}),
    "Grayscale": (_transformed(v1.Grayscale), {"trials": "trials"}),
    "ResizeStimuli": (_transformed(v1.ResizeStimuli), {"trials": "trials", "image_size": (6, 7)}),
    "TrialStandardizer": (
        _transformed(v1.TrialStandardizer),
        {"trials": "trials", "stimuli": True, "behaviors": True},
    ),
    "bin_spikes": (
        v1.bin_spikes, {"spike_times": "spikes", "edges": "edges", "outside": "raise"},
    ),
    "receptive_fields_from_outlines": (
        v1.receptive_fields_from_outlines,
        {"outlines": "outlines", "image_shape": (8, 8), "grid": (4, 4), "first_pixel": 0.0},
    ),
    "concat": (lambda one, other: v1.concat([one, other]), {"one": "trials", "other": "trials"}),
    "image_train_test_split": (
        model_selection.image_train_test_split,
        {"trials": "trials", "test_size": 0.4, "random_state": 0},
    ),
    "split_by_image": (
        model_selection.split_by_image,
        {"image_ids": IMAGE_IDS, "fraction": 0.4, "random_state": 0, "mouse_ids": None},
    ),
    "split_in_time": (
        model_selection.split_in_time,
        {"trials": "movies", "test_size": 0.3, "gap": 1, "n_blocks": 1},
    ),
    "tier_split": (
        model_selection.tier_split, {"trials": "trials", "test": "test", "train": "train"},
    ),
    "spike_triggered_average": (
        inspection.spike_triggered_average, {"trials": "movies", "n_lags": 3, "ridge": None},
    ),
    "gratings": (inspection.gratings, {**_GRID, "spatial_frequency": 0.1, "phase": (0, 90)}),
    "gabors": (inspection.gabors, {**_GRID, "sigma": 3.0, "phase": (0, 90)}),
    "plaids": (inspection.plaids, {"image_shape": (12, 16), "orientation": (0, 90), "angle": 90}),
    "with_behavior": (
        inspection.with_behavior, {"trials": "trials", "behaviors": {"running_speed": 0.5}},
    ),
    "predict": (lambda trials: fitted("dict").predict(trials), {"trials": "trials"}),
    "score_table": (
        lambda trials, **options: v1.score_table(fitted("dict"), trials, **options),
        {"trials": "trials", "metrics": "single_trial_correlation", "n_bootstrap": 3,
         "level": 0.9},
    ),
}  # fmt: skip


class Functions:
    """Calls of functions with one or two arguments changed."""

    def __init__(self, folder):
        self._names = [*FUNCTIONS]

    def attempt(self, drawn):
        """Draw a function and a change, and call it.

        Returns
        -------
        str
            "right", or the name of the documented error.
        """
        name = drawn.choice(self._names)
        function, given = FUNCTIONS[name]
        given = {key: _of_data(value) for key, value in given.items()}
        said, same = [], True
        for key in drawn.sample([*given], min(len(given), drawn.choice((1, 1, 1, 2)))):
            what, given[key], is_same = changed_argument(given[key], drawn)
            said.append(f"{key}: {what}")
            same = same and is_same
        try:
            with quiet():
                return _call(name, function, given, same)
        except Wrong as error:
            raise Wrong(f"{name}, {'; '.join(said)}: {error}") from error


def _of_data(value):
    return data()[value] if isinstance(value, str) and value in data() else value


def _call(name, function, given, same):
    try:
        found = function(**given)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if not Path(last.filename).is_relative_to(SKLEARN):  # which checks 2-D data
            check_refusal(error)
        return type(error).__name__
    expected = _expected(name)
    if type(found) is not type(expected) and not {type(found), type(expected)} <= _NUMBERS:
        raise Wrong(f"a {type(found).__name__} in place of a {type(expected).__name__}")
    if same and not alike(found, expected):
        raise Wrong(f"{str(found)[:200]}, though the numbers are the same")
    return "right"


_NUMBERS = {float, np.float64, np.ndarray, xr.DataArray, int, np.int64}


@functools.cache
def _expected(name):
    function, given = FUNCTIONS[name]
    return function(**{key: _of_data(value) for key, value in given.items()})
