"""Calls of models of any kind, in any order: what must follow whatever the model is."""

import copy
import pickle
import re
import tempfile

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

import v1tlearn as v1
from tests.fuzz.kinds import DATA, KINDS
from tests.fuzz.machine import Machine, run_sequences
from tests.fuzz.watched import WatchedModel, check_refusal
from v1tlearn.search import HyperbandSearch

DRAWN = st.randoms(use_true_random=False)


class AnyKind(Machine):
    """One model; `known` names the data that it was last fitted to, None while it is not."""

    names = (*KINDS,)

    @initialize(drawn=DRAWN)
    def begin(self, drawn):
        self.kind = KINDS[drawn.choice(self.names)]
        self.model, self.known, self.fresh = self.kind.make(), None, False

    def _answer(self, model=None, trials=None):
        trials = self.kind.trials(self.known) if trials is None else trials
        return self.kind.answer(self.model if model is None else model, trials)

    def _parameters(self, model=None):
        told = repr((self.model if model is None else model).get_params(deep=False))
        return re.sub("0x[0-9a-fA-F]+", "", told)  # of distributions of SciPy

    def _refused(self, call, kinds=(ValueError, TypeError)):
        watched = WatchedModel(self.model)
        before = None if self.known is None else self._answer()
        with pytest.raises(kinds) as caught:
            call()
        check_refusal(caught.value)
        # Of a pipeline the first steps may be fitted by then; a search keeps what its trials told.
        if isinstance(self.model, Pipeline | HyperbandSearch):
            self.model, self.known = clone(self.model), None
            return
        watched.check_is_as_before()
        if before is not None:
            assert _equal(self._answer(), before)

    # ------------------------------------------------------------------ parameters and training

    @rule(drawn=DRAWN)
    def set_params(self, drawn):
        self.model.set_params(**drawn.choice(self.kind.settings))
        self.fresh = False

    @rule(drawn=DRAWN)
    def fit_with_wrong_params(self, drawn):
        bad = drawn.choice(self.kind.bad)
        model = clone(self.model).set_params(**bad)
        watched = WatchedModel(model)
        with pytest.raises((ValueError, TypeError)) as caught:
            model.fit(self.kind.trials("A"))
        check_refusal(caught.value)
        if not isinstance(model, Pipeline):
            watched.check_is_as_before()

    @rule(name=st.sampled_from(DATA), call=st.sampled_from(["fit", "fit", "partial_fit"]))
    def train(self, name, call):
        if not hasattr(self.model, call):
            return
        again = call == "partial_fit" or getattr(self.model, "warm_start", False)
        trials = self.kind.trials(name)
        if self.known is not None and again and name != self.known:
            self._refused(lambda: getattr(self.model, call)(trials))
            return
        assert getattr(self.model, call)(trials) is self.model
        self.fresh = not again
        self.known = name
        self._check(self._answer(), trials)

    def _check(self, answer, trials):
        assert len(answer) == len(trials)
        for own in answer:
            assert own.size
            assert np.isfinite(own.astype(float)).all()

    @rule(drawn=DRAWN)
    def fit_to_what_is_wrong(self, drawn):
        trials = self.kind.trials(drawn.choice(self.kind.refused))
        self._refused(lambda: self.model.fit(trials))

    @rule()
    @precondition(lambda self: self.known is not None and self.fresh)
    def fit_another_one_alike(self):
        trials = self.kind.trials(self.known)
        assert _equal(self._answer(clone(self.model).fit(trials)), self._answer())

    @rule()
    @precondition(lambda self: self.known is None)
    def ask_too_early(self):
        self._refused(lambda: self._answer(trials=self.kind.trials("A")), NotFittedError)

    # ------------------------------------------------------------------------------ of a fitted

    @rule(rows=st.lists(st.integers(0, 4), min_size=1, max_size=7))
    @precondition(lambda self: self.known is not None)
    def ask_for_some_trials_several_times(self, rows):
        trials, whole = self.kind.trials(self.known), self._answer()
        for own, row in zip(self._answer(trials=trials[rows]), rows, strict=True):
            assert np.allclose(own.astype(float), whole[row].astype(float), 1e-4, 1e-4)

    @rule()
    @precondition(lambda self: self.known is not None)
    def score(self):
        score = self.model.score(self.kind.trials(self.known))
        assert -1.0001 <= score <= 1.0001

    @rule(drawn=DRAWN)
    @precondition(lambda self: self.known == "AB")
    def ask_what_is_wrong(self, drawn):
        trials = self.kind.trials(drawn.choice(self.kind.unanswered))
        self._refused(lambda: self._answer(trials=trials))

    @rule(way=st.sampled_from(["save", "pickle", "deepcopy"]), goes_on=st.booleans())
    @precondition(lambda self: self.known is not None)
    def round_trip(self, way, goes_on):
        if way == "save" and not hasattr(self.model, "save"):
            return
        expected, parameters = self._answer(), self._parameters()
        if way == "save":
            with tempfile.TemporaryDirectory() as folder:
                self.model.save(folder)
                other = v1.load(folder, device="cpu")
        else:
            other = pickle.loads(pickle.dumps(self.model)) if way == "pickle" else None
            other = copy.deepcopy(self.model) if other is None else other
        assert self._parameters(other) == parameters
        assert _equal(self._answer(other), expected)
        assert _equal(self._answer(), expected)
        if goes_on:
            self.model = other

    @rule(goes_on=st.booleans())
    def cloned(self, goes_on):
        other = clone(self.model)
        assert self._parameters(other) == self._parameters()
        with pytest.raises(NotFittedError):
            self._answer(other, self.kind.trials("A"))
        if goes_on:
            self.model, self.known = other, None

    @rule(name=st.sampled_from(DATA), goes_on=st.booleans())
    @precondition(lambda self: self.known is not None and hasattr(self.model, "transfer"))
    def transfer(self, name, goes_on):
        expected, trials = self._answer(), self.kind.trials(name)
        other = self.model.transfer(trials)
        assert _equal(self._answer(), expected)
        self._check(self._answer(other, trials), trials)
        if goes_on:
            self.model, self.known, self.fresh = other, name, False


def _equal(ones, others):
    return len(ones) == len(others) and all(map(np.array_equal, ones, others))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS])
def test_sequences_of_calls_of_every_kind(name):
    machine = type("Machine", (AnyKind,), {"names": (name,)})
    run_sequences(machine, 4, 10, derandomize=True)
