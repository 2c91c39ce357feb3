"""What every estimator of trials shares: how it is called, and how it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from v1tlearn._by_name import ByName
from v1tlearn._documentation import DocumentationLinkMixin
from v1tlearn._values import plain
from v1tlearn.estimators import _cards, _files
from v1tlearn.estimators._callbacks import CallbackMixin, with_callbacks
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._leaks import warn_of_held_out_mice
from v1tlearn.estimators._like_fit import check_held_out
from v1tlearn.estimators._progress import shown_log
from v1tlearn.estimators._reading import (
    Call,
    read_fit,
    warn_about_mirrored,
    warn_about_tiers,
)
from v1tlearn.estimators._telling import OnEpoch, as_one
from v1tlearn.training import is_first, resolve_device
from v1tlearn.trials import Trials


class TrialsEstimator(DocumentationLinkMixin, ByName, CallbackMixin, BaseEstimator):
    """Base of the estimators that are fitted to `Trials`, or to arrays in their forms.

    A subclass says in `_fit` what it learns.
    """

    verbose: int
    _frame_wise: ClassVar[bool] = True  # whether movies are taken, frame by frame

    @explained
    @with_callbacks
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
        on_epoch: OnEpoch | Sequence[OnEpoch] | None = None,
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
        on_epoch : callable or sequence of callables, optional
            Called after every epoch with its record, a dict as in `history_`; see
            `v1tlearn.tracking` for some that write files. Of ensembles and searches the record
            tells the "candidate", too, and the call is made in the process that trains it. Where it
            returns True the training ends with this epoch. What it raises ends the training and
            reaches the caller. The best model so far is kept. One with a method
            ``begin(history)`` is told before the first epoch which ones a training goes on from,
            one with a method ``end()`` that it is over; of candidates with the keyword
            ``candidate``.
        checkpoint_dir : str or Path, optional
            A directory for the complete state after every epoch, of which the last two are kept;
            of ensembles a directory per candidate, of searches the study. The same call goes on
            where one that was killed stopped, to the same model.

        Returns
        -------
        self
            The same model whatever the order of the mice in a dict, and another one where the
            trials of a mouse come in another order, by whose places batches are drawn.

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
        told = as_one(on_epoch)
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
        warn_of_held_out_mice(call.trials)
        with shown_log(plain(self.verbose)):
            folder = None if checkpoint_dir is None else Path(checkpoint_dir)
            self._begin_task(call.trials, call.target, self._most_epochs())
            self._fit(call, validation, told, folder)
            self._end_task(call.trials, call.target)
        return self

    def _most_epochs(self) -> int:
        """Count the epochs of which callbacks of scikit-learn are told, at most."""
        return 0

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

    get_params: Callable[..., dict[str, Any]]  # of scikit-learn's own base
    _as_ever: ClassVar[dict[str, Any]] = {}  # parameters of models saved before these were there

    def save(self, path: str | Path, *, card: Mapping[str, Any] | None = None) -> None:
        """Save the fitted estimator: weights, statistics and training state, without pickle.

        Of processes that train together (`torchrun`) the first one writes, the others go on.

        Parameters
        ----------
        path : str or Path
            A directory; an earlier model there is replaced when the new one is fully written.
        card : dict, optional
            Also write a card for people, README.md, in the form that hubs of models show: animals,
            training trials, neurons and a fingerprint of the data, image size, parameters,
            versions, and the checksum of the weights. Number and fingerprint are of the trials
            trained on, without those that ``validation_fraction`` set aside; ``run.json`` of a
            `tracking.RunFolder` has those of the trials given. In it "title", "description",
            "licence" (an SPDX id, such as "CC-BY-4.0") and "scores" (a table, as `score_table`
            gives, or a dict), each where given; ``card={}`` writes what is known anyway. Without,
            the card of an earlier model is removed.

        Raises
        ------
        NotFittedError
            Before `fit`.
        FileExistsError
            If something that is no saved model is in the way, or no card where one is written.
        TypeError
            If a parameter cannot be written, or the card says something in another form.
        ValueError
            If the card says something unknown.
        """
        check_is_fitted(self)
        told = None if card is None else _cards.check_card(card)
        if not is_first():
            return
        place = Path(path)
        if told is not None:
            _cards.check_replaceable(place)

        def then() -> None:
            """Write the card, or remove that of an earlier model."""
            if told is None:
                _cards.remove_card(place)
            else:
                given = self.get_params(deep=False)
                _cards.write_card(place, type(self), given, self._fitted_on(), told)

        _files.write(place, type(self).__name__, self._content(), then)

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
        FileNotFoundError, NotADirectoryError
            If there is nothing at `path`, or a file.
        ValueError
            If the directory holds no such model, or one of another class.
        """
        path = Path(path)
        resolve_device(device)  # what is wrong with it is no damage of the file
        content = _files.read(path, cls.__name__)
        try:
            with _files.damage_named(path, building=True):
                return cls._restore(content, device)
        except _files.OtherVersionError as error:
            raise _files.OtherVersionError(f"{path}: {error}") from error

    @classmethod
    def _with(cls, parameters: Mapping[str, Any], *own: Any) -> Self:
        """Make an estimator of parameters that a version of before, or of later, wrote."""
        known = signature(cls).parameters
        if unknown := [name for name in parameters if name not in known]:
            raise _files.OtherVersionError(
                f"the {cls.__name__} was saved with {', '.join(map(repr, unknown))}, which this "
                "version does not know as a parameter: update v1tlearn."
            )
        return cls(*own, **{**cls._as_ever, **parameters})

    def _fitted_on(self) -> _cards.FittedOn | None:
        """What is known of the recordings; None where nothing is that a card tells."""
        fitted = self.__dict__.get("fitted_")
        return None if fitted is None else _cards.fitted_on(fitted)

    def _content(self) -> dict[str, Any]:
        """Give what is kept in a file, as a tree of plain values, arrays and tensors."""
        raise NotImplementedError(f"{type(self).__name__} does not say what is kept of it.")

    @classmethod
    def _restore(cls, content: dict[str, Any], device: str) -> Self:
        """Make a fitted estimator of what `_content` gave."""
        raise NotImplementedError(f"{cls.__name__} does not say what is kept of it.")
