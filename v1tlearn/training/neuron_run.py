"""The training of minimodels: every neuron has its own early stopping, rates and best weights.

All neurons see the same batches. Those that have come to their end drop out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.model import EncodingModel
from v1tlearn.training import memory
from v1tlearn.training.data import Draw, MouseData, epoch_batches
from v1tlearn.training.dealing import begin_alike
from v1tlearn.training.neuron_steps import (
    Block,
    Maps,
    Moments,
    NeuronObjective,
    NeuronOptions,
    as_tree,
    maps_bytes,
    minimodels,
)
from v1tlearn.training.objectives import Record
from v1tlearn.training.ranks import ALONE, Ranks
from v1tlearn.training.run import Run
from v1tlearn.training.schedule import Schedule, Verdict
from v1tlearn.training.settings import TrainingSettings
from v1tlearn.training.state import copy_weights, map_tensors
from v1tlearn.training.steps import NonFiniteLossError

_MAPS_SHARE = 0.25  # of the memory of a device, for maps that are kept
# Values of the second layer's maps of a batch, of neurons trained at once. On a CPU more would gain
# nothing, and be given back to the system after every step.
_BLOCK_VALUES = {"cpu": 2**23, "cuda": 2**29}


@dataclass
class Course:
    """How far the training of one neuron is.

    Attributes
    ----------
    schedule : Schedule
        Its own.
    best_epoch : int
        Of the weights that are kept; 0 for the initial ones.
    over : bool
        Whether it is trained no more.
    lost : bool
        Whether its loss was ever not finite.
    scores : dict of str to float
        Of its weights after the last epoch; once it is over, of those that were kept.
    best : dict of str to float
        Of those that are kept.
    """

    schedule: Schedule
    best_epoch: int = 0
    over: bool = False
    lost: bool = False
    scores: dict[str, float] | None = None
    best: dict[str, float] | None = None


class NeuronSchedule(Schedule):
    """The schedules of all neurons of all mice.

    Parameters
    ----------
    make : callable
        ``make()`` gives the schedule of one neuron.
    trained : dict of str to sequence of bool
        Per mouse which neurons are trained at all.
    """

    def __init__(self, make: Callable[[], Schedule], trained: Mapping[str, Any]) -> None:
        self.courses = {
            mouse: [Course(make(), over=not wanted) for wanted in neurons]
            for mouse, neurons in trained.items()
        }

    @property
    def ending(self) -> str:
        """What it says of itself when it ends the training."""
        return "every neuron has come to the end of its schedule"

    @property
    def over(self) -> bool:
        """Whether no neuron is left."""
        return all(course.over for courses in self.courses.values() for course in courses)

    def active(self, mouse: str) -> Tensor:
        """Neurons of a mouse that are trained; the others have the scores of what was kept.

        Parameters
        ----------
        mouse : str

        Returns
        -------
        Tensor of int
        """
        for course in self.courses[mouse]:
            course.scores = course.best if course.over else course.scores
        return torch.tensor([i for i, c in enumerate(self.courses[mouse]) if not c.over]).long()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while training, per mouse one list for each entry.

        Returns
        -------
        dict
        """
        state = {}
        for mouse, courses in self.courses.items():
            entries = [vars(c) | {"schedule": c.schedule.state_dict()} for c in courses]
            state[mouse] = {name: [entry[name] for entry in entries] for name in entries[0]}
        return {"neurons": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, or start afresh if it is that of another schedule.

        Parameters
        ----------
        state : dict
        """
        for mouse, entries in state.get("neurons", {}).items():
            for i, course in enumerate(self.courses[mouse]):
                for name, values in entries.items():
                    if name != "schedule":
                        setattr(course, name, values[i])
                course.schedule.load_state_dict(entries["schedule"][i])


class NeuronRun(Run):
    """A training of minimodels, from its state on, epoch by epoch.

    Parameters
    ----------
    model : EncodingModel
        With a frozen core and `MinimodelReadout` readouts, on its device.
    objective : NeuronObjective
    options : NeuronOptions
    schedule : NeuronSchedule
    data : dict of str to MouseData
    settings : TrainingSettings
    state : dict, optional
        As of `Run`.
    ranks : Ranks, default=ALONE
        Processes that train the same, and decide alike; each trains all neurons.
    validation : dict of str to MouseData, optional
    draw : callable, optional
        As of `Run`.
    neurons_at_once : "auto" or int, default="auto"
        Neurons of a mouse that are trained together; the result is the same.
    name : str, default="model"
    """

    # An objective of neurons one by one, for steps and scores that are all written here.
    objective: NeuronObjective  # type: ignore[assignment]
    schedule: NeuronSchedule

    def __init__(
        self,
        model: EncodingModel,
        objective: NeuronObjective,
        options: NeuronOptions,
        schedule: NeuronSchedule,
        data: Mapping[str, MouseData],
        settings: TrainingSettings,
        state: dict[str, Any] | None = None,
        ranks: Ranks = ALONE,
        *,
        validation: Mapping[str, MouseData] | None = None,
        draw: Draw = epoch_batches,
        neurons_at_once: str | int = "auto",
        name: str = "model",
    ) -> None:
        settings = replace(settings, micro_batch_size=settings.batch_size, compile=False)
        super().__init__(
            model,
            objective,  # type: ignore[arg-type]  # as above
            [],
            schedule,
            data,
            settings,
            state,
            ranks,
            validation=validation,
            draw=draw,
            name=name,
        )
        self.options, self.neurons_at_once = options, neurons_at_once
        self.moments: dict[str, Moments] = {}
        self.maps: dict[str, tuple[Maps, Maps | None]] = {}

    # ---------------------------------------------------------------------------- before and after

    def _resume(self) -> None:
        state = self.state
        state["stop_reason"] = None
        if state["model"] is not None:
            self.model.load_state_dict(state["model"])
        if state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        parts = {"training": self.data, "validation": self.validation or {}}
        begin_alike(self.ranks, self.model, parts, self.settings, state["epoch"])
        if state["epoch"] == 0:
            state["best"] = copy_weights(self.model)
        saved = state["optimizer"] or {"lr": self.options.lr, "neurons": {}}
        for mouse in self.data:
            if mouse not in saved["neurons"]:
                self.moments[mouse] = Moments.of(minimodels(self.model, mouse), self.options.lr)
                continue
            own = map_tensors(saved["neurons"][mouse], lambda v: v.to(self._device, copy=True))
            lr, steps = (own[n].cpu() for n in ("lr", "steps"))
            if saved["lr"] != self.options.lr:
                lr = torch.full_like(lr, self.options.lr)
            self.moments[mouse] = Moments(lr, steps, own["first"], own["second"])

    def _prepare(self) -> Sequence[AbstractContextManager[Any]]:
        if self._device.type == "cpu":
            memory.keep_freed_memory()
        parts = {m: (d, (self.validation or {}).get(m)) for m, d in self.data.items()}
        keep = self._keeps_maps(parts)
        size = self.settings.batch_size
        self.settings = replace(self.settings, checkpoint_activations=not keep)
        self.maps = {
            mouse: (
                Maps(self.model, mouse, seen, size, keep),
                None if judging is None else Maps(self.model, mouse, judging, size, keep),
            )
            for mouse, (seen, judging) in parts.items()
        }
        return ()

    def _keeps_maps(self, parts: Mapping[str, tuple[MouseData, MouseData | None]]) -> bool:
        """Decide whether the maps of all trials stay on the device."""
        wanted = self.settings.checkpoint_activations
        if wanted != "auto":
            return not wanted
        n_trials = {
            mouse: sum(len(d) for d in both if d is not None) for mouse, both in parts.items()
        }
        need = sum(maps_bytes(self.model, mouse, n) for mouse, n in n_trials.items())
        there = memory.available_memory(self._device, deterministic=True)
        return there is not None and need <= _MAPS_SHARE * there

    def _leave(self, error: BaseException) -> None:
        self._note()  # an epoch that did not come to its end has changed nothing

    def _note(self) -> None:
        neurons = {mouse: as_tree(moments) for mouse, moments in self.moments.items()}
        self.state |= {
            "model": copy_weights(self.model),
            "optimizer": {"lr": self.options.lr, "neurons": neurons},
            "schedule": self.schedule.state_dict(),
            "average": None,
        }

    def _remedies(self) -> Any:
        what, remedies, outcome = self._in_words()
        known = [remedy for remedy in remedies if "precision" not in remedy]
        return memory.remedies_named(what, ["a smaller neurons_at_once", *known], outcome)

    # --------------------------------------------------------------------------------- one epoch

    def _epoch(self) -> tuple[Record, Verdict]:
        start, state, model = time.perf_counter(), self.state, self.model
        record: Record = {"epoch": state["epoch"] + 1}
        model.core.eval()
        trained, sums, rates = {}, [], []
        for mouse in self.data:
            blocks, count, steps = self._train_mouse(mouse)
            trained[mouse] = blocks, self._judge_mouse(mouse, blocks)
            for block in blocks:
                counted = count[block.on_device].sum()
                sums.append(torch.stack([block.losses.sum(), counted, block.penalties / steps]))
                rates.append(block.moments.lr)
        state["epoch"] += 1
        lost = {mouse: self._take_over(mouse, *parts) for mouse, parts in trained.items()}
        for mouse, all_lost in lost.items():
            if all_lost:
                raise NonFiniteLossError(mouse, state["epoch"])
        total, n_counted, penalty = self.ranks.agree(torch.stack(sums).sum(0).tolist())
        n_trained = sum(len(rate) for rate in rates)
        record |= {"loss": total / max(n_counted, 1.0), "penalty": penalty / n_trained}
        record |= self._scores()
        record |= {
            "lr": float(torch.cat(rates).mean()),
            "n_trained": n_trained,
            "seconds": self.ranks.agree([time.perf_counter() - start])[0],
        }
        state["history"].append(record)
        return record, Verdict(stop=self.schedule.over)

    def _train_mouse(self, mouse: str) -> tuple[list[Block], Tensor, int]:
        """Train the neurons that are left for an epoch; responses they saw, and steps."""
        model, data = self.model, self.data[mouse]
        readout, head = minimodels(model, mouse), model.head(mouse)
        steps = self.draw({mouse: len(data)}, self.settings.batch_size, self._device)
        neurons = self.schedule.active(mouse)
        at_once = self._at_once(mouse)
        blocks = [
            Block(readout, self.moments[mouse], some, self.options)
            for some in neurons.split(at_once)
            if len(some)
        ]
        count = torch.zeros(readout.n_neurons, device=self._device)
        for pooled, (target, recorded) in self.maps[mouse][0].batches([s[mouse] for s in steps]):
            for block in blocks:
                block.step(pooled, target, recorded, head, self.objective)
            count += len(target) if recorded is None else recorded.sum(0)
        return blocks, count, len(steps)

    def _at_once(self, mouse: str) -> int:
        readout = minimodels(self.model, mouse)
        if not isinstance(self.neurons_at_once, str):
            return min(self.neurons_at_once, readout.n_neurons)
        values = readout.reading.core_shape
        most = _BLOCK_VALUES.get(self._device.type, 2**26)
        return max(1, most // (math.prod(values) * self.settings.batch_size))

    @torch.no_grad()
    def _judge_mouse(self, mouse: str, blocks: list[Block]) -> dict[str, Tensor]:
        """Scores of the neurons that were trained, of the validation trials."""
        maps = self.maps[mouse][1]
        if maps is None or not blocks:
            return {}
        head, size = self.model.head(mouse), self.settings.batch_size
        rows = [slice(i, i + size) for i in range(0, len(maps.data), size)]
        rates, targets, masks = [], [], []
        for pooled, (target, recorded) in maps.batches(rows):
            rates.append(torch.cat([block.predict(pooled, head) for block in blocks], 1))
            targets.append(target)
            masks.append(recorded)
        chosen = torch.cat([block.on_device for block in blocks])
        prediction, target = torch.cat(rates), torch.cat(targets)[:, chosen]
        known_masks = [mask for mask in masks if mask is not None]
        recorded = torch.cat(known_masks)[:, chosen] if known_masks else None
        found = {name: f(prediction, target, recorded) for name, f in self.objective.scores.items()}
        known = torch.ones_like(target) if recorded is None else recorded.to(target.dtype)
        judged = _with_errors(found[self.objective.score_name], prediction, target, known)
        judged = torch.where(known.sum(0) > 0, judged, self.state["epoch"])  # the last one is best
        losses = self.objective.losses(prediction, target, recorded)
        return {"judged": judged, "loss": losses, "count": known.sum(0), **found}

    @torch.no_grad()
    def _take_over(self, mouse: str, blocks: list[Block], scores: dict[str, Tensor]) -> bool:
        """Do with each neuron as its schedule says; whether all were lost."""
        if not blocks:
            return False
        readout, moments = minimodels(self.model, mouse), self.moments[mouse]
        for block in blocks:
            readout.put_(block.on_device, block.readout)
            moments.put_(block.neurons, block.moments)
        self.ranks.align(readout)
        neurons = torch.cat([block.neurons for block in blocks]).tolist()
        finite = torch.cat([block.finite() for block in blocks])
        if scores:
            finite &= scores["judged"].isfinite()
        agree = self.ranks.agree
        listed = {name: agree(values.tolist()) for name, values in scores.items()}
        verdicts = {}
        all_good = [bool(good) for good in agree(finite.tolist())]
        for place, (neuron, good) in enumerate(zip(neurons, all_good, strict=True)):
            own = {name: values[place] for name, values in listed.items()}
            verdicts[neuron] = self._verdict(self.schedule.courses[mouse][neuron], own, good)
        self._obey(mouse, verdicts)
        return not any(all_good)

    def _verdict(self, course: Course, scores: dict[str, float], good: bool) -> Verdict:
        """Ask the schedule of one neuron."""
        if not good:
            verdict = course.schedule.lost() or Verdict(restore=True, stop=True)
            course.lost = True
        else:
            verdict = course.schedule.step(scores.get("judged"))
        course.over = verdict.stop
        if good:
            course.scores = scores
        if verdict.improved:
            course.best, course.best_epoch = scores, self.state["epoch"]
            self.state["best_epoch"] = self.state["epoch"]
        return verdict

    def _obey(self, mouse: str, verdicts: Mapping[int, Verdict]) -> None:
        """Keep weights, bring them back, restart moments, lower rates."""

        def those(wanted: str) -> Tensor:
            """Neurons for which the verdicts say so."""
            return torch.tensor([i for i, v in verdicts.items() if getattr(v, wanted)]).long()

        moments, best = self.moments[mouse], self.state["best"]
        ours = f"readouts.{self.model.mice.index(mouse)}."
        improved, restored = (those(name).to(self._device) for name in ("improved", "restore"))
        for name, values in self.model.readout(mouse).state_dict().items():
            best[ours + name][improved] = values[improved]
            values[restored] = best[ours + name][restored]
        moments.restart_(those("fresh"))
        for neuron, verdict in verdicts.items():
            lr = float(moments.lr[neuron])
            least = min(self.schedule.courses[mouse][neuron].schedule.min_lr, lr)
            moments.lr[neuron] = max(lr * verdict.lr_factor, least)

    def _scores(self) -> Record:
        """Validation loss and scores of all neurons, those that are over by their best weights."""
        known = {
            mouse: [c.scores for c in courses if c.scores]
            for mouse, courses in self.schedule.courses.items()
        }
        known = {mouse: found for mouse, found in known.items() if found}
        if not known:
            return {}
        total, count = (
            sum(s[name] for found in known.values() for s in found) for name in ("loss", "count")
        )
        record = {"validation_loss": total / max(count, 1.0)}
        for name in self.objective.scores:
            own = {mouse: _mean(s[name] for s in found) for mouse, found in known.items()}
            record[name] = _mean(own.values())
            record |= {f"{name}_{mouse}": value for mouse, value in own.items()}
        return record


def _with_errors(score: Tensor, prediction: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Scores that order the epochs of every neuron, also where its responses are constant.

    What a score says nothing of is judged by the negative squared error.
    """
    errors = ((prediction - target).square() * known).sum(0) / known.sum(0).clamp(min=1)
    return torch.where(score.isnan(), -errors.to(score.dtype), score)


def _mean(values: Iterable[float]) -> float:
    """Mean of those that are numbers."""
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan
