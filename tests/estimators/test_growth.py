"""What an epoch costs grows with trials, neurons and mice as they do: counted, and not timed."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import v1tlearn as v1

BATCH = 8
TRANSFORMER = {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "embed_dim": 8, "mlp_dim": 8}
TRANSFORMER |= {"n_heads": 2}
CONVOLUTIONS = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
SMALL = {
    "V1T": (v1.V1TRegressor, TRANSFORMER),
    "ViT": (v1.ViTRegressor, TRANSFORMER),
    "CNN": (v1.CNNRegressor, CONVOLUTIONS),
    "LN": (v1.LNRegressor, CONVOLUTIONS),
    "full model": (v1.FullModelRegressor, {"channels": (2, 4), "kernels": (5, 3)}),
}


class Counted(TorchDispatchMode):
    """Counts the operations of torch, and the values that come out of them."""

    def __init__(self):
        super().__init__()
        self.operations = self.values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.operations += 1
        for one in out if isinstance(out, tuple | list) else [out]:
            self.values += one.numel() if isinstance(one, torch.Tensor) else 0
        return out


def random_trials(mice, trials, neurons):
    rng = np.random.default_rng(0)
    names = [f"mouse {i}" for i in range(mice)]
    return v1.Trials.from_arrays(
        {m: rng.integers(0, 256, (trials, 1, 12, 16), dtype=np.uint8) for m in names},
        {m: rng.standard_normal((trials, 5)) for m in names},
        {m: rng.standard_exponential((trials, neurons)) for m in names},
    )


def cost_of_an_epoch(model, *, mice=1, trials=8, neurons=5):
    """Operations and values of the second epoch, without what comes ahead of the first."""
    kind, options = SMALL[model]
    est = kind(
        **options, batch_size=BATCH, max_epochs=2, validation_fraction=0.0, random_state=0,
        device="cpu",
    )  # fmt: skip
    ends = []
    with Counted() as counted:
        est.fit(
            random_trials(mice, trials, neurons),
            on_epoch=lambda _: ends.append((counted.operations, counted.values)),
        )
    return np.subtract(ends[1], ends[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axis", "sizes", "model"),
    [("trials", (8, 16, 32), model) for model in SMALL]
    + [("mice", (2, 3, 5), model) for model in ("V1T", "CNN", "full model")],
)
def test_epochs_take_as_much_more_work_as_there_are_more_trials_or_mice(axis, sizes, model):
    costs = [cost_of_an_epoch(model, **{axis: size}) for size in sizes]
    one_more = (costs[1] - costs[0]) / (sizes[1] - sizes[0])
    assert (one_more > 0).all()
    np.testing.assert_array_equal(costs[2] - costs[1], one_more * (sizes[2] - sizes[1]))


@pytest.mark.parametrize("model", ["V1T", "CNN", "full model"])
def test_neurons_take_as_many_more_values_and_no_more_operations(model):
    sizes = (8, 16, 32)
    costs = [cost_of_an_epoch(model, neurons=size) for size in sizes]
    operations, values = np.transpose(costs)
    assert len(set(operations)) == 1
    one_more = (values[1] - values[0]) / 8
    assert values[2] - values[1] == one_more * 16 > 0
