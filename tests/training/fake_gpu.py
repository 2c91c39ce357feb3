"""A GPU that is not there, with tensors without numbers, and what is noted of work on it."""

import dataclasses

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What `torch.use_deterministic_algorithms` refuses on CUDA devices, as its documentation lists it.
NOT_DETERMINISTIC = {
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "bincount",
    "cumsum",
    "fractional_max_pool2d_backward",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "histc",
    "kthvalue",
    "max_pool3d_with_indices_backward",
    "max_unpool2d",
    "nll_loss2d_forward",
    "put_",
    "reflection_pad1d_backward",
    "reflection_pad3d_backward",
    "replication_pad1d_backward",
    "replication_pad2d_backward",
    "replication_pad3d_backward",
    "scatter_reduce",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
    "upsample_linear1d_backward",
    "upsample_trilinear3d_backward",
}


class Watch(TorchDispatchMode):
    """Notes what waits for the device, float64 on it, and what is not deterministic there.

    Numbers that are read from a device, and shapes that depend on numbers, are errors of their own:
    there are none.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.wide, self.chance = set(), set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        before = [x for x in tree_leaves((args, kwargs)) if is_tensor(x)]
        out = func(*args, **kwargs)
        after = [x for x in tree_leaves(out) if is_tensor(x)]
        kinds = {x.device.type for x in (*before, *after)}
        asynchronous = kwargs.get("non_blocking", False)
        if name in ("_to_copy", "copy_") and len(kinds) > 1 and not asynchronous:
            self.waits.add(f"{name}: {before[-1].device.type} to {after[0].device.type}")
        if any(x.device.type != "cpu" and x.dtype == torch.float64 for x in after):
            self.wide.add(name)
        if name in NOT_DETERMINISTIC:
            self.chance.add(name)
        return out


def is_tensor(value):
    return isinstance(value, torch.Tensor)


class unwatched:
    """Within, nothing is noted: what is done once an epoch."""

    watch = None

    def __enter__(self):
        self.before = {k: set(v) for k, v in vars(self.watch).items() if isinstance(v, set)}

    def __exit__(self, *error):
        vars(self.watch).update(self.before)


def fake(value, device):
    """A tensor without numbers on a device, in the layout of another one."""
    made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
    if isinstance(value, nn.Parameter):
        return nn.Parameter(made, requires_grad=value.requires_grad)
    return made


def move(module, device):
    """Bring what `Module.to` brings to a device."""
    known = {}
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, value in own.items():
                if value is not None:
                    own[name] = known.setdefault(id(value), fake(value, device))
    return module


def on_device(data, device):
    """Trials whose tensors are on a device."""
    out = {}
    for mouse, trials in data.items():
        given = {f.name: getattr(trials, f.name) for f in dataclasses.fields(trials)}
        moved = {k: fake(v, device) if is_tensor(v) else v for k, v in given.items()}
        out[mouse] = type(trials)(**moved | {"device": device})
        if "n_counted" in vars(trials):  # which is read once
            out[mouse].n_counted = trials.n_counted
    return out
