"""Metrics of predicted responses, per neuron, then over neurons, then over mice.

All functions take responses and predictions as

* arrays (trials, neurons) of one mouse;
* 1-D object arrays, one vector per trial, with `mouse_ids` (one per trial); without them trials
  with equally many neurons are one mouse;
* (trials, most neurons) arrays of several mice with `mouse_ids`, padded with NaN at the right;
* DataArrays (trial, neuron) of one mouse, such as `responses["A"]`, whose coordinate `image_id` is
  used when no `image_ids` come; or tables of pandas, a row per trial and a column per neuron;
* `Responses`, which bring `mouse_ids` and `image_ids` (explicit `image_ids` come first), and
  categories of stimuli where their recordings have the coordinate `category`;
* dicts, or lists, of one (trials, neurons) array per mouse, `image_ids` in the same form.

Responses to movies have a time axis behind the trials, (trials, time, neurons), NaN behind the last
frame of a movie; object arrays hold (frames, neurons) per trial. Each frame is then a trial: what
is computed over trials is computed over all frames of all trials, and the repeats of an image are
those of a frame of a movie, `image_ids` being the ids of movies. `fecv` alone refuses them.

`y_true` and `y_pred` may differ in form, as the result of `cross_val_predict` does. NaN in
`y_true` means "not recorded": such a trial does not exist for that neuron; so do masked responses.

Dimensions go by their names, whatever their order. Where both arguments label their neurons, or
their trials (coordinates `neuron` and `trial`, columns and index), `y_pred` is brought to the order
of `y_true`; other neurons and other trials are refused, and so is an image without an id.

How much is averaged, `multioutput` says:

* "uniform_average", the default: a float, the mean over neurons, then over mice;
* "mice": a DataArray (mouse,), the mean over the neurons of each mouse;
* "raw_values": a DataArray (unit,), one value per neuron. ``values.sel(mouse="A")`` has the
  dimension ``neuron``; what the arguments tell of neurons (area, layer...) comes along, so that
  ``values.groupby("area").mean()`` works. Neurons bear their unit ids, or else numbers from 0;
  recordings without a name are called as `Trials.from_arrays` calls them, "mouse".

Mice come in the order of the recordings, of the dict or list, or else of their first trials. Values
are float64 and differ from one form to the other in their labels only. They are arrays to numpy,
too, except for ``numpy.argmax``, which wants ``values.values``; ``values.idxmax()`` names the unit.

Two functions look at responses over time, and take arrays (frames, neurons) of one movie, or lists
of them: `correlation_over_time` and `sd_kl`.

Values that differ by rounding only do not count as varying: a neuron is constant if its standard
deviation over trials is at most 1e-6 of its largest absolute value, 1e-12 where float64 came. So it
is with averages over repeats, by 1e-12.

Images that were found or reconstructed from responses have measures of their own, which take plain
arrays: `seen_ranks` and what follows from ranks, `pixel_correlation` and `ssim`.
"""

from v1tlearn.metrics.categories import fecv
from v1tlearn.metrics.ceilings import noise_ceiling
from v1tlearn.metrics.comparison import compare_scores
from v1tlearn.metrics.correlation import (
    average_correlation,
    fraction_oracle,
    oracle_correlation,
    single_trial_correlation,
)
from v1tlearn.metrics.images import pixel_correlation, ssim
from v1tlearn.metrics.movies import correlation_over_time
from v1tlearn.metrics.retrieval import (
    mean_reciprocal_rank,
    median_rank,
    seen_ranks,
    similarity_ranks,
    top_k_accuracy,
    two_way_identification,
)
from v1tlearn.metrics.scorers import scorers
from v1tlearn.metrics.spike_durations import sd_kl, spike_durations
from v1tlearn.metrics.table import score_table
from v1tlearn.metrics.variance import fev, feve, normalized_correlation

__all__ = [
    "average_correlation",
    "compare_scores",
    "correlation_over_time",
    "fecv",
    "fev",
    "feve",
    "fraction_oracle",
    "mean_reciprocal_rank",
    "median_rank",
    "noise_ceiling",
    "normalized_correlation",
    "oracle_correlation",
    "pixel_correlation",
    "score_table",
    "scorers",
    "sd_kl",
    "seen_ranks",
    "similarity_ranks",
    "single_trial_correlation",
    "spike_durations",
    "ssim",
    "top_k_accuracy",
    "two_way_identification",
]
