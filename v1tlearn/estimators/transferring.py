"""From a fitted model to one of new animals, around the core that was trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from v1tlearn._values import plain
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import (
    check_held_out,
    check_parameters,
    check_transfer,
    warn_of_grey_levels,
)
from v1tlearn.estimators._progress import shown_log
from v1tlearn.estimators._ranges import warn_of_other_ranges
from v1tlearn.estimators._reading import read_fit, warn_about_tiers
from v1tlearn.estimators._runs import Start
from v1tlearn.estimators._telling import OnEpoch, as_one
from v1tlearn.estimators._transfer import adopt_core
from v1tlearn.training import shared_seed
from v1tlearn.trials import Trials


class TransferMixin:
    """`transfer`, for estimators that are trained as `TrainedEstimator` is."""

    fitted_: Fitted
    module_: Any
    standardize: bool
    _frame_wise: ClassVar[bool]
    _plain_params: Callable[[], dict[str, Any]]

    @explained
    def transfer(
        self,
        trials: Trials,
        freeze_core: bool = True,
        *,
        validation: Trials | None = None,
        on_epoch: OnEpoch | Sequence[OnEpoch] | None = None,
        **params: Any,
    ) -> Self:
        """Fit the trained core's readouts for new animals.

        Readouts and shifters start afresh and are trained, and so are behaviour networks that
        each mouse has for itself. Statistics for standardising are those of the new animals. The
        core of an alignment is its image tower, its readouts are neural towers; there statistics of
        images stay those of the trained one, since animals of both share a space.

        Parameters
        ----------
        trials : Trials
            Of the new animals, with the behaviour columns of this model and images that have, after
            cropping and resizing, the shape its core takes; `Grayscale` and `ResizeStimuli` help
            where recordings of another laboratory differ.
        freeze_core : bool, default=True
            Keep the core as it is: no gradient, no penalty, no dropout, running statistics of batch
            normalisation. Otherwise it is trained further, with `core_lr` if given.
        validation : Trials, optional
            As in `fit`.
        on_epoch : callable or sequence of callables, optional
            As in `fit`.
        **params
            Parameters of the new estimator where they differ, of training, readout or shifter:
            ``lr``, ``core_lr``, ``max_epochs``, ``random_state``...

        Returns
        -------
        estimator
            A new one, fitted; this one stays as it is.

        Raises
        ------
        TypeError
            If trials are no `Trials`, or `freeze_core` is no bool.
        ValueError
            If trials or parameters ask for another core than the trained one.

        References
        ----------
        Lurz et al., "Generalization in data-driven models of primary visual cortex", ICLR, 2021.
        """
        check_is_fitted(self)
        check_transfer(trials, freeze_core, params, known=self._plain_params())
        check_held_out(validation)
        told = as_one(on_epoch)
        check_parameters(self.fitted_.parameters, self._plain_params())
        new = clone(self).set_params(**params)
        new._validate_params()
        call = read_fit(trials, None, None, None, frame_wise=self._frame_wise)
        warn_about_tiers(trials)
        if not new.standardize:
            warn_of_grey_levels(self.fitted_, call.trials)
        seed = shared_seed(plain(new.random_state))
        training, held_out = new._split(call, validation, seed)
        new._warn_of_no_epochs()
        start = new._from_scratch(*training, seed)
        if self._keeps_scaling():
            warn_of_other_ranges(self.fitted_, training[0], of=start.fitted)
        start = start._replace(fitted=self._adopted(start, freeze=bool(freeze_core)))
        with shown_log(plain(new.verbose)):
            return new._train(training, held_out, seed, start=start, on_epoch=told)

    def _keeps_scaling(self) -> bool:
        """Tell whether stimuli of new animals are scaled as those of the first ones."""
        return not plain(self.standardize)

    def _adopted(self, start: Start, *, freeze: bool) -> Fitted:
        """Give a model that was just begun the trained core; what it then knows."""
        return adopt_core(start.model, start.fitted, self.module_, self.fitted_, freeze=freeze)
