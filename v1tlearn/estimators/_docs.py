"""The documentation of the parameters that models share, written once and in groups.

Every parameter stands in one group, and nothing else says which: `help` and the site's class pages
show the groups that stand here and, of architectures, in `_architectures`.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=type)

CHANNELS = """\
behavior_mode : {{"auto", "none", "channels"}}, default="auto"
    "channels" appends behaviour to the image as constant planes; "auto" does so when all mice
    have behaviour, and leaves it out when none has."""

B_MLP = """\
behavior_mode : {{"auto", "b_mlp", "b_mlp_first_block", "b_mlp_shared", "b_mlp_per_mouse", \
"channels", "none"}}, default="auto"
    Where a small network adds behaviour to all tokens: in every block ("b_mlp", what "auto" means
    when all mice have behaviour; it means "none" when none has), in the first only, with one
    network shared by the blocks, or with networks of each mouse; "channels" is the way of
    `ViTRegressor`."""

OWN = """\
behavior_mode : {{"auto", "none", "channels", "core"}}, default="auto"
    "channels" appends behaviour to the image as constant planes; "core" gives it to the core, which
    takes ``n_behaviors``, as ``behaviors`` of shape (n_images, n_behaviors); "auto" is "channels"
    when all mice have behaviour, and "none" when none has."""

NO_BEHAVIOR = """\
behavior_mode : {{"auto", "none"}}, default="auto"
    Behaviour does not enter a pretrained core; pupil positions may move readouts, see `shift`."""

MOVIE_CHANNELS = """\
behavior_mode : {{"auto", "none", "channels"}}, default="auto"
    "channels" appends behaviour, frame by frame, to the movie as constant planes; "auto" does so in
    convolutional models when all mice have behaviour, and else leaves it out."""

TIME = """\
window_frames : int, default=32
    Movies are cut into windows for training, in which so many frames count in the loss. Beside them
    a window has all frames that their predictions depend on, as far as the movie has them. Each
    frame of each movie counts once in an epoch. `batch_size` counts windows."""

READOUT_LAGS = f"""\
readout_lags : int, default=1
    Frames of a causal filter in time that each neuron has behind its readout, the present one
    included. With more than 1 the model sees time, and is fitted to movies.
{TIME}"""

_INPUTS = """\
behavior_columns : "all", "non_pupil" or sequence of str, default={behavior_columns}
    Behaviour that enters the core; "non_pupil" is all but ``pupil_x`` and ``pupil_y``.
shift : {{"readout", "none", "stimulus", "both", "both_behavior"}}, default={shift}
    What the eye moves, by a small network per mouse: the readout positions, the centre of the
    crop (with ``crop_scale`` below 1), or both; "both_behavior" lets all behaviour move the crop.
shift_columns : "pupil" or sequence of str, default="pupil"
    Behaviour that drives these networks; "pupil" is ``pupil_x`` and ``pupil_y``, and mice without
    them have no readout shifter.
crop_scale : float, default=1.0
    Share of either image side that a centre crop keeps.
image_size : "auto" or (int, int), default="auto"
    Height and width in pixels after cropping; "auto" makes 144 x 256 into 36 x 64 and leaves
    other sizes alone.
standardize : bool, default=True
    Learn, per mouse, mean and standard deviation of the images and of the pupil position, and the
    standard deviation of other behaviour, over the training trials. False if a
    `TrialStandardizer` did so before."""

_READOUT_KIND = """\
readout : {{"gaussian", "factorized"}}, default={readout}
    How a neuron reads the feature maps: at one point, or with weights of rows times weights of
    columns, never negative. Either takes the parameters that name it, and leaves the others."""

_READOUT = """\
position_network : bool, default=True
    Gaussian: predict readout positions from cortical positions, for mice that have them; otherwise
    every neuron learns its own.
position_dims : int, default=2
    Cortical axes used, 2 or 3.
position_hidden_layers : int, default=1
    Hidden layers of the position network; without any it is linear, then tanh.
position_hidden_units : int, default=30
    Units of each.
gaussian : {{"full", "uncorrelated", "isotropic"}}, default="full"
    Gaussian: spread of the readout position while training.
init_sigma : float, default=0.1
    Initial spread, in half map sides.
