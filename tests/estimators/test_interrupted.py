"""A fit that does not come to its first good epoch: an earlier one stays, or there is none."""

import inspect
import sys

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from tests.sweeps import quick

POINTS = [0.02, 0.2, 0.4, 0.6, 0.8, 0.95]


class Stop(BaseException):
    """What no `except Exception` catches."""


def stopped(call, n):
    """Call, and raise in the n-th function of the package that it enters; how many there were.

    Generators do not count: one is entered, too, where it is cleared away, and nothing that is
    raised there comes to the caller.
    """
    count = 0

    def enter(frame, event, arg):
        nonlocal count
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            return
        if frame.f_globals.get("__name__", "").startswith("v1tlearn"):
            count += 1
            if count == n:
                sys.settrace(None)
                raise Stop

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


class Ends(Exception):
    """The first epoch is over."""


def until_first_epoch(call):
    """Make a call that ends with its first epoch, before anybody is told of it."""

    def told(record):
        raise Ends

    def run():
        with pytest.raises(Ends):
            call(told)

    return run


def state(model):
    """All that a training goes on from, as bytes."""
    tree = model.state_
    return repr({k: v for k, v in tree.items() if k in ("epoch", "history", "stop_reason")}), [
        value.clone() for value in tree["best"].values()
    ]


@pytest.mark.parametrize("share", quick(POINTS, 2))
def test_a_fit_that_goes_on(small, trials, share, equal):
    model = small(warm_start=True, max_epochs=1).fit(trials)
    predictions, before = model.predict(trials), state(model)
    other = small(warm_start=True, max_epochs=1).fit(trials)
    n = stopped(until_first_epoch(lambda told: other.fit(trials, on_epoch=told)), -1)
    with pytest.raises(Stop):
        stopped(lambda: model.fit(trials), int(share * n))
    assert equal(model.predict(trials), predictions)
    assert state(model)[0] == before[0]
    assert all(map(torch.equal, state(model)[1], before[1]))
    other = small(warm_start=True, max_epochs=1).fit(trials)
    assert equal(model.fit(trials).predict(trials), other.fit(trials).predict(trials))


@pytest.mark.parametrize("share", quick(POINTS, 1, 3))
@pytest.mark.parametrize("fitted", [False, True])
def test_a_fit_anew(small, trials, share, fitted, equal):
    n = stopped(until_first_epoch(lambda told: small().fit(trials, on_epoch=told)), -1)
    model = small(random_state=1)
    predictions = model.fit(trials).predict(trials) if fitted else None
    with pytest.raises(Stop):
        stopped(lambda: model.set_params(random_state=0).fit(trials), int(share * n))
    if fitted:
        assert equal(model.predict(trials), predictions)
    else:
        with pytest.raises(NotFittedError):
            model.predict(trials)


@pytest.mark.parametrize("share", quick(POINTS, 2))
def test_partial_fit(small, trials, share, equal):
    model = small().fit(trials)
    predictions = model.predict(trials)
    # what follows the epoch takes a few calls only
    n = stopped(lambda: small().fit(trials).partial_fit(trials), -1)
    n -= stopped(lambda: small().fit(trials), -1)
    with pytest.raises(Stop):
        stopped(lambda: model.partial_fit(trials), int(0.8 * share * n))
    assert equal(model.predict(trials), predictions)


def test_transfer_leaves_the_model_as_it_is(small, trials, equal):
    model = small().fit(trials)
    predictions = model.predict(trials)
    n = stopped(lambda: model.transfer(trials, max_epochs=1), -1)
    for share in POINTS:
        with pytest.raises(Stop):
            stopped(lambda: model.transfer(trials, max_epochs=1), int(share * n))
        assert equal(model.predict(trials), predictions)


def test_trials_whose_files_break_off_while_they_are_brought(small, trials, tmp_path, equal):
    v1.save_recordings(trials.recordings, tmp_path / "trials.nc")
    lazy = v1.Trials.open(tmp_path / "trials.nc")
    model = small().fit(lazy)
    predictions = model.predict(trials)

    def core_that_stops(shape):
        raise Stop

    own = v1.EncodingRegressor(core_that_stops, device="cpu")
    with pytest.raises(Stop):
        own.fit(lazy)
    with pytest.raises(NotFittedError):
        own.predict(lazy)
    with pytest.raises(Stop):
        stopped(lambda: model.fit(lazy), 600)
    assert equal(model.predict(trials), predictions)


def test_a_core_that_stops_within_the_first_epoch(trials):
    class Core(v1.nn.Core):
        def __init__(self, input_shape):
            super().__init__(input_shape)
            self.output_shape = (2, *input_shape[1:])
            self.filters, self.left = torch.nn.Conv2d(input_shape[0], 2, 3, padding=1), 2

        def forward(self, images, behaviors=None, sizes=None):
            self.left -= self.training
            if self.left < 0:
                raise KeyboardInterrupt
            return self.filters(images)

    model = v1.EncodingRegressor(Core, batch_size=8, max_epochs=2, device="cpu", random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(trials)
    with pytest.raises(NotFittedError):
        model.predict(trials)


@pytest.mark.slow
def test_an_interrupted_ensemble_keeps_its_members(small, trials, equal):
    make = lambda: v1.EnsembleRegressor(  # noqa: E731
        small(max_epochs=1), n_candidates=2, n_members=1, random_state=0
    )
    model = make().fit(trials)
    predictions = model.predict(trials)
    n = stopped(lambda: make().fit(trials), -1)
    for share in (0.5, 0.9):
        with pytest.raises(Stop):
            stopped(lambda: model.fit(trials), int(share * n))
        assert equal(model.predict(trials), predictions)
        assert np.isfinite(model.validation_scores_).all()
