"""Memory of training and prediction: what there is, what is needed, and getting by with less."""

from v1tlearn.training.memory.capacity import available_memory, free_memory, keep_freed_memory
from v1tlearn.training.memory.footprint import Footprint, measure
from v1tlearn.training.memory.out_of_memory import (
    InsufficientMemoryError,
    is_out_of_memory,
    remedies_named,
)
from v1tlearn.training.memory.plan import (
    check_micro_batches,
    images_at_once,
    plan,
    prediction_batch_size,
    quickest_at_once,
    step_in_words,
)
from v1tlearn.training.memory.recomputation import (
    checkpointed,
    saves_memory,
    takes_batch_statistics,
)

__all__ = [
    "Footprint",
    "InsufficientMemoryError",
    "available_memory",
    "check_micro_batches",
    "checkpointed",
    "free_memory",
    "images_at_once",
    "is_out_of_memory",
    "keep_freed_memory",
    "measure",
    "plan",
    "prediction_batch_size",
    "quickest_at_once",
    "remedies_named",
    "saves_memory",
    "step_in_words",
    "takes_batch_statistics",
]
