"""A training run: one batch of every mouse per step, one host synchronisation per epoch.

`Run.epochs` is the loop, and reads top to bottom. What happens within a step is in `steps`, what is
minimised in `objectives`, when rates drop and the training ends in `schedule`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from typing import Any

import torch

from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.model import EncodingModel
from v1tlearn.training import course, memory
from v1tlearn.training.averaging import ExponentialAverage, renew_statistics
from v1tlearn.training.compilation import compiled
from v1tlearn.training.data import Draw, MouseData, epoch_batches, step_batches
from v1tlearn.training.dealing import (
    Share,
    begin_alike,
    deal,
    drawing_for_all,
    normalized_by_all,
)
from v1tlearn.training.deciding import agreed, resolve_settings
from v1tlearn.training.devices import autocast, numerics
from v1tlearn.training.interrupts import in_one_go
from v1tlearn.training.objectives import Objective, Record, is_shared
from v1tlearn.training.optimizers import clip_gradients, rates_of_steps
from v1tlearn.training.ranks import ALONE, Ranks
from v1tlearn.training.rng import initial_rng, isolated_rng, returned_rng
from v1tlearn.training.schedule import Schedule, Verdict
from v1tlearn.training.seeds import draw_seed
from v1tlearn.training.settings import TrainingSettings
from v1tlearn.training.state import copy_weights, new_state, not_finite
from v1tlearn.training.steps import (
    NonFiniteLossError,
    backward_share,
    check_predictions,
    first_not_finite,
)


class Run:
    """A training of a model, from its state on, epoch by epoch.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    objective : Objective
    optimizer : Optimizer or sequence of Optimizer
        Over the parameters of `model`. Several take their steps one after the other.
    schedule : Schedule
    data : dict of str to MouseData
        Training trials per mouse, on the model's device.
    settings : TrainingSettings
    state : dict, optional
        From `new_state`, or that of an earlier run, which goes on; changed in place. By default
        a new one, with a seed of the operating system.
    ranks : Ranks, default=ALONE
        The processes that train the model together, each with a run of its own, on the same data
        and from the same state. They share every batch, and come to what one alone would.
    validation : dict of str to MouseData, optional
    draw : callable, optional
        Gives the batches of an epoch in place of `v1tlearn.training.data.epoch_batches`, which
        draws them at random: to repeat a training in the order of another, or from easy to hard.
    average : object, optional
        Averages weights, see `v1tlearn.training.averaging`; an `ExponentialAverage` by default
        where the settings have an ``ema_decay``.
    name : str, default="model"
        What the log calls the model.

    Examples
    --------
    ::

        run = Run(model, PoissonObjective(score), optimizer, schedule, data, settings)
        for record in run.epochs():
            torch.save(run.state_dict(), "state.pt")
    """

    def __init__(
        self,
        model: EncodingModel,
        objective: Objective,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        schedule: Schedule,
        data: Mapping[str, MouseData],
        settings: TrainingSettings,
        state: dict[str, Any] | None = None,
        ranks: Ranks = ALONE,
        *,
        validation: Mapping[str, MouseData] | None = None,
        draw: Draw = epoch_batches,
        average: Any = None,
        name: str = "model",
    ) -> None:
        self.model, self.objective, self.schedule, self.draw = model, objective, schedule, draw
        several = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        self.optimizers = list(several)
        self.data, self.validation, self.settings, self.name = data, validation, settings, name
        self.ranks = ranks
        self.given_to = "on_epoch"  # between two epochs, by the name of the argument
        self._reached: dict[tuple[str, ...], list[bool] | None] = {}
        self.state = new_state(initial_rng(draw_seed())) if state is None else state
        if average is None and settings.ema_decay is not None:
            average = ExponentialAverage(settings.ema_decay)
        self.average = average

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on exactly, whole whenever `epochs` is suspended.

        Returns
        -------
        dict
            See `v1tlearn.training.state.new_state`. It is the run's own, which changes with the
            next epoch: copy, save or pickle what is to stay.
        """
        return self.state

    def epochs(self) -> Generator[Record, None, None]:
        """Train until the schedule ends it or the epochs are used up.

        Between two epochs the run has let go of torch's generators, of switches and of the
        modules' forward passes, and its state is whole: whatever is done then with torch, with
        other models or with copies of this one does not change what comes of it. Afterwards, and
        where the iterator is closed before, the model holds the best weights so far, and the state
        everything to go on.

        Yields
        ------
        dict of str to float
            The record of an epoch, as in the history.

        Raises
        ------
        NonFiniteLossError
            If a loss is NaN or infinite. Model and state are in order all the same.
        InsufficientMemoryError
            If memory does not suffice; model and state are in order here, too.
        KeyboardInterrupt
            As it came. Model and state are in order, and ``stop_reason`` is "interrupted".
        LostProcessError
            If another process that trains the model is gone. Model and state are in order.
        ValueError
            If a micro-batch size is given to a core with batch normalisation, or compilation is
            asked for without a compiler.
        """
        start, state, max_epochs = time.perf_counter(), self.state, self.settings.max_epochs
        with self._remedies():
            self._resume()
        reason, why, outside = "max_epochs", f"max_epochs={max_epochs} are over", False
        try:
            with self._engaged():
                others = self._prepare()
            for number in range(1, max_epochs + 1):
                with self._engaged(), ExitStack() as within:
                    for forwards in others:
                        within.enter_context(forwards)
                    record, verdict = self._epoch()
                    self._note()
                if verdict.stop:
                    reason, why = "schedule", self.schedule.ending
                over = verdict.stop or number == max_epochs
                state |= {"finished": verdict.stop, "stop_reason": reason if over else None}
                outside = True
                yield record
                outside = False
                if verdict.stop:
                    break
        except BaseException as error:
            with in_one_go():  # as by a second Ctrl-C
                reason, why = course.reason_of(error, self.given_to if outside else "error")
                if not outside:
                    if not isinstance(error, NonFiniteLossError | ValueError | TypeError):
                        self.ranks.leave(error)  # those are raised in all processes alike
                    with self._remedies():
                        self._leave(error)
                self._end(reason, why, time.perf_counter() - start)
            raise
        with in_one_go():
            self._end(reason, why, time.perf_counter() - start)

    # ---------------------------------------------------------------------------- before and after

    def _resume(self) -> None:
        state = self.state
        state["stop_reason"] = None
        if state["model"] is not None:
            self.model.load_state_dict(state["model"])
        if state["optimizer"] is not None:
            saved = state["optimizer"]
            saved = [saved] if isinstance(saved, dict) else saved
            for optimizer, own in zip(self.optimizers, saved, strict=True):
                optimizer.load_state_dict(own)
        if state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            if state.get("average") is None:
                self.average.restart(self.model.state_dict())
            else:
                self.average.load_state_dict(state["average"])
        parts = {"training": self.data, "validation": self.validation or {}}
        begin_alike(self.ranks, self.model, parts, self.settings, state["epoch"])
        if state["epoch"] == 0:
            state["best"] = copy_weights(self.model)

    @property
    def deals_out(self) -> bool:
        """Whether several processes share its batches."""
        return self._dealt.size > 1

    @property
    def _dealt(self) -> Ranks:
        """The processes among which batches are dealt out; elsewhere each computes all of them."""
        return self.ranks if is_shared(self.objective) else ALONE

    def _prepare(self) -> Sequence[AbstractContextManager[Any]]:
        """Decide what is left to decide; the forward passes that stand in within epochs."""
        model, schedule = self.model, self.schedule
        settings = resolve_settings(model, self.objective, self.data, self.settings, self.ranks)
        self.settings = agreed(settings, self.ranks)
        if self._device.type == "cpu":
            memory.keep_freed_memory()
        first = self.state["epoch"] == 0 and self.validation is not None
        if first and schedule.scores_initial_weights:
            score = self._score()[self.objective.score_name]
            if math.isfinite(score):
                schedule.start(score)
        fast = compiled(model.core, self.settings.compile)
        frugal = memory.checkpointed(model.core, bool(self.settings.checkpoint_activations))
        return fast, frugal, normalized_by_all(model, self._dealt)

    def _end(self, reason: str, why: str, seconds: float) -> None:
        """Keep the best weights."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)  # of a step that was interrupted
        self.model.load_state_dict(self.state["best"])
        self.model.eval()
        self.state["stop_reason"] = reason
        course.log_end(self.name, self.state, why, seconds, self.objective.score_name)

    def _leave(self, error: BaseException) -> None:
        """Bring the state in order after an epoch that did not come to its end."""
        lost = isinstance(error, NonFiniteLossError | memory.InsufficientMemoryError)
        if lost or not_finite(self.model.state_dict()):  # or it was stopped within a lost epoch
            self._go_back()
            for optimizer in self.optimizers:
                optimizer.state.clear()
        self._note()

    def _note(self) -> None:
        """Bring the state up to date with what the run works on."""
        saved = [optimizer.state_dict() for optimizer in self.optimizers]
        self.state |= {
            "model": copy_weights(self.model),
            "optimizer": saved[0] if len(saved) == 1 else saved,
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    @contextmanager
    def _engaged(self) -> Iterator[None]:
        """Within, generators and switches of torch are the run's; no other run is within."""
        settings, device = self.settings, self._device
        with (
            isolated_rng(self.state["rng"], device),
            numerics(settings.precision, device, deterministic=settings.deterministic),
            self._remedies(),
        ):
            yield

    def _remedies(self) -> Any:
        return memory.remedies_named(*self._in_words())

    def _in_words(self) -> tuple[str, list[str], str]:
        return memory.step_in_words(self.model, self.objective, self.data, self.settings)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.data.values())).device

    # --------------------------------------------------------------------------------- one epoch

    def _epoch(self) -> tuple[Record, Verdict]:
        """Train one epoch, judge it, and do as the schedule says."""
        start, state, schedule = time.perf_counter(), self.state, self.schedule
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        lr = groups[-1]["lr"]
        record: Record = {"epoch": state["epoch"] + 1}
        with ExitStack() as counting:  # an epoch counts whole or not at all
            try:
                trained, last_inputs = self._train(groups)
            except NonFiniteLossError as error:
                counting.enter_context(in_one_go())
                verdict = schedule.lost()
                if verdict is None:
                    raise
                record |= self._lost(error)
                state["epoch"] += 1
            else:
                record |= trained
                verdict = self._judge(record, last_inputs, counting)
            if verdict.restore:
                self._go_back()
            if verdict.fresh:
                for optimizer in self.optimizers:
                    optimizer.state.clear()
            for group in groups:
                least = min(schedule.min_lr, group["lr"])
                group["lr"] = max(group["lr"] * verdict.lr_factor, least)
            (record["seconds"],) = self.ranks.agree([time.perf_counter() - start])
            state["history"].append(record)
        score_name, rates = self.objective.score_name, (lr, groups[-1]["lr"])
        course.log_verdict(self.name, state, verdict, rates, score_name)
        return record, verdict

    def _judge(
        self, record: Record, last_inputs: dict[str, MouseBatch], counting: ExitStack
    ) -> Verdict:
        """Score the weights after an epoch, and keep them if they are the best."""
        state = self.state
        self.ranks.align(self.model)
        with self._averaged():
            if self.validation is not None:
                record |= self._score()
            else:
                check_predictions(self.model, last_inputs, state["epoch"] + 1, self.ranks)
            score = record.get(self.objective.score_name)
            counting.enter_context(in_one_go())
            verdict = self.schedule.step(score)
            state["epoch"] += 1
            if verdict.improved and (score is None or math.isfinite(score)):
                state["best"], state["best_epoch"] = copy_weights(self.model), state["epoch"]
        return verdict

    def _lost(self, error: NonFiniteLossError) -> Record:
        """Record of an epoch that came to nothing, but that the schedule goes on from."""
        name, lr = self.objective.score_name, self.optimizers[-1].param_groups[-1]["lr"]
        lost = ("loss", "penalty", "validation_loss", name, f"{name}_{error.mouse}")
        return dict.fromkeys(lost, math.nan) | {"lr": self.schedule.step_rate(lr, error.epoch - 1)}

    def _train(self, groups: Sequence[dict[str, Any]]) -> tuple[Record, dict[str, MouseBatch]]:
        """Take the steps of one epoch; loss, penalty and last rate, and the inputs of the last."""
        model, data, settings, epoch = self.model, self.data, self.settings, self.state["epoch"]
        model.train()
        losses, counts, penalties = [], [], []
        shares, ranks = self._shares(), self._dealt
        trained = [p for group in groups for p in group["params"]]
        in_parts = settings.micro_batch_size != settings.batch_size
        with (
            rates_of_steps(groups, self.schedule) as set_rates,
            drawing_for_all(ranks, self.state, self._device, in_parts=in_parts) as common,
            closing(step_batches(data, [share.rows for share in shares])) as batches,
        ):
            for number, (inputs, targets) in enumerate(batches):
                lr, share = set_rates(epoch + number / len(shares)), shares[number]
                step = [
                    backward_share(
                        model, self.objective, part, targets, data, settings, share, ranks, common
                    )
                    for part in self._passes(inputs)
                ]
                mice = tuple(share.sizes)  # by which steps give gradients to others
                self._reached[mice] = ranks.reduce(trained, self._reached.get(mice))
                self._step()
                losses.append(torch.cat([s[0] for s in step]))
                counts.append(sum(s[1] for s in step))
                penalties.append(sum((s[2] for s in step[1:]), step[0][2]))
        table = torch.stack(losses)
        weights = torch.stack([value.isfinite().all() for value in model.state_dict().values()])
        told = [
            torch.as_tensor(sum(counts), dtype=table.dtype, device=table.device),
            torch.stack(penalties).mean(),
        ]
        table, told = ranks.total(table), list(ranks.total(torch.stack(told)))
        # the only synchronisation of the epoch
        finite = table.isfinite().all() & weights.all()
        total, count, penalty, finite = torch.stack([table.sum(), *told, finite]).tolist()
        if not finite:
            last, column = first_not_finite(table)
            raise NonFiniteLossError(list(data)[column], epoch + 1, last + 1)
        return {"loss": total / max(count, 1.0), "penalty": penalty, "lr": lr}, inputs

    def _step(self) -> None:
        """Move the weights, restore their constraints, and take them into the average."""
        if self.settings.clip_norm is not None:
            trained = [p for o in self.optimizers for g in o.param_groups for p in g["params"]]
            clip_gradients(trained, self.settings.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for module in (self.model.core, *self.model.readouts):
            module.project_()
        if self.average is not None:
            self.average.update(self.model)

    def _score(self) -> Record:
        assert self.validation is not None
        over, ranks = self.schedule.mean_over, self.ranks
        with ranks.sharing():
            record = self.objective.score(self.model, self.validation, self.settings, over)
        return dict(zip(record, ranks.agree(list(record.values())), strict=True))

    def _go_back(self) -> None:
        self.model.load_state_dict(self.state["best"])
        if self.average is not None:
            self.average.restart(self.state["best"])

    def _renew_statistics(self) -> None:
        """Pass over the training trials once more."""
        with (
            returned_rng(self._device),
            autocast(self.settings.precision, self._device),
            closing(step_batches(self.data, self._drawn())) as batches,
        ):
            passes = (part for inputs, _ in batches for part in self._passes(inputs))
            renew_statistics(self.model, passes)

    def _drawn(self) -> Sequence[Mapping[str, Any]]:
        lengths = {mouse: len(trials) for mouse, trials in self.data.items()}
        return self.draw(lengths, self.settings.batch_size, self._device)

    def _shares(self) -> Sequence[Share]:
        lengths = {mouse: len(trials) for mouse, trials in self.data.items()}
        return deal(self._drawn(), lengths, self._dealt)

    def _passes(self, inputs: Mapping[str, MouseBatch]) -> list[dict[str, MouseBatch]]:
        """What goes through the core at once, of a batch of all mice."""
        return [dict(inputs)] if self.settings.joint else [{m: own} for m, own in inputs.items()]

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within, the model has the averaged weights, where there are any."""
        if self.average is None:
            yield
            return
        weights = copy_weights(self.model)
        self.model.load_state_dict(self.average.weights())
        try:
            if self.average.lacks_statistics():
                self._renew_statistics()
            self.ranks.align(self.model)
            yield
        finally:
            self.model.load_state_dict(weights)


def train(
    run: Run,
    on_epoch: Callable[[Record], Any] | None = None,
    keep: Callable[[Record], Any] | None = None,
) -> dict[str, Any]:
    """Train to the end.

    Parameters
    ----------
    run : Run
    on_epoch : callable, optional
        Told the record of every epoch while the run is suspended. What it raises ends the run,
        with the ``stop_reason`` "on_epoch" unless the error has one of its own; True ends it so,
        without an error.
    keep : callable, optional
        Called ahead of it, to keep the state.

    Returns
    -------
    dict
        The state of the run.
    """
    epochs = run.epochs()
    try:
        for record in epochs:
            run.given_to = "checkpoint_dir"
            if keep is not None:
                keep(record)
            run.given_to = "on_epoch"
            if on_epoch is not None and on_epoch(record) is True:
                raise course.EnoughError
    except BaseException as error:
        with suppress(course.EnoughError):
            epochs.throw(error)
    return run.state_dict()
