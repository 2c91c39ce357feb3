"""No argument of a method is ignored without a word: another value is refused, or tells."""

import inspect
import warnings

import numpy as np
import pytest

import v1tlearn as v1
from tests.fuzz.arguments import arrays, tiny
from tests.fuzz.watched import check_refusal

DATA = ("stimuli", "behaviors", "responses")
N_FRAMES = 6
SHORT = {"max_epochs": 1, "batch_size": 4, "device": "cpu", "random_state": 0}


def of_movies():
    """The small mice, each image shown for some frames."""
    rise = np.linspace(0.5, 1, N_FRAMES, dtype="f4")[None, :, None]
    new = {name: dict(values) for name, values in arrays().items()}
    for mouse, images in new["stimuli"].items():
        new["stimuli"][mouse] = np.repeat(images[:, None], N_FRAMES, axis=1)
        new["behaviors"][mouse] = np.repeat(new["behaviors"][mouse][:, None], N_FRAMES, axis=1)
        new["responses"][mouse] = new["responses"][mouse][:, None] * rise
    return new


KINDS = {
    "images": lambda: tiny(validation_fraction=0.4),
    "movies": lambda: v1.MovieLNRegressor(
        **SHORT, n_lags=2, window_frames=4, behavior_mode="channels", validation_fraction=0.4
    ),
    "ensemble": lambda: v1.EnsembleRegressor(
        tiny(validation_fraction=0.4), n_candidates=2, n_members=1, random_state=0
    ),
    "aligner": lambda: v1.DINAAligner(
        **SHORT, validation_fraction=0.4, map_size=(4, 4), map_channels=2, hidden_channels=2
    ),
    "decoder": v1.RidgeDecoder,
}
TRAINING = [("fit", "new"), ("fit", "warm"), ("partial_fit", "new"), ("partial_fit", "fitted")]
ASKING = [("predict", "fitted"), ("score", "fitted")]
QUICK = [("images", *call) for call in TRAINING + ASKING]
QUICK += [("decoder", *call) for call in [("fit", "new"), *ASKING]]
LONG = [("movies", *call) for call in [*TRAINING, *ASKING, ("predict_parts", "fitted")]]
LONG += [("ensemble", *call) for call in [("fit", "new"), *ASKING]]
LONG += [("aligner", *call) for call in [*TRAINING, ("score", "fitted"), ("transform", "fitted")]]
CALLS = QUICK + [pytest.param(*call, marks=pytest.mark.slow) for call in LONG]

# What the documentation says has no effect there.
WITHOUT_EFFECT = {
    ("aligner", "fit", "new"): {"behaviors"},
    ("aligner", "partial_fit", "new"): {"behaviors"},
    ("aligner", "fit", "warm"): {"behaviors", "behavior_names"},
    ("aligner", "partial_fit", "fitted"): {"behaviors", "behavior_names"},
    ("aligner", "score", "fitted"): {"behaviors"},
    ("decoder", "fit", "new"): {"behaviors"},
    ("decoder", "score", "fitted"): {"behaviors"},
    ("images", "partial_fit", "new"): {"image_ids"},
    ("images", "partial_fit", "fitted"): {"image_ids"},
    ("movies", "partial_fit", "new"): {"image_ids"},
    ("movies", "partial_fit", "fitted"): {"image_ids"},
}
# Of how the work is done, not of what comes out; and what other tests look at.
OF_THE_WORK = {"frames_at_once", "on_epoch", "checkpoint_dir"}


def others(data):
    """Another value for each argument."""
    turned = {n: {m: a[[1, 0, 4, 3, 5, 2]] for m, a in data[n].items()} for n in DATA}
    return {
        **turned,
        "positions": {m: a + np.float32(3) for m, a in data["positions"].items()},
        "image_ids": {m: ["x"] * 3 + ["y"] * 3 for m in data["stimuli"]},
        "mouse_ids": ["X", "Y"],
        "behavior_names": ["a", "b", "c"],
        "frame_rate": 30.0,
        "sample_weight": np.arange(12) + 1.0,
        "validation": v1.Trials.from_arrays(
            **{n: {m: a[:4] for m, a in values.items()} for n, values in turned.items()}
        ),
    }


def of_call(kind, method, state, data, **changed):
    """What a call gives, and the model tells after it."""
    model = KINDS[kind]()
    kept = {name: data[name] for name in DATA}
    if state != "new":
        model.fit(**kept, **({"frame_rate": 10.0} if kind == "movies" else {}))
    if state == "warm":
        model.set_params(warm_start=True)
    takes = inspect.signature(getattr(model, method)).parameters
    given = {n: kept[n] for n in DATA if n in takes} | changed
    answer = getattr(model, method)(**given)
    told = [] if answer is model else [answer if isinstance(answer, float | dict) else [*answer]]
    told += [getattr(model, n, None) for n in ("positions_", "behavior_names_", "errors_")]
    told += [getattr(getattr(model, "fitted_", None), "frame_rate", None)]
    told += [{n: v for n, v in one.items() if n != "seconds"} for one in _history(model)]
    if kind == "aligner":
        told += [model.module_.state_dict()]
    elif kind == "decoder":
        told += [model.predict(kept["responses"])]
    else:
        told += [model.predict(kept["stimuli"], kept["behaviors"])]
    return repr([_plain(one) for one in told])


def _history(model):
    """Epochs, of an ensemble those of its first member, with what it knows of behaviour."""
    if hasattr(model, "estimators_"):
        first = model.estimators_[0]
        return [first.behavior_names_, first.positions_, *first.history_]
    return getattr(model, "history_", [])


def _plain(value):
    """Numbers with all digits, to be compared as text."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return np.asarray(value).tolist() if hasattr(value, "shape") else value


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "method", "state"), CALLS)
def test_another_value_of_each_argument_is_refused_or_tells(kind, method, state):
    data, ignored = of_movies() if kind == "movies" else arrays(), set()
    takes = inspect.signature(getattr(KINDS[kind](), method)).parameters
    assert set(takes) <= {*others(data), *OF_THE_WORK}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = of_call(kind, method, state, data)
        for name in [name for name in others(data) if name in takes]:
            try:
                after = of_call(kind, method, state, data, **{name: others(data)[name]})
            except (TypeError, ValueError) as error:
                check_refusal(error)
                continue
            ignored |= {name} if after == before else set()
    assert ignored == WITHOUT_EFFECT.get((kind, method, state), set())


def test_a_model_goes_on_with_the_positions_of_the_fit_or_none():
    data = {name: arrays()[name] for name in (*DATA, "positions")}
    model = tiny().fit(**data)
    model.partial_fit(**data).partial_fit(**{name: data[name] for name in DATA})
    assert len(model.history_) == 3
    for mouse, positions in data["positions"].items():
        np.testing.assert_array_equal(model.positions_[mouse], positions)