init_mu_range : float, default=0.3
    Range of free initial positions, in half map sides.
beyond_map : {{"edge", "zeros"}}, default="edge"
    What a neuron reads where the eye moves it beyond the feature map: its edge, from where
    gradients lead back, or zeros, as published, from where none does.
readout_bias : {{"zero", "mean", "published_mean", "published_mean_over_std"}}, default="zero"
    Initial bias: "mean" starts the prediction at the mean response; the published variants put
    the mean itself, raw or scaled, in its place.
readout_l1 : float, default=0.0076
    Gaussian: weight of the L1 penalty on readout features."""

FACTORIZED = """\
rank : int, default=1
    Factorised: products of space and channels that are added up per neuron.
space_init : float, default={space_init}
    Factorised: standard deviation of the initial weights of rows and columns.
channel_init : float, default={channel_init}
    Factorised: the same of channels.
space_l1 : float, default=0.0
    Factorised: weight of the penalty on the absolute weights of rows and columns.
space_l2 : float, default=0.0
    Factorised: on their squares.
space_hoyer : float, default=0.0
    Factorised: on the number of those that count per neuron, ``(sum |w|)^2 / sum w^2``.
channel_l1 : float, default=0.0
    Factorised: weight of the penalty on the absolute weights of channels.
channel_l2 : float, default=0.0
    Factorised: on their squares.
channel_hoyer : float, default={channel_hoyer}
    Factorised: on the number of those that count per neuron, as `space_hoyer`.
space_weight_decay : float or None, default={space_weight_decay}
    Factorised: weight decay of rows and columns where it differs from `weight_decay`; with this or
    the next one there is none on the biases.
channel_weight_decay : float or None, default={channel_weight_decay}
    Factorised: weight decay of channels where it differs from `weight_decay`."""

_TRAINING = """\
optimizer : {{"adam", "adamw"}}, default={optimizer}
lr : float, default={lr}
    Learning rate.
core_lr : float, optional
    Learning rate of the core, where it differs.
betas : (float, float), default={betas}
    Decay of the optimiser's moments.
weight_decay : float, default=0.0
batch_size : int, default={batch_size}
    Trials per mouse and step; one step takes one batch of every mouse.
shuffle_block : int, default=1
    Trials in a row that an epoch moves as a block: batches are drawn from a window of 16 blocks or
    more, which are drawn from the whole recording, and each trial comes once. 1 draws each batch
    from all trials. Some 32 let recordings that are streamed from disks or networks be read about
    as fast as in a row; in return trials of a batch come from fewer places. Of movies, for models
    that see time, windows instead of trials.
max_epochs : int, default={max_epochs}
    An epoch lasts until the mouse with most trials was seen once.
loss_scale : {{"sqrt", "sqrt_recording", "per_neuron", "per_recorded"}} or float, \
default={loss_scale}
    Factor on the summed Poisson loss of a batch, which weighs it against the penalties:
    ``sqrt(training trials / batch)``, the same with all trials of the recording (Sensorium
    2022), or a constant. "per_neuron" takes the mean over neurons of the sum over the batch, so
    that a short last batch weighs less (Du et al. 2025); "per_recorded" the mean over neurons of
    the mean over what was recorded of each. With either, penalties of readouts are means over
    neurons, too.
penalty_scale : {{"relative", "absolute"}}, default={penalty_scale}
    "relative": the weights of penalties on core and readouts count as with 4,500 trials and 8,000
    neurons, and every mouse bears a share in proportion to its loss: those of its readout times
    ``sqrt(trials / 4500)``, those of the core times ``sqrt(trials / 4500) * neurons / 8000``. The
    same weights then serve few trials and neurons as well. (Beside a loss that does not grow with
    trials, or is a mean over neurons, penalties do not either.) "absolute" adds them as they are,
    those of the core once per pass, as published. Weight decays have no scale.
loss_epsilon : float, default={loss_epsilon}
    Added to rates and responses in the Poisson loss, so that the logarithm stays finite.
core_pass : {{"joint", "per_mouse"}}, default="joint"
    The core sees the images of all mice at once, or one mouse after the other, with batch
    statistics (and an "absolute" penalty of the core) for each, as published.
