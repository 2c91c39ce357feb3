"""Calls of analyses of models, of decoding, simulations and writers, an argument or two changed."""

import functools
import warnings

import numpy as np
import pandas as pd
import xarray as xr

import v1tlearn as v1
from tests.fuzz import odd_objects, small_models
from tests.fuzz.calling import OPTIONS, alike, changed_argument, quiet
from tests.fuzz.harness import Wrong
from tests.fuzz.odd_arrays import EITHER, REFUSED, SAME
from tests.fuzz.signatures import cannot_be, kinds_of
from tests.fuzz.watched import check_refusal
from v1tlearn import decoding, inspection, model_selection


class Of:
    """An argument that is made when it is first wanted."""

    def __init__(self, make, name):
        self.make, self.name = make, name

    def __call__(self):
        return self.make(self.name)


def model(name):
    return Of(small_models.model, name)


def labelled(name):
    return Of(small_models.labelled, name)


def trials(name):
    return Of(small_models.trials, name)


def by_mouse(name):
    return Of(lambda name: {"A": small_models.labelled(name)}, name)


TEST = trials("test")
ALIGNER = {"aligner": model("aligner"), "trials": TEST}
ATTENTIVE = {"aligner": model("attentive"), "trials": TEST}
CNN = {"estimator": model("cnn"), "trials": TEST}
V1T = {"estimator": model("v1t"), "trials": TEST}
CLASSES = {
    **ALIGNER,
    "labels": Of(lambda part: _classes(small_models.trials(part)), "test"),
    "among": None,
    "n_permutations": 3,
    "random_state": 0,
}


def _classes(own):
    ids = np.unique(own.image_ids)
    return np.array([["a", "b"][int(np.searchsorted(ids, i)) % 2] for i in own.image_ids])


SIZES = {"n_mice": 1, "n_neurons": 2, "n_test_images": 2, "n_repeats": 2, "image_shape": (8, 9)}
SIZES |= {"random_state": 0}

