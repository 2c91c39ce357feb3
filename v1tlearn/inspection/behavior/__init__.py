"""What behaviour does in a fitted model: activations, scores, what it explains, gain and shift."""

from v1tlearn.inspection.behavior.ablation import behavior_ablation
from v1tlearn.inspection.behavior.activation_display import BehaviorActivationDisplay
from v1tlearn.inspection.behavior.activations import behavior_activations
from v1tlearn.inspection.behavior.constant import with_behavior
from v1tlearn.inspection.behavior.gain import behavior_gain
from v1tlearn.inspection.behavior.performance import performance_by_behavior
from v1tlearn.inspection.behavior.performance_display import BehaviorPerformanceDisplay
from v1tlearn.inspection.behavior.shifts import readout_shifts

__all__ = [
    "BehaviorActivationDisplay",
    "BehaviorPerformanceDisplay",
    "behavior_ablation",
    "behavior_activations",
    "behavior_gain",
    "performance_by_behavior",
    "readout_shifts",
    "with_behavior",
]