schedule : {{"plateau", "rounds", "periods", "cosine", "reduce", "constant"}}, default={schedule}
    On the validation score: "plateau" multiplies the learning rate by `lr_factor` and goes
    back to the best weights after `lr_patience` + 1 epochs without improvement, and stops after
    `max_lr_drops` drops in vain (Li et al. 2023); "rounds" are those of Sensorium 2022. "periods"
    end after their `period_epochs` or after `lr_patience` epochs without improvement; then the
    best weights come back, the rate is multiplied by `lr_factor` and the optimiser begins anew (Du
    et al. 2025). "cosine" falls to `min_lr` over `max_epochs` and stops after `lr_patience` epochs
    without improvement. "reduce" multiplies by `lr_factor` after `lr_patience` + 1 epochs that are
    not better by 1e-4 of the best score, and stops at `min_lr`. All keep the weights of the best
    epoch. Without validation trials "cosine" falls all the same, the others stay constant, and the
    last epoch is kept.
lr_patience : int, default={lr_patience}
    Epochs without improvement that are waited through, see `schedule`.
lr_factor : float, default={lr_factor}
    Factor on the learning rate, see `schedule`.
max_lr_drops : int, default=2
    Drops of the learning rate in vain before the training ends, see `schedule`.
min_lr : float, default={min_lr}
    The least learning rate of the schedules "cosine" and "reduce", below `lr`. A `core_lr` that is
    no higher stays as it is.
period_epochs : sequence of int, default=(100, 30, 30, 30)
    Epochs of each period at most, see `schedule`; `max_epochs` is the most of them all.
carry_patience : bool, default=False
    Count epochs without improvement on from one period to the next, as the published code does: a
    period after one that ended early then ends at once unless its first epoch improves.
selection : {{"correlation", "variance_explained"}}, default={selection}
    The validation score that drives the schedule and chooses the best epoch: correlation, or
    ``1 - SSE / SST`` of each neuron over its recorded responses, as a mean over those whose
    validation responses vary. A fitted model that goes on with another one begins its schedule, and
    its best epoch, anew from the best weights.
clip_norm : float, optional
    The norm, of the gradient of all trained parameters together, that steps do not exceed.
ema_decay : float, optional
    Decay per step of an average of the weights, such as 0.999: it is what is validated, kept and
    predicts. Without it these are the weights themselves.
validation_fraction : float, default=0.1
    Share of the images that `fit` sets aside where it is given no `validation`; 0 trains on
    everything for `max_epochs`.
random_state : int, RandomState, Generator or None, default=None
    Drives the validation split, initial weights, batches, dropout and readout sampling.
warm_start : bool, default=False
    `fit` goes on from the fitted state, exactly as if it had not stopped.
verbose : int, default=0
    1 shows a progress bar; 2 also prints the log: what is trained on what, when the learning rate
    drops, why the training ended and which epoch was kept."""

_MACHINE = """\
device : str, default="auto"
    "auto" takes cuda, mps or cpu, whichever is there first.
precision : {{"auto", "float32", "tf32", "bfloat16"}}, default="auto"
    "auto" is bfloat16 for training on CUDA devices that have it, float32 otherwise. "tf32" is the
    fast form of float32 that CUDA devices have, and float32 elsewhere. Weights, sums and losses
    are float32 always; ``benchmarks/bench_precision.py`` prints what the formats do to the score.
compile : "auto", "reduce-overhead" or bool, default="auto"
    Whether to compile the core with ``torch.compile`` before training. "auto" does so on CUDA
    devices where the training is long enough to earn the time it takes. "reduce-overhead" records
    CUDA graphs, too, for small models that wait for launches; it was never measured on a GPU.
micro_batch_size : "auto" or int, default="auto"
    Trials of each mouse that go through the model at once; where they are fewer than `batch_size`
    the gradients of a step add up, which needs less memory. "auto" takes, on CUDA devices, as many
    as fit into the memory; on a CPU as many as fit and as keep every tensor at 8 MB per thread or
    less, which is faster; whole batches on other devices. Cores with batch normalisation take
    whole batches always. On GPUs parts of another size draw other numbers for dropout and the
    readouts.
