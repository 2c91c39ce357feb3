"""Small models and trials for tests of how a training step is computed."""

import subprocess
import sys
import textwrap

import torch

from tests.training.loop_runs import NEURONS, make_data
from v1tlearn import nn
from v1tlearn.training import (
    ConstantSchedule,
    PoissonObjective,
    Run,
    TrainingSettings,
    initial_rng,
    new_state,
    train,
)


class ConvCore(nn.Core):
    """Layers with batch normalisation and dropout, as a core; counts its passes."""

    def __init__(self, dropout=0.3):
        super().__init__((3, 8, 10))
        self.output_shape = (4, 8, 10)
        self.layers = torch.nn.Sequential(
            *(
                torch.nn.Sequential(
                    torch.nn.Conv2d(n, 4, 3, padding=1),
                    torch.nn.BatchNorm2d(4),
                    torch.nn.ELU(),
                    torch.nn.Dropout(dropout),
                )
                for n in (3, 4)
            )
        )
        self.passes = 0

    def recomputed_parts(self):
        return list(self.layers)

    def penalty(self):
        return sum(p.abs().sum() for p in self.parameters())

    def forward(self, images, behaviors=None, sizes=()):
        self.passes += 1
        return self.layers(images)


class Transformer(nn.ViTCore):
    def __init__(self, dropout=0.3, n_blocks=2):
        rates = dict.fromkeys(("patch_dropout", "attention_dropout", "mlp_dropout"), dropout)
        sizes = {"patch_size": 4, "n_heads": 2, "embed_dim": 6, "mlp_dim": 5}
        super().__init__(
            (1, 8, 10),
            n_blocks=n_blocks,
            behavior_mode="b_mlp_per_mouse",
            n_behaviors=2,
            mice=tuple(NEURONS),
            drop_path=dropout,
            **sizes,
            **rates,
        )


def make_model(core, seed=0):
    torch.manual_seed(seed)
    core = core()
    return nn.EncodingModel(
        core,
        {m: nn.GaussianReadout(core.output_shape, n) for m, n in NEURONS.items()},
        cropper=nn.ImageCropper((8, 10)),
        shifters={"A": nn.Shifter()},
        behavior_channels=core.input_shape[0] == 3,
    )


def without_randomness(core, seed=0):
    """A model that gives the same in training every time."""
    model = make_model(lambda: core(dropout=0.0), seed)
    for readout in model.readouts:
        readout.sigma.requires_grad_(False).zero_()
    return model


def run(model, epochs=2, state=None, data=None, optimizer=torch.optim.SGD, lr=1e-3, **settings):
    state = new_state(initial_rng(1)) if state is None else state
    settings = TrainingSettings(**{"batch_size": 4, "max_epochs": epochs} | settings)
    data = data or make_data()
    made = optimizer(model.parameters(), lr=lr)
    return train(Run(model, PoissonObjective(), made, ConstantSchedule(), data, settings, state))


def assert_same(one, other, **tolerance):
    for (name, first), second in zip(one.items(), other.values(), strict=True):
        torch.testing.assert_close(first, second, **{"rtol": 0, "atol": 0} | tolerance, msg=name)


def in_a_process(script, *args):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *args],
        capture_output=True,
        text=True,
        check=True,
    )
