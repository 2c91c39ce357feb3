"""What every estimator of trials shares: how it is called, and how it is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from v1tlearn._by_name import ByName
from v1tlearn._documentation import DocumentationLinkMixin
from v1tlearn._values import plain
from v1tlearn.estimators import _files
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._like_fit import check_held_out
from v1tlearn.estimators._progress import shown_log
from v1tlearn.estimators._reading import (
    Call,
    read_fit,
    warn_about_mirrored,
    warn_about_tiers,
)
from v1tlearn.training import is_first, resolve_device
from v1tlearn.trials import Trials

Record = dict[str, float]
OnEpoch = Callable[[Record], None]


class TrialsEstimator(DocumentationLinkMixin, ByName, BaseEstimator):
    """Base of the estimators that are fitted to `Trials`, or to arrays in their forms.

    A subclass says in `_fit` what it learns.
    """

    verbose: int
    _frame_wise: ClassVar[bool] = True  # whether movies are taken, frame by frame

    @explained
    def fit(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
        *,
        image_ids: Any = None,
        positions: Any = None,
        behavior_names: Sequence[str] | None = None,
        frame_rate: float | None = None,
        validation: Trials | None = None,
        on_epoch: OnEpoch | None = None,
        checkpoint_dir: str | Path | None = None,
    ) -> Self:
        """Fit to recordings of one or several mice.

        Parameters
        ----------
        stimuli : Trials, dict, list or ndarray
            `Trials`, which bring everything; or grey levels (trials, channels, height, width) as
            a dict per mouse, a list with one entry per recording, a flat array with one mouse id
            per trial, or an array of one mouse. Of movies, (trials, time, channels, height,
            width), each frame is fitted with the responses to it.
        behaviors : dict, list, ndarray or Responses, optional
            (trials, [time,] columns) in the form of `stimuli`. After `Trials` this is
            scikit-learn's `y`: the responses, or None to take those of the trials.
        responses : dict, list or ndarray, optional
            (trials, [time,] neurons) in the form of `stimuli`, not negative, in any unit; NaN
            where not recorded. Of neurons that never respond in the training trials there is a
            warning.
        mouse_ids : sequence, optional
            One id per recording (list) or per trial (flat array).
        image_ids : dict, list or ndarray, optional
            One label per trial; a hash of the image where not given. All repeats of an image, in
            all mice, fall on one side of the validation split.
        positions : dict, list or ndarray, optional
            Cortical positions (neurons, 2 or 3) per mouse, in micrometres.
        behavior_names : sequence of str, optional
            Names of the behaviour columns, see `Trials.from_arrays`.
        frame_rate : float, optional
            Frames per second of movies that are given as arrays. Models that see time then refuse
            movies of another rate. Without it nothing is guessed: time is counted in frames.
        validation : Trials, optional
            Trials for the learning-rate schedule and the choice of the best epoch, and of the
            members of an ensemble and the candidates of a search. Without it `validation_fraction`
            of the images are set aside.
        on_epoch : callable, optional
            Called after every epoch with its record, a dict as in `history_`. Of ensembles and
            searches the record tells the "candidate", too, and the call is made in the process that
            trains it. What it raises ends the training and reaches the caller; the best model so
            far is kept.
        checkpoint_dir : str or Path, optional
            A directory for the complete state after every epoch, of which the last two are kept;
            of ensembles a directory per candidate, of searches the study. The same call goes on
            where one that was killed stopped, to the same model.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If arguments are of the wrong form, shape or content, mouse and variable are named; if
            neurons were recorded in no training trial; or if `checkpoint_dir` holds the state of
            other data or parameters.
        NonFiniteLossError
            If the loss becomes NaN. The best model so far is kept.
        InsufficientMemoryError
            If memory does not suffice; what helps is named. The best model so far is kept.
        """
        self._validate_params()
        check_held_out(validation)
        check_on_epoch(on_epoch)
        call = read_fit(
            stimuli,
            behaviors,
            responses,
            mouse_ids,
            image_ids=image_ids,
            positions=positions,
            behavior_names=behavior_names,
            frame_rate=frame_rate,
            frame_wise=self._frame_wise,
        )
        warn_about_tiers(call.trials)
        warn_about_mirrored(call.trials)
        with shown_log(plain(self.verbose)):
            folder = None if checkpoint_dir is None else Path(checkpoint_dir)
            return self._fit(call, validation, on_epoch, folder)

    def _fit(
        self,
        call: Call,
        validation: Trials | None,
        on_epoch: OnEpoch | None,
        checkpoint_dir: Path | None,
    ) -> Self:
        raise NotImplementedError(f"{type(self).__name__} does not say what it learns.")


class SavingMixin:
    """`save` and `load`, for estimators that say in `_content` and `_restore` what is kept."""

    def save(self, path: str | Path) -> None:
        """Save the fitted estimator: weights, statistics and training state, without pickle.

        Of processes that train together (`torchrun`) the first one writes, the others go on.

        Parameters
        ----------
        path : str or Path
            A directory; an earlier model there is replaced when the new one is fully written.

        Raises
        ------
        NotFittedError
            Before `fit`.
        FileExistsError
            If something that is no saved model is in the way.
        TypeError
            If a parameter cannot be written.
        """
        check_is_fitted(self)
        if is_first():
            _files.write(Path(path), type(self).__name__, self._content())

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Self:
        """Load what `save` wrote. Nothing in the files is executed.

        Parameters
        ----------
        path : str or Path
        device : str, default="auto"
            Where the model goes, whatever it was fitted on.

        Returns
        -------
        estimator
            Fitted.

        Raises
        ------
        ValueError
            If the directory holds no such model, or one of another class.
        """
        path = Path(path)
        resolve_device(device)  # what is wrong with it is no damage of the file
        content = _files.read(path, cls.__name__)
        with _files.damage_named(path, building=True):
            return cls._restore(content, device)

    def _content(self) -> dict[str, Any]:
        """Give what is kept in a file, as a tree of plain values, arrays and tensors."""
        raise NotImplementedError(f"{type(self).__name__} does not say what is kept of it.")

    @classmethod
    def _restore(cls, content: dict[str, Any], device: str) -> Self:
        """Make a fitted estimator of what `_content` gave."""
        raise NotImplementedError(f"{cls.__name__} does not say what is kept of it.")


def check_on_epoch(on_epoch: Any) -> None:
    """Check that a callback can be called.

    Raises
    ------
    TypeError
        If it cannot.
    """
    if on_epoch is not None and not callable(on_epoch):
        raise TypeError(
            f"on_epoch is a {type(on_epoch).__name__}: expected a function, which is called "
            "with the record of every epoch."
        )
