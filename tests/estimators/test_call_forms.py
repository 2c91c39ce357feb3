"""One model, however the recordings are handed over; answers in the form of the question."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.pipeline import Pipeline, make_pipeline

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.trials import Responses, Trials

COLUMNS = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]


class Forms:
    """The same trials in every form. Flat ones are interleaved: A, B, A, B, ..."""

    def __init__(self, arrays):
        mice = list(arrays["stimuli"])
        self.dicts = arrays
        self.lists = {name: [parts[m] for m in mice] for name, parts in arrays.items()}
        n = [len(arrays["stimuli"][m]) for m in mice]
        mouse = np.repeat(np.arange(len(mice)), n)
        row = np.concatenate([np.arange(k) for k in n])
        order = np.lexsort((mouse, row))
        self.mouse, self.row = mouse[order], row[order]
        self.ids = np.asarray(mice)[self.mouse]

    def vectors(self, name):
        parts = self.lists[name]
        return [parts[m][r] for m, r in zip(self.mouse, self.row, strict=True)]

    def flat(self, name):
        return np.stack(self.vectors(name))

    def objects(self, name):
        out = np.empty(len(self.ids), dtype=object)
        out[:] = self.vectors(name)
        return out

    def padded(self, name):
        vectors = self.vectors(name)
        out = np.full((len(vectors), max(map(len, vectors))), np.nan)
        for row, vector in zip(out, vectors, strict=True):
            row[: len(vector)] = vector
        return out


@pytest.fixture(scope="module")
def forms(arrays):
    return Forms(arrays)


@pytest.fixture(scope="module")
def reference(small, trials):
    return {k: small(k).fit(trials) for k in (v1.CNNRegressor, v1.V1TRegressor)}


@pytest.fixture(scope="module")
def calls(forms, trials, arrays):
    d, ls = forms.dicts, forms.lists
    keywords = {"positions": arrays["positions"]}
    mice = list(d["stimuli"])
    ids = {"image_ids": forms.vectors("image_ids")}
    turned = {name: dict(reversed(values.items())) for name, values in d.items()}
    flat = (forms.flat("stimuli"), forms.flat("behaviors"))
    return {
        "trials": ((trials,), {}),
        "trials, y": ((trials, trials.responses), {}),
        "trials, object y": ((trials, np.asarray(trials.responses)), {}),
        "dicts": ((d["stimuli"], d["behaviors"], d["responses"]), keywords),
        "dicts, turned": (
            (turned["stimuli"], turned["behaviors"], turned["responses"]),
            {"positions": d["positions"]},
        ),
        "dicts, ids": ((d["stimuli"], d["behaviors"], d["responses"], mice), keywords),
        "lists": ((ls["stimuli"], ls["behaviors"], ls["responses"], mice), keywords),
        "lists, positions": (
            (ls["stimuli"], ls["behaviors"], ls["responses"], np.array(mice)),
            {"positions": ls["positions"], "image_ids": ls["image_ids"]},
        ),
        "flat, objects": ((*flat, forms.objects("responses"), forms.ids), keywords),
        "flat, vectors": ((*flat, forms.vectors("responses"), list(forms.ids)), keywords),
        "flat, padded": ((*flat, forms.padded("responses"), forms.ids), {**keywords, **ids}),
    }


@pytest.mark.parametrize("kind", quick([v1.CNNRegressor, v1.V1TRegressor], 0))
@pytest.mark.parametrize(
    "form",
    [
        "trials",
        "trials, y",
        "trials, object y",
        "dicts",
        "dicts, turned",
        "dicts, ids",
        "lists",
        "lists, positions",
        "flat, objects",
        "flat, vectors",
        "flat, padded",
    ],
)
def test_all_forms_give_one_model(kind, form, calls, small, trials, reference, equal):
    args, keywords = calls[form]
    est = small(kind).fit(*args, **keywords)
    assert equal(est.predict(trials), reference[kind].predict(trials))
    args = args[:1] if form.startswith("trials") else args
    assert est.score(*args) == pytest.approx(reference[kind].score(trials), abs=1e-12)


@pytest.mark.parametrize(
    "form", ["trials", "trials, y", "trials, object y", "flat, objects", "flat, padded"]
)
def test_forms_that_transformers_take_agree_in_a_pipeline(form, calls, small, trials, equal):
    def model():
        return Pipeline(
            [("crop", v1.CenterCrop(0.8)), ("model", small(validation_fraction=0, max_epochs=1))]
        )

    expected = model().fit(trials).predict(trials)
    args, keywords = calls[form]
    routed = dict(zip(("responses", "mouse_ids"), args[2:], strict=False)) | keywords
    pipe = model().fit(*args[:2], **{f"model__{k}": v for k, v in routed.items()})
    assert equal(pipe.predict(trials), expected)


def test_the_four_arguments_pass_through_a_pipeline_without_transformer(
    forms, small, trials, equal
):
    d = forms.dicts
    pipe = make_pipeline(small()).fit(
        d["stimuli"],
        d["behaviors"],
        cnnregressor__responses=d["responses"],
        cnnregressor__positions=d["positions"],
    )
    assert equal(pipe.predict(trials), small().fit(trials).predict(trials))


# --------------------------------------------------------------------------------------- answers


def test_trials_are_answered_by_responses(reference, trials):
    answer = reference[v1.CNNRegressor].predict(trials)
    assert isinstance(answer, Responses)
    assert len(answer) == len(trials)
    assert (answer["A"].shape, answer["B"].shape) == ((41, 5), (41, 7))


@pytest.mark.parametrize("key", [str, int, np.int64, np.str_])
def test_a_dict_is_answered_under_the_keys_of_the_caller(key, forms, small):
    keys = dict(zip(["A", "B"], [key(7), key(12)], strict=True))
    stimuli, behaviors, responses = (
        {keys[m]: v for m, v in forms.dicts[name].items()}
        for name in ("stimuli", "behaviors", "responses")
    )
    est = small(max_epochs=1).fit(stimuli, behaviors, responses)
    assert est.mice_ == ["7", "12"]
    answer = est.predict(stimuli, behaviors)
    assert list(answer) == [key(7), key(12)]
    assert [type(k) for k in answer] == [key, key]
    one = est.predict({12: stimuli[key(12)]}, {12: behaviors[key(12)]})
    assert np.array_equal(one[12], answer[key(12)])


def test_a_list_is_answered_by_a_list(reference, forms, trials):
    est, ls = reference[v1.CNNRegressor], forms.lists
    answer = est.predict(ls["stimuli"], ls["behaviors"], ["A", "B"])
    assert isinstance(answer, list)
    turned = est.predict(ls["stimuli"][::-1], ls["behaviors"][::-1], ["B", "A"])
    for mouse, values in zip("AB", answer, strict=True):
        assert np.array_equal(values, est.predict(trials).get(mouse))
    assert all(map(np.array_equal, turned, answer[::-1]))


def test_flat_arrays_are_answered_trial_by_trial(reference, forms, trials):
    est = reference[v1.CNNRegressor]
    answer = est.predict(forms.flat("stimuli"), forms.flat("behaviors"), forms.ids)
    assert (answer.shape, answer.dtype) == ((len(forms.ids),), object)
    expected = est.predict(trials)
    for vector, mouse, row in zip(answer, forms.ids, forms.row, strict=True):
        assert np.array_equal(vector, expected.get(mouse)[row])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, object])
def test_flat_mouse_ids_may_be_numbers(dtype, forms, small, equal):
    flat = [forms.flat("stimuli"), forms.flat("behaviors"), forms.objects("responses")]
    ids = np.where(forms.ids == "A", 21067, 22846).astype(dtype)
    est = small(max_epochs=1).fit(*flat, ids)
    assert est.mice_ == ["21067", "22846"]
    named = est.predict(*flat[:2], ids.astype(str))
    assert equal(est.predict(*flat[:2], ids), named)


@pytest.mark.parametrize("mouse", [None, "A", 3, np.int64(3), "one per trial"])
def test_one_mouse_is_answered_by_a_matrix(mouse, forms, small):
    stimuli, behaviors, responses = (
        forms.dicts[name]["A"] for name in ("stimuli", "behaviors", "responses")
    )
    if mouse == "one per trial":
        mouse = ["A"] * len(stimuli)
    est = small(max_epochs=1).fit(stimuli, behaviors, responses, mouse)
    answer = est.predict(stimuli, behaviors, mouse)
    assert (answer.shape, answer.dtype) == (responses.shape, np.float32)
    assert np.array_equal(est.predict(stimuli, behaviors), answer)  # there is but one mouse
    assert est.score(stimuli, behaviors, responses) == est.score(
        stimuli, behaviors, responses, mouse
    )


def test_one_mouse_of_several(reference, forms, trials):
    est = reference[v1.CNNRegressor]
    stimuli, behaviors = forms.dicts["stimuli"]["B"], forms.dicts["behaviors"]["B"]
    expected = est.predict(trials).get("B")
    assert np.array_equal(est.predict(stimuli, behaviors, "B"), expected)
    per_trial = est.predict(stimuli, behaviors, ["B"] * len(stimuli))
    assert np.array_equal(np.stack(per_trial), expected)


# ----------------------------------------------------------------------- what arrays may look like


def test_behavior_as_data_frames(forms, small, trials, equal):
    frames = {m: pd.DataFrame(b, columns=COLUMNS) for m, b in forms.dicts["behaviors"].items()}
    d = forms.dicts
    expected = small().fit(d["stimuli"], d["behaviors"], d["responses"])
    est = small().fit(d["stimuli"], frames, d["responses"])
    assert equal(est.predict(d["stimuli"], frames), expected.predict(d["stimuli"], d["behaviors"]))
    assert equal(est.predict(d["stimuli"], d["behaviors"]), expected.predict(d["stimuli"], frames))
    flat = pd.DataFrame(forms.flat("behaviors"), columns=COLUMNS)
    est = small().fit(forms.flat("stimuli"), flat, forms.vectors("responses"), forms.ids)
    assert equal(est.predict(d["stimuli"], frames), expected.predict(d["stimuli"], frames))


def test_responses_as_data_frames(forms, small, equal):
    d = forms.dicts
    frames = {m: pd.DataFrame(r) for m, r in d["responses"].items()}
    expected = small(max_epochs=1).fit(d["stimuli"], None, d["responses"])
    est = small(max_epochs=1).fit(d["stimuli"], None, frames)
    assert equal(est.predict(d["stimuli"]), expected.predict(d["stimuli"]))


def test_names_by_parameter(forms, small):
    d = forms.dicts
    names = ["licking", "running_speed"]
    behaviors = {m: b[:, [0, 2]] for m, b in d["behaviors"].items()}
    est = small().fit(d["stimuli"], behaviors, d["responses"], behavior_names=names)
    assert list(est.feature_names_in_) == names
    by_name = est.predict(d["stimuli"], behaviors, behavior_names=names)
    assert np.array_equal(est.predict(d["stimuli"], behaviors)["A"], by_name["A"])


@pytest.mark.parametrize("n", [3, 5])
def test_three_and_five_columns_have_names(n, forms, small):
    d = forms.dicts
    behaviors = {m: b[:, :n] for m, b in d["behaviors"].items()}
    est = small(max_epochs=0).fit(d["stimuli"], behaviors, d["responses"])
    assert est.behavior_names_["B"] == COLUMNS[:n]


def test_data_arrays(recordings, small, trials, equal):
    train = trials.recordings
    stimuli, behaviors, responses = (
        {m: train[m][name] for m in ("A", "B")} for name in ("stimuli", "behaviors", "responses")
    )
    est = small(position_network=False).fit(stimuli, behaviors, responses)
    expected = small(position_network=False).fit(trials)
    assert isinstance(stimuli["A"], xr.DataArray)
    assert equal(est.predict(trials), expected.predict(trials))
    assert np.array_equal(est.predict(stimuli, behaviors)["B"], expected.predict(trials).get("B"))


@pytest.mark.parametrize(
    "dtype", quick([np.uint8, np.int16, np.uint16, np.int64, np.float32, np.float64], 0, 4)
)
def test_grey_levels_of_any_dtype(dtype, forms, small):
    d = forms.dicts
    stimuli = {m: s.astype(dtype) for m, s in d["stimuli"].items()}
    expected = small().fit(d["stimuli"], d["behaviors"], d["responses"])
    est = small().fit(stimuli, d["behaviors"], d["responses"])
    answer, wanted = (
        est.predict(stimuli, d["behaviors"]),
        expected.predict(d["stimuli"], d["behaviors"]),
    )
    for mouse in answer:
        assert answer[mouse] == pytest.approx(wanted[mouse], rel=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_read_only_and_strided_arrays(dtype, forms, small):
    d = {}
    for name in ("stimuli", "behaviors", "responses"):
        d[name] = {}
        for mouse, values in forms.dicts[name].items():
            values = values.astype(dtype) if name == "stimuli" else values
            doubled = np.repeat(values, 2, axis=0)[::2]
            doubled.setflags(write=False)
            d[name][mouse] = doubled
    before = {m: s.copy() for m, s in d["stimuli"].items()}
    est = small(max_epochs=1).fit(d["stimuli"], d["behaviors"], d["responses"])
    answer = est.predict(d["stimuli"], d["behaviors"])
    plain = small(max_epochs=1).fit(before, forms.dicts["behaviors"], forms.dicts["responses"])
    assert np.array_equal(answer["A"], plain.predict(before, forms.dicts["behaviors"])["A"])
    assert np.array_equal(d["stimuli"]["A"], before["A"])


def test_responses_of_any_dtype(forms, small):
    d = forms.dicts
    counts = {m: np.round(r).astype(np.int32) for m, r in d["responses"].items()}
    est = small(max_epochs=1).fit(d["stimuli"], None, counts)
    floats = {m: r.astype(np.float64) for m, r in counts.items()}
    same = small(max_epochs=1).fit(d["stimuli"], None, floats)
    assert np.array_equal(est.predict(d["stimuli"])["A"], same.predict(d["stimuli"])["A"])


def test_only_flat_arrays_are_padded(forms, small):
    """A neuron at the end that was never recorded is a neuron, unless a flat matrix is padded."""
    d = forms.dicts
    responses = {m: r.copy() for m, r in d["responses"].items()}
    est = small(max_epochs=1).fit(d["stimuli"], None, responses)
    responses["A"][:, -1] = np.nan
    assert est.n_neurons_ == {"A": 5, "B": 7}
    assert np.isfinite(est.score(d["stimuli"], None, responses))
    with pytest.raises(ValueError, match="'A': 1 of 5 neurons were recorded in no"):
        small(max_epochs=1).fit(d["stimuli"], None, responses)


def test_trials_without_responses_can_be_predicted(reference, forms, trials, arrays):
    blind = Trials.from_arrays(arrays["stimuli"], arrays["behaviors"])
    answer = reference[v1.CNNRegressor].predict(blind)
    assert np.array_equal(answer.get("A"), reference[v1.CNNRegressor].predict(trials).get("A"))
    assert np.asarray(answer)[0].shape == (5,)


def test_padded_responses_are_scored_though_the_last_neuron_is_silent_there(small, arrays, fitted):
    stimuli, behaviors, responses = (arrays[k] for k in ("stimuli", "behaviors", "responses"))
    widest = max(r.shape[1] for r in responses.values()) + 2
    padded = {
        m: np.pad(r.astype(float), ((0, 0), (0, widest - r.shape[1])), constant_values=np.nan)
        for m, r in responses.items()
    }
    for rows in padded.values():
        rows[:, -3] = np.nan  # the last neuron of the widest mouse was not recorded
    ids = np.concatenate([[m] * len(s) for m, s in stimuli.items()])
    flat = [np.concatenate(list(d.values())) for d in (stimuli, behaviors, padded)]
    score = fitted.score(*flat, ids)
    known = {m: padded[m][:, : r.shape[1]] for m, r in responses.items()}
    assert score == fitted.score(stimuli, behaviors, known)


def test_responses_of_trials_beside_flat_arrays(small, trials, arrays, equal):
    flat = [np.concatenate(list(arrays[k].values())) for k in ("stimuli", "behaviors")]
    labels = {"image_ids": trials.image_ids}
    model = small().fit(*flat, trials.responses, trials.mouse_ids, **labels)
    same = small().fit(*flat, np.asarray(trials.responses), trials.mouse_ids, **labels)
    assert equal(model.predict(trials), same.predict(trials))
