"""Several models of one kind, chosen by validation score, whose predictions are combined.

Training the candidates is in `_candidates`, learning their weights in `_mixing`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
from sklearn.base import MetaEstimatorMixin, MultiOutputMixin, RegressorMixin, clone
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from v1tlearn._values import plain
from v1tlearn.estimators import _candidates
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._candidates import Candidate, shared_head
from v1tlearn.estimators._cards import FittedOn
from v1tlearn.estimators._files import subclasses
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._leaks import Seen
from v1tlearn.estimators._like_fit import check_held_out, check_transfer
from v1tlearn.estimators._progress import shown_log
from v1tlearn.estimators._reading import Call, read_fit, warn_about_tiers
from v1tlearn.estimators._runs import Part
from v1tlearn.estimators._telling import OnEpoch
from v1tlearn.estimators.base import SavingMixin, TrialsEstimator
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.estimators.mixing import add_share, responses_of
from v1tlearn.estimators.prediction import PredictionMixin
from v1tlearn.nn import EncodingModel
from v1tlearn.training import shared_seed
from v1tlearn.trials import Trials

logger = logging.getLogger("v1tlearn")

_COUNT = Interval(Integral, 1, 10**6, closed="both")
_LEARNED = ("learned", "learned_per_mouse")
_KEPT = (
    "seed_",
    "seeds_",
    "members_",
    "validation_scores_",
    "combine_",
    "weights_",
    "intercepts_",
)  # what is fitted, beside the members


@dataclass(eq=False, repr=False)
class EnsembleRegressor(
    PredictionMixin,
    MetaEstimatorMixin,
    MultiOutputMixin,
    RegressorMixin,
    SavingMixin,
    TrialsEstimator,
):
    """The best of several models that differ in their seed, with predictions combined.

    `n_candidates` copies of a model are trained on the same trials; the `n_members` with the
    highest validation correlation make up the ensemble (Li et al. 2023: 5 of 10).

    There is no `partial_fit`: which candidates are best is known only when training is over.
    Members are ordinary models and can be trained further one by one.

    Parameters
    ----------
    estimator : V1TRegressor, ViTRegressor, CNNRegressor or LNRegressor
        The model. Its `random_state` and `validation_fraction` are replaced by those of the
        ensemble. A `Pipeline` goes around the ensemble, not into it.
    n_candidates : int, default=10
        Models that are trained.
    n_members : int, default=5
        Models that are kept.
    combine : {"outputs", "rates", "learned", "learned_per_mouse"}, default="outputs"
        "outputs" averages what the members give ahead of the output non-linearity, which is applied
        to the mean (published); "rates" averages predicted responses. "learned" weights the
        members' outputs, plus an intercept, before the non-linearity; "learned_per_mouse" does so
        for each mouse. May be changed between "outputs" and "rates", or from learned weights to
        either, without fitting again.
    n_jobs : int, optional
        Candidates that are trained at once, in processes of joblib; None is 1 unless
        `joblib.parallel_config` says otherwise. Threads share torch's random numbers: where joblib
        would use them, candidates are trained one after another.
    validation_fraction : float, default=0.1
        Share of the images that `fit` sets aside, the same for all candidates, where it is given no
        `validation`. With 0 all candidates have to be members.
    random_state : int, RandomState, Generator or None, default=None
        Drives the validation split, the seeds of the candidates and the learning of weights.
    verbose : int, default=0
        1 shows a progress bar over candidates; 2 also prints the log, of the candidates, too. The
        bars of single candidates are shown where the model itself has ``verbose=1``.

    Attributes
    ----------
    estimators_ : list of estimators
        The members, best first.
    members_ : ndarray of int, shape (n_members,)
        Their numbers among the candidates.
    seeds_ : list of int
        The `random_state` of each candidate; after `transfer` candidates are the former members.
    validation_scores_ : ndarray of shape (n_candidates,)
        `score` of each candidate on the validation trials; NaN for those that failed, and without
        validation trials.
    weights_ : dict of str to ndarray of shape (n_members,)
        Per mouse the learned weights of the members; only where they were learned.
    intercepts_ : dict of str to float
        Per mouse what is added to the weighted sum; only where weights were learned.
    combine_ : str
        How members were combined at `fit`.
    mice_ : list of str
        The mice, in the order of the recordings.
    n_neurons_ : dict of str to int
        Neurons per mouse.
    neurons_ : dict of str to dict of str to ndarray
        Per mouse the labels of its neurons, as in the members.
    seed_ : int
        What was drawn from `random_state`.

    Notes
    -----
    Weights are learned as in the published code: Poisson loss, AdamW with a learning rate of 0.001,
    decay of the moments 0.9 and 0.9999, weight decay 0.01, 200 epochs of batches of 4 trials per
    mouse, members frozen. But they start at one over the number of members, not at random, and are
    learned on the validation trials, not on the training trials: there, members that overfit look
    best and would get most of the weight, while a few weights have next to nothing to overfit on
    validation trials. The published early stopping on these has no trials left, and no task: the
    loss is convex.

    On the CPU, `n_jobs` changes results only where it changes the threads that a process has.

    References
    ----------
    Li et al., "V1T: large-scale mouse V1 response prediction using a Vision Transformer", 2023.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.CNNRegressor(n_layers=2, hidden_channels=4, max_epochs=2)
    >>> est = v1.EnsembleRegressor(model, n_candidates=3, n_members=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["B"].shape
    (12, 5)
    """

    estimator: BaseEncodingRegressor
    n_candidates: int = 10
    n_members: int = 5
    _: KW_ONLY
    combine: str = "outputs"
    n_jobs: int | None = None
    validation_fraction: float = 0.1
    random_state: Any = None
    verbose: int = 0

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": "no_validation",  # see _template
        "n_candidates": [_COUNT],
        "n_members": [_COUNT],
        "combine": [StrOptions({"outputs", "rates", *_LEARNED})],
        "n_jobs": [Integral, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state", np.random.Generator],
        "verbose": ["verbose"],
    }

    def _fit(
        self,
        call: Call,
        validation: Trials | None,
        on_epoch: OnEpoch | None,
        checkpoint_dir: Path | None,
    ) -> Self:
        template = self._template()
        self._check_validation(validation)
        seed = shared_seed(plain(self.random_state))
        if checkpoint_dir is not None:
            seed = _candidates.noted_seed(
                checkpoint_dir, type(self).__name__, self._plain_params(), seed
            )
        training, held_out = template._split(call, validation, seed)
        tasks: list[Callable[[], Candidate]] = []
        for i, s in enumerate(_candidates.draw_seeds(seed, plain(self.n_candidates))):
            model = clone(template).set_params(random_state=s)
            folder = None if checkpoint_dir is None else checkpoint_dir / f"candidate-{i:03d}"
            told = _candidates.numbered(on_epoch, i)
            tasks.append(partial(_candidates.train, model, training, held_out, told, folder))
        self._choose(self._trained(tasks, "candidate"), self.n_members, held_out, seed)
        self._seen = Seen.of(training[0])  # members that come from other processes know nothing
        return self

    @explained
    def transfer(
        self,
        trials: Trials,
        freeze_core: bool = True,
        *,
        validation: Trials | None = None,
        **params: Any,
    ) -> Self:
        """Fit every member's readouts for new animals.

        All members stay, whatever their scores; weights are learned anew.

        Parameters
        ----------
        trials : Trials
            Of the new animals.
        freeze_core : bool, default=True
            As for a single model.
        validation : Trials, optional
            As in `fit`.
        **params
            Parameters of the models where they differ (``lr``, ``max_epochs``...), and
            ``validation_fraction`` and ``random_state`` of the ensemble.

        Returns
        -------
        estimator
            A new ensemble, fitted; this one stays as it is.

        Raises
        ------
        TypeError, ValueError
            If trials or parameters ask for another core than the trained ones.
        FloatingPointError
            If the loss of a member became NaN.
        """
        check_is_fitted(self)
        check_transfer(trials, freeze_core, params)
        check_held_out(validation)
        own = {k: params.pop(k) for k in ("validation_fraction", "random_state") if k in params}
        new = clone(self).set_params(**own)
        new.estimator.set_params(**params)
        template = new._template()
        new._check_validation(validation, choose=False)
        seed = shared_seed(plain(new.random_state))
        call = read_fit(trials, None, None, None)
        warn_about_tiers(trials)
        (trials, _), held_out = template._split(call, validation, seed)
        params["validation_fraction"] = new.validation_fraction
        seeds = _candidates.draw_seeds(seed, len(self.estimators_))
        tasks = [
            partial(
                _candidates.transfer, m, trials, held_out, freeze_core, params | {"random_state": s}
            )
            for m, s in zip(self.estimators_, seeds, strict=True)
        ]
        with shown_log(plain(new.verbose)):
            new._choose(new._trained(tasks, "member"), len(tasks), held_out, seed)
        new._seen = Seen.of(trials)
        return new

    @classmethod
    def from_members(
        cls, estimators: Sequence[BaseEncodingRegressor], *, combine: str = "outputs"
    ) -> Self:
        """Make an ensemble of models that were fitted one by one, to the same trials.

        Parameters
        ----------
        estimators : sequence of estimators
            Fitted, of the same mice, with responses of the same scale.
        combine : {"outputs", "rates"}, default="outputs"
            As for the class; weights cannot be learned without trials.

        Returns
        -------
        EnsembleRegressor
            Fitted.

        Raises
        ------
        TypeError, ValueError
            If there is no model, one is of another kind or not fitted, or their mice, neurons or
            scales differ.
        """
        estimators = list(estimators)
        if not estimators:
            raise ValueError("an ensemble needs at least one fitted model, got none.")
        if combine in _LEARNED:
            raise ValueError(
                f"combine={combine!r} needs trials to learn weights on: use fit, or combine="
                "'outputs' or 'rates'."
            )
        n = len(estimators)
        ensemble = cls(clone(estimators[0], safe=False), n, n, combine=combine)
        ensemble._template()
        _candidates.check_members(estimators)
        fitted = {
            "seed_": estimators[0].seed_,
            "seeds_": [member.seed_ for member in estimators],
            "validation_scores_": np.full(n, np.nan),
            "members_": np.arange(n),
            "combine_": combine,
        }
        return ensemble._adopt(estimators, fitted)

    # ----------------------------------------------------------------------------- fitted state

    def _template(self) -> BaseEncodingRegressor:
        """Check the parameters, and give the model that candidates are copies of."""
        self._validate_params()
        _candidates.check_model(self.estimator)
        if self.n_members > self.n_candidates:
            raise ValueError(
                f"n_members={self.n_members} cannot be chosen from n_candidates="
                f"{self.n_candidates}: train more candidates, or keep fewer."
            )
        template = clone(self.estimator).set_params(validation_fraction=self.validation_fraction)
        template._validate_params()
        return template

    def _check_validation(self, validation: Trials | None, *, choose: bool = True) -> None:
        if validation is not None or self.validation_fraction > 0:
            return
        if choose and self.n_members < self.n_candidates:
            raise ValueError(
                f"validation_fraction=0 leaves no trials to choose n_members={self.n_members} of "
                f"n_candidates={self.n_candidates} by: give validation=, or keep all candidates."
            )
        if self.combine in _LEARNED:
            raise ValueError(
                f"validation_fraction=0 leaves no trials to learn the weights of combine="
                f"{self.combine!r} on: give validation=, or set combine='outputs'."
            )

    def _trained(self, tasks: list[Callable[[], Candidate]], what: str) -> list[Candidate]:
        named = [
            (f"{type(self).__name__} {what} {i}/{len(tasks)}", task)
            for i, task in enumerate(tasks, 1)
        ]
        return _candidates.run(named, plain(self.n_jobs), plain(self.verbose))

    def _choose(
        self, candidates: list[Candidate], n_members: int, held_out: Part | None, seed: int
    ) -> Self:
        """Choose members and learn their weights, then become fitted."""
        scores = np.array([c.score for c in candidates])
        members = _candidates.best(candidates, n_members)
        estimators = [cast(BaseEncodingRegressor, candidates[i].estimator) for i in members]
        fitted: dict[str, Any] = {
            "seed_": seed,
            "seeds_": [c.seed for c in candidates],
            "validation_scores_": scores,
            "members_": np.array(members),
            "combine_": self.combine,
        }
        if self.combine in _LEARNED:
            assert held_out is not None  # `_check_validation` has seen to it
            trials, target = held_out
            fitted["weights_"], fitted["intercepts_"] = _candidates.mix(
                estimators, trials, target, seed, per_mouse=self.combine == "learned_per_mouse"
            )
        logger.info(
            "%s: kept %s, best first",
            type(self).__name__,
            ", ".join(f"number {i + 1} (score {scores[i]:.4f})" for i in members),
        )
        return self._adopt(estimators, fitted)

    def _adopt(self, estimators: list[BaseEncodingRegressor], fitted: dict[str, Any]) -> Self:
        """Become fitted, all at once; nothing of an earlier fit stays."""
        first, stale = estimators[0], ("weights_", "intercepts_", "feature_names_in_", "_seen")
        fitted = {name: fitted[name] for name in _KEPT if name in fitted} | {
            "estimators_": estimators,
            "mice_": first.mice_,
            "n_neurons_": first.n_neurons_,
            "neurons_": {mouse: dict(labels) for mouse, labels in first.neurons_.items()},
        }
        if hasattr(first, "feature_names_in_"):
            fitted["feature_names_in_"] = first.feature_names_in_
        self.__dict__ = {k: v for k, v in self.__dict__.items() if k not in stale} | fitted
        return self

    def _predict(self, trials: Trials) -> dict[str, np.ndarray]:
        """Predict every mouse of the trials with one member after another, in data units."""
        self._validate_params()  # combine may have been set since
        if self.combine in _LEARNED and self.combine != self.combine_:
            raise ValueError(
                f"combine={self.combine!r} needs weights that are learned in fit, which was called "
                f"with combine={self.combine_!r}: fit again, or set it to 'outputs' or 'rates'."
            )
        rates = self.combine == "rates"
        totals: dict[str, np.ndarray] = {}
        for number, member in enumerate(self.estimators_):
            given = member._predict(trials, activate=rates)
            for mouse in list(given):
                values = given.pop(mouse)
                if mouse not in totals:
                    totals[mouse] = np.zeros(values.shape)
                add_share(totals[mouse], values, self._shares(mouse)[number])
                del values  # before the next member predicts
        out = {}
        for mouse in list(totals):
            head = None if rates else shared_head(self.estimators_, mouse)
            added = self.intercepts_[mouse] if self.combine in _LEARNED else 0.0
            scale = self.estimators_[0].statistics_[mouse]["response_scale"]
            out[mouse] = responses_of(totals.pop(mouse), head, added, scale)
        return out

    def _shares(self, mouse: str) -> np.ndarray:
        if self.combine in _LEARNED:
            return self.weights_[mouse]
        return np.full(len(self.estimators_), 1 / len(self.estimators_))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimators_")

    def _fitted_on(self) -> FittedOn | None:
        return self.estimators_[0]._fitted_on()

    def _trained_on(self) -> Seen | None:
        return super()._trained_on() or self.estimators_[0]._trained_on()

    def _knows(self) -> tuple[Fitted, EncodingModel]:
        return self.estimators_[0]._knows()

    # ------------------------------------------------------------------------- how it is kept

    def _content(self) -> dict[str, Any]:
        parameters = self.get_params(deep=False)
        estimator = parameters.pop("estimator")
        if not isinstance(self.random_state, int | None):
            parameters["random_state"] = self.seed_
        model = estimator.get_params(deep=False) | {"device": "auto"}
        if not isinstance(model["random_state"], int | None):
            model["random_state"] = None  # never used
        return {
            "parameters": parameters,
            "model": type(estimator).__name__,
            "parameters of the model": model,
            "fitted": {name: self.__dict__[name] for name in _KEPT if name in self.__dict__},
            "members": [member._content() for member in self.estimators_],
        }

    @classmethod
    def _restore(cls, content: dict[str, Any], device: str) -> Self:
        kinds = {kind.__name__: kind for kind in subclasses(BaseEncodingRegressor)}
        if content["model"] not in kinds:
            raise ValueError(f"its members are of the unknown class {content['model']}")
        model = kinds[content["model"]]
        estimator = model._with(content["parameters of the model"] | {"device": device})
        ensemble = cls._with(content["parameters"], estimator)
        members = [model._restore(part, device) for part in content["members"]]
        return ensemble._adopt(members, content["fitted"])
