"""Images and the responses to them in one space (Wang et al. 2026)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

from sklearn.base import TransformerMixin
from torch import nn

from v1tlearn.estimators._alignment import (
    NO_BEHAVIOR,
    describe_alignment,
    make_alignment_run,
)
from v1tlearn.estimators._alignment_parameters import CONSTRAINTS, PRESETS, check_together
from v1tlearn.estimators._backbones import whole_path
from v1tlearn.estimators._build import begin
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._parameters import Presets
from v1tlearn.estimators._runs import Part, Start
from v1tlearn.estimators._space import SpaceMixin
from v1tlearn.estimators._towers import build_alignment
from v1tlearn.estimators.base_trained import TrainedEstimator
from v1tlearn.estimators.transferring import TransferMixin
from v1tlearn.nn import AlignmentModel, Core, NeuralTower, check_towers
from v1tlearn.training import Run
from v1tlearn.trials import Responses, Trials


@dataclass(eq=False, repr=False)
class DINAAligner(  # type: ignore[misc]  # the model of the others is an EncodingModel
    Presets, SpaceMixin, TransformerMixin, TransferMixin, TrainedEstimator
):
    """Align images and the responses to them at the level of feature maps (Wang et al. 2026).

    One image tower, and a neural tower per mouse, give maps of one shape, which keep their spatial
    layout. They are trained so that the maps of an image and of the responses to it are more
    similar than those of other images of the batch: afterwards `retrieve` tells which image of a
    gallery was seen. Behaviour is not looked at.

    Parameters
    ----------
    image_tower : {"cnn", "dsnet", "pretrained"} or callable, default="cnn"
        "cnn" is shallow and joins several scales; "dsnet" is the published one, two stages of a
        dual-stream network; "pretrained" projects the tokens of a vision transformer, `backbone`,
        to the maps. A callable gives a `v1tlearn.nn.Core` of your own, called with
        ``(input_shape)``, and with ``map_shape=`` where it takes that.
    neural_tower : {"mlp", "attention"} or callable, default="mlp"
        "mlp" is fully connected, reshaped, and followed by 1 x 1 convolutions; "attention" embeds
        every neuron and lets neurons attend to each other, as published. A callable gives a
        `v1tlearn.nn.NeuralTower` of your own, called with ``(n_neurons, map_shape)``.
    train_image_tower : bool, "projection" or "auto", default="auto"
        Train all of the image tower; nothing of it; or, of "dsnet" and "pretrained", the 1 x 1
        convolution to the maps alone. The released code does the latter with its "dsnet", the rest
        of which stays random but for its running statistics. "auto" is "projection" for
        "pretrained", and True for others.
    map_size : (int, int), default=(16, 16)
        Height and width of the maps.
    map_channels : int, default=16
        Channels of the maps.
    map_scale : {"center", "minmax", "none"}, default="center"
        What is done to each channel of a map: subtract its mean, so that cosines are correlations,
        or bring it from 0 to 1, as published.
    hidden_channels : int, default=32
        "cnn": channels of each layer.
    n_layers : int, default=3
        "cnn": layers, of which all but the first halve the image.
    input_kernel : int, default=7
        "cnn": odd side of the kernels of the first layer, in pixels.
    hidden_kernel : int, default=3
        "cnn": odd side of those of the others.
    stage_dims : (int, int), default=(64, 128)
        "dsnet": channels of the two stages.
    stage_depths : (int, int), default=(3, 4)
        "dsnet": their blocks.
    stage_heads : (int, int), default=(1, 2)
        "dsnet": heads of their self-attention.
    stage_reductions : (int, int), default=(8, 4)
        "dsnet": how much coarser its grid is.
    cross_attention : {"stated", "published"}, default="stated"
        "dsnet": "published" scrambles what is gathered, as the released code does; for weights
        that were trained with it.
    backbone : str, path, dict or Module, optional
        "pretrained", which needs it: the name of a model on Hugging Face, a folder, a configuration
        or a model, as of `PretrainedViTRegressor`.
    weights : "pretrained" or None, default="pretrained"
        "pretrained": None takes random weights.
    block : int or sequence of int, default=4
        "pretrained": block whose output is read, from 0; of several the channels come one after the
        other.
    tokens : {"patch", "both"}, default="patch"
        "pretrained": tokens of patches, or with the class token as further channels.
    normalize : {"none", "final", "layer"}, default="none"
        "pretrained": what is done to tokens, as of `PretrainedViTRegressor`.
    patch_stride : int, optional
        "pretrained": distance of patches in pixels; their side by default.
    pixel_scaling : {"per_image", "recording"}, default="per_image"
        "pretrained": bring each image to the range from 0 to 1, or keep the statistics of the
        recordings.
    fine_tune : "all" or int, default="all"
        "pretrained": how many of the last stages are trained with ``train_image_tower=True``: the
        blocks, and ahead of them the embeddings.
    augment_positions : bool, default=False
        "pretrained": in training scale the coordinates of rotary positions at random.
    feature_cache : {"auto", "device", "memory"}, path or None, default="auto"
        "pretrained": where features of a backbone that is not trained are kept, which are computed
        once per image, as of `PretrainedViTRegressor`.
    cache_gigabytes : float, default=4.0
        Memory that these may take.
    grid : "auto" or (int, int), default="auto"
        Height and width of the map that a neural tower makes ahead of enlarging it; half of
        `map_size`.
    hidden_units : sequence of int, default=(256,)
        Of the fully connected layers of a neural tower.
    neural_channels : int, default=16
        "mlp": channels that the responses are reshaped to.
    dropout : float, default=0.0
        "mlp": probability of a hidden unit.
    embed_dim : int, default=64
        "attention": length of what a neuron is embedded as.
    n_heads : int, default=1
        "attention": heads.
    response_scale : {"minmax", "std"}, default="minmax"
        What responses are scaled with, per neuron over the training trials: their range, beyond
        which they are clipped; or mean and standard deviation. A response that was not recorded
        counts as the neuron's mean; a trial of which none was is refused.
    range_over : {"train", "recording"}, default="train"
        "minmax": over which trials the range is taken: those of training, or all of the recordings
        that these are views of. The latter is a leak of the published code, which scales ahead of
        its split: what it gives on trials set aside is not what new trials would give.
    crop_scale : float, default=1.0
        Share of the image, in height and width, that is cropped around its centre.
    image_size : "auto" or (int, int), default="auto"
        Size after cropping; "auto" makes 144 x 256 pixels into 36 x 64 and leaves others.
    crop_columns : "left_half" or (int, int), optional
        Columns that are kept of all images, the first and the one after the last.
    upsample : int, default=1
        Factor on either side of the size that images are enlarged by ahead of the tower.
    standardize : bool, default=True
        Standardise images by mean and standard deviation over the training trials of all mice.

    temperature : float, default=0.07
        Cosines are divided by it in the loss.
    learn_temperature : bool, default=True
        Train it, from there on, not below 0.01.
    loss_weights : (float, float, float), default=(1.0, 0.0, 0.0)
        Of the contrastive loss, of the root mean squared difference of maps, and of one minus
        their structural similarity.
    image_lr : float, default=1e-3
        Learning rate of the image tower, which AdamW trains.
    image_weight_decay : float, default=5e-5
        Weight decay of the image tower.
    core_lr : float, default=1e-5
        "pretrained": learning rate of what is fine-tuned of the backbone.
    core_weight_decay : float, optional
        "pretrained": its weight decay, where it differs from `image_weight_decay`.
    neural_lr : float, default=3e-4
        Learning rate of the neural towers and the temperature, which RMSprop trains.
    neural_smoothing : float, default=0.9
        How slowly the mean squared gradient of RMSprop follows.
    batch_size : int, default=128
        Trials per mouse and step, which are told apart.
    max_epochs : int, default=200
        An epoch lasts until the mouse with most trials was seen once.
    selection : {"top1", "loss"}, default="top1"
        What judges epochs: the share of the validation trials whose image is found among those of
        the validation set, or the loss, as published.
    keep : {"best", "last"}, default="best"
        Which epoch's weights are kept: the published code keeps the last one's.
    lr_patience : int, default=10
        Epochs without improvement after which learning rates are multiplied by `lr_factor`.
    lr_factor : float, default=0.5
    patience : int or None, default=30
        Epochs without improvement after which the training ends; never where None.
    validation_fraction : float, default=0.1
        Share of the images that are set aside where `fit` gets no `validation`.

    device : str, default="auto"
        "auto" takes CUDA, then MPS, then the CPU.
    precision : {"auto", "float32", "tf32", "bfloat16"}, default="auto"
        Of towers in training and transformation; losses are computed in more.
    micro_batch_size : int or None, default=None
        Trials that pass a tower at once, to save memory; the loss is that of the whole batch all
        the same. Not for "dsnet" in training, whose batch normalisation needs all.
    low_memory : "auto" or bool, default="auto"
        Keep data off the device, and compute activations again.
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
        Per mouse what images and responses are scaled with.
    image_shape_ : (int, int, int)
        Channels, height and width of the stimuli at `fit`.
    map_shape_ : (int, int, int)
        Channels, height and width of the maps.
    history_ : list of dict
        One record per epoch: ``loss``, ``lr``, ``seconds``, and of the validation trials
        ``validation_loss`` (all as one batch), ``validation_top1``, and both per mouse.
    best_epoch_ : int
        The epoch whose weights were kept.
    stop_reason_ : str
    module_ : torch.nn.Module
        The fitted model, `v1tlearn.nn.AlignmentModel`.
    device_ : torch.device
        Where it is; never saved.

    Notes
    -----
    Chance of `score` is one over the number of images that a mouse sees in the trials. Repeats of
    an image must be on one side of any split: with them on both sides an image is recognised that
    was trained on.
    Ties count against the image that was seen, so that maps without contrast find nothing.

    A backbone that is not trained is not saved but found again, as that of
    `PretrainedViTRegressor`, which see.

    ``from_preset("dina2026")`` has the published sizes and habits: raw grey values, the released
    image tower, of which the last convolution alone is trained, selection by the loss, and the
    weights of the last epoch. The published code judges epochs by the test set: pass
    ``validation=`` to do so. And it scales responses by the range over all trials: pass
    ``range_over="recording"``.

    References
    ----------
    Wang et al., arXiv 2605.04309, 2026.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> test = trials.sel(tier="test")
    >>> est.transform_images(test).sizes["height"]
    4
    >>> est.retrieve(test.sel(mouse_id="A"), test.sel(mouse_id="A"), k=3).places.shape
    (15, 3)
    """

    image_tower: str | Callable[..., Core] = "cnn"
    _: KW_ONLY
    neural_tower: str | Callable[..., NeuralTower] = "mlp"
    train_image_tower: bool | str = "auto"
    map_size: tuple[int, int] = (16, 16)
    map_channels: int = 16
    map_scale: str = "center"
    hidden_channels: int = 32
    n_layers: int = 3
    input_kernel: int = 7
    hidden_kernel: int = 3
    stage_dims: tuple[int, int] = (64, 128)
    stage_depths: tuple[int, int] = (3, 4)
    stage_heads: tuple[int, int] = (1, 2)
    stage_reductions: tuple[int, int] = (8, 4)
    cross_attention: str = "stated"
    backbone: str | os.PathLike | dict[str, Any] | nn.Module | None = None
    weights: str | None = "pretrained"
    block: int | Sequence[int] = 4
    tokens: str = "patch"
    normalize: str = "none"
    patch_stride: int | None = None
    pixel_scaling: str = "per_image"
    fine_tune: str | int = "all"
    augment_positions: bool = False
    feature_cache: str | os.PathLike | None = "auto"
    cache_gigabytes: float = 4.0
    grid: str | tuple[int, int] = "auto"
    hidden_units: Sequence[int] = (256,)
    neural_channels: int = 16
    dropout: float = 0.0
    embed_dim: int = 64
    n_heads: int = 1
    response_scale: str = "minmax"
    range_over: str = "train"
    crop_scale: float = 1.0
    image_size: str | tuple[int, int] = "auto"
    crop_columns: Any = None
    upsample: int = 1
    standardize: bool = True
    temperature: float = 0.07
    learn_temperature: bool = True
    loss_weights: tuple[float, float, float] = (1.0, 0.0, 0.0)
    image_lr: float = 1e-3
    image_weight_decay: float = 5e-5
    core_lr: float = 1e-5
    core_weight_decay: float | None = None
    neural_lr: float = 3e-4
    neural_smoothing: float = 0.9
    batch_size: int = 128
    max_epochs: int = 200
    selection: str = "top1"
    keep: str = "best"
    lr_patience: int = 10
    lr_factor: float = 0.5
    patience: int | None = 30
    validation_fraction: float = 0.1
    device: str = "auto"
    precision: str = "auto"
    micro_batch_size: int | None = None
    low_memory: str | bool = "auto"
    deterministic: bool = False
    random_state: Any = None
    warm_start: bool = False
    verbose: int = 0

    _frame_wise: ClassVar[bool] = False
    _presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS

    # ------------------------------------------------------------------------------- training

    @classmethod
    def _recipe(  # type: ignore[override]  # `begin` takes either
        cls, parameters: Mapping[str, Any]
    ) -> Callable[[Fitted], AlignmentModel]:
        return lambda fitted: build_alignment(parameters, fitted)

    def _plain_params(self) -> dict[str, Any]:
        parameters = super()._plain_params() | NO_BEHAVIOR
        return parameters | {"backbone": whole_path(parameters["backbone"])}

    def _validate_params(self) -> None:
        super()._validate_params()
        check_together(self.get_params(deep=False))

    def _from_scratch(
        self, trials: Trials, target: Responses, seed: int, held_out: Part | None = None
    ) -> Start:
        parameters = self._plain_params()
        fitted = describe_alignment(parameters, trials, target, seed)
        return Start(fitted, *begin(self._recipe(parameters), fitted))

    def _from_fit(self, trials: Trials, target: Responses) -> Start:
        check_towers(self.module_.core, *self.module_.readouts)
        return super()._from_fit(trials, target)

    def _keeps_scaling(self) -> bool:
        return True

    def _adopted(self, start: Start, *, freeze: bool) -> Fitted:
        """Keep the statistics of images, too: one space serves the animals of both."""
        known = super()._adopted(start, freeze=freeze)
        before = next(iter(self.fitted_.mice.values())).statistics
        kept = {name: before[name] for name in ("image_mean", "image_std")}
        mice = {
            name: replace(mouse, statistics={**mouse.statistics, **kept})
            for name, mouse in known.mice.items()
        }
        return replace(known, mice=mice)

    def _make_run(
        self, start: Start, training: Part, held_out: Part | None, max_epochs: int, name: str
    ) -> Run:
        return make_alignment_run(self._plain_params(), start, training, held_out, max_epochs, name)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = False  # Trials bring it
        return tags
