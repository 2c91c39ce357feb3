"""Where transformers look: attention rollout over the images of trials, and what it follows."""

from v1tlearn.inspection.attention.centers import (
    attention_center_of_mass,
    attention_pupil_correlation,
)
from v1tlearn.inspection.attention.rollout import attention_rollout
from v1tlearn.inspection.attention.rollout_display import AttentionRolloutDisplay

__all__ = [
    "AttentionRolloutDisplay",
    "attention_center_of_mass",
    "attention_pupil_correlation",
    "attention_rollout",
]
