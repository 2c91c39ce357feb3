"""What a run of the training fits to trials: how it is trained, and how it is kept.

What a model knows of its animals is in `_fitted`, its modules come from `_build`, data from
`mouse_data`, the loop from `training`; this file puts them in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from v1tlearn._models import as_ever
from v1tlearn._values import plain
from v1tlearn._versions import package_versions
from v1tlearn._warn import warn
from v1tlearn.estimators import _files
from v1tlearn.estimators._attributes import FittedAttributes, Record
from v1tlearn.estimators._build import Recipe
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._checkpoints import Checkpoints, as_told
from v1tlearn.estimators._describe import check_targets
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._kept import (
    check_parameters_can_be_kept,
    content_of,
    kept_weights,
    opened,
    rebuilt,
    with_weights,
)
from v1tlearn.estimators._leaks import Seen, warn_of_validation
from v1tlearn.estimators._like_fit import (
    check_like_fit,
    check_parameters,
    other_judge,
    other_training,
)
from v1tlearn.estimators._movies import refuse_movies
from v1tlearn.estimators._progress import (
    log_choices,
    log_start,
    progress,
    run_name,
    shown_log,
    warn_of_equal_work,
)
from v1tlearn.estimators._ranges import ranges_of, warn_of_other_ranges
from v1tlearn.estimators._reading import Call, read_fit, warn_about_tiers
from v1tlearn.estimators._runs import Part, Start, check_good, is_good
from v1tlearn.estimators._telling import OnEpoch, listening
from v1tlearn.estimators.base import (
    SavingMixin,
    TrialsEstimator,
)
from v1tlearn.estimators.mouse_data import read_responses
from v1tlearn.model_selection import split_by_image
from v1tlearn.nn import EncodingModel
from v1tlearn.training import (
    Run,
    isolated,
    join,
    resolve_device,
    shared_seed,
    train,
)
from v1tlearn.training.state import map_tensors
from v1tlearn.training.workers import end_if_left
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._fingerprint import describe_recording, fingerprint, labels_in_short
from v1tlearn.trials._order import in_order_of_names
from v1tlearn.trials.folding import fold_time


class TrainedEstimator(FittedAttributes, SavingMixin, TrialsEstimator):
    """Base of what a run of the training fits to trials: how it is trained, and how it is kept.

    A subclass says in `_recipe` which modules it has, in `_from_scratch` what it learns of trials
    ahead of the training, and in `_make_run` how it is trained.
    """

    _rates: ClassVar[bool] = False  # whether responses below 0 are warned of

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        """Say how the modules are made that these parameters ask for."""
        raise NotImplementedError(f"{cls.__name__} does not say which modules it has.")

    def _fit(
        self,
        call: Call,
        validation: Trials | None,
        on_epoch: OnEpoch | None,
        checkpoint_dir: Path | None,
    ) -> Self:
        go_on = plain(self.warm_start) and self.__sklearn_is_fitted__()
        checkpoints = None
        if checkpoint_dir is not None:
            check_parameters_can_be_kept(self.get_params(deep=False))
            checkpoints = Checkpoints(checkpoint_dir, type(self).__name__)
        seed = shared_seed(self.seed_ if go_on else plain(self.random_state))
        if checkpoints is not None and checkpoints.found is not None:
            if go_on:
                raise ValueError(
                    f"checkpoint_dir {checkpoint_dir} holds the state of a fit, and this model, "
                    "with warm_start=True, goes on from its own: give every fit that goes on "
                    "another directory."
                )
            seed = checkpoints.found["fitted"]["seed"]
        training, held_out = self._split(call, validation, seed)
        self._warn_of_no_epochs()
        return self._train(
            training, held_out, seed, go_on=go_on, on_epoch=on_epoch, checkpoints=checkpoints
        )

    @explained
    def partial_fit(
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
    ) -> Self:
        """Train for one more epoch on all the trials given, of the same mice.

        Parameters are those of `fit`. The first call starts the model, and the statistics it
        learns stay; there is no validation set and the learning rate is constant.

        Parameters
        ----------
        stimuli : Trials, dict, list or ndarray
        behaviors : dict, list, ndarray or Responses, optional
        responses : dict, list or ndarray, optional
        mouse_ids : sequence, optional
        image_ids : dict, list or ndarray, optional
            Noted, to warn where these images are scored; models that align images with responses
            tell them apart by these.
        positions : dict, list or ndarray, optional
            After the first call those of that, or none.
        behavior_names : sequence of str, optional
        frame_rate : float, optional

        Returns
        -------
        self
        """
        self._validate_params()
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
        go_on = self.__sklearn_is_fitted__()
        seed = shared_seed(self.seed_ if go_on else plain(self.random_state))
        training = call.trials, self._read(call.trials, call.target)
        with shown_log(plain(self.verbose)):
            return self._train(training, None, seed, go_on=go_on, max_epochs=1)

    # ------------------------------------------------------------------------------- training

    def _most_epochs(self) -> int:
        return plain(self.max_epochs)

    def _warn_of_no_epochs(self) -> None:
        if self.max_epochs == 0:
            warn(
                "max_epochs is 0: the model counts as fitted, but is not trained, and predicts by "
                "the weights it begins with."
            )

    def _read(self, trials: Trials, target: Responses) -> Responses:
        return read_responses(plain(self.low_memory), resolve_device(self.device), trials, target)

    def _split(self, call: Call, validation: Trials | None, seed: int) -> tuple[Part, Part | None]:
        """Trials and targets to train on, and those of validation where there are any."""
        target = self._read(call.trials, call.target)
        if validation is not None:
            if not self._frame_wise:
                refuse_movies(validation)
            validation = fold_time(in_order_of_names(validation), "movies")
            held_out = validation, self._read(validation, validation.responses)
            return (call.trials, target), held_out
        if self.validation_fraction == 0:
            return (call.trials, target), None
        rows, held_rows = split_trials(call.trials, plain(self.validation_fraction), seed)
        return (
            (call.trials[rows], target[rows]),
            (call.trials[held_rows], target[held_rows]),
        )

    def _from_scratch(
        self, trials: Trials, target: Responses, seed: int, held_out: Part | None = None
    ) -> Start:
        """Learn of trials what a model has to know of them, and build it."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it learns.")

    def _from_fit(self, trials: Trials, target: Responses) -> Start:
        was, now = self.fitted_.parameters, self._plain_params()
        check_parameters(was, now)
        check_like_fit(self.fitted_, self.module_, trials, same_mice=True)
        check_targets(target, rates=self._rates)
        changed, judge = other_training(was, now), other_judge(was, now)
        fitted = replace(self.fitted_, parameters={**was, **changed, **judge})
        if changed:
            return rebuilt(self._recipe, Start(fitted, self.module_, self.state_))
        # copies: until a good epoch is over this model stays as it is
        state = deepcopy(self.state_)
        if judge:  # scores of two kinds do not compare: as after a training that is over
            state["finished"] = True
        return Start(fitted, deepcopy(self.module_), state)

    def _train(
        self,
        training: Part,
        held_out: Part | None,
        seed: int,
        *,
        go_on: bool = False,
        start: Start | None = None,
        max_epochs: int | None = None,
        on_epoch: OnEpoch | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Self:
        """Train on trials that are split: anew, from an earlier fit, from `start`, or a state."""
        left = plain(self.max_epochs) if max_epochs is None else max_epochs
        marks = {}
        if checkpoints is not None:
            noted = {} if checkpoints.found is None else checkpoints.found["marks"]
            marks = self._marks(training, held_out, noted)
        ever = {"parameter": as_told(as_ever(type(self)))}
        found = None if checkpoints is None else checkpoints.check(marks, ever)
        ranks = join()
        if ranks.size > 1:
            before = f"of {len(self.history_)} epochs" if go_on else "none"
            given = "none" if checkpoints is None else "given"
            own = {"the fit to go on from": before, "checkpoint_dir": given}
            own |= _told_of(training[0], "training")
            own |= {} if held_out is None else _told_of(held_out[0], "validation")
            ranks.check_same(self._told_of_all() | own)
        if checkpoints is not None:
            checkpoints.check_alike(ranks)
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode is
            with isolated():
                if checkpoints is not None and found is not None:
                    with checkpoints.damage_named():
                        start, first = opened(self._recipe, found), found["first_epoch"]
                    over = start.state["finished"]
                    left = 0 if over else max(0, left + first - start.state["epoch"])
                else:
                    if start is None and go_on:
                        start = self._from_fit(*training)
                    elif start is None:
                        start = self._from_scratch(*training, seed, held_out)
                    first = start.state["epoch"]
                    if start.state["finished"] or held_out is None:
                        # go on from the weights that predict, not from those of the last epoch
                        again = {"model": start.state["best"], "schedule": None, "average": None}
                        start.state.update(again | {"finished": False})
                if start.fitted.ranges is not None:
                    warn_of_other_ranges(start.fitted, training[0])
                known = replace(
                    start.fitted,
                    trained_on=fingerprint(*training),
                    ranges=start.fitted.ranges or ranges_of(start.fitted, training[0]),
                )
                start = start._replace(fitted=known)
                name = run_name(type(self).__name__, start.fitted.seed)
                run = self._make_run(start, training, held_out, left, name)
            seen = Seen.of(training[0])
            if held_out is not None:
                warn_of_validation(seen, training[0], held_out[0])
                warn_of_other_ranges(start.fitted, held_out[0], whose="validation")
            log_start(repr(self), start.fitted, run)
            if max_epochs is None or not first:  # of `partial_fit` at its first call
                log_choices(run)
            if ranks.size > 1 and ranks.is_first and not run.deals_out:
                warn_of_equal_work(run.name, ranks.size)
            precision, history = run.settings.precision, start.state["history"]

            def become_fitted() -> None:
                """Replace an earlier fit, all at once."""
                self.__dict__.update(
                    fitted_=start.fitted,
                    module_=start.model,
                    state_=start.state,
                    device_=resolve_device(self.device),
                    precision_=precision,
                    _seen=seen,
                )

            def write_state() -> None:
                if checkpoints is not None:
                    whole = {"marks": marks, "first_epoch": first}
                    content = content_of(self.get_params(deep=False), start, precision)
                    checkpoints.write(run.state["epoch"], content | whole)

            def keep(record: Record) -> None:
                """Count as fitted from a good epoch on, and keep the state."""
                if any(map(is_good, history[first:])):
                    become_fitted()
                ranks.first(write_state)
                end_if_left()

            def tell(record: Record) -> bool:
                """Of several processes, in the first alone."""

                def told() -> bool:
                    enough = report(record) is True
                    return epoch_told(run.state["stop_reason"] is None and not enough) or enough

                return ranks.first(told)

            def as_if_over() -> dict[str, Any]:
                """What is fitted if the training ends here, a copy."""
                model = deepcopy(start.model)
                model.load_state_dict(start.state["best"])
                state = deepcopy(start.state)
                device = resolve_device(self.device)
                kept = {"fitted_": start.fitted, "module_": model.eval(), "state_": state}
                return {**kept, "device_": device, "precision_": precision, "_seen": seen}

            if not self.__sklearn_is_fitted__():
                self.module_ = run.model  # for hooks that look at it within the first epoch
            try:
                if found is None or left:
                    with (
                        progress(
                            run.name, left, plain(self.verbose), on_epoch, run.state
                        ) as report,
                        listening(on_epoch, history, ranks.first),
                    ):
                        if ranks.is_first:
                            epoch_told = self._telling_of_epochs(*training, as_if_over)
                        train(run, tell, keep)
                check_good(history[first:])
                become_fitted()
            finally:
                if not self.__sklearn_is_fitted__():
                    self.__dict__.pop("module_", None)
            if left:
                self._look_back(run)
        return self

    def _make_run(
        self, start: Start, training: Part, held_out: Part | None, max_epochs: int, name: str
    ) -> Run:
        """Bring model and data to the device, and make the run of their training."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is trained.")

    def _look_back(self, run: Run) -> None:
        """Warn of what a training came to: of nothing here."""

    def _marks(
        self, training: Part, held_out: Part | None, noted: Mapping[str, Any]
    ) -> dict[str, dict[str, str]]:
        """What tells this fit from others, in the form of what was noted before."""
        marks = {"parameter": as_told(self._plain_params())}
        for what, part in (("recording of mouse", training), ("validation of mouse", held_out)):
            marks[what] = describe_recording(*part, noted.get(what)) if part else {}
        return marks

    def _told_of_all(self) -> dict[str, str]:
        """What has to be the same in all processes that train a model."""
        parameters = {n: v for n, v in self.get_params(deep=False).items() if n != "device"}
        versions = {f"the version of {name}": told for name, told in package_versions().items()}
        return {"the model": type(self).__name__} | as_told(parameters) | versions

    def _to_device(self) -> None:
        device = resolve_device(self.device)
        if getattr(self, "device_", None) != device:
            with torch.inference_mode(False), isolated():
                self.module_.to(device)
            self.device_ = device

    # ------------------------------------------------------------------------- how it is kept

    def _content(self) -> dict[str, Any]:
        now = Start(self.fitted_, self.module_, self.state_)
        return content_of(self.get_params(deep=False), now, self.__dict__.get("precision_"))

    @classmethod
    def _restore(cls, content: dict[str, Any], device: str) -> Self:
        estimator = cls._with({**content["parameters"], "device": device})
        estimator._become(*opened(cls._recipe, content))
        if content["precision"] is not None:
            estimator.precision_ = content["precision"]
        estimator._to_device()
        return estimator

    def _become(self, fitted: Fitted, model: EncodingModel, state: dict[str, Any]) -> Self:
        """Count as fitted, with a model that is on no device of ours yet."""
        self.fitted_, self.module_, self.state_ = fitted, model, state
        self.__dict__.pop("device_", None)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the weights on the CPU; never the device they were on."""
        state = super().__getstate__()
        if not self.__sklearn_is_fitted__():
            return state
        state = {name: v for name, v in state.items() if name not in ("device_", "_seen")}
        weights = kept_weights(self.module_, self.state_)
        kept = _files.on_cpu({"module_": weights, "state_": self.state_})
        return state | kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not self.__sklearn_is_fitted__():
            return
        weights: Any = self.module_  # until here
        self.module_ = with_weights(self._recipe, self.fitted_, weights)
        # those that were alike are one in a pickle, and an optimiser changes each of its own
        self.state_ = map_tensors(self.state_, torch.clone)


def _told_of(trials: Trials, whose: str) -> dict[str, str]:
    number = f"the number of {whose} trials of mouse"
    told = {f"{number} {mouse!r}": str(len(trials.rows(mouse)[0])) for mouse in trials.mice}
    labels = f"the hash of the labels of the {whose} trials of mouse"
    return told | {f"{labels} {mouse!r}": own for mouse, own in labels_in_short(trials).items()}


def split_trials(trials: Trials, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split by image, the same way in whatever order the mice's trials came."""
    by_mouse = np.concatenate([trials.rows(mouse)[0] for mouse in trials.mice])
    rows, held_rows = split_by_image(
        trials.image_ids[by_mouse], fraction, seed, trials.mouse_ids[by_mouse]
    )
    return np.sort(by_mouse[rows]), np.sort(by_mouse[held_rows])
