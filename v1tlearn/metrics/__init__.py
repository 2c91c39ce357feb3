"""Metrics of predicted responses, per neuron, then over neurons, then over mice.

All functions take responses and predictions as

* arrays (trials, neurons) of one mouse;
* 1-D object arrays, one vector per trial, with `mouse_ids` (one per trial); without them trials
  with equally many neurons are one mouse;
* (trials, most neurons) arrays of several mice with `mouse_ids`, padded with NaN at the right;
* DataArrays (trial, neuron) of one mouse, such as `responses["A"]`, whose coordinate `image_id` is
  used when no `image_ids` come;
* `Responses`, which bring `mouse_ids` and `image_ids` (explicit `image_ids` come first);
* dicts, or lists, of one (trials, neurons) array per mouse, `image_ids` in the same form.

`y_true` and `y_pred` may differ in form, as the result of `cross_val_predict` does. NaN in
`y_true` means "not recorded": such a trial does not exist for that neuron. With "raw_values" the
answer has one value per neuron, mice one after another: in the order of the recordings, of the
dict or list, or else of their first trials.

Values that differ by rounding only do not count as varying: a neuron is constant if its standard
deviation over trials is at most 1e-6 of its largest absolute value, 1e-12 where float64 came.
"""

from v1tlearn.metrics.correlation import (
    average_correlation,
    fraction_oracle,
    oracle_correlation,
    single_trial_correlation,
)
from v1tlearn.metrics.scorers import scorers
from v1tlearn.metrics.variance import fev, feve, normalized_correlation

__all__ = [
    "average_correlation",
    "fev",
    "feve",
    "fraction_oracle",
    "normalized_correlation",
    "oracle_correlation",
    "scorers",
    "single_trial_correlation",
]
