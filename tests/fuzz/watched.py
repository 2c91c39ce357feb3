"""What a call that is refused must leave alone, and what a refusal is."""

import signal
import traceback
from contextlib import contextmanager
from pathlib import Path

import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

import v1tlearn as v1
from tests.fuzz.harness import Wrong
from v1tlearn.training import InsufficientMemoryError, NonFiniteLossError

PACKAGE = Path(v1.__file__).parent
DOCUMENTED = (ValueError, TypeError, NotFittedError, InsufficientMemoryError, NonFiniteLossError)
LOOPS = {"run.py", "steps.py", "neuron_steps.py", "neuron_run.py"}  # where epochs are made


def check_refusal(error):
    """Check that an error is one of ours, raised by us, ahead of the training."""
    frames = traceback.extract_tb(error.__traceback__)
    last = Path(frames[-1].filename)
    where = f"{last.parent.name}/{last.name}:{frames[-1].lineno}"
    if not isinstance(error, DOCUMENTED):
        raise Wrong(f"{type(error).__name__} of {where}: {error}") from error
    if isinstance(error, InvalidParameterError | NotFittedError):
        return
    if not last.is_relative_to(PACKAGE) or not frames[-1].line.startswith("raise"):
        raise Wrong(f"{type(error).__name__}, not ours, of {where}: {error}") from error
    training = [
        frame
        for frame in frames
        if Path(frame.filename).parent == PACKAGE / "training"
        and Path(frame.filename).name in LOOPS
    ]
    if training and not isinstance(error, NonFiniteLossError | InsufficientMemoryError):
        raise Wrong(f"{type(error).__name__} within the training: {error}") from error


class WatchedModel:
    """A model ahead of a call, to be held against it after one that was refused."""

    def __init__(self, model):
        self._model = model
        if model is None:
            return
        self._names = set(vars(model))
        self._parameters = {name: repr(v) for name, v in model.get_params().items()}
        self._weights = self._now()

    def _now(self):
        if "module_" not in vars(self._model):
            return {}
        return {name: w.clone() for name, w in self._model.module_.state_dict().items()}

    def check_is_as_before(self):
        """Check names, parameters and weights."""
        if self._model is None:
            return
        if set(vars(self._model)) != self._names:
            raise Wrong(f"a refused call left {set(vars(self._model)) ^ self._names}")
        if {name: repr(v) for name, v in self._model.get_params().items()} != self._parameters:
            raise Wrong("a refused call changed parameters")
        now = self._now()
        if now.keys() != self._weights.keys() or not all(
            torch.equal(value, self._weights[name]) for name, value in now.items()
        ):
            raise Wrong("a refused call changed weights")


@contextmanager
def within_time(seconds):
    """Make what takes longer, in time of the processor, wrong."""

    def stop(*_):
        raise Wrong(f"not over after {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
