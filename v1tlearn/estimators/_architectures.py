"""The documentation of the architectures' parameters, one group for each kind of core."""

from __future__ import annotations

PRETRAINED = """\
backbone : str, path, dict or Module
    A vision transformer of the DINOv2 or DINOv3 family: the name of a model on Hugging Face, a
    folder that its ``save_pretrained`` wrote, its configuration with a ``"model_type"``, or the
    model itself, which is copied. Needs the extra ``backbones``.
weights : "pretrained" or None, default="pretrained"
    None takes random weights, for a name, folder or configuration.
block : int or sequence of int, default=4
    Block whose output is read, counted from 0 (so 4 is what papers call block 5); of several the
    channels come one after the other. Blocks after the last one are cut away.
tokens : {{"patch", "cls", "both"}}, default="patch"
    What is read: tokens of patches, as maps; the class token, as a map of one pixel; or both, with
    the class token as further channels, the same everywhere.
normalize : {{"none", "final", "layer"}}, default="none"
    What is done to tokens: nothing, the backbone's own final normalisation, or a normalisation of
    each token to mean 0 and variance 1.
upsample : int, default=1
    Factor on either side of the images, whose patches then see finer detail.
patch_stride : int, optional
    Distance from one patch to the next, in pixels; the side of a patch by default. Patches that
    overlap get positions between those that were learned.
pixel_scaling : {{"per_image", "recording"}}, default="per_image"
    "per_image" brings each image to the range from 0 to 1, as published, which loses its luminance
    and contrast, and standardises with the statistics of ImageNet; "recording" keeps the
    statistics of the recording.
crop_columns : "left_half", (int, int) or dict, optional
    Columns of the images that are kept, the first and the one after the last, for all mice or for
    each; `image_size` is the size that they are resized to.
fine_tune : "none", "all" or int, default="none"
    How many stages of the core are trained: of the embeddings, block 0, ... and the last block that
    is read, so many from the end. A core of which none is works as in evaluation throughout.
augment_positions : bool, default=False
    In training, scale the coordinates of rotary positions at random as the configuration of the
    backbone says, by a factor up to 2 for DINOv3. The published fine-tuning does so.
core_weight_decay : float, optional
    Weight decay of what is fine-tuned, where it differs from `weight_decay`.
feature_cache : {{"auto", "device", "memory"}}, path or None, default="auto"
    Where feature maps of a frozen core are kept, which are computed once per image: on the device,
    in host memory, or in files in this folder, where later fits with the same weights and
    preprocessing find them image by image, and add those that are new. "auto" takes the first of
    device and memory that `cache_gigabytes` allows. None computes them in every epoch.
cache_gigabytes : float, default=4.0
    Memory that these maps may take on the device or the host."""

TRANSFORMER = """\
patch_size : int, default=8
    Side of the patches that become tokens, in pixels.
patch_stride : int, default=1
    Distance from one patch to the next, in pixels.
tokenizer : {{"unfold", "conv", "spt", "cct", "dual_norm"}}, default="unfold"
    How patches become tokens: linear projection, convolution, shifted patches, convolution
    with pooling, or projection between two normalisations.
position_embedding : {{"auto", "learned", "sinusoidal"}}, default="auto"
    What tells tokens where they are; "auto" is "learned", and "sinusoidal" with the tokenizer
    "cct".
token_grid : {{"true", "published"}}, default="true"
    "published" puts tokens where the published code puts them, on the most square grid of as many
    positions, which scrambles them for many sizes and strides of patches. Only for models that
    were trained so.
patch_dropout : float, default=0.0229
    Dropout of single elements of the token embeddings.
n_blocks : int, default=4
    Blocks of the transformer.
n_heads : int, default=4
    Heads of a block; every head has the full embedding width.
embed_dim : int, default=155
    Width of a token.
mlp_dim : int, default=488
    Hidden units of the MLP of a block.
attention : {{"standard", "lsa"}}, default="standard"
    "lsa": tokens do not attend to themselves, and the temperature is learned.
attention_dropout : float, default=0.2544
    Dropout of the attention weights and of the attention output.
mlp_dropout : float, default=0.2544
    Dropout in the MLPs.
drop_path : float, default=0.0
    Rate at which a block's branches are left out while training.
bias : bool, default=True
    Biases of the attention output, the MLPs and the behaviour MLPs.
core_l1 : float, default=0.5379
    Weight of the L1 penalty on all parameters of the core."""

MODULES = """\
core : class or functools.partial
    ``core(input_shape)`` gives a `v1tlearn.nn.Core`: what turns images of `input_shape`, channels,
    height and width, into feature maps. Keywords ``n_behaviors``, ``behavior_mode`` and ``mice``
    are given to one that takes them.
readout : {{"gaussian", "factorized"}}, class or functools.partial, default="gaussian"
    Where a neuron looks and what it looks for: the two kinds below, or
    ``readout(core_shape, n_neurons)`` gives the `v1tlearn.nn.Readout` of a mouse. Keywords
    ``positions``, cortical positions, and ``bias_init`` are given to one that takes them.
head : {{"elu", "softplus"}}, class or functools.partial, default="elu"
    The output non-linearity of each mouse: ELU + 1, a soft-plus whose steepness is learned, or
    what ``head()`` gives, a `v1tlearn.nn.Head`.
loss : {{"poisson", "squared"}} or callable, default="poisson"
    What is minimised beside the penalties: the Poisson loss, the squared error, or
    ``loss(rates, responses, recorded)``, a scalar tensor: the sum over the responses of a batch of
    one mouse that were recorded, all where `recorded` is None."""

