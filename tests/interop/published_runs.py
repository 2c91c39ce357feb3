"""Run directories of the published V1T code, and what that code makes of them, in plain terms.

Everything here follows from the arguments of a run alone, and uses nothing of this package: names,
shapes and dtypes of the arrays, and the forward pass, in float64 from the crop on.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
import yaml

BASE = {
    "adam_beta1": 0.9,
    "adam_beta2": 0.9999,
    "adam_eps": 1e-8,
    "amp": False,
    "batch_size": 8,
    "behavior_mode": 3,
    "bias_mode": 0,
    "center_crop": 1.0,
    "core": "vit",
    "core_lr": 0.001647,
    "criterion": "poisson",
    "cropper_reg_scale": 0.0,
    "device": "cuda",
    "disable_grid_predictor": False,
    "ds_name": "sensorium",
    "ds_scale": 1,
    "epochs": 400,
    "gray_scale": False,
    "grid_predictor_dim": 2,
    "input_shape": [1, 20, 28],
    "limit_data": None,
    "lr": 0.001647,
    "micro_batch_size": 8,
    "mouse_ids": ["A", "B"],
    "output_shapes": {"A": [5], "B": [4]},
    "readout": "gaussian2d",
    "readout_reg_scale": 0.0076,
    "resize_image": 0,
    "seed": 1234,
    "shift_mode": 2,
    "shifter_reg_scale": 0.0,
}
TRANSFORMER = {
    "core_reg_scale": 0.5379,
    "drop_path": 0.0,
    "emb_dim": 8,
    "mlp_dim": 12,
    "num_blocks": 2,
    "num_heads": 2,
    "p_dropout": 0.0229,
    "patch_size": 8,
    "patch_stride": 4,
    "t_dropout": 0.2544,
}
CORES = {
    "vit": {**TRANSFORMER, "disable_bias": False, "patch_mode": 0, "use_lsa": False},
    "cct": {**TRANSFORMER, "pos_emb": "sine"},
    "stacked2d": {
        "core_reg_hidden": 0.0,
        "core_reg_input": 6.3831,
        "dropout": 0.0,
        "linear": False,
        "num_layers": 2,
        "lr": 0.009,
        "core_lr": 0.009,
    },
}


def run_arguments(**changed):
    """Arguments of a small run."""
    return {**BASE, **CORES[changed.get("core", "vit")], **changed}


def most_square(n_tokens):
    """The grid on which the published code arranges tokens."""
    side = math.ceil(math.sqrt(n_tokens))
    side = max(divisor for divisor in range(1, side + 1) if n_tokens % divisor == 0)
    return side, n_tokens // side


def core_input_shape(args):
    channels, height, width = args["input_shape"]
    if args["center_crop"] < 1:
        height, width = int(height * args["center_crop"]), int(width * args["center_crop"])
    if args["resize_image"] and args["ds_name"] != "franke2022":
        height, width = 36, 64
    return channels + 3 * (args["behavior_mode"] == 1), height, width


def n_tokens(args):
    sides = core_input_shape(args)[1:]
    if args["core"] == "vit":
        return math.prod((s - args["patch_size"]) // args["patch_stride"] + 1 for s in sides)
    sides = [(s + 6 - args["patch_size"]) // args["patch_stride"] + 1 for s in sides]
    return math.prod((s - 1) // 2 + 1 for s in sides)


def published_arrays(args, seed=0):
    """State of the published model: every array with its name, shape and dtype."""
    rng = np.random.default_rng(seed)
    out = {}

    def put(name, *shape, scale=0.5, offset=0.0):
        values = offset + scale * rng.standard_normal(shape)
        out[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))

    def constant(name, value, dtype=torch.float32):
        out[name] = torch.as_tensor(value).to(dtype)

    def linear(name, n_in, n_out, bias=True):
        put(f"{name}.weight", n_out, n_in)
        if bias:
            put(f"{name}.bias", n_out)

    def norm(name, n):
        put(f"{name}.weight", n, scale=0.1, offset=1)
        put(f"{name}.bias", n)

    def perceptron(name, n_in, hidden):
        for i, sizes in enumerate([(n_in, hidden), (hidden, hidden), (hidden, 2)]):
            linear(f"{name}.{2 * i}", *sizes)

    mice = [str(mouse) for mouse in args["output_shapes"]]
    scale = args["center_crop"]
    _, height, width = args["input_shape"]
    crop = (int(height * scale), int(width * scale)) if scale < 1 else (height, width)
    y, x = (torch.linspace(-scale, scale, n) for n in crop)
    grid = torch.stack((x.expand(*crop), y[:, None].expand(*crop)), -1)
    constant("image_cropper.grid", grid[None])
    if args["shift_mode"] in (1, 3, 4):
        for mouse in mice:
            base = f"image_cropper.image_shifter.{mouse}"
            constant(f"{base}.max_shift", 1 - scale)
            constant(f"{base}.reg_scale", args["cropper_reg_scale"])
            perceptron(f"{base}.mlp", 5 if args["shift_mode"] == 4 else 2, 10)
    channels = core_input_shape(args)[0]
    if args["core"] == "stacked2d":
        width = 64
        constant("core.gamma_input", args["core_reg_input"])
        constant("core.gamma_hidden", args["core_reg_hidden"])
        laplace = [[0, -1, 0], [-1, 4, -1], [0, -1, 0]]
        constant("core._input_weights_regularizer.laplace.filter", [[laplace]])
        for i in range(args["num_layers"]):
            base = f"core.features.layer{i}"
            if i == 0:
                put(f"{base}.conv.weight", width, channels, 9, 9, scale=0.05)
            else:
                shapes = {"in_depth": (64, 1, 1), "spatial": (1, 7, 7), "out_depth": (64, 1, 1)}
                for part, shape in shapes.items():
                    put(f"{base}.ds_conv.{part}_conv.weight", width, *shape, scale=0.1)
                    put(f"{base}.ds_conv.{part}_conv.bias", width)
            norm(f"{base}.norm", width)
            put(f"{base}.norm.running_mean", width)
            put(f"{base}.norm.running_var", width, scale=0)
            out[f"{base}.norm.running_var"] += torch.from_numpy(rng.uniform(1, 2, width)).float()
            constant(f"{base}.norm.num_batches_tracked", 7, torch.int64)
    else:
        width = args["emb_dim"]
        _transformer_arrays(args, channels, mice, put, constant, linear, norm)
    if args["shift_mode"] in (2, 3, 4):
        for mouse in mice:
            constant(f"core_shifter.{mouse}.reg_scale", args["shifter_reg_scale"])
            perceptron(f"core_shifter.{mouse}.mlp", 2, 5)
    for mouse, (n,) in args["output_shapes"].items():
        base = f"readouts.{mouse}"
        if args["disable_grid_predictor"]:
            put(f"{base}._mu", 1, n, 1, 2, scale=0.3)
        else:
            positions = rng.uniform(-1, 1, (n, args["grid_predictor_dim"]))
            positions -= positions.mean(0)
            constant(f"{base}.source_grid", positions / np.abs(positions).max())
            linear(f"{base}.mu_transform.0", args["grid_predictor_dim"], 30)
            linear(f"{base}.mu_transform.2", 30, 2)
        put(f"{base}.sigma", 1, n, 2, 2, scale=0.1)
        put(f"{base}.features", 1, width, 1, n, scale=2 / width**0.5)
        put(f"{base}.bias", n)
        constant(f"{base}.reg_scale", args["readout_reg_scale"])
    constant("elu1.one", 1.0)
    return out


def _transformer_arrays(args, channels, mice, put, constant, linear, norm):
    d, side, blocks = args["emb_dim"], args["patch_size"], "core.transformer.blocks"
    compact = args["core"] == "cct"
    bias = not args.get("disable_bias", False)
    constant("core.reg_scale", args["core_reg_scale"])
    if compact:
        put("core.tokenizer.conv2d.weight", d, channels, side, side, scale=0.1)
        angles = np.arange(n_tokens(args))[:, None] / 10000 ** (2 * (np.arange(d) // 2) / d)
        waves = np.where(np.arange(d) % 2 == 0, np.sin(angles), np.cos(angles))
        constant("core.tokenizer.pos_embedding", waves[None])
    else:
        embedding = "core.patch_embedding"
        put(f"{embedding}.cls_token", 1, 1, d)
        put(f"{embedding}.pos_embedding", n_tokens(args) + 1, d)
        mode, n_pixels = args["patch_mode"], channels * side**2
        if mode == 1:
            put(f"{embedding}.projection.0.weight", d, channels, side, side, scale=0.1)
            put(f"{embedding}.projection.0.bias", d)
        elif mode == 2:
            n_pixels = (channels + 4) * side**2
            norm(f"{embedding}.projection.3", n_pixels)
            linear(f"{embedding}.projection.4", n_pixels, d)
        elif mode == 3:
            norm(f"{embedding}.projection.2", n_pixels)
            linear(f"{embedding}.projection.3", n_pixels, d)
            norm(f"{embedding}.projection.4", d)
        else:
            linear(f"{embedding}.projection.2", n_pixels, d)
        constant("core.transformer.drop_path.keep_prop", 1 - args["drop_path"])
    for i in range(args["num_blocks"]):
        base = f"{blocks}.{i}"
        inner = d // args["num_heads"] if compact else d * args["num_heads"]
        if compact:
            rate = np.linspace(0, args["drop_path"], args["num_blocks"])[i]
            constant(f"{base}.drop_path.keep_prop", 1 - rate, torch.float64)
            constant(f"{base}.mha.scale", inner**-0.5)
        elif args["use_lsa"]:
            put(f"{base}.mha.scale", args["num_heads"], scale=0.1, offset=d**-0.5)
            diagonal = torch.arange(n_tokens(args) + 1)
            constant(f"{base}.mha.mask", torch.stack((diagonal, diagonal), 1), torch.int64)
            constant(f"{base}.mha.max_value", torch.finfo(torch.float32).max)
        else:
            constant(f"{base}.mha.scale", d**-0.5)
        norm(f"{base}.mha.layer_norm", d)
        linear(f"{base}.mha.{'qkv' if compact else 'to_qkv'}", d, 3 * inner, bias=False)
        linear(f"{base}.mha.projection.0", inner, d, bias)
        perceptron = f"{base}.mlp" + ("" if compact else ".model")
        norm(f"{perceptron}.0", d)
        linear(f"{perceptron}.1", d, args["mlp_dim"], bias)
        linear(f"{perceptron}.4", args["mlp_dim"], d, bias)
        if args["behavior_mode"] >= 2:
            n_inputs = 3 if args["behavior_mode"] == 2 else 5
            for whose in mice if args["behavior_mode"] == 4 else ["share"]:
                network = f"{base}.{'b_mlp' if compact else 'b-mlp'}.models.{whose}"
                linear(f"{network}.0", n_inputs, d // 2, bias)
                linear(f"{network}.3", d // 2, d, bias)


def published_prediction(args, arrays, mouse, images, behaviors):
    """What the published model predicts in evaluation mode, inputs and outputs standardised.

    `behaviors` has five columns: three of behaviour, then the pupil position.
    """
    images, behaviors = (torch.as_tensor(v, dtype=torch.float32) for v in (images, behaviors))
    a = {name: value.double() for name, value in arrays.items()}
    grid = arrays["image_cropper.grid"].expand(len(images), -1, -1, -1)
    if args["shift_mode"] in (1, 3, 4):
        base = f"image_cropper.image_shifter.{mouse}"
        seen = behaviors if args["shift_mode"] == 4 else behaviors[:, 3:]
        shift = _perceptron(arrays, f"{base}.mlp", seen) * arrays[f"{base}.max_shift"]
        grid = grid + shift[:, None, None]
    images = F.grid_sample(images, grid, mode="nearest", align_corners=True).double()
    _, height, width = core_input_shape(args)
    if images.shape[2:] != (height, width):
        images = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
    behaviors = behaviors.double()
    if args["behavior_mode"] == 1:
        planes = behaviors[:, :3, None, None].expand(-1, -1, height, width)
        images = torch.cat((images, planes), 1)
    if args["core"] == "stacked2d":
        features = _convolutional_core(args, a, images)
    else:
        features = _transformer_core(args, a, mouse, images, behaviors)
    base = f"readouts.{mouse}"
    if f"{base}._mu" in a:
        mu = a[f"{base}._mu"][0, :, 0].clamp(-1, 1)
    else:
        hidden = F.elu(_linear(a, f"{base}.mu_transform.0", a[f"{base}.source_grid"]))
        mu = _linear(a, f"{base}.mu_transform.2", hidden).tanh()
    points = mu[None].expand(len(images), -1, -1)
    if args["shift_mode"] in (2, 3, 4):
        shift = _perceptron(a, f"core_shifter.{mouse}.mlp", behaviors[:, 3:])
        points = points + shift[:, None]
    sampled = F.grid_sample(features, points[:, :, None], align_corners=True)[..., 0]  # (B, C, n)
    out = (sampled * a[f"{base}.features"][0, :, 0]).sum(1) + a[f"{base}.bias"]
    return (F.elu(out) + 1).numpy()


def _linear(a, name, x):
    return F.linear(x, a[f"{name}.weight"], a.get(f"{name}.bias"))


def _norm(a, name, x):
    return F.layer_norm(x, x.shape[-1:], a[f"{name}.weight"], a[f"{name}.bias"])


def _perceptron(a, name, x):
    for i in (0, 2, 4):
        x = _linear(a, f"{name}.{i}", x).tanh()
    return x


def _convolutional_core(args, a, x):
    for i in range(args["num_layers"]):
        base = f"core.features.layer{i}"
        if i == 0:
            x = F.conv2d(x, a[f"{base}.conv.weight"])
        else:
            for part in ("in_depth", "spatial", "out_depth"):
                name = f"{base}.ds_conv.{part}_conv"
                options = {"padding": 3, "groups": 64} if part == "spatial" else {}
                x = F.conv2d(x, a[f"{name}.weight"], a[f"{name}.bias"], **options)
        moments = [a[f"{base}.norm.running_{what}"][:, None, None] for what in ("mean", "var")]
        x = (x - moments[0]) / (moments[1] + 1e-5).sqrt()
        x = x * a[f"{base}.norm.weight"][:, None, None] + a[f"{base}.norm.bias"][:, None, None]
        x = x if args["linear"] else F.elu(x)
    return x


def _patches(a, args, x):
    mode, side, stride = args["patch_mode"], args["patch_size"], args["patch_stride"]
    name = "core.patch_embedding.projection"
    if mode == 1:
        x = F.conv2d(x, a[f"{name}.0.weight"], a[f"{name}.0.bias"], stride=stride)
        return x.flatten(2).mT
    if mode == 2:
        s = side // 2
        moves = [(s, s), (s, -s), (-s, s), (-s, -s)]  # content moves down and to the right by these
        copies = []
        for down, right in moves:
            copy = torch.zeros_like(x)
            h, w = x.shape[2:]
            rows, cols = (
                slice(max(down, 0), h + min(down, 0)),
                slice(max(right, 0), w + min(right, 0)),
            )
            from_rows = slice(max(-down, 0), h + min(-down, 0))
            from_cols = slice(max(-right, 0), w + min(-right, 0))
            copy[..., rows, cols] = x[..., from_rows, from_cols]
            copies.append(copy)
        x = torch.cat((x, *copies), 1)
    x = F.unfold(x, side, stride=stride).mT
    if mode == 2:
        return _linear(a, f"{name}.4", _norm(a, f"{name}.3", x))
    if mode == 3:
        return _norm(a, f"{name}.4", _linear(a, f"{name}.3", _norm(a, f"{name}.2", x)))
    return _linear(a, f"{name}.2", x)


def _transformer_core(args, a, mouse, images, behaviors):
    compact = args["core"] == "cct"
    heads = args["num_heads"]
    if compact:
        name = "core.tokenizer.conv2d.weight"
        x = F.conv2d(images, a[name], stride=args["patch_stride"], padding=3).relu()
        x = F.max_pool2d(x, 3, stride=2, padding=1).flatten(2).mT
        x = x + a["core.tokenizer.pos_embedding"]
    else:
        token = a["core.patch_embedding.cls_token"].expand(len(images), -1, -1)
        x = torch.cat((token, _patches(a, args, images)), 1)
        x = x + a["core.patch_embedding.pos_embedding"]
    for i in range(args["num_blocks"]):
        base = f"core.transformer.blocks.{i}"
        if args["behavior_mode"] >= 2:
            whose = mouse if args["behavior_mode"] == 4 else "share"
            name = f"{base}.{'b_mlp' if compact else 'b-mlp'}.models.{whose}"
            seen = behaviors[:, :3] if args["behavior_mode"] == 2 else behaviors
            added = _linear(a, f"{name}.3", _linear(a, f"{name}.0", seen).tanh()).tanh()
            x = x + added[:, None]
        y = _norm(a, f"{base}.mha.layer_norm", x)
        qkv = F.linear(y, a[f"{base}.mha.{'qkv' if compact else 'to_qkv'}.weight"])
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        scale = a[f"{base}.mha.scale"]
        dots = (q @ k.mT) * (scale[:, None, None] if scale.ndim else scale)
        if args.get("use_lsa"):
            dots.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
        y = (dots.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + _linear(a, f"{base}.mha.projection.0", y)
        name = f"{base}.mlp" + ("" if compact else ".model")
        y = F.gelu(_linear(a, f"{name}.1", _norm(a, f"{name}.0", x)))
        x = x + _linear(a, f"{name}.4", y)
    x = x if compact else x[:, 1:]
    return x.mT.unflatten(-1, most_square(x.shape[1]))


class Published:
    """What tests use of the above."""

    arguments = staticmethod(run_arguments)
    arrays = staticmethod(published_arrays)
    prediction = staticmethod(published_prediction)

    @staticmethod
    def write(folder, args, arrays, **more):
        """Write a run directory, its state of the schedule as the training script leaves it."""
        (folder / "ckpt").mkdir(parents=True)
        (folder / "args.yaml").write_text(yaml.safe_dump(args))
        scheduler = {"mode": "max", "scaler": torch.amp.GradScaler("cpu", enabled=False)}
        scheduler |= {"device": torch.device("cpu"), "best_value": np.float64(0.25)}
        checkpoint = {"epoch": 7, "value": 0.25, "model": arrays, "scheduler": scheduler}
        checkpoint |= {"optimizer": {"state": {}, "param_groups": []}, "scaler": {}}
        torch.save({**checkpoint, **more}, folder / "ckpt" / "model_state.pt")
        return folder

    @staticmethod
    def inputs(args, n_trials=4, seed=1):
        """Standardised images and the five columns of behaviour."""
        rng = np.random.default_rng(seed)
        images = rng.standard_normal((n_trials, *args["input_shape"]), dtype=np.float32)
        return images, rng.standard_normal((n_trials, 5), dtype=np.float32)
