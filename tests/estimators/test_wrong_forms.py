"""Recordings, paths, turned arrays in place of trials: the call that takes them is named."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn import metrics, model_selection
from v1tlearn.inspection import receptive_fields
from v1tlearn.search import HyperbandSearch
from v1tlearn.trials import Trials


def says(*parts):
    """Match a message that holds all parts, in this order."""
    return "(?s)" + ".*".join(re.escape(part) for part in parts)


@pytest.fixture(scope="module")
def forms(recordings, trials, tmp_path_factory, fitted):
    """What newcomers hand over in place of trials, and the expression that makes trials of it."""
    folder = tmp_path_factory.mktemp("forms")
    v1.save_recordings(recordings, folder / "r.nc")
    v1.write_sensorium(recordings, folder / "sensorium")
    datasets = {mouse: node.to_dataset() for mouse, node in recordings.children.items()}
    parts = [trials.sel(mouse_id=mouse) for mouse in trials.mice]
    return {
        "DataTree": (recordings, "Trials(recordings)"),
        "child": (recordings["A"], "Trials(recording)"),
        "Dataset": (datasets["A"], "Trials(recording)"),
        "dict of Datasets": (datasets, "Trials(recordings)"),
        "list of Datasets": (list(datasets.values()), 'Trials({"A": recordings[0], ...})'),
        "list of Trials": (parts, "v1tlearn.concat(parts)"),
        "netCDF": (folder / "r.nc", f"Trials.open({str(folder / 'r.nc')!r})"),
        "text": (str(folder / "r.nc"), f"Trials.open({str(folder / 'r.nc')!r})"),
        "folder": (
            folder / "sensorium",
            f"Trials(v1tlearn.read_sensorium({str(folder / 'sensorium')!r}))",
        ),
        "Responses": (trials.responses, "trials"),
        "Inputs": (trials.stimuli, "trials"),
        "model": (fitted, "trials"),
    }


FORMS = [
    *("DataTree", "child", "Dataset", "dict of Datasets", "list of Datasets", "list of Trials"),
    *("netCDF", "text", "folder", "Responses", "Inputs", "model"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", ["fit", "predict", "score", "partial_fit", "transfer"])
def test_what_is_no_trials(call, form, forms, fitted, small):
    value, expression = forms[form]
    est = fitted if call in ("predict", "score", "transfer") else small()
    shown = "fit" if call == "partial_fit" else call
    with pytest.raises(TypeError, match=says(f"{shown}({expression})")):
        getattr(est, call)(value)


@pytest.mark.parametrize("form", ["DataTree", "netCDF"])
def test_the_expression_makes_trials(form, forms, recordings, small):
    _, expression = forms[form]
    names = {"Trials": Trials, "v1tlearn": v1, "recordings": recordings}
    assert eval(expression, names).mice == ["A", "B"]


@pytest.mark.parametrize("form", ["DataTree", "child", "dict of Datasets", "netCDF", "folder"])
@pytest.mark.parametrize(
    "call",
    [
        lambda value, est: v1.TrialStandardizer().fit(value),
        lambda value, est: v1.TrialStandardizer().fit(np.ones((4, 1, 5, 5))).transform(value),
        lambda value, est: v1.CenterCrop(0.5).fit(value),
        lambda value, est: v1.Grayscale().transform(value),
        lambda value, est: make_pipeline(v1.TrialStandardizer(), est).fit(value),
        lambda value, est: v1.EnsembleRegressor(est, n_candidates=1, n_members=1).fit(value),
        lambda value, est: HyperbandSearch(est, {"lr": [0.1, 0.2]}, min_epochs=1).fit(value),
        lambda value, est: model_selection.tier_split(value),
        lambda value, est: model_selection.image_train_test_split(value),
        lambda value, est: model_selection.leave_one_mouse_out(est, value),
        lambda value, est: model_selection.split_by_image(value, 0.1),
    ],
)
def test_everything_else_that_takes_trials(call, form, forms, small):
    value, expression = forms[form]
    with pytest.raises(TypeError, match=says(expression)):
        call(value, small())


@pytest.mark.parametrize("form", ["DataTree", "dict of Datasets", "netCDF", "folder", "model"])
@pytest.mark.parametrize("place", ["y_true", "y_pred"])
def test_metrics(place, form, forms, trials):
    value, expression = forms[form]
    expected = "model.predict(trials)" if form == "model" else f"{expression}.responses"
    arguments = {"y_true": trials.responses, "y_pred": trials.responses, place: value}
    with pytest.raises(TypeError, match=says(f"{place} is", expected)):
        metrics.average_correlation(**arguments)


@pytest.mark.parametrize("form", ["DataTree", "netCDF"])
def test_a_validation_set_in_another_form(form, forms, trials, small):
    value, expression = forms[form]
    search = HyperbandSearch(small(), {"lr": [0.1, 0.2]}, min_epochs=1)
    for est in (small(), v1.EnsembleRegressor(small(), n_candidates=1, n_members=1), search):
        with pytest.raises(TypeError, match=says(f"validation={expression}")):
            est.fit(trials, validation=value)
    with pytest.raises(TypeError, match=says("validation is a float", "validation_fraction")):
        small().fit(trials, validation=0.1)


def test_scorers_are_asked_with_a_model_and_trials(forms, fitted, test_trials):
    scorer = metrics.scorers["average_correlation"]
    with pytest.raises(TypeError, match=says("scorer(model, Trials(recordings))")):
        scorer(fitted, forms["DataTree"][0])
    message = says("scorer(model, trials)", "v1tlearn.metrics.average_correlation(")
    with pytest.raises(TypeError, match=message):
        scorer(test_trials.responses, fitted.predict(test_trials))
    with pytest.raises(TypeError, match=says("y_pred is a CNNRegressor", "model.predict(trials)")):
        metrics.single_trial_correlation(test_trials.responses, fitted)
    with pytest.raises(TypeError, match=says("y_pred is a Trials", "model.predict(trials)")):
        metrics.single_trial_correlation(test_trials.responses, test_trials)
    with pytest.raises(TypeError, match=says("image_ids is Trials", "trials.image_ids")):
        model_selection.split_by_image(test_trials, 0.5)


@pytest.mark.filterwarnings("ignore:.*show images that the model was trained on")
def test_trials_without_responses_are_scored_against_y(fitted, trials, arrays):
    labels = {"image_ids": arrays["image_ids"]}
    bare = Trials.from_arrays(arrays["stimuli"], arrays["behaviors"], **labels)
    score = metrics.scorers["single_trial_correlation"](fitted, bare, trials.responses)
    assert score == pytest.approx(fitted.score(trials))


def test_classes_in_the_place_of_models(trials):
    with pytest.raises(TypeError, match=says("estimator is the class CNNRegressor")):
        HyperbandSearch(v1.CNNRegressor).fit(trials)
    with pytest.raises(TypeError, match=says("est is the class CNNRegressor", "CNNRegressor()")):
        model_selection.leave_one_mouse_out(v1.CNNRegressor, trials)
    with pytest.raises(TypeError, match=says("the class CNNRegressor came")):
        receptive_fields(v1.CNNRegressor, 10)


def test_tables_and_tensors(arrays, small, fitted):
    stimuli, behaviors, responses = (arrays[n]["A"] for n in ("stimuli", "behaviors", "responses"))
    with pytest.raises(TypeError, match=says("stimuli is a DataFrame", "fit(stimuli, behaviors")):
        small().fit(pd.DataFrame(behaviors), None, responses)
    graph = torch.tensor(stimuli.astype(np.float32), requires_grad=True)
    with pytest.raises(TypeError, match=says("stimuli is a tensor", "stimuli.detach().cpu()")):
        small().fit(graph, behaviors, responses)
    with pytest.raises(TypeError, match=says("y_pred is a tensor", "y_pred.detach().cpu()")):
        metrics.single_trial_correlation(responses, torch.tensor(responses, requires_grad=True) * 2)


def test_tensors_and_labelled_arrays_that_numpy_reads_are_arrays(arrays, small, equal):
    plain = [arrays[n]["A"] for n in ("stimuli", "behaviors", "responses")]
    expected = small(max_epochs=1).fit(*plain).predict(*plain[:2])
    labelled = [xr.DataArray(plain[0]), pd.DataFrame(plain[1]).to_numpy(), xr.DataArray(plain[2])]
    for other in ([torch.tensor(array) for array in plain], labelled):
        found = small(max_epochs=1).fit(*other).predict(*other[:2])
        np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------------- turned arrays


def turned(**changes):
    """Alter single arrays of a call with those of mouse A."""

    def alter(s, b, r):
        given = {"stimuli": s, "behaviors": b, "responses": r}
        return {**given, **{name: change(given[name]) for name, change in changes.items()}}

    return alter


@pytest.mark.parametrize(
    ("alter", "parts"),
    [
        (turned(responses=np.transpose),
         ["responses has shape (5, 41) for 41 stimuli: transposed?", "give responses.T"]),
        (turned(behaviors=np.transpose), ["behaviors has shape (5, 41)", "give behaviors.T"]),
        (turned(stimuli=lambda s: s.transpose(2, 3, 1, 0)),
         ["(12, 16, 1, 41) for 41 trials", "numpy.moveaxis(stimuli, -1, 0)"]),
        (turned(stimuli=lambda s: np.moveaxis(s, 1, -1)),
         ["Are the channels the last axis?", "numpy.moveaxis(stimuli, -1, -3)"]),
        (turned(stimuli=lambda s: np.repeat(np.moveaxis(s, 1, -1), 3, -1)),
         ["Are the channels the last axis?", "numpy.moveaxis(stimuli, -1, -3)"]),
        (turned(stimuli=lambda s: s[:, 0]), ["(41, 12, 16)", "channel axis: stimuli[:, None]"]),
        (turned(responses=lambda r: r[:, 0]), ["(41,)", "One neuron", "responses[:, None]"]),
        (turned(responses=lambda r: np.stack([r, r], 1)),
         ["(41, 2, 5)", "Repeats of an image are trials of their own", "image_id"]),
        (turned(behaviors=lambda b: b[:, 2]), ["(41,)", "One column", "behaviors[:, None]"]),
        (turned(stimuli=lambda s: s.reshape(len(s), -1)),
         ["(41, 192)", "Flattened", "stimuli.reshape(-1, 1, height, width)"]),
        (turned(stimuli=lambda s: s[:, :, None]),
         ["movies of up to 1 frames, shape (41, 1, 1, 12, 16)", "(41, 5)", "have four axes"]),
        (lambda s, b, r: {"stimuli": s[0], "behaviors": b[0], "responses": r[0]},
         ["(1, 12, 16)", "stimuli[None], behaviors[None], responses[None]"]),
        (lambda s, b, r: {"stimuli": r, "behaviors": b, "responses": s},
         ["stimuli has shape (41, 5) and responses (41, 1, 12, 16)", "swapped?", "The order is"]),
        (lambda s, b, r: {"stimuli": b, "behaviors": s, "responses": r},
         ["stimuli has shape (41, 5) and behaviors (41, 1, 12, 16)", "swapped?"]),
        (lambda s, b, r: {"stimuli": s, "behaviors": np.hstack([r, r]), "responses": b},
         ["10 columns", "Are these the responses?", "fit(stimuli, None, responses)"]),
        (lambda s, b, r: {"stimuli": s, "behaviors": r},
         ["responses are missing", "without behaviour fit(stimuli, None, responses)"]),
        (lambda s, b, r: {"stimuli": list(s), "behaviors": list(b), "responses": list(r)},
         ["list of 41 entries of shape (1, 12, 16)", "numpy.stack(stimuli)"]),
        (lambda s, b, r: {"stimuli": list(s[:, 0]), "responses": list(r), "mouse_ids": ["A"] * 41},
         ["list of 41 entries of shape (12, 16)", "numpy.stack(stimuli)[:, None]"]),
        (lambda s, b, r: {"stimuli": s.tolist(), "responses": r.tolist()},
         ["list of 41 entries of shape (1, 12, 16)", "numpy.stack(stimuli)"]),
        (lambda s, b, r: {"stimuli": [s, s], "responses": [r, r], "mouse_ids": [*"AB"] * 41},
         ["list of 2 recordings but mouse_ids has 82", "mouse_ids=['A', 'B']"]),
        (lambda s, b, r: {"stimuli": np.concatenate([s, s]), "responses": np.concatenate([r, r]),
                          "mouse_ids": ["A", "B"]},
         ["82 trials but mouse_ids has shape (2,)", "numpy.repeat(mouse_ids"]),
        (lambda s, b, r: {"stimuli": {"stimuli": s, "behaviors": b, "responses": r}},
         ["the names of arguments", "fit(**data)"]),
        (lambda s, b, r: {"stimuli": {"A": {"stimuli": s, "responses": r}}},
         ["dict of dicts", "one dict for each variable"]),
        (lambda s, b, r: {"stimuli": [(s, r)], "mouse_ids": ["A"]},
         ["list of tuples", "one list for each variable"]),
        (lambda s, b, r: {"stimuli": s, "behaviors": b, "responses": r,
                          "behavior_names": "running_speed"},
         ["behavior_names is 'running_speed'", "a list of names"]),
        (turned(responses=lambda r: r.astype(str)), ["responses has dtype <U", "expected numbers"]),
        (turned(responses=lambda r: r > 1), ["responses", "dtype is bool", "astype"]),
    ],
)  # fmt: skip
def test_turned_arrays(alter, parts, arrays, small):
    arguments = alter(*(arrays[name]["A"] for name in ("stimuli", "behaviors", "responses")))
    with pytest.raises((ValueError, TypeError), match=says(*parts)):
        small().fit(**arguments)


def test_what_mends_turned_arrays_mends_them(arrays, small):
    s, b, r = (arrays[name]["A"] for name in ("stimuli", "behaviors", "responses"))
    model = small(max_epochs=1).fit(np.moveaxis(np.moveaxis(s, 1, -1), -1, 1), b.T.T, r.T.T)
    with pytest.raises(ValueError, match=says("(41, 12, 16, 1)", "stimuli, -1, -3)")):
        model.predict(np.moveaxis(s, 1, -1), b)
    with pytest.raises(ValueError, match=says("stimuli[None], behaviors[None]")):
        model.predict(s[0], b[0])
    assert model.predict(s[0][None], b[0][None]).shape == (1, 5)


def test_shapes_that_only_look_turned_are_taken(small):
    rng = np.random.default_rng(0)
    stimuli = rng.normal(size=(30, 6, 9, 4)).astype(np.float32)  # six channels, four columns
    responses = rng.poisson(2.0, size=(30, 30))  # as many neurons as trials
    model = small(input_kernel=3, max_epochs=1).fit(stimuli, None, responses)
    assert model.image_shape_ == (6, 9, 4)


@pytest.mark.parametrize("options", [{"input_kernel": 3}, {"image_size": (12, 16)}])
def test_channels_at_the_end_are_refused_where_a_model_would_take_them(arrays, small, options):
    stimuli, responses = (arrays[name]["A"] for name in ("stimuli", "responses"))
    turned = np.repeat(np.moveaxis(stimuli, 1, -1), 3, -1)
    with pytest.raises(ValueError, match=says("(41, 12, 16, 3)", "Are the channels the last")):
        small(max_epochs=1, **options).fit(turned, None, responses)
    with pytest.raises(ValueError, match=says("(1, 41, 12, 16, 3)", "Are the channels the last")):
        Trials.from_arrays(turned[None], None, responses[None])
    named = xr.DataArray(turned, dims=["trial", "channel", "height", "width"])
    assert small(max_epochs=0, **options).fit(named, None, responses).image_shape_ == (12, 16, 3)


def test_an_unknown_mouse_in_a_pipeline(trials, arrays, small):
    pipeline = make_pipeline(v1.TrialStandardizer(), small(standardize=False, max_epochs=1))
    pipeline.fit(trials)
    new = Trials.from_arrays(
        *({"C": arrays[n]["A"]} for n in ("stimuli", "behaviors", "responses"))
    )
    with pytest.raises(ValueError, match=says("unknown mouse 'C'", "pipeline[-1].transfer(")):
        pipeline.predict(new)
    moved = pipeline[-1].transfer(v1.TrialStandardizer().fit_transform(new))
    assert moved.mice_ == ["C"]


def test_what_is_no_recording_either_says_what_it_is(fitted, tmp_path, trials, small):
    fitted.save(tmp_path / "model")
    with pytest.raises(TypeError, match=says("it is a saved model: v1tlearn.load(", "fit(trials)")):
        small().fit(tmp_path / "model")
    with pytest.raises(TypeError, match="only the behaviors of trials: expected Trials"):
        small().fit(trials.behaviors)
    with pytest.raises(TypeError, match="only the stimuli of trials"):
        metrics.single_trial_correlation(trials.stimuli, trials.responses)
