"""Models with one or several parameters changed: refused ahead of the training, or trained well."""

import contextlib
import decimal
import fractions
import io
import warnings
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from sklearn.utils._param_validation import Interval, StrOptions

import v1tlearn as v1
from tests.fuzz.arguments import arrays, tiny
from tests.fuzz.harness import Wrong
from tests.fuzz.watched import WatchedModel, check_refusal, within_time

VALUES = [
    *(None, True, False, 0, 1, 2, 3, -1, -7, 10**9, 2**31, 2**63, 10**30),
    *(0.0, 0.5, 1.0, 0.999999, 1.5, -0.5, 1e-30, 1e-320, 1e30, 1e300),
    *(float("nan"), float("inf"), -float("inf"), 1j),
    *("", "auto", "none", "all", "x", "1", "sqrt", "../x", "\x00", b"auto"),
    *((), (1,), (0.9, 0.999), (1, 2), (3, 3), [3, 3], [1, 1, 1], (0.5, 2.0), (None, None)),
    *([], [0], [-1, 2], ["x"], ["running_speed"], ("running_speed", "running_speed"), (1, "x")),
    *({}, {1, 2}, {"a": 1}, object, len, print),
    *(decimal.Decimal("0.5"), fractions.Fraction(1, 2), pd.NA, pd.NaT, np.ma.masked),
    *(np.float32(0.5), np.float16(0.1), np.int64(2), np.uint8(3), np.bool_(True), np.str_("auto")),
    *(np.array(2), np.array(0.5), np.array([1, 2]), np.array([0.9, np.nan]), np.array(["x"])),
    *(torch.tensor(1.0), torch.device("cpu"), torch.float32),
]

SMALL = {
    v1.LNRegressor: {},
    v1.CNNRegressor: {},
    v1.FullModelRegressor: {"channels": (2, 2), "kernels": (3, 3), "space_init": 0.3},
    v1.ViTRegressor: {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2}
    | {"embed_dim": 4, "mlp_dim": 4},
    v1.V1TRegressor: {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2}
    | {"embed_dim": 4, "mlp_dim": 4},
}
COMMON = {"max_epochs": 1, "batch_size": 4, "device": "cpu", "random_state": 0}
COMMON |= {"validation_fraction": 0}


def small(kind):
    """A model of a class that is trained in some milliseconds."""
    return tiny(kind) if not SMALL[kind] else kind(**COMMON, **SMALL[kind])


class Parameters:
    """Models whose constructor was given odd values."""

    def __init__(self, folder):
        self._folder = folder

    def attempt(self, drawn):
        """Draw a model and values, and fit it.

        Returns
        -------
        str
            "right", or the name of the documented error.
        """
        kind = drawn.choice(list(SMALL))
        model = small(kind)
        names = sorted(set(model.get_params(deep=False)) - {"verbose"})
        few = drawn.sample(names, drawn.choice((1, 1, 2, 3)))
        changed = {name: _value(kind._parameter_constraints.get(name), drawn) for name in few}
        said = f"{kind.__name__}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"
        epochs = changed.get("max_epochs")
        if isinstance(epochs, int | np.integer | np.ndarray) and np.all(np.asarray(epochs) > 3):
            changed["max_epochs"] = 2  # as many as one likes are legal
        model.set_params(**changed)
        given = {name: arrays()[name] for name in ("stimuli", "behaviors", "responses")}
        with within_time(60), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                return _fit(model, given, self._folder / "saved")
            except Wrong as error:
                raise Wrong(f"{said}: {error}") from error


def _value(allowed, drawn):
    """Any value, or one of those that a parameter is told to take."""
    rule = drawn.choice(allowed) if isinstance(allowed, list) else None
    if rule is None or drawn.random() < 0.4:
        return drawn.choice(VALUES)
    if isinstance(rule, StrOptions):
        return drawn.choice(sorted(rule.options))
    if isinstance(rule, Interval):
        low, high = rule.left or 0, 4 if rule.right is None else min(rule.right, 4)
        if rule.type is Integral:
            return drawn.randint(low, high)
        return drawn.choice((low, high, drawn.uniform(low, high)))
    return drawn.choice((True, False)) if rule == "boolean" else drawn.choice(VALUES)


def _fit(model, given, path):
    watched = WatchedModel(model)
    try:
        model.fit(**given)
    except Exception as error:
        check_refusal(error)
        watched.check_is_as_before()
        return type(error).__name__
    answer = model.predict(given["stimuli"], given["behaviors"])
    for mouse, values in answer.items():
        if values.shape != given["responses"][mouse].shape or not np.isfinite(values).all():
            raise Wrong(f"predictions of mouse {mouse} have shape {values.shape}: {values[:1]}")
    score = model.score(**given)
    if not -1.0001 <= score <= 1.0001:
        raise Wrong(f"the score is {score}")
    try:
        model.save(path)
    except TypeError as error:  # of a parameter that no file can hold
        check_refusal(error)
        return "right"
    again = v1.load(path, device="cpu")
    if not all(np.array_equal(answer[m], v) for m, v in _predicted(again, given).items()):
        raise Wrong("other predictions after saving and loading")
    return "right"


def _predicted(model, given):
    return model.predict(given["stimuli"], given["behaviors"])