CONVOLUTIONAL = """\
n_layers : int, default={n_layers}
    Convolutional layers.
hidden_channels : int, default=64
    Channels of each.
input_kernel : int, default=9
    Side of the filters of the first layer, which has no padding, in pixels.
hidden_kernel : int, default=7
    Side of the filters of the other layers, in pixels.
depth_separable : bool, default=True
    Build the layers after the first of pointwise and depthwise convolutions.
bias : bool, default=True
    Biases of these convolutions.
batch_norm_momentum : float, default=0.1
    Weight of the newest batch in the running statistics of batch normalisation; 0.9 in the
    published recipes, where the statistics are nearly those of the last batch.
laplace : float, default=6.3831
    Weight of the penalty on rough first filters."""

MOVIE_CONVOLUTIONAL = """\
n_layers : int, default=3
    Layers, each a convolution of frames and one along time.
hidden_channels : int or sequence of int, default=32
    Channels of each; or one number for each layer.
input_kernel : int or (int, int), default=9
    Side of the filters of the first layer, which has no padding, in pixels; or height and width.
hidden_kernel : int, default=5
    Side of the filters of the other layers, in pixels, odd.
input_time_kernel : int, default=11
    Frames that the filters of the first layer cover.
hidden_time_kernel : int, default=5
    Frames that those of the other layers cover.
causal : bool, default=True
    Whether predictions depend on nothing that comes later. Otherwise filters in time are symmetric
    around the present frame, of odd length.
recurrent : bool, default=False
    End the core with a memory, a gated recurrent unit whose recurrent weights are convolutions.
memory_frames : int, default=20
    From how many frames on a memory counts in training, where movies are cut into windows. It
    begins anew with each window then; predictions have the memory of the whole movie.
batch_norm_momentum : float, default=0.1
    Weight of the newest batch in the running statistics of batch normalisation.
laplace : float, default=1.0
    Weight of the penalty on rough first filters in space.
head : {{"elu", "softplus"}}, class or functools.partial, default="elu"
    The output non-linearity of each mouse: ELU + 1, a soft-plus whose steepness is learned, or
    what ``head()`` gives, a `v1tlearn.nn.Head`."""

MOVIE_KERNEL = """\
n_lags : int, default=15
    Frames of a kernel, the present one included.
kernel : {{"separable", "full"}}, default="separable"
    A product of a kernel in space and one in time, or any kernel."""

KERNEL = """\
space_smoothness : float, default=5.0
    Weight of the penalty on the squared Laplacian of kernels in space.
time_smoothness : float, default=5.0
    Weight of the penalty on the squared changes of kernels from frame to frame.
l2 : float, default=1.0
    Weight of the penalty on squared kernels; of separable ones on both factors.
head : {{"softplus", "elu"}}, class or functools.partial, default="softplus"
    The static non-linearity of each mouse: a soft-plus whose steepness is learned, ELU + 1, or
    what ``head()`` gives, a `v1tlearn.nn.Head`.
readout_bias : {{"mean", "zero"}}, default="mean"
    Initial bias: "mean" starts the prediction at the mean response."""

FULL_MODEL = """\
channels : sequence of int, default=(16, 320)
    Channels of each layer, which says how many there are.
kernels : sequence of int, default=(25, 9, 5)
    Sides of the filters of the first layers, in pixels of their maps; the last one is that of all
    further layers.
pooling : {{"max", "mean", "stride"}}, default="max"
    What halves the sides of the map after the first layer: the largest or the mean of 2 x 2
    places, or a convolution that takes every second place.
depth_separable : bool, default=True
    Build the layers after the first of pointwise and depthwise convolutions. Otherwise they are
    full ones, each with pooling.
pointwise_output : bool, default=True
    Whether these end with a pointwise convolution. A minimodel has none.
activation : {{"elu", "relu", "none"}}, default="elu"
    After the batch normalisation of each layer. "none" makes a linear-nonlinear model.
batch_norm_momentum : float, default=0.1
    Weight of the newest batch in the running statistics of batch normalisation; 0.9 as published,
    where the statistics are nearly those of the last batch.
core_weight_decay : float or None, default=0.1
    Weight decay of all parameters of the core, where it differs from `weight_decay`."""

MINIMODEL = """\
full_model : FullModelRegressor or MinimodelRegressor, optional
    Whose first convolution the minimodels share, as it is. One that is not fitted is fitted first,
    to the same trials, and so is one with the inputs and the training of this model, but for
    `selection`, where none is given; presets come with one of their own. Images of mice that it
    knows are scaled as there. scikit-learn's `clone` and searches forget a fit: keep it by
    ``FrozenEstimator(full_model)``.
hidden_channels : int, default=64
    Channels of the second layer of a neuron.
hidden_kernel : int, default=9
    Side of its filters, in pixels of the pooled map.
batch_norm_momentum : float, default=0.1
    Weight of the newest batch in the running statistics of batch normalisation; 0.9 as published,
    where the statistics are nearly those of the last batch.
neurons_at_once : "auto" or int, default="auto"
    Neurons of a mouse that take a step together, which bounds the memory that it takes; results
    are the same but for rounding."""
