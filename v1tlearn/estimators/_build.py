"""From a recipe and what is known of the animals to a model, with initial weights."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from v1tlearn._instead import channels_last
from v1tlearn._values import plain
from v1tlearn.estimators._fitted import Fitted, Mouse
from v1tlearn.nn import (
    Core,
    EluHead,
    EncodingModel,
    Head,
    ImageCropper,
    Readout,
    Shifter,
    StimulusShifter,
)
from v1tlearn.training import initial_rng, isolated, new_state, private_rng
from v1tlearn.training.memory import remedies_named

_MOVE_STIMULUS = ("stimulus", "both", "both_behavior")
_LARGEST_SIDE = 2**15 - 1  # pixels
_NO_SIZES = {"random_state", "verbose", "batch_size", "micro_batch_size", "max_epochs"}
_NO_SIZES |= {"lr_patience", "max_lr_drops"}
_uncounted = threading.local()
_MOVE_READOUT = ("readout", "both", "both_behavior")


class OversizedError(ValueError):
    """A file's parameters ask for more weights than it has."""


@dataclass(frozen=True)
class Recipe:
    """How the modules of a model are made, whatever its animals.

    Each is called with what the description says, and with those of the keywords that it takes.

    Attributes
    ----------
    core : callable
        ``core(input_shape, n_behaviors=, behavior_mode=, mice=)`` gives a `Core`.
    readout : callable
        ``readout(core_shape, n_neurons, positions=, bias_init=, receptive_field=)`` gives
        the `Readout` of a mouse.
    head : callable, default=EluHead
        ``head()`` gives the `Head` of a mouse.
    cropper : callable, default=ImageCropper
        ``cropper(size, crop_scale=, image_size=, shifters=, mice=)`` gives the `ImageCropper`.
    """

    core: Callable[..., Core]
    readout: Callable[..., Readout]
    head: Callable[[], Head] = EluHead
    cropper: Callable[..., ImageCropper] = ImageCropper


def build(recipe: Recipe, fitted: Fitted) -> EncodingModel:
    """Build the model that the parameters at the time of `fit` and the recordings ask for."""
    parameters, size = fitted.parameters, fitted.image_shape[1:]
    cropper = _called(
        recipe.cropper,
        size,
        crop_scale=parameters["crop_scale"],
        image_size=output_size(parameters["image_size"], size),
        shifters=_stimulus_shifters(fitted),
        mice=tuple(fitted.mice),
    )
    n_behaviors = len(fitted.core_columns)
    as_channels = fitted.behavior_mode == "channels"
    input_shape = (fitted.image_shape[0] + n_behaviors * as_channels, *cropper.output_size)
    core = _called(
        recipe.core,
        input_shape,
        n_behaviors=0 if as_channels else n_behaviors,
        behavior_mode="none" if as_channels else fitted.behavior_mode,
        mice=tuple(fitted.mice),
    )
    _check_core(core)
    readouts, heads = {}, {}
    for name, mouse in fitted.mice.items():
        heads[name] = recipe.head()
        readouts[name] = _called(
            recipe.readout,
            core.output_shape,
            mouse.n_neurons,
            positions=_positions(recipe.readout, parameters, name, mouse),
            bias_init=_bias(parameters.get("readout_bias", "zero"), mouse, heads[name]),
            receptive_field=mouse.statistics.get("receptive_field"),
        )
        _check_kind(readouts[name], Readout, "readout", "super().__init__(n_neurons)")
        _check_kind(heads[name], Head, "head", "super().__init__()")
    moving = [mouse for mouse in fitted.mice if fitted.moves(mouse)]
    moves_readout = parameters["shift"] in _MOVE_READOUT
    model = EncodingModel(
        core,
        readouts,
        cropper=cropper,
        shifters={m: Shifter(len(fitted.moving_columns)) for m in moving} if moves_readout else {},
        heads=heads,
        behavior_channels=as_channels,
    )
    if fitted.core_frozen:
        model.core.freeze()
    return model.float()  # whatever torch's default dtype is


def begin(recipe: Recipe | Callable[[Fitted], Any], fitted: Fitted) -> tuple[Any, dict[str, Any]]:
    """Build a model with the initial weights of its seed, and the state of its training.

    A model of other parts than a `Recipe` names is what ``recipe(fitted)`` gives.
    """
    rng = initial_rng(fitted.seed)
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            isolated(),
            private_rng(rng),
            remedies_named("building the model", _smaller(fitted.parameters)),
        ):
            model = build(recipe, fitted) if isinstance(recipe, Recipe) else recipe(fitted)
    except ValueError as error:  # a core that such images do not fit
        if hint := channels_last(fitted.image_shape):
            raise ValueError(f"{error}{hint}") from error
        raise
    return model.eval(), new_state(rng)


