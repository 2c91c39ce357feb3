"""What is refused, and that the message says where it is and what to do."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score

import v1tlearn as v1
from v1tlearn.trials import Trials

COLUMNS = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]


@pytest.fixture
def data(arrays):
    """Stimuli, behaviors, responses as dicts whose arrays may be altered."""
    return [
        {m: v.copy() for m, v in arrays[name].items()}
        for name in ("stimuli", "behaviors", "responses")
    ]


def says(*parts):
    """Match a message that holds all parts, in this order."""
    return "(?s)" + ".*".join(re.escape(part) for part in parts)


# ------------------------------------------------------------------------------- shapes and forms


@pytest.mark.parametrize(
    ("variable", "alter", "parts"),
    [
        (0, lambda s: s[:, 0], ["'B'", "stimuli has shape (41, 12, 16)", "stimuli[:, None]"]),
        (0, lambda s: s[:, 0, 0], ["'B'", "stimuli has shape (41, 16)", "channels"]),
        (0, lambda s: s.astype(str), ["'B'", "stimuli has dtype <U", "grey levels"]),
        (0, lambda s: s[:0], ["'B'", "stimuli is empty", "at least one trial"]),
        (1, lambda b: b[:, 0], ["'B'", "behaviors has shape (41,)", "(trials, columns)"]),
        (2, lambda r: r[:, 0], ["'B'", "responses has shape (41,)", "(trials, neurons)"]),
        (2, lambda r: r[..., None], ["'B'", "responses has shape (41, 7, 1)"]),
        (2, lambda r: [*r[:-1], r[0, :3]], ["'B'", "responses are vectors", "one vector per"]),
        (1, lambda b: b[:-1], ["'B'", "different numbers of trials", "behaviors 40"]),
        (2, lambda r: r[:-2], ["'B'", "different numbers of trials", "responses 39"]),
    ],
)
def test_wrong_shapes(variable, alter, parts, data, small):
    data[variable]["B"] = alter(data[variable]["B"])
    with pytest.raises((ValueError, TypeError), match=says(*parts)):
        small().fit(*data)


def test_images_of_two_sizes(data, small):
    data[0]["B"] = data[0]["B"][..., 2:]
    with pytest.raises(ValueError, match=says("stimuli differ in shape", "'B'", "ResizeStimuli")):
        small().fit(*data)


def test_other_images_at_predict(data, fitted):
    data[0]["B"] = data[0]["B"][..., 2:]
    with pytest.raises(ValueError, match=says("'B'", "(1, 12, 14)", "fitted on (1, 12, 16)")):
        fitted.predict(*data[:2])


@pytest.mark.parametrize(
    ("kind", "params", "parts"),
    [
        (v1.V1TRegressor, {"patch_size": 13}, ["patch", "13", "12"]),
        (v1.ViTRegressor, {"patch_size": 40, "tokenizer": "conv"}, ["patch", "40", "12"]),
        (v1.CNNRegressor, {"input_kernel": 13}, ["13 x 13", "12 x 16", "kernel"]),
        (v1.CNNRegressor, {"input_kernel": 9, "crop_scale": 0.5}, ["9 x 9", "6 x 8", "kernel"]),
        (v1.V1TRegressor, {"patch_size": 8, "image_size": (6, 8)}, ["patch", "8", "6"]),
    ],
)
def test_patches_and_filters_larger_than_the_image(kind, params, parts, trials, small):
    with pytest.raises(ValueError, match=says(*parts)):
        small(kind, **params).fit(trials)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s, b, r: (s, list(b.values()), r), TypeError, ["behaviors is a list", "dict"]),
        (lambda s, b, r: (s, b, r["A"]), TypeError, ["responses is a ndarray", "dict"]),
        (lambda s, b, r: (s["A"], b, r["A"]), TypeError, ["one array", "behaviors is a dict"]),
        (lambda s, b, r: (list(s.values()), None, r, ["A", "B"]), TypeError, ["responses is a d"]),
        (lambda s, b, r: (*(list(d.values()) for d in (s, b, r)),), ValueError,
         ["list of 2 recordings without mouse_ids", "one id per recording"]),
        (lambda s, b, r: (*(list(d.values()) for d in (s, b, r)), ["A"]), ValueError,
         ["list of 2 recordings", "mouse_ids has 1 entries"]),
        (lambda s, b, r: (list(s.values()), None, [r["A"]], ["A", "B"]), ValueError,
         ["responses has 1 entries"]),
        (lambda s, b, r: (*(list(d.values()) for d in (s, b, r)), ["A", "A"]), ValueError,
         ["duplicate mouse ids ['A']", "an id of its own"]),
        (lambda s, b, r: ({1: s["A"], "1": s["B"]}, None, r), ValueError, ["duplicate mouse ids"]),
        (lambda s, b, r: (s, b, {"A": r["A"]}), ValueError, ["responses has the mice ['A']"]),
        (lambda s, b, r: (s, b, r, ["A", "C"]), ValueError, ["mouse_ids are ['A', 'C']"]),
        (lambda s, b, r: (s["A"], b["A"], r["A"], ["A"] * 7), ValueError,
         ["41 trials", "mouse_ids has shape (7,)", "one mouse id per trial"]),
        (lambda s, b, r: (s["A"], b["A"], r["A"][:9], ["A"] * 41), ValueError,
         ["41 trials but responses has 9"]),
        (lambda s, b, r: (s["A"][:0], None, r["A"][:0], []), ValueError, ["stimuli is empty"]),
        (lambda s, b, r: ({}, None, {}), ValueError, ["empty dict"]),
        (lambda s, b, r: ([], None, [], []), ValueError, ["empty list"]),
        (lambda s, b, r: ("images", None, r), TypeError, ["the path 'images'", "Trials.open"]),
        (lambda s, b, r: (None, None, r), TypeError, ["stimuli is a NoneType"]),
        (lambda s, b, r: (s, b), ValueError, ["responses are missing", "Trials(...)"]),
    ],
)  # fmt: skip
def test_mixed_forms(call, error, parts, data, small):
    with pytest.raises(error, match=says(*parts)):
        small().fit(*call(*data))


@pytest.mark.parametrize(
    ("positions", "error", "parts"),
    [
        ({"C": np.zeros((5, 2))}, ValueError, ["positions", "unknown mice ['C']"]),
        ({"A": np.zeros((4, 2))}, ValueError, ["'A'", "positions has 4 rows for 5 neurons"]),
        ({"A": np.zeros((5, 1))}, ValueError, ["'A'", "(5, 1)", "micrometres"]),
        (np.zeros((5, 2)), TypeError, ["positions is a ndarray for 2 mice"]),
        ({"A": np.full((5, 2), np.nan)}, ValueError, ["'A'", "position"]),
    ],
)
def test_positions(positions, error, parts, data, small):
    with pytest.raises(error, match=says(*parts)):
        small().fit(*data, positions=positions)


def test_too_few_axes(data, small):
    with pytest.raises(ValueError, match=says("'A'", "2 axes", "position_dims=3")):
        small(position_dims=3).fit(*data, positions={"A": np.zeros((5, 2))})


# ------------------------------------------------------------------------------- values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("standardize", [True, False])
def test_stimuli_that_are_not_finite(bad, standardize, data, small, fitted):
    data[0] = {m: s.astype(np.float32) for m, s in data[0].items()}
    data[0]["B"][7, 0, 3, 3] = bad
    with pytest.raises(ValueError, match=says("'B'", "stimuli", "NaN or ")):
        small(standardize=standardize).fit(*data)
    with pytest.raises(ValueError, match=says("'B'", "stimuli", "leave these trials out")):
        fitted.predict(*data[:2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("standardize", [True, False])
def test_behavior_that_is_not_finite(bad, standardize, data, small, fitted):
    data[1]["B"][7, 2] = bad
    message = says("'B'", "behaviors", "NaN or infinite", "['running_speed']", "fill the gaps")
    with pytest.raises(ValueError, match=message):
        small(standardize=standardize).fit(*data)
    with pytest.raises(ValueError, match=message):
        fitted.predict(*data[:2])


def test_unused_behavior_may_hold_nan(data, small):
    data[1]["B"][7, 3] = np.nan
    small(shift="none").fit(*data)


def test_infinite_responses(data, small):
    data[2]["A"][3, 1] = np.inf
    with pytest.raises(ValueError, match=says("'A'", "responses", "infinite", "NaN (not")):
        small().fit(*data)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_silent_mouse(value, data, small):
    data[2]["B"][:] = value
    with pytest.raises(ValueError, match=says("'B' is silent", "responses", "Leave this mouse")):
        small().fit(*data)


@pytest.mark.parametrize("kind", [v1.CNNRegressor, v1.FullModelRegressor, v1.MinimodelRegressor])
def test_neurons_that_were_recorded_in_no_training_trial(kind, trials, small):
    recordings = {m: trials.recordings[m].to_dataset() for m in trials.mice}
    answers = recordings["B"]["responses"].astype("float64").copy()
    answers[:, [1, 4]] = np.nan
    recordings["B"] = recordings["B"].assign(responses=answers)
    recordings["B"] = recordings["B"].assign_coords(neuron=np.arange(101, 108))
    gaps, est = v1.Trials(recordings), small(kind)
    parts = ["'B'", "2 of 7 neurons", "no training trial", "neurons 102, 105:", "trials.sel("]
    for call in (est.fit, est.partial_fit):
        with pytest.raises(ValueError, match=says(*parts)):
            call(gaps)
    assert not est.__sklearn_is_fitted__()
    some = gaps.sel(neuron={"B": [101, 103, 104, 106, 107]})
    assert est.fit(some).n_neurons_ == {"A": 5, "B": 5}


def test_neurons_that_are_silent_in_training_are_named(data, small):
    data[2]["B"][:, [0, 6]] = 0
    parts = ["'B'", "2 of 7 neurons never respond", "neurons 0, 6:", "trials.sel("]
    with pytest.warns(UserWarning, match=says(*parts)) as caught:
        small(validation_fraction=0, max_epochs=1).fit(*data)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_mouse_that_always_answers_alike(data, small):
    data[2]["B"][:] = 3.0
    with pytest.raises(ValueError, match=says("'B'", "responses vary", "leave this mouse out")):
        small().fit(*data)


def test_negative_responses_are_warned_about(data, small):
    data[2]["A"][3, 1] = -2.5
    data[2]["B"][:4] = -1
    share = 1 / data[2]["A"].size
    parts = [f"mouse 'A' {share:.2g} of its", "down to -2.5", "'B'", "down to -1", "shift or rec"]
    for method in ("fit", "partial_fit"):
        with pytest.warns(UserWarning, match=says(*parts)) as caught:
            getattr(small(validation_fraction=0), method)(*data)
        assert [warning.filename for warning in caught] == [__file__]


def test_rounding_below_zero_is_no_negative_response(data, small):
    data[2]["A"][3, 1] = -5e-8
    scale = data[2]["B"].std(axis=0).mean()
    data[2]["B"][2] = -0.9e-5 * scale
    small(max_epochs=1).fit(*data)  # warnings are errors
    data[2]["B"][2] = -1.5e-5 * scale
    with pytest.warns(UserWarning, match="negative: of mouse 'B'"):
        small(max_epochs=1, validation_fraction=0).fit(*data)


@pytest.mark.parametrize("validation_fraction", [0, 0.2])
def test_one_trial(validation_fraction, data, small):
    for field in data:
        field["B"] = field["B"][:1]
    with pytest.raises(ValueError, match=says("'B'", "1 trial")):
        small(validation_fraction=validation_fraction).fit(*data)


def test_no_trial(trials, small, fitted):
    for call in (small().fit, fitted.predict, fitted.score):
        with pytest.raises(ValueError, match="no trials: expected at least one"):
            call(trials[:0])


def test_images_that_cannot_be_split(data, small):
    data[0]["B"][:] = data[0]["B"][:1]
    with pytest.raises(ValueError, match=says("'B'", "one image", "validation_fraction=0")):
        small().fit(*data)


# ------------------------------------------------------------------------------- mice and neurons


def test_an_unknown_mouse(data, small, fitted, trials):
    message = says(
        "unknown mouse 'C'", "fitted on ['A', 'B']", "model.transfer(trials.sel(mouse_id=['C'])"
    )
    strange = [{"C": field["A"]} for field in data]
    with pytest.raises(ValueError, match=message) as error:
        fitted.predict(*strange[:2])
    assert "Did you mean" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        fitted.score(Trials.from_arrays(*strange))
    with pytest.raises(ValueError, match=says("unknown mouse 'B'", "['A']")):
        small(max_epochs=1).fit(trials.sel(mouse_id="A")).score(trials)


def test_the_call_for_a_new_mouse_is_the_right_one(data, fitted):
    model, trials = fitted, Trials.from_arrays(*({"C": field["A"]} for field in data))
    with pytest.raises(ValueError, match="unknown mouse 'C'") as error:
        model.predict(trials)
    call = re.search(r"new = (model\.transfer\(.*?\]\)\))", str(error.value))[1]
    new = eval(call)
    assert new.predict(trials).mice == ["C"]


def test_a_mouse_whose_name_is_written_otherwise(data, fitted):
    with pytest.raises(ValueError, match=says("unknown mouse 'a'", "Did you mean 'A'?")):
        fitted.predict({"a": data[0]["A"]}, {"a": data[1]["A"]})


def test_mice_that_differ_as_number_and_text_are_the_same(data, small):
    named = [{1: field["A"]} for field in data]
    model = small(max_epochs=1).fit(*named)
    assert list(model.predict({"1": data[0]["A"]}, {"1": data[1]["A"]})) == ["1"]


def test_several_unknown_mice_are_all_named(data, fitted):
    names = {"A": "C", "B": "D"}
    with pytest.raises(ValueError, match="unknown mice 'C' and 'D'"):
        fitted.predict(*({names[m]: v for m, v in field.items()} for field in data[:2]))


def test_new_mice_cannot_join_a_model_later(data, small, trials):
    model = small(max_epochs=1).fit(trials)
    with pytest.raises(ValueError, match=says("unknown mouse 'C'", "fit anew", "all mice")):
        model.partial_fit(*({**field, "C": field["A"]} for field in data))


def test_an_unknown_mouse_in_the_validation_set(small, trials, test_trials):
    message = says("unknown mouse 'B' in the validation set", "validation.sel(mouse_id=['A'])")
    with pytest.raises(ValueError, match=message):
        small().fit(trials.sel(mouse_id="A"), validation=test_trials)


def test_which_mouse(data, fitted):
    with pytest.raises(ValueError, match=says("mouse_ids are missing", "['A', 'B']", "one id")):
        fitted.predict(data[0]["A"], data[1]["A"])
    with pytest.raises(ValueError, match="list of 1 recordings without mouse_ids"):
        fitted.predict([data[0]["A"]], [data[1]["A"]])


def test_other_neurons(data, fitted):
    data[2]["B"] = data[2]["B"][:, :6]
    with pytest.raises(ValueError, match=says("'B'", "6 neurons", "fitted on 7", "same neurons")):
        fitted.score(*data)


def test_other_neurons_when_going_on(data, small, trials):
    est = small(max_epochs=1).fit(trials)
    data[2]["B"] = data[2]["B"][:, :6]
    with pytest.raises(ValueError, match=says("'B'", "6 neurons", "7")):
        est.partial_fit(*data)


# ------------------------------------------------------------------------------- behaviour


def test_behavior_at_fit_but_not_at_predict(data, fitted, arrays):
    message = says("'A'", "behaviors are missing", "running_speed", "for every trial")
    with pytest.raises(ValueError, match=message):
        fitted.predict(data[0])
    with pytest.raises(ValueError, match=message):
        fitted.predict(Trials.from_arrays(data[0]))
    with pytest.raises(ValueError, match=says("'B'", "behaviors are missing")):
        fitted.predict(data[0], {"A": data[1]["A"]})
    with pytest.raises(ValueError, match=message):
        fitted.score(data[0], None, data[2])


def test_named_columns_in_another_order(data, fitted):
    turned = COLUMNS[::-1]
    frames = {m: pd.DataFrame(b, columns=COLUMNS)[turned] for m, b in data[1].items()}
    message = says("'A'", "columns of behaviors are ['pupil_y'", "at fit", "same order")
    with pytest.raises(ValueError, match=message):
        fitted.predict(data[0], frames)
    with pytest.raises(ValueError, match=message):
        fitted.predict(*data[:2], behavior_names=turned)
    with pytest.raises(ValueError, match=message):
        fitted.score(Trials.from_arrays(data[0], frames, data[2]))


def test_named_columns_and_other_names(data, small):
    frames = {m: pd.DataFrame(b, columns=COLUMNS) for m, b in data[1].items()}
    with pytest.raises(ValueError, match=says("'A'", "behavior_names are", "leave behavior_names")):
        small().fit(data[0], frames, data[2], behavior_names=COLUMNS[::-1])


@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_unexplained_number_of_unnamed_columns(n, data, small, fitted):
    few = {m: b[:, :n] for m, b in data[1].items()}
    with pytest.raises(ValueError, match=says("'A'", str(n), "behavior_names")):
        small().fit(data[0], few, data[2])
    with pytest.raises(ValueError, match=says("'A'", f"behaviors has {n} columns", "were 5")):
        fitted.predict(data[0], few)


def test_names_that_do_not_fit(data, small):
    with pytest.raises(ValueError, match=says("'A'", "5 columns", "behavior_names has 2")):
        small().fit(*data, behavior_names=COLUMNS[:2])
    with pytest.raises(ValueError, match=says("'A'", "the same name")):
        small().fit(*data, behavior_names=["a", "a", "b", "c", "d"])


@pytest.mark.parametrize("mode", ["auto", "channels"])
def test_only_some_mice_have_behavior(mode, data, small):
    del data[1]["B"]
    message = says(
        f"behavior_mode='{mode}'", "mice ['B'] have no behaviors", "behavior_mode='none'"
    )
    with pytest.raises(ValueError, match=message):
        small(behavior_mode=mode).fit(*data)
    small(behavior_mode="none", max_epochs=1).fit(*data)


def test_columns_that_differ_between_mice(data, small):
    frames = {m: pd.DataFrame(b, columns=COLUMNS) for m, b in data[1].items()}
    frames["B"] = frames["B"].drop(columns="pupil_x")
    with pytest.raises(ValueError, match=says("'B'", "mouse 'A'", "behavior_columns")):
        small(v1.V1TRegressor).fit(data[0], frames, data[2])


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        (["whisking"], ["'A'", "behavior_columns asks for ['whisking']"]),
        ([], ["leaves no column", "behavior_mode='none'"]),
    ],
)
def test_behavior_columns(columns, parts, data, small):
    with pytest.raises(ValueError, match=says(*parts)):
        small(behavior_columns=columns).fit(*data)


def test_the_stimulus_cannot_follow_an_eye_that_was_not_tracked(data, small):
    three = {m: b[:, :3] for m, b in data[1].items()}
    message = says("shift='stimulus'", "['A', 'B']", "pupil_x", "shift='readout'")
    with pytest.raises(ValueError, match=message):
        small(shift="stimulus").fit(data[0], three, data[2])


# ------------------------------------------------------------------------------- trials and y


def test_trials_bring_everything(trials, data, small, fitted):
    message = says("Trials bring behaviour, responses, mouse ids", "fit(trials)")
    for arguments, keywords in [
        ((trials, None, None, ["A", "B"]), {}),
        ((trials, data[1], data[2]), {}),
        ((trials,), {"image_ids": trials.image_ids}),
        ((trials,), {"positions": {}}),
    ]:
        with pytest.raises(TypeError, match=message):
            small().fit(*arguments, **keywords)
    with pytest.raises(TypeError, match="image_ids cannot be given beside them"):
        small().fit(trials, image_ids=trials.image_ids)
    with pytest.raises(TypeError, match=says("Trials bring", "predict(trials)")):
        fitted.predict(trials, data[1])


def test_y_of_other_mice(trials, small):
    message = says("y must be trials.responses", "82 trials", "Was y permuted")
    with pytest.raises(ValueError, match=message):
        small().fit(trials, trials.responses[::-1])
    with pytest.raises(ValueError, match=message):
        small().fit(trials, trials[:-1].responses)
    with pytest.raises(ValueError, match="y has 3 entries for 82 trials"):
        small().fit(trials, np.asarray(trials.responses)[:3])
    with pytest.raises(ValueError, match=says("'A'", "y has vectors of the shapes")):
        small().fit(trials, [*np.asarray(trials.responses)[1:], np.zeros(5)])
    with pytest.raises(ValueError, match=says("'A'", "vectors of 7 responses", "5 neurons")):
        small().fit(trials, np.asarray(trials.responses)[::-1])


def test_trials_without_responses(data, small):
    with pytest.raises(ValueError, match=says("'A' has no responses", "predict")):
        small().fit(Trials.from_arrays(*data[:2]))


@pytest.mark.parametrize("tier", ["test", "validation"])
def test_tiers_that_are_not_for_fitting_are_warned_about(tier, recordings, small):
    trials = Trials(recordings).sel(tier=["train", tier])
    with pytest.warns(UserWarning, match=says(f"['{tier}']", "trials.sel(tier")):
        small(max_epochs=1).fit(trials)


def test_a_validation_set_is_trials(trials, data, small):
    with pytest.raises(TypeError, match=says("validation is a tuple", "expected Trials")):
        small().fit(trials, validation=tuple(data))
    with pytest.raises(ValueError, match="no trials"):
        small().fit(trials, validation=trials[:0])
    with pytest.raises(ValueError, match=says("'A'", "1 trial of the validation set", "2")):
        small().fit(trials, validation=trials[:1])
    few = trials[np.r_[:10, 41:43]]  # two trials of mouse B: one to train on, one to validate
    with pytest.raises(ValueError, match=says("'B'", "1 trial", "validation_fraction=0")):
        small().fit(few)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_validation_responses(bad, trials, data, small):
    data[2]["B"][:] = bad
    with pytest.raises(ValueError, match=says("'B'", "responses")):
        small().fit(trials, validation=Trials.from_arrays(*data))


def test_a_list_of_recordings_in_a_search(data, small):
    lists = [list(field.values()) for field in data]
    message = says("responses are missing", "GridSearchCV", "Trials(...)", "split over mice")
    with pytest.raises(ValueError, match=message):
        GridSearchCV(small(), {"lr": [1e-3]}, cv=2, error_score="raise").fit(lists[0], lists[2])
    with pytest.raises(ValueError, match=message):
        cross_val_score(small(), lists[0], lists[2], cv=2, error_score="raise")


# ------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (v1.CNNRegressor, {"lr": 0}),
        (v1.CNNRegressor, {"lr": "fast"}),
        (v1.CNNRegressor, {"core_lr": -1}),
        (v1.CNNRegressor, {"batch_size": 0}),
        (v1.CNNRegressor, {"batch_size": 2.5}),
        (v1.CNNRegressor, {"max_epochs": -1}),
        (v1.CNNRegressor, {"shift": "eye"}),
        (v1.CNNRegressor, {"behavior_mode": "b_mlp"}),
        (v1.CNNRegressor, {"behavior_columns": "some"}),
        (v1.CNNRegressor, {"crop_scale": 0}),
        (v1.CNNRegressor, {"crop_scale": 1.5}),
        (v1.CNNRegressor, {"image_size": "small"}),
        (v1.CNNRegressor, {"image_size": (1, 2, 3)}),
        (v1.CNNRegressor, {"image_size": (0, 4)}),
        (v1.CNNRegressor, {"position_dims": 4}),
        (v1.CNNRegressor, {"gaussian": "round"}),
        (v1.CNNRegressor, {"init_sigma": -0.1}),
        (v1.CNNRegressor, {"readout_bias": "std"}),
        (v1.CNNRegressor, {"optimizer": "sgd"}),
        (v1.CNNRegressor, {"betas": (0.9,)}),
        (v1.CNNRegressor, {"betas": (0.9, 1.5)}),
        (v1.CNNRegressor, {"loss_scale": "mean"}),
        (v1.CNNRegressor, {"schedule": "warmup"}),
        (v1.CNNRegressor, {"validation_fraction": 1.0}),
        (v1.CNNRegressor, {"standardize": "yes"}),
        (v1.CNNRegressor, {"device": "gpu"}),
        (v1.CNNRegressor, {"precision": "float16"}),
        (v1.CNNRegressor, {"random_state": -1}),
        (v1.CNNRegressor, {"random_state": "seed"}),
        (v1.CNNRegressor, {"n_layers": 0}),
        (v1.CNNRegressor, {"hidden_kernel": 4}),
        (v1.CNNRegressor, {"batch_norm_momentum": 0}),
        (v1.CNNRegressor, {"laplace": -1}),
        (v1.V1TRegressor, {"behavior_mode": "mlp"}),
        (v1.V1TRegressor, {"tokenizer": "words"}),
        (v1.V1TRegressor, {"attention": "flash"}),
        (v1.V1TRegressor, {"patch_stride": 0}),
        (v1.V1TRegressor, {"mlp_dropout": 1.0}),
        (v1.V1TRegressor, {"drop_path": -0.1}),
        (v1.V1TRegressor, {"core_l1": -1}),
    ],
)
def test_parameters_out_of_range_are_named(kind, params, trials, small):
    (name,) = params
    with pytest.raises(ValueError, match=name):
        small(kind, **params).fit(trials)


def test_unknown_parameters():
    with pytest.raises(TypeError, match="hidden_chanels"):
        v1.CNNRegressor(hidden_chanels=3)
    with pytest.raises(ValueError, match="hidden_chanels"):
        v1.CNNRegressor().set_params(hidden_chanels=3)
