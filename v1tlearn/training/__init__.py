"""Training of encoding models: tensors and mice in, trained module and its state out."""

from v1tlearn.training.annealing import CosineSchedule, ReduceSchedule, WarmupSchedule
from v1tlearn.training.averaging import EpochAverage, ExponentialAverage
from v1tlearn.training.contrastive import ContrastiveObjective, make_optimizers
from v1tlearn.training.data import MouseData
from v1tlearn.training.deciding import resolve_settings
from v1tlearn.training.devices import (
    autocast,
    isolated,
    numerics,
    resolve_device,
    resolve_precision,
)
from v1tlearn.training.distributed import is_first, join, shared_seed
from v1tlearn.training.lost import LostProcessError
from v1tlearn.training.memory import InsufficientMemoryError
from v1tlearn.training.movies import MovieData, cut_into_windows
from v1tlearn.training.neuron_run import NeuronRun, NeuronSchedule
from v1tlearn.training.neuron_steps import NeuronObjective, NeuronOptions
from v1tlearn.training.objectives import MouseLoss, Objective, PoissonObjective, RateObjective
from v1tlearn.training.optimizers import clip_gradients, make_optimizer, update_groups
from v1tlearn.training.prediction import predict_mouse
from v1tlearn.training.ranks import ALONE, Ranks
from v1tlearn.training.rng import initial_rng, isolated_rng, private_rng
from v1tlearn.training.run import Run, train
from v1tlearn.training.schedule import (
    ConstantSchedule,
    PeriodsSchedule,
    PlateauSchedule,
    RoundsSchedule,
    Schedule,
    Verdict,
)
from v1tlearn.training.seeds import draw_seed
from v1tlearn.training.sequences import RandomWindows, SequenceObjective, all_windows
from v1tlearn.training.settings import TrainingSettings
from v1tlearn.training.stagnation import StagnationSchedule
from v1tlearn.training.state import new_state
from v1tlearn.training.steps import NonFiniteLossError

__all__ = [
    "ALONE",
    "ConstantSchedule",
    "ContrastiveObjective",
    "CosineSchedule",
    "EpochAverage",
    "ExponentialAverage",
    "InsufficientMemoryError",
    "LostProcessError",
    "MouseData",
    "MouseLoss",
    "MovieData",
    "NeuronObjective",
    "NeuronOptions",
    "NeuronRun",
    "NeuronSchedule",
    "NonFiniteLossError",
    "Objective",
    "PeriodsSchedule",
    "PlateauSchedule",
    "PoissonObjective",
    "RandomWindows",
    "Ranks",
    "RateObjective",
    "ReduceSchedule",
    "RoundsSchedule",
    "Run",
    "Schedule",
    "SequenceObjective",
    "StagnationSchedule",
    "TrainingSettings",
    "Verdict",
    "WarmupSchedule",
    "all_windows",
    "autocast",
    "clip_gradients",
    "cut_into_windows",
    "draw_seed",
    "initial_rng",
    "is_first",
    "isolated",
    "isolated_rng",
    "join",
    "make_optimizer",
    "make_optimizers",
    "new_state",
    "numerics",
    "predict_mouse",
    "private_rng",
    "resolve_device",
    "resolve_precision",
    "resolve_settings",
    "shared_seed",
    "train",
    "update_groups",
]
