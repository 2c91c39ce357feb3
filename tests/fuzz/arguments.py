"""Calls of an estimator with one or two of the arguments changed, in every form of a call."""

import functools
import warnings

import numpy as np

import v1tlearn as v1
from tests.fuzz.harness import Wrong
from tests.fuzz.odd_arrays import CHANGES, EITHER, LABELS, MISSING, NOT_FINITE, REFUSED, SAME
from tests.fuzz.watched import WatchedModel, check_refusal, within_time

N_TRIALS, SHAPE, N_NEURONS = 6, (1, 8, 9), {"A": 3, "B": 2}
BEHAVIORS = ["pupil_dilation", "pupil_dilation_derivative", "running_speed"]
TINY = {"max_epochs": 1, "batch_size": 4, "device": "cpu", "random_state": 0}
TINY |= {"validation_fraction": 0, "hidden_channels": 2, "input_kernel": 3, "hidden_kernel": 3}
FORMS = ("dict", "list", "flat", "one")


def tiny(kind=v1.LNRegressor, **params):
    """A model that is trained in some milliseconds."""
    return kind(**{**TINY, "n_layers": 1 if kind is v1.LNRegressor else 2, **params})


@functools.cache
def arrays():
    """All arguments of `fit` per mouse, float32 or uint8; not to be changed."""
    rng = np.random.default_rng(0)
    return {
        "stimuli": {m: rng.integers(0, 256, (N_TRIALS, *SHAPE)).astype("u1") for m in N_NEURONS},
        "behaviors": {m: rng.random((N_TRIALS, 3), dtype="f4") for m in N_NEURONS},
        "responses": {
            m: rng.gamma(1.0, 1.0, (N_TRIALS, n)).astype("f4") for m, n in N_NEURONS.items()
        },
        "positions": {m: rng.normal(size=(n, 2)).astype("f4") for m, n in N_NEURONS.items()},
        "image_ids": {m: [f"{m}{i}" for i in range(N_TRIALS)] for m in N_NEURONS},
    }


def in_form(by_mouse, form):
    """Arguments in one of the forms of a call, with mouse ids where it has any."""
    if form == "dict":
        return {name: dict(values) for name, values in by_mouse.items()}
    if form == "one":
        return {name: values["A"] for name, values in by_mouse.items()}
    if form == "list":
        out = {name: list(values.values()) for name, values in by_mouse.items()}
        return out | {"mouse_ids": list(N_NEURONS)}
    out = {"mouse_ids": [mouse for mouse in N_NEURONS for _ in range(N_TRIALS)]}
    for name, values in by_mouse.items():
        if name == "positions":
            out[name] = dict(values)
        elif name == "image_ids":
            out[name] = [label for part in values.values() for label in part]
        elif name == "responses":  # a rectangle, NaN where a mouse has fewer neurons
            parts = [np.pad(a, [(0, 0), (0, 3 - a.shape[1])], constant_values=np.nan)
                     for a in values.values()]  # fmt: skip
            out[name] = np.concatenate(parts)
        else:
            out[name] = np.concatenate(list(values.values()))
    return out


def change(call, given, form, drawn, but=None):
    """Change one argument in place; say which, what was done, and what must follow."""
    name = drawn.choice([name for name in given if name != but])
    what = given[name]
    if name in ("mouse_ids", "image_ids"):
        label = drawn.choice(list(LABELS))
        apply, verdict = LABELS[label]
    else:
        label, apply, verdict = drawn.choice(CHANGES[name])
    with np.errstate(all="ignore"):  # NaN among whole numbers
        if isinstance(what, dict) or (form == "list" and name != "mouse_ids"):
            key = drawn.choice(list(what) if isinstance(what, dict) else range(len(what)))
            what[key] = apply(what[key], drawn)
        else:
            given[name] = apply(what, drawn)
    verdict = _of_call(call, form, name, verdict, label)
    return name, f"{name} in the form {form!r}: {label}", verdict


def _of_call(call, form, name, verdict, label):
    """What must follow of a call: some look at values later, or have no use for an argument."""
    if call == "from_arrays" and (label in NOT_FINITE or label in MISSING):
        return EITHER  # refused when a model is fitted to them
    if call == "partial_fit" and name == "positions":
        return SAME if verdict == SAME else EITHER  # those of the first call, or none
    if name == "positions" and label in ("dict of nothing", "beyond float32"):
        return EITHER  # none, and far away
    if call == "score" and name == "responses" and label == "beyond float32":
        return EITHER  # a correlation has no unit
    if (form != "dict" and label in ("list", "tuple of arrays")) or label == "tuple of arrays":
        return EITHER  # a list means one entry per recording
    return verdict


@functools.cache
def fitted(form):
    """A model fitted to the arrays as they are, in one form."""
    return tiny().fit(**in_form(arrays(), form))


NAMES = {
    "fit": ("stimuli", "behaviors", "responses", "positions", "image_ids"),
    "partial_fit": ("stimuli", "behaviors", "responses", "positions", "image_ids"),
    "from_arrays": ("stimuli", "behaviors", "responses", "positions", "image_ids"),
    "predict": ("stimuli", "behaviors"),
    "score": ("stimuli", "behaviors", "responses"),
}


class Arguments:
    """Calls with one or two arguments changed."""

    def __init__(self, folder):
        self.calls = ("fit", "partial_fit", "predict", "score", *["from_arrays"] * 20)

    def attempt(self, drawn):
        """Draw a call, and make it.

        Returns
        -------
        str
            "right", or the name of the documented error.
        """
        form, call = drawn.choice(FORMS), drawn.choice(self.calls)
        kept = {name: values for name, values in arrays().items() if name in NAMES[call]}
        given = in_form(kept, form)
        name, said, verdict = change(call, given, form, drawn)
        if drawn.random() < 0.15:
            _, more, second = change(call, given, form, drawn, name)
            said, verdict = f"{said}; {more}", _both(verdict, second)
        try:
            with within_time(30), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _make(call, form, given, verdict)
        except Wrong as error:
            raise Wrong(f"{call}, {said}: {error}") from error


def _both(first, second):
    if REFUSED in (first, second):
        return REFUSED
    return SAME if first == second == SAME else EITHER


def _make(call, form, given, verdict):
    if call == "from_arrays":
        stimuli = given.pop("stimuli")
        run = functools.partial(v1.Trials.from_arrays, stimuli, **given)
        watched = WatchedModel(None)
    else:
        model = tiny() if call == "fit" else fitted(form)
        if call == "partial_fit":
            model = _copied(model)
        watched, run = WatchedModel(model), functools.partial(getattr(model, call), **given)
    try:
        found = run()
    except Exception as error:
        if verdict == SAME:
            raise Wrong(f"refused, though the numbers are the same: {error!r}") from error
        check_refusal(error)
        watched.check_is_as_before()
        return type(error).__name__
    if verdict == REFUSED:
        raise Wrong(f"taken: {_short(found)}")
    CHECKS[call](found, form, given, verdict)
    return "right"


def _copied(model):
    new = tiny()
    new.__setstate__(model.__getstate__())
    return new


def _short(found):
    return repr(found)[:200].replace("\n", " ")


# ---------------------------------------------------------------------------- what was taken


def _check_fit(model, form, given, verdict):
    names = {"stimuli", "behaviors", "mouse_ids"}
    answer = model.predict(**{name: values for name, values in given.items() if name in names})
    for values in _vectors(answer):
        if not np.isfinite(values).all():
            raise Wrong("predictions are not finite after a fit that was taken")
    for name, weights in model.module_.state_dict().items():
        if not weights.isfinite().all():
            raise Wrong(f"weights {name} are not finite")
    if verdict == SAME:
        ours, theirs = (m.module_.state_dict() for m in (model, fitted(form)))
        if not all(np.allclose(ours[n], theirs[n], rtol=1e-4, atol=1e-5) for n in theirs):
            raise Wrong("another model, though the numbers are the same")


def _check_partial_fit(model, form, given, verdict):
    for name, weights in model.module_.state_dict().items():
        if not weights.isfinite().all():
            raise Wrong(f"weights {name} are not finite")


def _check_predict(answer, form, given, verdict):
    vectors = _vectors(answer)
    if not all(np.isfinite(values).all() for values in vectors):
        raise Wrong("predictions are not finite")
    if verdict == SAME:
        kept = {name: values for name, values in arrays().items() if name in NAMES["predict"]}
        expected = _vectors(fitted(form).predict(**in_form(kept, form)))
        if len(vectors) != len(expected) or not all(
            a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5)
            for a, b in zip(vectors, expected, strict=True)
        ):
            raise Wrong("other predictions, though the numbers are the same")


def _check_score(score, form, given, verdict):
    if not (isinstance(score, float) and -1.0001 <= score <= 1.0001):
        raise Wrong(f"the score is {score!r}")
    if verdict == SAME:
        kept = {name: values for name, values in arrays().items() if name in NAMES["score"]}
        expected = fitted(form).score(**in_form(kept, form))
        if not np.isclose(score, expected, atol=1e-4):
            raise Wrong(f"the score is {score}, expected {expected}")


def _check_trials(trials, form, given, verdict):
    mice = {"one"} if form == "one" else set(trials.mice)
    if not len(trials) or not mice:
        raise Wrong("no trials were taken")
    for mouse in trials.mice:
        n = len(trials.rows(mouse)[0])
        responses = trials.get("responses", mouse)
        if trials.get("stimuli", mouse).shape[0] != n or responses.shape[0] != n:
            raise Wrong(f"mouse {mouse} has {n} trials and other numbers of values")
    if verdict == SAME and form != "one":
        for mouse in N_NEURONS:
            for name in ("stimuli", "behaviors", "responses"):
                if not np.array_equal(trials.get(name, mouse), arrays()[name][mouse]):
                    raise Wrong(f"{name} of mouse {mouse} are other numbers")


CHECKS = {
    "fit": _check_fit,
    "partial_fit": _check_partial_fit,
    "predict": _check_predict,
    "score": _check_score,
    "from_arrays": _check_trials,
}


def _vectors(answer):
    """What was predicted, as arrays."""
    if isinstance(answer, dict):
        return [np.asarray(values) for values in answer.values()]
    if isinstance(answer, list):
        return [np.asarray(values) for values in answer]
    if isinstance(answer, np.ndarray) and answer.dtype != object:
        return [answer]
    return [np.asarray(values, dtype=np.float64) for values in np.asarray(answer)]