FUNCTIONS = {
    "receptive_fields": (
        inspection.receptive_fields,
        {"estimator": model("cnn"), "n_images": 40, "n_lags": None, "mice": ["A"], "neurons": None,
         "images": None, "average": "mean", "behaviors": {"running_speed": 0.5},
         "noise": "uniform", "method": "covariance", "batch_size": "auto", "random_state": 0,
         "verbose": 0},
    ),
    "receptive_fields by gradients": (
        inspection.receptive_fields,
        {"estimator": model("cnn"), "images": TEST, "neurons": None, "average": "rms",
         "method": "gradient", "batch_size": 4, "mice": ["A", "B"]},
    ),
    "receptive_fields of movies": (
        inspection.receptive_fields,
        {"estimator": model("movie"), "n_images": 40, "n_lags": 2, "mice": None, "batch_size": 8},
    ),
    "space_time_components": (
        inspection.space_time_components, {"averages": labelled("averages")},
    ),
    "fit_gaussians": (
        inspection.fit_gaussians, {"fields": labelled("fields"), "worst": 0.05},
    ),
    "readout_positions": (
        inspection.readout_positions,
        {"estimator": model("cnn"), "mice": ["A"], "degrees_per_pixel": (0.5, 0.5)},
    ),
    "retinotopy_smoothness": (
        inspection.retinotopy_smoothness,
        {"places": labelled("places"), "position": None, "n_neighbors": 2, "n_permutations": 5,
         "random_state": 0},
    ),
    "pooling_sizes": (
        inspection.pooling_sizes, {"estimator": model("full"), "degrees_per_pixel": (0.5, 0.5)},
    ),
    "manipulation_curve": (
        inspection.manipulation_curve,
        {**ALIGNER, "manipulation": "low_pass", "values": [1.0, 2.0], "n_bootstrap": 3,
         "n_permutations": 3, "level": 0.9, "random_state": 0},
    ),
    "cutoff_of": (
        inspection.cutoff_of, {"curve": labelled("curve"), "measure": "top1", "share": 0.5},
    ),
    "class_confusions": (
        inspection.class_confusions, {**CLASSES, "n_bootstrap": 3, "level": 0.9},
    ),
    "class_galleries": (inspection.class_galleries, {**CLASSES, "gallery_size": 2}),
    "class_decoding": (inspection.class_decoding, {**CLASSES, "n_folds": 2}),
    "representational_similarity": (
        inspection.representational_similarity, {**CLASSES, "cutoff": 2.0},
    ),
    "alignment_map": (
        inspection.alignment_map,
        {**ALIGNER, "n_permutations": 3, "level": 0.9, "random_state": 0},
    ),
    "occlusion_saliency": (
        inspection.occlusion_saliency,
        {**ALIGNER, "patch_size": 4, "stride": (4, 4), "fill": "mean", "batch_size": 32,
         "random_state": 0},
    ),
    "gradient_saliency": (
        inspection.gradient_saliency,
        {**ALIGNER, "method": "gradient", "fill": "mean", "n_samples": 2, "noise": 0.1,
         "batch_size": 32, "random_state": 0},
    ),
    "neuron_importance": (
        inspection.neuron_importance,
        {**ALIGNER, "method": "gradient", "baseline": "mean", "n_steps": 3, "n_shuffles": 2,
         "random_state": 0},
    ),
    "attention_masking": (
        inspection.attention_masking,
        {**ATTENTIVE, "rankings": ["attention", "random"], "scores": None, "thresholds": [0.1, 0.3],
         "fractions": None, "n_random": 2, "random_state": 0},
    ),
    "neurons_for_performance": (
        inspection.neurons_for_performance,
        {**ALIGNER, "share": 0.9, "rankings": ["importance", "random"],
         "scores": {"own": {"A": np.arange(4.0), "B": np.arange(3.0)}}, "counts": [1, 2],
         "n_seeds": 2, "n_candidates": 2, "n_greedy": 2, "random_state": 0},
    ),
    "neurons_per_dimension": (
        inspection.neurons_per_dimension,
        {**ALIGNER, "share": 0.9, "n_dimensions": 2, "max_neurons": 2, "n_seeds": 2,
         "random_state": 0},
    ),
    "functional_interactions": (
        inspection.functional_interactions,
        {**ATTENTIVE, "n_neurons": 3, "n_edges": 2, "key_share": 0.5, "n_shuffles": 2,
         "random_state": 0},
    ),
    "attention_rollout": (
        inspection.attention_rollout,
        {**V1T, "head_reduction": "mean", "placement": "stretched"},
    ),
    "attention_center_of_mass": (
        inspection.attention_center_of_mass, {"maps": labelled("maps")},
    ),
    "attention_pupil_correlation": (
        inspection.attention_pupil_correlation,
        {**V1T, "columns": ("pupil_x", "pupil_y"), "head_reduction": "mean",
         "placement": "stretched", "n_permutations": 5, "random_state": 0, "as_table": False},
    ),
    "behavior_gain": (
        inspection.behavior_gain, {**CNN, "column": "pupil_dilation", "low": None, "high": 3.0},
    ),
    "behavior_ablation": (
        inspection.behavior_ablation,
        {**CNN, "variables": {"eye": ["pupil_x", "pupil_y"]}, "method": "permute",
         "metric": "single_trial_correlation", "n_repeats": 2, "random_state": 0},
    ),
    "behavior_activations": (inspection.behavior_activations, V1T),
    "performance_by_behavior": (
        inspection.performance_by_behavior,
        {**CNN, "column": "running_speed", "metric": "single_trial_correlation", "n_groups": 2,
         "n_shuffles": 2, "random_state": 0},
    ),
    "readout_shifts": (inspection.readout_shifts, CNN),
    "most_exciting_images": (
        inspection.most_exciting_images,
        {"estimator": model("blind"), "neurons": None, "weights": None, "direction": "exciting",
         "norm": "auto", "limits": (0, 255), "behaviors": None, "n_starts": 2, "n_steps": 3,
         "smoothness": 1.0, "batch_size": 16, "random_state": 0, "verbose": 0},
    ),
    "most_exciting_images of groups": (
        inspection.most_exciting_images,
        {"estimator": model("cnn"), "neurons": {"A": [1, 2]}, "weights": {"A": np.eye(2)},
         "behaviors": {"running_speed": 0.5}, "n_starts": 1, "n_steps": 2},
    ),
    "tuning_curves": (
        inspection.tuning_curves,
        {"estimator": model("cnn"), "stimuli": labelled("stimuli"), "neurons": {"A": [1, 2]},
         "behaviors": {"running_speed": 0.5}},
    ),
    "tuning_properties": (
        inspection.tuning_properties,
        {"curves": labelled("curves"), "blank": labelled("blank"), "onset": 0.0},
    ),
    "tuning_properties by mouse": (
        inspection.tuning_properties, {"curves": by_mouse("curves"), "blank": by_mouse("blank")},
    ),
    "surround": (
        inspection.surround,
        {"estimator": model("blind"), "fields": by_mouse("centers"),
         "properties": by_mouse("properties"), "diameter": "preferred", "inner_diameters": (1.0,),
         "relative_orientations": (0, 90), "ring_width": None, "n_phases": 4, "contrast": 1.0,
         "surround_contrast": 1.0, "background": 127.5, "amplitude": 100.0, "behaviors": None},
    ),
    "decoding_table": (
        v1.decoding_table,
        {"decoders": model("ridge"), "trials": TEST, "gallery_sizes": (2, 3), "k": (1, 2),
         "level": 0.9, "n_bootstrap": 3, "n_permutations": 3, "random_state": 0},
    ),
    "decoding_table of reconstructions": (
        v1.decoding_table,
        {"decoders": Of(lambda _: {"a": small_models.labelled("decoded")}, ""), "trials": TEST,
         "n_bootstrap": 0, "n_permutations": 0},
    ),
    "decoding_table of an array": (
        lambda decoded, trials: v1.decoding_table(
            {"x": decoded}, trials, n_bootstrap=0, n_permutations=0
        ),
        {"decoded": labelled("decoded"), "trials": TEST},
    ),
    "natural_image_prior": (
        decoding.natural_image_prior,
        {"image_shape": (1, 8, 9), "exponent": 2.0, "mean": 0.0, "std": 1.0},
    ),
    "natural_image_prior of images": (
        decoding.natural_image_prior, {"images": trials("train"), "image_shape": None},
    ),
    "reconstruct_by_retrieval": (
        decoding.reconstruct_by_retrieval,
        {"aligner": model("aligner"), "responses": TEST, "gallery": trials("train"), "k": 2,
         "weights": "similarity"},
    ),
    "reconstruct_images": (
        decoding.reconstruct_images,
        {"encoder": model("blind"), "responses": TEST, "mouse_ids": None, "prior": None,
         "likelihood": "gaussian", "noise_std": 1.0, "by": "image", "n_starts": 1, "n_steps": 2,
         "batch_size": 32, "random_state": 0},
    ),
    "reconstruct_images of arrays": (
        decoding.reconstruct_images,
        {"encoder": model("blind"),
         "responses": Of(lambda part: small_models.trials(part).get("responses", "A"), "test"),
         "mouse_ids": "A", "noise_std": {"A": np.ones(4)}, "n_starts": 1, "n_steps": 2},
    ),
    "compare_scores": (
        v1.compare_scores,
        {"models": Of(lambda _: {n: small_models.model(n) for n in ("cnn", "blind")}, ""),
         "trials": TEST, "metric": "single_trial_correlation", "n_bootstrap": 3, "level": 0.9,
         "block_frames": None, "random_state": 0},
    ),
    "leave_one_mouse_out": (
        model_selection.leave_one_mouse_out,
        {"est": Of(lambda _: v1.LNRegressor(**{**small_models.CNN, "n_layers": 1}), ""),
         "trials": trials("train"), "test": TEST, "validation": None, "freeze_core": True,
         "max_epochs": 1},
    ),
    "overlapping_images": (
        model_selection.overlapping_images, {"train": trials("train"), "test": TEST},
    ),
    "make_v1_recordings": (
        v1.make_v1_recordings,
        {**SIZES, "n_trials": 5, "n_channels": 1, "behavior": True, "validation_fraction": 0.2,
         "shared_fraction": 0.2, "complex_fraction": 0.5, "explainable_variance": 0.2},
    ),
    "make_coarse_recordings": (
        v1.make_coarse_recordings,
        {**SIZES, "n_trials": 5, "cutoff": 3.0, "informative": 0.5, "n_categories": 2,
         "explainable_variance": 0.5, "validation_fraction": 0.2},
    ),
    "make_movie_recordings": (
        v1.make_movie_recordings,
        {"n_mice": 1, "n_neurons": [2], "n_movies": 2, "n_test_movies": 1, "n_repeats": 2,
         "n_frames": (8, 9), "image_shape": (8, 9), "frame_rate": 30.0, "behavior": True,
         "random_state": 0, "validation_fraction": 0.1, "noise": 1.0, "scene": "noise",
         "cells": ["simple", "motion"], "adaptation": 0.5},
    ),
    "with_receptive_fields": (
        v1.with_receptive_fields,
        {"recordings": Of(small_models.recordings, "all"),
         "fields": Of(lambda _: {"A": small_models.labelled("rf_maps"),
                                 "B": small_models.labelled("rf_maps_b")}, ""),
         "grid": (3, 4)},
    ),
    "validate_recordings": (
        v1.validate_recordings,
        {"recordings": Of(small_models.recordings, "all"), "check_values": True},
    ),
}  # fmt: skip

