"""The arguments of a run of the published V1T code, as its ``args.yaml`` keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

# Learning rates where older versions, or none, told one.
LEARNING_RATES = {"vit": 0.001647, "cct": 0.001647, "stacked2d": 0.009}

# Options that the published code numbers: by place, and behaviour by way and number of columns.
SHIFTS = ("none", "stimulus", "readout", "both", "both_behavior")
READOUT_BIASES = ("zero", "published_mean", "published_mean_over_std")
TOKENIZERS = ("unfold", "conv", "spt", "dual_norm")
BEHAVIOR_MODES = {
    ("none", 0): 0,
    ("channels", 3): 1,
    ("b_mlp", 3): 2,
    ("b_mlp", 5): 3,
    ("b_mlp_per_mouse", 5): 4,
}


class Arguments:
    """Arguments of a run by name, checked when they are looked at."""

    def __init__(self, values: Mapping[str, Any], origin: str) -> None:
        self.values = values
        self.origin = origin

    def _wrong(self, name: str, expected: str) -> ValueError:
        value = self.values[name]
        what = repr(value)[:80] if isinstance(value, int | float | str) else type(value).__name__
        return ValueError(f"{self.origin}: {name} is {what}: expected {expected}.")

    def has(self, name: str) -> bool:
        """Tell whether an argument is there and not empty."""
        return self.values.get(name) is not None

    def number(self, name: str, default: float) -> float:
        """Look at a finite number."""
        if not self.has(name):
            return default
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self._wrong(name, "a finite number")
        try:
            value = float(value)  # YAML 1.1 takes 1e-08 for text
        except (ValueError, OverflowError):
            raise self._wrong(name, "a number") from None
        if not math.isfinite(value):
            raise self._wrong(name, "a finite number")
        return value

    def integer(self, name: str, default: int, minimum: int = 0) -> int:
        """Look at an integer."""
        value = self.number(name, default)
        if value != int(value) or value < minimum:
            raise self._wrong(name, f"an integer from {minimum} on")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """Look at a truth value, which some versions write as 0 and 1."""
        value = self.values[name] if self.has(name) else default
        if value not in (True, False) or isinstance(value, str):
            raise self._wrong(name, "true, false, 0 or 1")
        return bool(value)

    def text(self, name: str, default: str) -> str:
        """Look at a text."""
        value = self.values[name] if self.has(name) else default
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return value

    @property
    def dataset(self) -> str:
        """Name of the data set, "sensorium" or "franke2022"."""
        path = PurePosixPath(self.text("dataset", "sensorium"))
        return self.text("ds_name", path.name or "sensorium")

    def mice(self, in_checkpoint: Sequence[str]) -> list[str]:
        """Mice of the run, in its order."""
        name = "output_shapes" if self.has("output_shapes") else "mouse_ids"
        if not self.has(name):
            return list(in_checkpoint)
        value = self.values[name]
        if not isinstance(value, Mapping | list) or not value:
            raise self._wrong(name, "the mice of the run")
        mice = [str(mouse) for mouse in value if isinstance(mouse, int | str)]
        if set(mice) != set(in_checkpoint) or len(mice) != len(in_checkpoint):
            raise ValueError(
                f"{self.origin}: {name} names the mice {mice[:20]}, the checkpoint has readouts of "
                f"{list(in_checkpoint)}: are the two files of one run?"
            )
        return mice

    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the stimuli."""
        if not self.has("input_shape"):
            if self.dataset != "franke2022":
                return (1, 144, 256)
            return (1 if self.flag("gray_scale", False) else 2, 36, 64)
        value = self.values["input_shape"]
        ok = isinstance(value, list) and len(value) == 3
        if not ok or not all(isinstance(side, int) and 0 < side < 2**16 for side in value):
            raise self._wrong("input_shape", "[channels, height, width]")
        return tuple(value)

    def check(self, name: str, found: Any, expected: Any, why: str) -> None:
        """Check an argument against what the arrays tell."""
        if self.has(name) and found != expected:
            raise ValueError(
                f"{self.origin}: {name} is {self.values[name]!r}, but the checkpoint holds {why}: "
                "are the two files of one run?"
            )


def common_parameters(args: Arguments, core: str) -> dict[str, Any]:
    """Parameters of an estimator that do not depend on its core."""
    lr = args.number("lr", LEARNING_RATES[core])
    core_lr = args.number("core_lr", lr * args.number("core_lr_scale", 1.0))
    bias_mode = args.integer("bias_mode", 0)
    if bias_mode >= len(READOUT_BIASES):
        raise ValueError(f"{args.origin}: bias_mode is {bias_mode}: expected 0, 1 or 2.")
    return {
        "crop_scale": args.number("center_crop", 1.0),
        "readout_bias": READOUT_BIASES[bias_mode],
        "readout_l1": args.number("readout_reg_scale", 0.0076),
        "lr": lr,
        "core_lr": None if core_lr == lr else core_lr,
        "betas": (args.number("adam_beta1", 0.9), args.number("adam_beta2", 0.9999)),
        "batch_size": args.integer("batch_size", 8) or 8,  # 0 was "as many as fit"
        "max_epochs": args.integer("epochs", 400),
        "loss_scale": "sqrt" if args.flag("ds_scale", True) else 1.0,
        "random_state": args.integer("seed", 1234),
    }


def shift_of(args: Arguments, readout: bool, stimulus_inputs: int | None) -> str:
    """Name what the eye moves."""
    if stimulus_inputs is None:
        mode = 2 if readout else 0
    elif stimulus_inputs == 5:
        mode = 4
    else:
        mode = 3 if readout else 1
    if (mode == 4 and not readout) or stimulus_inputs not in (None, 2, 5):
        raise ValueError(
            f"{args.origin}: the checkpoint has stimulus shifters of {stimulus_inputs} inputs "
            f"{'with' if readout else 'without'} readout shifters, which no shift_mode has."
        )
    what = "shifters of " + (SHIFTS[mode] if mode else "nothing")
    args.check("shift_mode", mode, args.integer("shift_mode", mode), what)
    return SHIFTS[mode]


def untold(args: Arguments) -> list[str]:
    """List arguments of the training that estimators have no parameter for."""
    usual = {"adam_eps": 1e-8, "cropper_reg_scale": 0.0, "shifter_reg_scale": 0.0, "dropout": 0.0}
    found = [
        f"{name}={value:g}"
        for name, default in usual.items()
        if (value := args.number(name, default)) != default
    ]
    criterion = args.text("criterion", "poisson")
    return found + ([f"criterion={criterion!r}"] if criterion != "poisson" else [])