@contextmanager
def bounded_by(weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Build no model much larger than the weights that a file has for it, whatever it tells."""
    there = sum(w.numel() for w in weights.values())
    thread, n_values, n_arrays = threading.get_ident(), 0, 0

    def count(module: nn.Module, name: str, array: Any) -> None:
        nonlocal n_values, n_arrays
        counted = threading.get_ident() == thread and not getattr(_uncounted, "now", False)
        if counted and isinstance(array, torch.Tensor):
            n_values, n_arrays = n_values + array.numel(), n_arrays + 1
            # Cores of users may make arrays that they do not keep.
            if n_values > 2 * there + 2**20 or n_arrays > 2 * len(weights) + 1000:
                raise OversizedError(
                    f"the parameters ask for a model of over {n_values} weights in {n_arrays} "
                    f"arrays, but there are {there} in {len(weights)}"
                )

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def uncounted() -> Iterator[None]:
    """Let `bounded_by` pass weights that come from files of their own."""
    _uncounted.now = True
    try:
        yield
    finally:
        _uncounted.now = False


def output_size(image_size: Any, size: tuple[int, int]) -> tuple[int, int] | None:
    """Decide on the size after resizing: "auto" makes 144 x 256 into 36 x 64."""
    if isinstance(image_size, str):
        return (36, 64) if tuple(size) == (144, 256) else None
    if len(image_size) != 2:
        raise ValueError(f"image_size={image_size!r}: expected 'auto' or (height, width).")
    height, width = map(plain, image_size)
    if not all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in (height, width)):
        raise ValueError(
            f"image_size={image_size!r}: expected a height and width, whole numbers from 1 to "
            f"{_LARGEST_SIDE}."
        )
    return height, width


def _smaller(parameters: Mapping[str, Any]) -> list[str]:
    """Name the largest of the numbers that say how large a model is."""
    sizes = {
        name: value
        for name, value in parameters.items()
        if isinstance(value, int) and not isinstance(value, bool) and name not in _NO_SIZES
    }
    largest = max(sizes, key=sizes.__getitem__, default="core")
    return [f"a smaller {largest} (it is {sizes.get(largest, parameters.get(largest))})"]


def takes(function: Callable[..., Any], keyword: str) -> bool:
    """Whether a callable takes an argument of that name."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == keyword or p.kind is p.VAR_KEYWORD for p in parameters)


def _called(function: Callable[..., Any], *args: Any, **offered: Any) -> Any:
    return function(*args, **{name: v for name, v in offered.items() if takes(function, name)})


def _check_kind(module: Any, kind: type, what: str, then: str) -> None:
    if not isinstance(module, kind):
        raise TypeError(
            f"{what} gave a {type(module).__name__}: expected a v1tlearn.nn.{kind.__name__}: "
            f"derive the class from it and call {then}."
        )


def _check_core(core: Any) -> None:
    """Check that a core, perhaps a user's own, keeps to the contract."""
    _check_kind(core, Core, "core", "super().__init__(input_shape)")
    name = type(core).__name__
    shape = getattr(core, "output_shape", None)
    if shape is None:
        raise TypeError(
            f"{name} sets no output_shape: expected the channels, height and width of its feature "
            "maps."
        )
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(
            f"the output_shape of {name} is {shape!r}: expected the channels, height and width of "
            "its feature maps, each at least 1."
        )
    context = core.context_frames
    if context is not None and not (
        isinstance(context, tuple)
        and [type(n) for n in context] == [int, int]
        and min(context) >= 0
    ):
        raise ValueError(
            f"the context_frames of {name} are {context!r}: expected None for a core of images, or "
            "the frames (before, after) a frame that its maps depend on."
        )


def _stimulus_shifters(fitted: Fitted) -> dict[str, StimulusShifter]:
    shift = fitted.parameters["shift"]
    if shift not in _MOVE_STIMULUS:
        return {}
    if without := [mouse for mouse in fitted.mice if not fitted.moves(mouse)]:
        raise ValueError(
            f"shift={shift!r} moves the image with the eye, but the mice {without} have no "
            f"columns {list(fitted.moving_columns)}: use shift='readout' or 'none'."
        )
    all_move = shift == "both_behavior"
    return {
        name: StimulusShifter(
            len((mouse.behavior_names or []) if all_move else fitted.moving_columns),
            max_shift=1 - fitted.parameters["crop_scale"],
        )
        for name, mouse in fitted.mice.items()
    }


def _positions(
    readout: Callable[..., Readout], parameters: Mapping[str, Any], name: str, mouse: Mouse
) -> np.ndarray | None:
    """Cortical positions that the readout is to use."""
    wanted = parameters.get("position_network", True) and takes(readout, "positions")
    if mouse.position is None or not wanted:
        return None
    n_axes = parameters.get("position_dims", mouse.position.shape[1])
    if mouse.position.shape[1] < n_axes:
        raise ValueError(
            f"mouse {name!r}: position has {mouse.position.shape[1]} axes, but "
            f"position_dims={n_axes}."
        )
    positions = mouse.position[:, :n_axes]
    if not np.isfinite(positions).all():
        raise ValueError(
            f"mouse {name!r}: position holds NaN or infinite values: leave these neurons "
            "out, or set position_network=False."
        )
    return positions


def _bias(kind: str, mouse: Mouse, head: Head) -> np.ndarray | None:
    if kind == "zero":
        return None
    mean = np.nan_to_num(mouse.statistics["response_mean"])
    scaled = mean / mouse.statistics["response_scale"]
    if kind == "published_mean":
        return mean
    if kind == "published_mean_over_std":
        return scaled
    with torch.no_grad():
        return head.inverse(torch.as_tensor(scaled, dtype=torch.float32)).numpy()
