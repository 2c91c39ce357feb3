"""Writing run directories that the published V1T code (Li et al. 2023) reads back."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.estimators import CNNRegressor, LNRegressor, ViTRegressor
from v1tlearn.estimators._modules import PUPIL, shift_columns
from v1tlearn.estimators.base import EncodingRegressor
from v1tlearn.interop._arguments import BEHAVIOR_MODES, READOUT_BIASES, SHIFTS, TOKENIZERS
from v1tlearn.interop._files import write_folder, write_yaml
from v1tlearn.interop._names import to_published, v1t_name
from v1tlearn.interop.v1t import PUBLISHED_SIZE
from v1tlearn.nn import ViTCore, sinusoidal_positions
from v1tlearn.nn.layers.geometry import most_square_grid
from v1tlearn.nn.layers.images import crop_size

ARGUMENTS_FILE, CHECKPOINT_FILE = "args.yaml", Path("ckpt") / "model_state.pt"

_LAPLACE = [[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]]

# What the published code does not make an argument, and therefore cannot be anything else.
_FIXED_READOUT = {"gaussian": "full"}
_FIXED_NETWORK = {"position_hidden_layers": 1, "position_hidden_units": 30}
_FIXED_CONVOLUTIONS = {
    "hidden_channels": 64,
    "input_kernel": 9,
    "hidden_kernel": 7,
    "depth_separable": True,
    "bias": True,
}
_FIXED_COMPACT = {"attention": "standard", "bias": True}


def save_v1t(estimator: EncodingRegressor, directory: str | Path) -> None:
    """Write a fitted model as a run directory of the published V1T code.

    The arrays bear the names and shapes of the published model, ``args.yaml`` has its arguments:
    the published code, and `load_v1t`, read the directory back.

    Parameters
    ----------
    estimator : V1TRegressor, ViTRegressor, CNNRegressor or LNRegressor
        Fitted.
    directory : str or Path
        Where nothing is yet, an empty folder, or one that `save_v1t` wrote. It appears when it is
        complete; an interruption leaves what was there.

    Raises
    ------
    TypeError
        If this is no such estimator.
    NotFittedError
        Before `fit`.
    ValueError
        If the published code has no model like it; the parameter is named.
    FileExistsError
        If something else is in the way, such as a run directory with more than these two files.

    See Also
    --------
    load_v1t : The way back.
    V1TRegressor.save : Everything, training state and statistics included.

    Notes
    -----
    The layout has no place for statistics: the published code takes those of its data set, and
    `load_v1t` is given them. Settings of the training that it cannot tell, such as the optimiser,
    the schedule or ``core_pass="joint"``, are left out, since they do not change what the model
    predicts; the optimiser starts anew.

    References
    ----------
    Li, Cornacchia, Rochefort and Onken, "V1T: large-scale mouse V1 response prediction using a
    Vision Transformer", TMLR, 2023; code at https://github.com/bryanlimy/V1T.
    """
    if not isinstance(estimator, ViTRegressor | CNNRegressor):
        raise TypeError(
            f"save_v1t writes V1TRegressor, ViTRegressor, CNNRegressor and LNRegressor, not a "
            f"{type(estimator).__name__}."
        )
    check_is_fitted(estimator)
    directory = Path(directory)
    args = _arguments(estimator, directory)
    checkpoint = _checkpoint(estimator, args)

    def _write(folder: Path) -> None:
        write_yaml(folder / ARGUMENTS_FILE, args)
        (folder / CHECKPOINT_FILE).parent.mkdir()
        torch.save(checkpoint, folder / CHECKPOINT_FILE)

    write_folder(directory, _write, _is_own)


def _is_own(folder: Path) -> bool:
    """Whether a folder holds nothing but what `save_v1t` writes."""
    files = {
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
    }
    folders = {entry.name for entry in folder.iterdir() if entry.is_dir()}
    return folders <= {"ckpt"} and files in (set(), {ARGUMENTS_FILE, str(CHECKPOINT_FILE)})


def _refuse(parameter: str, value: Any, only: str) -> ValueError:
    return ValueError(
        f"{parameter}={value!r} has no place in the layout of the published V1T code, which has "
        f"{only}. Use save(path), which keeps everything."
    )


def _check_fixed(parameters: dict[str, Any], fixed: dict[str, Any]) -> None:
    for name, value in fixed.items():
        if parameters[name] != value:
            raise _refuse(name, parameters[name], f"{value!r} only")


# ------------------------------------------------------------------------------ args.yaml


def _arguments(estimator: EncodingRegressor, directory: Path) -> dict[str, Any]:
    """Arguments of the run, all of them as plain data."""
    p = estimator.parameters_
    _check_mice(estimator.mice_)
    _check_fixed(p, _FIXED_READOUT)
    model = estimator.module_
    lr, core_lr = float(p["lr"]), p["core_lr"]
    return {
        "adam_beta1": float(p["betas"][0]),
        "adam_beta2": float(p["betas"][1]),
        "adam_eps": 1e-8,
        "amp": False,
        "batch_size": int(p["batch_size"]),
        "behavior_mode": _behavior_mode(estimator),
        "bias_mode": _bias_mode(p["readout_bias"]),
        "center_crop": float(p["crop_scale"]),
        "clear_output_dir": False,
        "core_lr": lr if core_lr is None else float(core_lr),
        "criterion": "poisson",
        "cropper_reg_scale": 0.0,
        "deterministic": bool(p["deterministic"]),
        "device": "cpu",
        "disable_grid_predictor": not _has_networks(estimator),
        "dpi": 120,
        "ds_scale": int(p["loss_scale"] != 1),
        "epochs": int(p["max_epochs"]),
        "format": "svg",
        "grad_checkpointing": False,
        "grid_predictor_dim": int(p["position_dims"]),
        "limit_data": None,
        "lr": lr,
        "micro_batch_size": int(p["batch_size"]),
        "mouse_ids": [_mouse_id(mouse) for mouse in estimator.mice_],
        "num_workers": 0,
        "output_dir": str(directory),
        "output_shapes": {_mouse_id(m): [n] for m, n in estimator.n_neurons_.items()},
        "pretrain_core": "",
        "readout": "gaussian2d",
        "readout_reg_scale": float(p["readout_l1"]),
        "save_plots": False,
        "seed": int(estimator.seed_),
        "shift_mode": _shift_mode(estimator),
        "shifter_reg_scale": 0.0,
        "trainable_params": sum(parameter.numel() for parameter in model.parameters()),
        "use_wandb": False,
        "verbose": 0,
        "wandb_group": "",
        **_sizes(estimator),
        **(
            _transformer(estimator) if isinstance(model.core, ViTCore) else _convolutions(estimator)
        ),
    }


def _check_mice(mice: list[str]) -> None:
    for mouse in mice:
        if not mouse or "." in mouse or hasattr(torch.nn.ModuleDict(), mouse):
            raise ValueError(
                f"mouse {mouse!r}: the published code cannot call a mouse so, since it makes "
                "modules of that name. Fit with other mouse ids, without dots."
            )


def _mouse_id(mouse: str) -> int | str:
    """Id as the published code has it: a number where it was one."""
    try:
        number = int(mouse)
    except ValueError:
        return mouse
    return number if str(number) == mouse else mouse


def _bias_mode(readout_bias: str) -> int:
    return READOUT_BIASES.index(readout_bias) if readout_bias in READOUT_BIASES else 0


def _behavior_mode(estimator: EncodingRegressor) -> int:
    mode, columns = estimator.behavior_mode_, list(estimator.core_columns_)
    ways = dict.fromkeys(way for way, _ in BEHAVIOR_MODES)
    if mode not in ways:
        raise _refuse("behavior_mode", mode, f"{', '.join(map(repr, ways))}")
    possible = [list(BEHAVIOR_NAMES[:n]) for way, n in BEHAVIOR_MODES if way == mode]
    if columns in possible:
        return BEHAVIOR_MODES[mode, len(columns)]
    only = " or ".join(map(str, possible))
    raise _refuse("behavior_columns", columns, f"with behavior_mode={mode!r} {only} only")


def _sizes(estimator: EncodingRegressor) -> dict[str, Any]:
    """Arguments on the size of images, and the data set whose images have it."""
    channels, *size = estimator.image_shape_
    cropped = crop_size(tuple(size), estimator.parameters_["crop_scale"])
    out = tuple(estimator.module_.cropper.output_size)
    if out not in (cropped, PUBLISHED_SIZE):
        raise _refuse("image_size", estimator.parameters_["image_size"], "36 x 64, or no resizing")
    small = tuple(size) == PUBLISHED_SIZE and out == cropped  # as they come, never resized
    dataset = "franke2022" if small else "sensorium"
    return {
        "dataset": f"data/{dataset}",
        "ds_name": dataset,
        "gray_scale": small and channels == 1,
        "input_shape": [channels, *size],
        "resize_image": int(out == PUBLISHED_SIZE),
    }


def _shift_mode(estimator: EncodingRegressor) -> int:
    model, mice = estimator.module_, estimator.mice_
    n_readout = sum(model.shifter(mouse) is not None for mouse in mice)
    p = estimator.parameters_
    if n_readout not in (0, len(mice)):
        without = [mouse for mouse in mice if model.shifter(mouse) is None]
        raise _refuse(
            "shift", p["shift"], f"shifters of all mice or of none, not without {without}"
        )
    moves = n_readout > 0 or model.cropper.shifter(mice[0]) is not None
    if moves and shift_columns(p["shift_columns"]) != PUPIL:
        raise _refuse("shift_columns", p["shift_columns"], "'pupil' only")
    if p["shift"] == "both_behavior":
        for mouse in mice:
            names = [n for n in estimator.behavior_names_[mouse] if n in BEHAVIOR_NAMES[:3]]
            shifter = model.cropper.shifter(mouse)
            if names != list(BEHAVIOR_NAMES[:3]) or shifter.n_inputs != len(BEHAVIOR_NAMES):
                raise _refuse(
                    "shift", "both_behavior", f"the columns {list(BEHAVIOR_NAMES)} of every mouse"
                )
    return SHIFTS.index(p["shift"]) if moves else 0


def _has_networks(estimator: EncodingRegressor) -> bool:
    p = estimator.parameters_
    networks = [
        estimator.module_.readout(mouse).position_network is not None for mouse in estimator.mice_
    ]
    if any(networks) != all(networks):
        without = [m for m, has in zip(estimator.mice_, networks, strict=True) if not has]
        raise _refuse(
            "position_network", True, f"them for all mice or for none, not without {without}"
        )
    if any(networks):
        _check_fixed(p, _FIXED_NETWORK)
    return any(networks)


def _convolutions(estimator: EncodingRegressor) -> dict[str, Any]:
    p = estimator.parameters_
    _check_fixed(p, _FIXED_CONVOLUTIONS)
    return {
        "core": "stacked2d",
        "core_reg_hidden": 0.0,
        "core_reg_input": float(p["laplace"]),
        "dropout": 0.0,
        "linear": isinstance(estimator, LNRegressor),
        "num_layers": int(p["n_layers"]),
    }


def _transformer(estimator: EncodingRegressor) -> dict[str, Any]:
    p, core = estimator.parameters_, estimator.module_.core
    compact = p["tokenizer"] == "cct"
    if compact:
        _check_fixed(p, _FIXED_COMPACT)
        if core.behavior_mode == "none" and estimator.core_columns_:
            raise _refuse("behavior_mode", "channels", "none for tokenizer='cct'")
        if len(estimator.core_columns_) == 3:
            columns = list(estimator.core_columns_)
            raise _refuse("behavior_columns", columns, "for tokenizer='cct' all five, or none")
    if p["tokenizer"] == "spt" and core.input_shape[0] != 1:
        raise _refuse("tokenizer", "spt", "it for images of one channel without planes only")
    fixed_positions = not isinstance(core.positions, torch.nn.Parameter)
    if fixed_positions != compact:
        only = "'sinusoidal' for tokenizer='cct' and 'learned' for others"
        raise _refuse("position_embedding", p["position_embedding"], only)
    if p["attention_dropout"] != p["mlp_dropout"]:
        raise _refuse("attention_dropout", p["attention_dropout"], "one value, that of mlp_dropout")
    square = most_square_grid(math.prod(core.grid))
    if core.output_shape[1:] != square:
        raise ValueError(
            f"token_grid={p['token_grid']!r}: the published code would arrange the {core.grid[0]} "
            f"x {core.grid[1]} tokens of this model on a grid of {square[0]} x {square[1]}, and "
            "predict other responses. Choose a patch_size and patch_stride whose grid it gets "
            "right, such as 8 and 1, or fit with token_grid='published'."
        )
    common = {
        "core": "cct" if compact else "vit",
        "core_reg_scale": float(p["core_l1"]),
        "drop_path": float(p["drop_path"]),
        "emb_dim": int(p["embed_dim"]),
        "mlp_dim": int(p["mlp_dim"]),
        "num_blocks": int(p["n_blocks"]),
        "num_heads": int(p["n_heads"]),
        "p_dropout": float(p["patch_dropout"]),
        "patch_size": int(p["patch_size"]),
        "patch_stride": int(p["patch_stride"]),
        "t_dropout": float(p["mlp_dropout"]),
    }
    if compact:
        return common | {"pos_emb": "sine"}
    return common | {
        "disable_bias": not p["bias"],
        "patch_mode": TOKENIZERS.index(p["tokenizer"]),
        "use_lsa": p["attention"] == "lsa",
    }


# ----------------------------------------------------------------------- ckpt/model_state.pt


def _checkpoint(estimator: EncodingRegressor, args: dict[str, Any]) -> dict[str, Any]:
    history = estimator.history_
    scores = [record.get("validation_correlation") for record in history]
    scores = [float(s) for s in scores if s is not None and math.isfinite(s)]
    best = max(scores, default=-math.inf)
    return {
        "epoch": len(history),
        "value": best if scores else 0.0,
        "model": _weights(estimator, args),
        "optimizer": _optimizer(estimator, args),
        "scaler": {},
        # The published reader keeps its own device, folder and gradient scaler.
        "scheduler": {
            "mode": "max",
            "module_names": None,
            "max_reduce": 2,
            "num_reduce": 0,
            "lr_patience": 10,
            "lr_wait": 0,
            "factor": 0.3,
            "min_epochs": 0,
            "best_value": best,
            "save_optimizer": True,
            "save_scheduler": True,
            "verbose": 0,
        },
    }


def _constant(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)  # whatever torch's default dtype is


def _weights(estimator: EncodingRegressor, args: dict[str, Any]) -> OrderedDict[str, Tensor]:
    """State of the published model: our weights, and the constants that it keeps beside them."""
    model = estimator.module_
    tokenizer = estimator.parameters_.get("tokenizer", "")  # convolutional models have none
    out = OrderedDict(_crop(args))
    for name, value in model.state_dict().items():
        value = to_published(name, value, compact=tokenizer == "cct")
        out[v1t_name(name, model, tokenizer)] = (
            value.detach().cpu().clone(memory_format=torch.contiguous_format)
        )
    for mouse in estimator.mice_:
        out[f"readouts.{mouse}.reg_scale"] = _constant(args["readout_reg_scale"])
        if model.shifter(mouse) is not None:
            out[f"core_shifter.{mouse}.reg_scale"] = _constant(args["shifter_reg_scale"])
        if model.cropper.shifter(mouse) is not None:
            base = f"image_cropper.image_shifter.{mouse}."
            out[base + "max_shift"] = _constant(1 - args["center_crop"])
            out[base + "reg_scale"] = _constant(args["cropper_reg_scale"])
    out |= _core_constants(estimator, args)
    out["elu1.one"] = _constant(1.0)
    return out


def _crop(args: dict[str, Any]) -> dict[str, Tensor]:
    """Points at which the published cropper reads an image, x and y."""
    scale = args["center_crop"]
    height, width = crop_size(tuple(args["input_shape"][1:]), scale)
    y, x = torch.meshgrid(
        *(torch.linspace(-scale, scale, side, dtype=torch.float32) for side in (height, width)),
        indexing="ij",
    )
    return {"image_cropper.grid": torch.stack((x, y), dim=-1)[None]}


def _core_constants(estimator: EncodingRegressor, args: dict[str, Any]) -> dict[str, Tensor]:
    core = estimator.module_.core
    if args["core"] == "stacked2d":
        return {
            "core.gamma_input": _constant(args["core_reg_input"]),
            "core.gamma_hidden": _constant(args["core_reg_hidden"]),
            "core._input_weights_regularizer.laplace.filter": _constant([[_LAPLACE]]),
        }
    out = {"core.reg_scale": _constant(args["core_reg_scale"])}
    transformer, n_blocks, rate = "core.transformer.", args["num_blocks"], args["drop_path"]
    if args["core"] == "cct":
        positions = sinusoidal_positions(math.prod(core.grid), args["emb_dim"])
        out["core.tokenizer.pos_embedding"] = positions[None]
        dim = args["emb_dim"] // args["num_heads"]
        rates = torch.linspace(0, rate, n_blocks, dtype=torch.float64)
        for block in range(n_blocks):
            out[f"{transformer}blocks.{block}.drop_path.keep_prop"] = 1 - rates[block]
            out[f"{transformer}blocks.{block}.mha.scale"] = _constant(dim**-0.5)
        return out
    out[f"{transformer}drop_path.keep_prop"] = _constant(1 - rate)
    n_tokens = math.prod(core.grid) + 1
    for block in range(n_blocks):
        base = f"{transformer}blocks.{block}.mha."
        if args["use_lsa"]:
            out[base + "mask"] = torch.arange(n_tokens)[:, None].repeat(1, 2)
            out[base + "max_value"] = _constant(torch.finfo(torch.float32).max)
        else:
            out[base + "scale"] = _constant(args["emb_dim"] ** -0.5)
    return out


def _optimizer(estimator: EncodingRegressor, args: dict[str, Any]) -> dict[str, Any]:
    """State of the published optimiser before its first step: its groups and their sizes."""
    model = estimator.module_
    sizes = {
        "core": len(list(model.core.parameters())),
        "readouts": len(list(model.readouts.parameters())),
        "image_cropper": len(list(model.cropper.parameters())),
        "core_shifter": len(list(model.shifters.parameters())),
    }
    groups = [
        {
            "params": [torch.zeros(1, requires_grad=True) for _ in range(size)],
            "name": name,
            "lr": args["core_lr"] if name == "core" else args["lr"],
        }
        for name, size in sizes.items()
        if size
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=args["lr"],
        betas=(args["adam_beta1"], args["adam_beta2"]),
        eps=args["adam_eps"],
        weight_decay=0,
    )
    return optimizer.state_dict()