WRITERS = {
    "report": (
        inspection.report,
        {**CNN, "path": "report.html", "title": None, "n_neurons": 2, "n_images": 1, "n_mice": 1,
         "n_bootstrap": 0, "n_repeats": 1, "random_state": 0},
    ),
    "write_sensorium": (
        v1.write_sensorium,
        {"recordings": Of(small_models.recordings, "all"), "folder": "folder", "zip": False},
    ),
    "save_table": (v1.save_table, {"table": labelled("table"), "path": "table.csv"}),
    "save_table of responses": (
        v1.save_table, {"table": labelled("responses"), "path": "table.parquet"},
    ),
    "save_predictions": (
        v1.save_predictions,
        {"estimator": model("cnn"), "trials": TEST, "path": "predictions.nc", "part_bytes": 2**20},
    ),
}  # fmt: skip
FUNCTIONS |= WRITERS


class Inspections:
    """Calls of analyses with one or two arguments changed."""

    def __init__(self, folder):
        self._folder, self._n = folder, 0
        self._names = [name for name in FUNCTIONS for _ in range(1 if name == "report" else 20)]

    def attempt(self, drawn):
        """Draw a function and a change, and call it.

        Returns
        -------
        str
            "right", or the name of the documented error.
        """
        return self.attempt_one(drawn.choice(self._names), drawn)

    def attempt_one(self, name, drawn):
        """Do so with a function of that name."""
        function, given = FUNCTIONS[name]
        given = {key: _made(value) for key, value in given.items()}
        kinds = kinds_of(function)
        said, verdict = [], SAME
        for key in drawn.sample([*given], min(len(given), drawn.choice((1, 1, 1, 2)))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                what, given[key], must = _change(given[key], kinds.get(key), drawn, key)
            said.append(f"{key}: {what}")
            verdict = _both(verdict, must)
        if name in WRITERS:
            self._n += 1
            folder = self._folder / str(self._n)
            (folder / "up").mkdir(parents=True)
            for key in ("folder", "path"):
                if isinstance(given.get(key), str) and "\x00" not in given[key]:
                    given[key] = folder / "up" / given[key]
        try:
            with quiet():
                return _call(name, function, given, verdict)
        except Wrong as error:
            raise Wrong(f"{name}, {'; '.join(said)}: {error}") from error


def _made(value):
    return value() if isinstance(value, Of) else value


def _both(first, second):
    if REFUSED in (first, second):
        return REFUSED
    return SAME if first == second == SAME else EITHER


def _change(value, kinds, drawn, key):
    table = _table_of(value)
    if table is not None and drawn.random() < 0.9:
        label = drawn.choice([*table])
        change, verdict = table[label]
        try:
            return label, change(value, drawn), verdict
        except (ValueError, TypeError, IndexError, KeyError, AttributeError):
            return "as it is", value, SAME
    if isinstance(value, dict) and drawn.random() < 0.6:
        name = drawn.choice([*value])
        what, changed, verdict = _change(value[name], None, drawn, key)
        return f"{name} {what}", {**value, name: changed}, verdict
    if isinstance(value, dict) and drawn.random() < 0.9:
        label = drawn.choice([*odd_objects.MAPPINGS])
        change, verdict = odd_objects.MAPPINGS[label]
        return label, change(value, drawn), verdict
    if isinstance(value, np.ndarray):
        what, changed, same = changed_argument(value, drawn)
        return what, changed, SAME if same else EITHER
    if isinstance(value, list | tuple) and drawn.random() < 0.5:
        place = drawn.randrange(len(value))
        other = drawn.choice(OPTIONS)
        return (
            f"{place} is {other!r}",
            type(value)([*value[:place], other, *value[place + 1 :]]),
            EITHER,
        )
    if hasattr(value, "fit") and drawn.random() < 0.9:
        label = drawn.choice([*MODELS])
        return label, MODELS[label](value), EITHER
    other = drawn.choice([*OPTIONS, np.inf, -np.inf])
    if callable(other) and key in ("metric", "manipulation"):
        return "as it is", value, SAME  # a function of one's own may do anything
    if key == "verbose":
        kinds = kinds and kinds | {"bool"}
    if kinds and cannot_be(kinds, other):
        return repr(other), other, REFUSED
    return repr(other), other, EITHER


MODELS = {
    **{name: lambda _, name=name: small_models.model(name) for name in small_models.MODELS},
    "not fitted": lambda m: type(m)(),
    "class": type,
    "list": lambda m: [m],
    "name": lambda m: "model",
    "module": lambda m: getattr(m, "module_", m),
    "ensemble": lambda m: v1.EnsembleRegressor(m),
}


def _table_of(value):
    if isinstance(value, pd.DataFrame):
        return odd_objects.TABLES
    if isinstance(value, v1.Trials):
        return odd_objects.TRIALS
    if isinstance(value, xr.DataTree):
        return odd_objects.RECORDINGS
    if isinstance(value, xr.DataArray | xr.Dataset):
        return odd_objects.LABELLED
    return None


def _call(name, function, given, verdict):
    try:
        found = function(**given)
    except Exception as error:
        if verdict == SAME:
            raise Wrong(f"refused, though the numbers are the same: {error!r}") from error
        if name in WRITERS and isinstance(error, OSError):
            return type(error).__name__
        check_refusal(error)
        return type(error).__name__
    if verdict == REFUSED:
        raise Wrong(f"taken: {str(found)[:100]!r}")
    if name in WRITERS:
        return "right"
    expected = _expected(name)
    several = {type(found), type(expected)} & {dict}  # by mouse, where the argument is
    if type(found) is not type(expected) and not several:
        raise Wrong(f"a {type(found).__name__} in place of a {type(expected).__name__}")
    if verdict == SAME and not _same(found, expected):
        raise Wrong(f"{str(found)[:200]}, though the numbers are the same")
    return "right"


def _same(found, expected):
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(_same(found[k], expected[k]) for k in found)
    if isinstance(found, xr.Dataset):
        return all(_same(found[name], expected[name]) for name in expected)
    if isinstance(found, xr.DataArray) and set(found.dims) == set(expected.dims):
        found = found.transpose(*expected.dims)
    if isinstance(found, xr.DataArray):
        if found.dtype.kind not in "fiub":
            return bool((found.values == expected.values).all())
        return found.dims == expected.dims and alike(found, expected)
    return alike(found, expected)


@functools.cache
def _expected(name):
    function, given = FUNCTIONS[name]
    return function(**{key: _made(value) for key, value in given.items()})
