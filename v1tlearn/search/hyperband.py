"""Hyperband with a Bayesian sampler over the parameters of an encoding model.

The estimator that users see; `_optuna` runs the trials.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils._param_validation import HasMethods, Interval, Options
from sklearn.utils.validation import check_is_fitted

from v1tlearn._models import as_ever
from v1tlearn._replacing import make_folder
from v1tlearn._values import plain
from v1tlearn.estimators import CNNRegressor, ViTRegressor
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._kept import check_parameters_can_be_kept
from v1tlearn.estimators._leaks import Seen
from v1tlearn.estimators._progress import placed
from v1tlearn.estimators._reading import Call
from v1tlearn.estimators._telling import OnEpoch
from v1tlearn.estimators.base import TrialsEstimator
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.estimators.prediction import PredictionMixin
from v1tlearn.nn import EncodingModel
from v1tlearn.search.spaces import CNN_SPACE, V1T_SPACE
from v1tlearn.training import draw_seed, join
from v1tlearn.trials import Trials
from v1tlearn.trials._fingerprint import describe_recording

_COUNT = Interval(Integral, 1, None, closed="left")
_LEAST_FOR_IMPORTANCES = 4  # trials
_PUBLISHED_MIN_EPOCHS = 30
_IRRELEVANT = {"device", "verbose", "random_state", "validation_fraction"}  # for the scores
_IRRELEVANT |= {"compile", "micro_batch_size", "low_memory"}


class HyperbandSearch(PredictionMixin, MetaEstimatorMixin, TrialsEstimator):
    """Search for parameters of a model with Hyperband and a tree-structured Parzen estimator.

    Every trial draws parameters, more and more from where good ones were found, and trains a model
    on the same images as all others. After an epoch at which Hyperband compares trials, those
    whose validation correlation is not among the best of their bracket are ended. Needs Optuna:
    ``pip install "optuna>=5"``.

    Parameters
    ----------
    estimator : V1TRegressor, ViTRegressor, CNNRegressor or LNRegressor
        Its ``max_epochs`` is the length of a trial that is not ended before. Parameters that are
        not in the space keep the values they have here.
    space : dict, optional
        What to search over, by name of the parameter: lists, ``uniform``, ``loguniform`` and
        ``randint`` of `scipy.stats`, `LogInteger` and `IntegerUpTo`. By default `V1T_SPACE`, or
        `CNN_SPACE` for convolutional models.
    n_trials : int or None, default=50
        Trials in all that come to an end, with those of other processes and of earlier runs that
        share the study. None needs a `timeout`.
    timeout : float, optional
        No trial is begun after so many seconds.
    storage : str or Path, optional
        The file of an SQLite database, or the URL of a database, that keeps the study; in memory
        without it. A later `fit` with the same study name goes on from there, if it has the same
        settings and recordings, and several processes can work on the study at a time. Trials
        whose process died are run again.
    study_name : str, optional
        By default the name of the estimator's class.
    min_epochs : int or None, default=None
        Epochs before the first comparison. None: 30, as in the search of the V1T code, but at most
        ``max_epochs // reduction_factor``, so that trials are compared also where they are short.
    reduction_factor : int, default=3
        One in so many trials goes on at every comparison.
    validation_fraction : float, default=0.1
        Part of the images on which all trials are scored, unless `fit` is given a validation set.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the draws and of the validation set; also of the models, all the same, if the
        estimator has none of its own. A single process without `storage` comes to the same result
        again. A study that goes on keeps its seed where this is None.
    n_jobs : int, default=1
        Processes that run trials; -1 means all cores, or all workers of a cluster.
    refit : bool, default=True
        Train the best parameters once more, as in their trial, for `predict` and `score`.
    verbose : int, default=0
        1 shows a progress bar over trials; 2 also prints the log, which tells of every trial and
        its training. The bars of single trials are shown where the model itself has ``verbose=1``.

    Attributes
    ----------
    best_params_ : dict
        Parameters of the best of the trials that were trained to their end.
    best_score_ : float
        Its validation correlation, of its best epoch.
    best_estimator_ : estimator
        Trained with `best_params_`, if `refit`.
    results_ : DataFrame
        A row per trial: ``trial``, its number; ``state``, "complete", "pruned", "failed" (cannot be
        trained, see ``reason``), "interrupted" (its process ended) or "running" (in another
        process); ``score``, the best validation correlation; ``epochs``; ``seconds``; ``reason``;
        and ``param_`` columns.
    study_ : optuna.Study
        For Optuna's own plots. Trials that cannot be trained count as pruned there.
    seed_ : int
        The seed used.
    min_epochs_ : int
        The epochs before the first comparison.

    See Also
    --------
    scikit_learn_space : For scikit-learn's searches, which need no Optuna.

    Notes
    -----
    The validation correlation reported after an epoch is the best so far, since that is the model
    that remains. In Optuna's Hyperband every bracket has a sampler of its own, which draws at
    random for its first 10 trials.

    References
    ----------
    Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: a novel bandit-based approach to
    hyperparameter optimization", JMLR, 2018.
    Akiba, Sano, Yanase, Ohta and Koyama, "Optuna: a next-generation hyperparameter optimization
    framework", KDD, 2019.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from scipy.stats import loguniform
    >>> from v1tlearn.search import HyperbandSearch
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> search = HyperbandSearch(
    ...     v1.CNNRegressor(n_layers=2, hidden_channels=4, max_epochs=2),
    ...     {"lr": loguniform(1e-4, 1e-1)}, n_trials=2, min_epochs=1, random_state=0)
    >>> search.fit(trials.sel(tier="train")).results_["trial"].tolist()
    [0, 1]
    """

    _documented_in = "v1tlearn.search"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "predict", "get_params"])],
        "space": [dict, None],
        "n_trials": [_COUNT, None],
        "timeout": [Interval(Real, 0, None, closed="neither"), None],
        "storage": [str, Path, None],
        "study_name": [str, None],
        "min_epochs": [_COUNT, None],
        "reduction_factor": [Interval(Integral, 2, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": BaseEncodingRegressor._parameter_constraints["random_state"],
        "n_jobs": [_COUNT, Options(int, {-1})],
        "refit": ["boolean"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: BaseEncodingRegressor,
        space: Mapping[str, Any] | None = None,
        *,
        n_trials: int | None = 50,
        timeout: float | None = None,
        storage: str | Path | None = None,
        study_name: str | None = None,
        min_epochs: int | None = None,
        reduction_factor: int = 3,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        n_jobs: int = 1,
        refit: bool = True,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.n_trials = n_trials
        self.timeout = timeout
        self.storage = storage
        self.study_name = study_name
        self.min_epochs = min_epochs
        self.reduction_factor = reduction_factor
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.refit = refit
        self.verbose = verbose

    def _validate_params(self) -> None:
        super()._validate_params()
        self._check_parameters()
        _import_backend()

    def _fit(
        self,
        call: Call,
        validation: Trials | None,
        on_epoch: OnEpoch | None,
        checkpoint_dir: Path | None,
    ) -> Self:
        _refuse_to_share()
        backend = _import_backend()
        storage = self.storage
        if checkpoint_dir is not None:
            if storage is not None:
                raise ValueError(
                    "checkpoint_dir and the parameter storage both say where the study is kept: "
                    "give one of them."
                )
            if self.refit:
                check_parameters_can_be_kept(self.estimator.get_params(deep=False))
            make_folder(checkpoint_dir)
            storage = checkpoint_dir / "study.db"
        name = self.study_name or type(self.estimator).__name__
        n_jobs = effective_n_jobs(-1) if self.n_jobs == -1 else plain(self.n_jobs)
        epochs = plain((self._least_epochs(), self.estimator.max_epochs, self.reduction_factor))
        with tempfile.TemporaryDirectory() as folder, backend.quiet():
            shared = storage
            if shared is None and n_jobs > 1:
                shared = Path(folder) / "study.db"
            with backend.open_storage(shared) as opened:
                study = backend.open_study(opened, name, *epochs)
                job = self._make_job(backend, study, storage, call, validation, on_epoch)
                try:
                    if n_jobs == 1:
                        backend.work(job, study)
                    else:
                        Parallel(n_jobs=n_jobs)(
                            delayed(backend.work_in_process)(job, shared, name)
                            for _ in range(n_jobs)
                        )
                except KeyboardInterrupt:
                    if storage is None:  # there is no other place where trials are kept
                        self._read_study(backend, backend.in_memory(study, opened), job)
                    raise
                if storage is None:
                    study = backend.in_memory(study, opened)
                self._read_study(backend, study, job)
                self._check_any_complete()
        if self.refit:
            best = clone(job.estimator).set_params(**self.best_params_)
            kept: dict[str, Path] = {}
            if checkpoint_dir is not None:  # of one trial, since a study that goes on finds others
                kept["checkpoint_dir"] = (
                    checkpoint_dir / f"trial-{self.study_.best_trial.number:06}"
                )
            with placed("HyperbandSearch refit"):
                best.fit(call.trials, call.target, validation=validation, **kept)
            self.best_estimator_ = best
        return self

    def _trained_on(self) -> Seen | None:
        return self._best()._trained_on()

    def _knows(self) -> tuple[Fitted, EncodingModel]:
        return self._best()._knows()

    def _predict(self, trials: Trials) -> dict[str, np.ndarray]:
        return self._best()._predict(trials)

    def importances(self, method: str = "fanova") -> pd.Series:
        """How much each parameter mattered for the score, among trials trained to their end.

        Parameters
        ----------
        method : {"fanova", "ped_anova"}, default="fanova"
            The share of the variance of the scores that the parameter alone explains in a random
            forest, or how far its distribution among the best tenth of the trials is from that
            among all.

        Returns
        -------
        Series
            By name of the parameter, the largest first; the sum is 1.

        Raises
        ------
        ValueError
            If too few trials were trained to their end, or all have the same score.

        References
        ----------
        Hutter, Hoos and Leyton-Brown, "An efficient approach for assessing hyperparameter
        importance", ICML, 2014.
        Watanabe, Bansal and Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance
        in arbitrary subspaces", IJCAI, 2023.
        """
        check_is_fitted(self, "study_")
        if method not in ("fanova", "ped_anova"):
            raise ValueError(f'method is {method!r}: expected "fanova" or "ped_anova".')
        scores = self.results_.loc[self.results_["state"] == "complete", "score"]
        if len(scores) < _LEAST_FOR_IMPORTANCES:
            raise ValueError(
                f"{len(scores)} of {len(self.results_)} trials were trained to their end, too few "
                f"to tell parameters apart: {_LEAST_FOR_IMPORTANCES} are needed. Fit with more "
                "n_trials; with storage the search goes on where it stopped."
            )
        if scores.nunique() == 1:
            raise ValueError(
                f"all {len(scores)} trials have the score {scores.iloc[0]}: no parameter explains "
                "a difference."
            )
        backend = _import_backend()
        space = backend.distributions.read_space(self._space(), self.estimator)
        with backend.quiet():
            found = backend.results.importances(self.study_, space, method, self.seed_)
        return pd.Series(found, name="importance").sort_values(ascending=False)

    def _space(self) -> Mapping[str, Any]:
        if self.space is not None:
            return self.space
        return V1T_SPACE if isinstance(self.estimator, ViTRegressor) else CNN_SPACE

    def _check_parameters(self) -> None:
        estimator = self.estimator
        if not isinstance(estimator, BaseEncodingRegressor):
            kind = estimator if isinstance(estimator, type) else type(estimator)
            what = f"{'the class' if isinstance(estimator, type) else 'a'} {kind.__name__}"
            raise TypeError(
                f"estimator is {what}: expected V1TRegressor, ViTRegressor, "
                "CNNRegressor or LNRegressor, which report their score after every epoch. "
                "scikit-learn's RandomizedSearchCV and HalvingRandomSearchCV take any estimator."
            )
        if self.space is None and not isinstance(estimator, ViTRegressor | CNNRegressor):
            raise ValueError(f"there is no ready space for {type(estimator).__name__}: give one.")
        if not self._space():
            raise ValueError("space is empty: there is nothing to search over.")
        if self._least_epochs() > estimator.max_epochs:
            raise ValueError(
                f"min_epochs is {self._least_epochs()}, but the estimator trains for at most "
                f"{estimator.max_epochs} epochs, its max_epochs, so no trial could be ended "
                "before: lower min_epochs."
            )
        if self.n_trials is None and self.timeout is None:
            raise ValueError("n_trials and timeout are both None: the search would never end.")

    def _least_epochs(self) -> int:
        """Epochs before the first comparison."""
        if self.min_epochs is not None:
            return plain(self.min_epochs)
        most = plain(self.estimator.max_epochs) // plain(self.reduction_factor)
        return max(1, min(_PUBLISHED_MIN_EPOCHS, most))

    def _make_job(
        self,
        backend: ModuleType,
        study: Any,
        storage: str | Path | None,
        call: Call,
        validation: Trials | None,
        on_epoch: OnEpoch | None,
    ) -> Any:
        drawn = self.random_state is None
        seed = backend.noted_seed(study, storage) if drawn else None
        seed = _seed(self.random_state) if seed is None else seed
        training = self.estimator.random_state
        training = seed if training is None else _seed(training)
        estimator = clone(self.estimator).set_params(
            validation_fraction=plain(self.validation_fraction), random_state=training
        )
        space = backend.distributions.read_space(self._space(), estimator)
        fixed = {
            name: repr(value)
            for name, value in self.estimator._plain_params().items()
            if name not in {*_IRRELEVANT, *space}
        }
        like = backend.noted_recordings(study, storage)
        held_out = validation and describe_recording(validation, validation.responses, like)
        before = as_ever(type(self.estimator)).items()
        backend.check_settings(
            study,
            {
                "estimator": type(self.estimator).__name__,
                "fixed parameters": fixed,
                "space": backend.distributions.describe_space(space),
                "min_epochs": self._least_epochs(),
                "reduction_factor": int(self.reduction_factor),
                "validation_fraction": float(self.validation_fraction),
                "random_state": seed,
                "random_state of the estimator": training,
                "recording": describe_recording(call.trials, call.target, like),
                "validation": held_out,
            },
            storage,
            {"fixed parameters": {n: repr(v) for n, v in before if n in fixed}},
        )
        backend.check_trials(study, space, storage)
        return backend.Job(
            estimator=estimator,
            trials=call.trials,
            target=call.target,
            validation=validation,
            space=space,
            n_trials=plain(self.n_trials),
            timeout=plain(self.timeout),
            min_epochs=self._least_epochs(),
            reduction_factor=plain(self.reduction_factor),
            seed=seed,
            verbose=plain(self.verbose),
            on_epoch=on_epoch,
        )

    def _read_study(self, backend: ModuleType, study: Any, job: Any) -> None:
        table = backend.results.table(study, job.space)
        found = {"study_": study, "results_": table}
        found |= {"seed_": job.seed, "min_epochs_": job.min_epochs}
        if (table["state"] == "complete").any():
            best = study.best_trial
            found["best_score_"] = best.value
            found["best_params_"] = backend.distributions.decode(best.params, job.space)
        # all at once; nothing that an earlier fit found to be the best stays
        stale = ("best_estimator_", "best_score_", "best_params_")
        self.__dict__ = {k: v for k, v in self.__dict__.items() if k not in stale} | found

    def _check_any_complete(self) -> None:
        table = self.results_
        if not (table["state"] == "complete").any():
            failed = table[table["state"] == "failed"]
            reason = failed["reason"].iloc[-1] if len(failed) else "none came to its end in time"
            raise ValueError(
                f"none of {len(table)} trials could be trained to its end: {reason} "
                "Widen or correct the space, the data or the timeout."
            )

    def _best(self) -> BaseEncodingRegressor:
        check_is_fitted(self, "study_")
        if not hasattr(self, "best_estimator_"):
            raise AttributeError(
                "there is no best_estimator_, because refit=False, or because fitting it did not "
                "come to its end: fit with refit=True, or set best_params_ on an estimator and fit "
                "that."
            )
        return self.best_estimator_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "study_")

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.input_tags = inner.input_tags
        tags.target_tags = inner.target_tags
        tags.regressor_tags = inner.regressor_tags
        return tags


def _refuse_to_share() -> None:
    """Refuse to search once in each of several processes, with what each of them draws."""
    n = join().size
    if n > 1:
        raise ValueError(
            f"{n} processes train together here, as torchrun starts them, and a HyperbandSearch is "
            "not dealt out to them: search by one process, which trains n_jobs trials at once; or "
            "set the environment variable V1TLEARN_DISTRIBUTED=0, and give the search a storage, "
            "by which each process trains trials of its own for one study."
        )


def _seed(random_state: Any) -> int:
    """One seed, of a size that estimators take."""
    return draw_seed(plain(random_state)) % 2**32


def _import_backend() -> ModuleType:
    """Import the part that needs Optuna, only when it is needed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'HyperbandSearch needs Optuna: pip install "optuna>=5", or the extra "search", from '
            'the folder of v1tlearn with pip install -e ".[search]". scikit-learn\'s '
            "RandomizedSearchCV and HalvingRandomSearchCV do without it."
        ) from error
    from v1tlearn.search import _optuna

    return _optuna
