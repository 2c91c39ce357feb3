"""Training of encoding models: tensors and mice in, trained module and its state out."""

from v1tlearn.training.data import MouseData
from v1tlearn.training.devices import autocast, numerics, resolve_device, resolve_precision
from v1tlearn.training.loop import (
    NonFiniteLossError,
    evaluate,
    predict_mouse,
    resolve_settings,
    train,
)
from v1tlearn.training.memory import InsufficientMemoryError
from v1tlearn.training.rng import initial_rng, isolated_rng
from v1tlearn.training.schedule import ConstantSchedule, PlateauSchedule, RoundsSchedule
from v1tlearn.training.seeds import draw_seed
from v1tlearn.training.settings import TrainingSettings
from v1tlearn.training.state import new_state

__all__ = [
    "ConstantSchedule",
    "InsufficientMemoryError",
    "MouseData",
    "NonFiniteLossError",
    "PlateauSchedule",
    "RoundsSchedule",
    "TrainingSettings",
    "autocast",
    "draw_seed",
    "evaluate",
    "initial_rng",
    "isolated_rng",
    "new_state",
    "numerics",
    "predict_mouse",
    "resolve_device",
    "resolve_precision",
    "resolve_settings",
    "train",
]
