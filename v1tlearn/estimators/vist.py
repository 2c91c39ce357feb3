"""Vi-ST: movies to responses over time, by a frozen prior and networks of convolutions (2024)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from v1tlearn._values import plain
from v1tlearn._warn import warn
from v1tlearn.estimators._backbones import pretrained_core, whole_path
from v1tlearn.estimators._build import Recipe, begin
from v1tlearn.estimators._describe import describe
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._lost_neurons import warn_of_diverged
from v1tlearn.estimators._movies import ends_of_movies, movie_lengths
from v1tlearn.estimators._parameters import Presets
from v1tlearn.estimators._reading import Call
from v1tlearn.estimators._receptive_fields import check_fields, with_fields
from v1tlearn.estimators._runs import Part, Start
from v1tlearn.estimators._vist_parameters import CONSTRAINTS, FIXED, PRESETS, check_together
from v1tlearn.estimators._vist_runs import make_vist_run
from v1tlearn.estimators.base_encoding import ModelRegressor
from v1tlearn.nn import CallableCore, Core, EluHead, IdentityHead, PatchCore, ViSTReadout
from v1tlearn.nn.movies.vist import PUBLISHED_KERNELS
from v1tlearn.training import Run
from v1tlearn.trials import Responses, Trials

_UNIT = 0.01  # responses that vary by less, or by more than its inverse, are not around 1


@dataclass(eq=False, repr=False)
class ViSTRegressor(Presets, ModelRegressor):
    """Responses to movies, from features of frames by a network of convolutions in time.

    Features of single frames, of a pretrained transformer or another `prior`, go through dilated
    convolutions, which look back, to one channel per neuron; are modulated by receptive fields; go
    through blocks of convolutions over several stretches of time; and a linear layer gives the
    responses (Wu et al. 2024). Mice share the prior, and have a network each.

    Parameters
    ----------
    prior : {"patches", "features", "pretrained"} or callable, default="patches"
        What the features of frames are: pixels of patches, which need no files (the ablation
        "without prior" of the paper); the stimuli themselves, which are features that were computed
        before, of shape (movies, time, features, rows, columns); tokens of `backbone`, frozen; or
        what ``prior(frames)`` gives for frames (n, channels, height, width), a tensor (n, patches,
        features), patches row by row of a square grid. A torch module is copied and not trained.
    grid : int, default=16
        "patches": patches along either side of a frame. Else the features tell.
    backbone : str, path, dict or Module, optional
        "pretrained", which needs it: as of `PretrainedViTRegressor`.
    weights : "pretrained" or None, default="pretrained"
        "pretrained": None takes random weights.
    block : int or sequence of int, default=4
        "pretrained": block whose output is read, from 0.
    normalize : {"none", "final", "layer"}, default="none"
        "pretrained": what is done to tokens, as of `PretrainedViTRegressor`.
    patch_stride : int, optional
        "pretrained": distance of patches in pixels; their side by default.
    pixel_scaling : {"recording", "per_image"}, default="recording"
        "pretrained": standardise with the statistics of the recordings, which keeps how bright a
        frame is beside others; or bring each frame to the range from 0 to 1 and standardise with
        those of ImageNet. What was published is not known.
    feature_cache : {"auto", "device", "memory"}, path or None, default="auto"
        "pretrained" and callables: where features are kept, which are computed once per frame, as
        of `PretrainedViTRegressor`. A folder keeps them on disk, and not those of functions.
    cache_gigabytes : float, default=4.0
        Memory that these may take.
    extractor : {"dilated", "none"}, default="dilated"
        Whether there are dilated layers between features and neurons.
    n_layers : int, default=6
        Of them; the frames from tap to tap double with each.
    channels : int, default=256
        Of each.
    condition : {"receptive_fields", "per_cell", "video", "none"}, default="receptive_fields"
        What modulates the features: where any receptive field is, as published, each neuron's own
        one, what comes from the dilated layers, or nothing. Fields are `receptive_field` of the
        recordings, each over its largest absolute value, averaged over patches.
    kernels : sequence of sequence of int, default=((1, 25), (1, 13, 21), (1, 7, 9), (1, 3, 5))
        Frames of the branches of each block, which narrows the grid by two. Without any the linear
        layer follows; with one branch each there is one scale.
    causal : bool or (bool, bool), default=True
        Whether predictions depend on no later frame; or whether dilated layers and blocks do not.
    dropout : float, default=0.25
    image_size : "auto" or (int, int), default="auto"
        Size that frames are brought to; "auto" makes 144 x 256 pixels into 36 x 64 and leaves
        others.
    standardize : bool, default=True
        Standardise frames by mean and standard deviation of the training trials, for patches and
        backbones. Other features are what they are.
    scale_responses : bool, default=True
        Divide responses by their standard deviation ahead of the loss; the paper does not. Without,
        the model depends on the unit of the responses, since loss, learning rates and first weights
        are made for values around 1: where they vary by less than 0.01 or more than 100 there is a
        warning.
    loss : {"vist", "rmse", "poisson"}, default="vist"
        `v1tlearn.nn.vist_loss`; its first term alone; or the Poisson loss, with ELU + 1 as output
        non-linearity, where the others have none.
    window_frames : int, default=128
        Frames of a training item. Windows begin anywhere and hold no cut, no end of a movie and no
        frame without all responses.
    steps_per_epoch : int, default=48
    batch_size : int, default=16
        Windows of each mouse per step.
    max_epochs : int, default=30
    lr : float, default=8e-4
        The highest learning rate, of AdamW.
    weight_decay : float, default=0.1
    warmup_epochs : int, default=5
        Epochs in which the rate rises from `start_lr` to `lr`.
    start_lr : float, default=5e-5
    min_lr : float, default=1e-4
        To which the rate falls along a cosine until `max_epochs`.
    average_from : int or None, default=19
        Epoch, from 0, from whose start on weights are averaged, at the start of each; never if
        None or there are no such epochs. The last epoch does not count, as published.
    average_lr : float, default=1e-4
        Rate then, after five epochs.
    selection : {"correlation", "absolute_correlation"}, default="correlation"
        What judges epochs: the mean correlation over time, or, as published, that of its absolute
        values. The weights of the best epoch are kept, without validation movies the last ones.
    validation_fraction : float, default=0.1
        Share of the movies that are set aside where `fit` gets no `validation`; of a mouse with a
        single movie, the end of it.

    device : str, default="auto"
        "auto" takes CUDA, then MPS, then the CPU.
    precision : {"auto", "float32", "tf32", "bfloat16"}, default="auto"
    low_memory : "auto" or bool, default="auto"
        Keep data off the device.
    deterministic : bool, default=False
    random_state : int, RandomState, Generator or None, default=None
    warm_start : bool, default=False
        Go on from the fitted state.
    verbose : int, default=0

    Attributes
    ----------
    mice_ : list of str
    n_neurons_ : dict of str to int
    statistics_ : dict of str to dict
        Per mouse what frames and responses are scaled with, and the `receptive_field`.
    image_shape_ : (int, int, int)
        Channels, height and width of the stimuli at `fit`.
    history_ : list of dict
        One record per epoch: ``loss``, ``lr``, ``seconds``, and of whole validation movies
        ``validation_loss`` (squared error, or Poisson loss, per response),
        ``validation_correlation``, ``validation_absolute_correlation``, and these per mouse.
    best_epoch_ : int
        The epoch whose weights were kept.
    stop_reason_ : str
    module_ : torch.nn.Module
        The fitted model, `v1tlearn.nn.EncodingModel`.
    device_ : torch.device
        Where it is; never saved.

    See Also
    --------
    MovieCNNRegressor, MovieLNRegressor
    v1tlearn.nn.ViST : The network.
    v1tlearn.interop.load_vist : Networks of the published code.

    Notes
    -----
    Whole movies are predicted in parts, in memory that does not grow with their length, and as if
    at once: layers keep what they saw last. Symmetric models are given the frames around each part.

    ``from_preset("vist2024")`` has the published prior, training and habits: no movies are set
    aside, and epochs are judged by the mean absolute correlation. The paper judges them by the test
    movie: pass ``validation=`` to do so, and take the result as the best of all epochs on test
    data. Any frame may be the first of a window; the published code leaves the last possible one
    out. For averaged weights, running statistics of batch normalisation are taken anew, as in the
    published code, but wherever they are judged: by a pass over the windows of an epoch.

    References
    ----------
    Wu et al., "Aligning neuronal coding of dynamic visual scenes with foundation vision models",
    ECCV, 2024, arXiv:2407.10737.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_movie_recordings(
    ...     n_neurons=5, n_movies=8, n_test_movies=2, n_repeats=3, n_frames=60,
    ...     image_shape=(16, 16), random_state=0))
    >>> est = v1.ViSTRegressor(
    ...     grid=8, n_layers=2, channels=8, kernels=((1, 5), (1, 3)), window_frames=40,
    ...     batch_size=4, steps_per_epoch=2, max_epochs=2, warmup_epochs=1, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["A"].shape
    (6, 60, 5)
    """

    prior: str | Callable[[Tensor], Tensor] = "patches"
    _: KW_ONLY
    grid: int = 16
    backbone: str | os.PathLike | dict[str, Any] | nn.Module | None = None
    weights: str | None = "pretrained"
    block: int | Sequence[int] = 4
    normalize: str = "none"
    patch_stride: int | None = None
    pixel_scaling: str = "recording"
    feature_cache: str | os.PathLike | None = "auto"
    cache_gigabytes: float = 4.0
    extractor: str = "dilated"
    n_layers: int = 6
    channels: int = 256
    condition: str = "receptive_fields"
    kernels: Sequence[Sequence[int]] = PUBLISHED_KERNELS
    causal: bool | tuple[bool, bool] = True
    dropout: float = 0.25
    image_size: str | tuple[int, int] = "auto"
    standardize: bool = True
    scale_responses: bool = True
    loss: str = "vist"
    window_frames: int = 128
    steps_per_epoch: int = 48
    batch_size: int = 16
    max_epochs: int = 30
    lr: float = 8e-4
    weight_decay: float = 0.1
    warmup_epochs: int = 5
    start_lr: float = 5e-5
    min_lr: float = 1e-4
    average_from: int | None = 19
    average_lr: float = 1e-4
    selection: str = "correlation"
    validation_fraction: float = 0.1
    device: str = "auto"
    precision: str = "auto"
    low_memory: str | bool = "auto"
    deterministic: bool = False
    random_state: Any = None
    warm_start: bool = False
    verbose: int = 0

    _presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        readout = partial(
            ViSTReadout,
            n_layers=parameters["n_layers"] if parameters["extractor"] == "dilated" else 0,
            channels=parameters["channels"],
            kernels=tuple(map(tuple, parameters["kernels"])),
            causal=_as_causal(parameters["causal"]),
            condition=parameters["condition"],
            dropout=parameters["dropout"],
        )
        head = EluHead if parameters["loss"] == "poisson" else IdentityHead
        return Recipe(partial(_core, parameters), readout, head)

    def _plain_params(self) -> dict[str, Any]:
        parameters = super()._plain_params() | FIXED
        seen = parameters["standardize"] and parameters["prior"] in ("patches", "pretrained")
        return parameters | {"backbone": whole_path(parameters["backbone"]), "standardize": seen}

    def _validate_params(self) -> None:
        super()._validate_params()
        check_together({name: plain(v) for name, v in self.get_params(deep=False).items()})

    def _split(self, call: Call, validation: Trials | None, seed: int) -> tuple[Part, Part | None]:
        """Set whole movies aside; the ends of movies where a mouse saw but one."""
        trials = call.trials
        fraction = 0.0 if validation is not None else plain(self.validation_fraction)
        ids = trials.image_ids if fraction else None
        if ids is None or all(len(set(ids[trials.rows(m)[0]])) > 1 for m in trials.mice):
            return super()._split(call, validation, seed)
        target = self._read(trials, call.target)
        trials, late = ends_of_movies(trials, fraction)
        return (trials[~late], target[~late]), (trials[late], target[late])

    def _from_scratch(
        self, trials: Trials, target: Responses, seed: int, held_out: Part | None = None
    ) -> Start:
        for mouse in trials.mice:
            movie_lengths(trials, mouse)  # images are refused
        parameters = self._plain_params()
        fitted = describe(parameters, trials, target, published_mode="none", seed=seed)
        if not plain(self.scale_responses):
            fitted = _unscaled(fitted)
        if parameters["condition"] in ("receptive_fields", "per_cell"):
            fitted = with_fields(fitted, trials)
        return Start(fitted, *begin(self._recipe(parameters), fitted))

    def _from_fit(self, trials: Trials, target: Responses) -> Start:
        check_fields(self.fitted_, trials)
        was, now = self.fitted_.parameters["loss"], self.loss
        if (was == "poisson") != (now == "poisson"):
            raise ValueError(
                f"loss was {was!r} at fit and is {now!r}: the Poisson loss has another output "
                "non-linearity. Set it back, or fit anew with warm_start=False."
            )
        return super()._from_fit(trials, target)

    def _make_run(
        self, start: Start, training: Part, held_out: Part | None, max_epochs: int, name: str
    ) -> Run:
        if held_out is not None:
            check_fields(start.fitted, held_out[0])
        return make_vist_run(self._plain_params(), start, training, held_out, max_epochs, name)

    def _look_back(self, run: Run) -> None:
        """Warn of what ran off: outputs are linear, and have no places that could be lost."""
        warn_of_diverged(run.model, run.data)

    def _predict(
        self, trials: Trials, *, activate: bool = True, at_once: int | None = None
    ) -> dict[str, np.ndarray]:
        check_fields(self.fitted_, trials)
        at_once = at_once or self.fitted_.parameters["window_frames"]
        return super()._predict(trials, activate=activate, at_once=at_once)


def _core(parameters: Mapping[str, Any], input_shape: tuple[int, int, int]) -> Core:
    """Features of frames, which all mice share."""
    prior = parameters["prior"]
    if callable(prior):
        return CallableCore(input_shape, prior)
    if prior == "pretrained":
        return pretrained_core(parameters, input_shape, "none")
    _, height, width = input_shape
    if prior == "features" and height != width:
        raise ValueError(
            f"stimuli have the shape {input_shape}, but prior='features' takes them as features of "
            "a square grid, (features, rows, columns): give such ones, or set prior='patches' "
            "where they are frames."
        )
    return PatchCore(input_shape, height if prior == "features" else parameters["grid"])


def _as_causal(causal: bool | Sequence[bool]) -> bool | tuple[bool, bool]:
    """Whether layers and blocks look back alone, as `v1tlearn.nn.ViST` takes it."""
    if isinstance(causal, tuple | list):
        in_layers, in_blocks = causal
        return bool(in_layers), bool(in_blocks)
    return bool(causal)


def _unscaled(fitted: Fitted) -> Fitted:
    """Take responses in their own units."""
    mice = {}
    for name, mouse in fitted.mice.items():
        scale = mouse.statistics["response_scale"]
        typical = float(np.median(scale))
        if not _UNIT <= typical <= 1 / _UNIT:
            warn(
                f"mouse {name!r}: responses vary by some {typical:.3g}, and with "
                "scale_responses=False loss and learning rates are those for values around 1: "
                "give responses in another unit, or set scale_responses=True."
            )
        ones = np.ones_like(scale)
        mice[name] = replace(mouse, statistics={**mouse.statistics, "response_scale": ones})
    return replace(fitted, mice=mice)