low_memory : "auto" or bool, default="auto"
    True takes less memory and more time, for the same model: the backward pass keeps only the
    inputs of the core's blocks or layers and computes the rest again (convolutions do so on a CPU
    whatever is set), and recordings are brought to the device batch by batch, ahead of the step
    that needs them: a GPU's from host memory, or where that is too small from their files, a CPU's
    from their files. False does neither. "auto" does either where free memory does not suffice.
deterministic : bool, default=False
    Deterministic algorithms on GPUs, too. What is "auto" then goes by all the memory a GPU has, not
    by what is free, so that a run can be repeated bit for bit."""

_ATTRIBUTES = """
Attributes
----------
mice_ : list of str
    The mice, in the order of their names, "2" ahead of "10".
n_neurons_ : dict of str to int
    Neurons per mouse.
neurons_ : dict of str to dict of str to ndarray of shape (n_neurons,)
    Per mouse the labels of its neurons, as far as the trials told them: "neuron", the unit ids, and
    "area", "layer", "animal_id", "session", "scan". Trials with other unit ids are refused later.
image_shape_ : (int, int, int)
    Channels, height and width of the stimuli at `fit`.
behavior_mode_ : str
    How behaviour enters; what "auto" became.
behavior_names_ : dict of str to list of str
    Behaviour columns per mouse at `fit`.
core_columns_ : list of str
    Those that enter the core; also `feature_names_in_`, where there are any.
statistics_ : dict of str to dict
    Per mouse what inputs and responses are scaled with.
history_ : list of dict
    One record per epoch: ``loss`` and ``validation_loss`` (Poisson loss per response),
    ``penalty``, ``validation_correlation``, ``lr``, ``seconds``; with ``selection=
    "variance_explained"`` also ``validation_variance_explained``.
best_epoch_ : int
    The epoch whose weights were kept, from 1; 0 for the initial weights.
stop_reason_ : str
    Why the training ended: "max_epochs", "schedule", "on_epoch" (which raised), "non-finite loss",
    "out of memory", "interrupted" or "error"; None while it goes on.
module_ : torch.nn.Module
    The fitted model, `v1tlearn.nn.EncodingModel`.
columns_assumed_ : bool
    Whether the behaviour columns were never told, as for a model of published code that came
    without recordings; trials may then bring any columns that include those it uses.
core_frozen_ : bool
    Whether the core stays as it is, see `transfer`.
device_ : torch.device
    Where it is; never saved.
"""

_PARAMETER = re.compile(r"^(\w[\w, ]*) :", re.MULTILINE)


def document(
    *,
    architecture: str,
    behavior_mode: str = CHANNELS,
    readout: str | None = None,
    time: str | None = None,
) -> Callable[[T], T]:
    """Complete the docstring of a model class with the parameters it shares with others.

    The docstring holds ``{groups}``, ``{parameters}`` and ``{attributes}`` where the texts belong;
    defaults are those of the class. The class gets ``_parameter_groups``, names by group.
    """
    kind = "" if "readout :" in architecture else f"{_READOUT_KIND}\n"
    groups = {
        "inputs": f"{behavior_mode}\n{_INPUTS}",
        "architecture": f"{architecture}\n{time}" if time else architecture,
        "readout": readout or f"{kind}{_READOUT}\n{FACTORIZED}",
        "training": _TRAINING,
        "machine": _MACHINE,
    }

    def complete(kind: T) -> T:
        own: Any = kind  # a dataclass
        defaults = {
            name: repr(field.default).replace("'", '"')
            for name, field in own.__dataclass_fields__.items()
        }
        names = {
            group: [n for some in _PARAMETER.findall(text) for n in some.split(", ")]
            for group, text in groups.items()
        }
        own._parameter_groups = names
        starts = [f"{group} (from `{some[0]}`)" for group, some in names.items()]
        overview = f"Parameters come in groups: {', '.join(starts[:-1])} and {starts[-1]}."
        texts = {
            "{groups}": textwrap.fill(overview, 96),
            # blank lines set the groups apart in `help`
            "{parameters}": "\n\n".join(groups.values()).format(**defaults),
            "{attributes}": _ATTRIBUTES.strip(),
        }
        if own.__doc__ is not None:  # python -OO leaves no docstrings
            whole = inspect.cleandoc(own.__doc__)  # as Python does from 3.13 on
            for place, text in texts.items():
                whole = whole.replace(place, text)
            own.__doc__ = whole
        return kind

    return complete
