"""Calls of one model in any order, held against what a model of the model says must follow."""

import copy
import pickle
import tempfile

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from tests.fuzz.arguments import arrays
from tests.fuzz.machine import Machine, run_sequences
from tests.fuzz.odd_arrays import CHANGES, REFUSED, SAME
from tests.fuzz.parameters import SMALL, small
from tests.fuzz.watched import WatchedModel, check_refusal

MICE = [("A",), ("B",), ("A", "B")]
WRONG = [(name, *change) for name, found in CHANGES.items() for change in found
         if name != "positions" and change[2] == REFUSED]  # fmt: skip
CLOTHES = [(name, *change) for name in ("stimuli", "behaviors") for change in CHANGES[name]
           if change[2] == SAME]  # fmt: skip
SETTINGS = [
    {"lr": 0.01},
    {"max_epochs": 2},
    {"max_epochs": 0},
    {"warm_start": True},
    {"warm_start": False},
    {"batch_size": 1},
    {"random_state": 3},
    {"hidden_channels": 3},
    {"precision": "float32"},
    {"standardize": False},
    {"validation_fraction": 0.4},
    {"readout_l1": 0.0},
]
BAD = [{"lr": -1}, {"lr": float("nan")}, {"hidden_channels": 0}, {"readout_bias": "x"}]
BAD += [{"max_epochs": 1.5}, {"batch_size": True}, {"device": "nowhere"}]


def of(mice, *names):
    """Some arguments, of some mice."""
    return {name: {m: arrays()[name][m] for m in mice} for name in names}


class Sequences(Machine):
    """One model; `known` are its mice, None while it is not fitted."""

    @initialize(kind=st.sampled_from([*SMALL]))
    def begin(self, kind):
        self.model, self.known = small(kind), None

    def _own(self, changed):
        """Those parameters that this kind of model has."""
        return {n: v for n, v in changed.items() if n in self.model.get_params()}

    def _predicted(self, model=None):
        model = self.model if model is None else model
        return model.predict(**of(self.known, "stimuli", "behaviors"))

    def _refused(self, call, kinds=(ValueError, TypeError)):
        watched = WatchedModel(self.model)
        with pytest.raises(kinds) as caught:
            call()
        check_refusal(caught.value)
        watched.check_is_as_before()

    # ------------------------------------------------------------------------------ parameters

    @rule(changed=st.sampled_from(SETTINGS))
    def set_params(self, changed):
        self.model.set_params(**self._own(changed))

    @rule(changed=st.sampled_from(BAD))
    def set_wrong_params(self, changed):
        changed = self._own(changed)
        if not changed:
            return
        kept = {name: self.model.get_params()[name] for name in changed}
        self.model.set_params(**changed)
        self._refused(lambda: self.model.fit(**of(("A",), "stimuli", "behaviors", "responses")))
        self.model.set_params(**kept)

    @rule()
    def set_unknown_params(self):
        self._refused(lambda: self.model.set_params(learning_rate=1))

    # -------------------------------------------------------------------------------- training

    @rule(mice=st.sampled_from(MICE), call=st.sampled_from(["fit", "partial_fit"]))
    def train(self, mice, call):
        given = of(mice, "stimuli", "behaviors", "responses")
        goes_on = self.known is not None and (call == "partial_fit" or self.model.warm_start)
        changed = goes_on and self._other_than_fitted()
        if goes_on and (mice != self.known or changed):
            self._refused(lambda: getattr(self.model, call)(**given))
            return
        before = len(self.model.history_) if goes_on else 0
        assert getattr(self.model, call)(**given) is self.model
        n = 1 if call == "partial_fit" else self.model.max_epochs
        assert before <= len(self.model.history_) <= before + n
        self.known, self.fitted_with = mice, self.model.get_params()

    def _other_than_fitted(self):
        now = self.model.get_params()
        names = self._own(dict.fromkeys(("hidden_channels", "standardize")))
        return any(now[name] != self.fitted_with[name] for name in names)

    @rule(what=st.sampled_from(WRONG), call=st.sampled_from(["fit", "partial_fit"]),
          drawn=st.randoms(use_true_random=False))  # fmt: skip
    def train_on_what_is_wrong(self, what, call, drawn):
        name, _, change, _ = what
        given = of(("A", "B"), "stimuli", "behaviors", "responses")
        given[name] = given[name] | {"B": change(given[name]["B"], drawn)}
        self._refused(lambda: getattr(self.model, call)(**given))

    @rule(call=st.sampled_from(["predict", "score", "save", "transfer"]))
    @precondition(lambda self: self.known is None)
    def ask_too_early(self, call):
        arguments = {"predict": (arrays()["stimuli"],), "score": (arrays()["stimuli"],) * 3}
        arguments |= {"save": ("/nowhere",), "transfer": (self._trials(("A",)),)}
        self._refused(lambda: getattr(self.model, call)(*arguments[call]), NotFittedError)

    # ------------------------------------------------------------------------------ of a fitted

    @invariant()
    def predictions_are_finite_and_of_the_right_shapes(self):
        if getattr(self, "known", None) is None:
            return
        for mouse, values in self._predicted().items():
            assert values.shape == arrays()["responses"][mouse].shape
            assert np.isfinite(values).all()

    @rule(order=st.permutations(range(6)))
    @precondition(lambda self: self.known is not None)
    def predict_in_another_order(self, order):
        given = of(self.known, "stimuli", "behaviors")
        turned = {name: {m: a[order] for m, a in by.items()} for name, by in given.items()}
        for mouse, values in self.model.predict(**turned).items():
            assert np.allclose(values, self._predicted()[mouse][order], atol=1e-5, rtol=1e-4)

    @rule(what=st.sampled_from(CLOTHES), drawn=st.randoms(use_true_random=False))
    @precondition(lambda self: self.known is not None)
    def predict_the_same_in_other_clothes(self, what, drawn):
        name, _, change, _ = what
        given = of(self.known[::-1], "stimuli", "behaviors")
        mouse = drawn.choice(self.known)
        given[name][mouse] = change(given[name][mouse], drawn)
        found = self.model.predict(**given)
        for mouse, values in self._predicted().items():
            assert np.allclose(found[mouse], values, atol=1e-5, rtol=1e-4)

    @rule(rows=st.lists(st.integers(0, 5), min_size=1, max_size=9))
    @precondition(lambda self: self.known is not None)
    def predict_some_trials_several_times(self, rows):
        whole = self._predicted()
        for mouse in self.known:
            given = of((mouse,), "stimuli", "behaviors")
            some = {name: {mouse: by[mouse][rows]} for name, by in given.items()}
            found = self.model.predict(**some)[mouse]
            assert np.allclose(found, whole[mouse][rows], atol=1e-5, rtol=1e-4)

    @rule()
    @precondition(lambda self: self.known is not None)
    def go_on_with_other_positions(self):
        places = {m: a + np.float32(1) for m, a in arrays()["positions"].items() if m in self.known}
        given = of(self.known, "stimuli", "behaviors", "responses") | {"positions": places}
        self._refused(lambda: self.model.partial_fit(**given))

    @rule()
    @precondition(lambda self: self.known is not None)
    def score(self):
        score = self.model.score(**of(self.known, "stimuli", "behaviors", "responses"))
        assert -1.0001 <= score <= 1.0001

    @rule(what=st.sampled_from([w for w in WRONG if w[0] != "responses"]),
          drawn=st.randoms(use_true_random=False))  # fmt: skip
    @precondition(lambda self: self.known is not None)
    def predict_what_is_wrong(self, what, drawn):
        name, _, change, _ = what
        given = of(self.known, "stimuli", "behaviors")
        mouse = self.known[-1]
        given[name] = given[name] | {mouse: change(given[name][mouse], drawn)}
        if what[1] in ("one trial's array", "one trial") and name != "behaviors":
            return
        self._refused(lambda: self.model.predict(**given))

    @rule()
    @precondition(lambda self: self.known not in (None, ("A", "B")))
    def predict_an_unknown_mouse(self):
        self._refused(lambda: self.model.predict(**of(("A", "B"), "stimuli", "behaviors")))

    # ------------------------------------------------------------------------------ round trips

    @rule(way=st.sampled_from(["save", "pickle", "deepcopy"]), goes_on=st.booleans())
    @precondition(lambda self: self.known is not None)
    def round_trip(self, way, goes_on):
        expected, parameters = self._predicted(), self.model.get_params()
        if way == "save":
            with tempfile.TemporaryDirectory() as folder:
                self.model.save(folder)
                other = v1.load(folder, device="cpu")
        else:
            other = pickle.loads(pickle.dumps(self.model)) if way == "pickle" else None
            other = copy.deepcopy(self.model) if other is None else other
        assert other.get_params() == parameters
        assert other.history_ == self.model.history_
        for mouse, values in self._predicted(other).items():
            assert np.array_equal(values, expected[mouse])
        if goes_on:
            self.model = other

    @rule(goes_on=st.booleans())
    def cloned(self, goes_on):
        other = clone(self.model)
        assert other.get_params() == self.model.get_params()
        assert not hasattr(other, "fitted_")
        if goes_on:
            self.model, self.known = other, None

    def _trials(self, mice):
        return v1.Trials.from_arrays(**of(mice, "stimuli", "behaviors", "responses"))

    @rule(mice=st.sampled_from(MICE), goes_on=st.booleans(), frozen=st.booleans())
    @precondition(lambda self: self.known is not None and not self._other_than_fitted())
    def transfer(self, mice, goes_on, frozen):
        expected = self._predicted()
        other = self.model.transfer(self._trials(mice), freeze_core=frozen)
        for mouse, values in self._predicted().items():
            assert np.array_equal(values, expected[mouse])
        if goes_on:
            self.model, self.known, self.fitted_with = other, mice, other.get_params()


def test_a_few_sequences_of_calls():
    run_sequences(Sequences, 4, 8, derandomize=True)


@pytest.mark.slow
def test_many_sequences_of_calls():
    run_sequences(Sequences, 8, derandomize=True)
