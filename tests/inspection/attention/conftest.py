"""Small transformers, and a core of one's own whose attention is known."""

import pytest
import torch

import v1tlearn as v1
from tests.mice import two_mice

SMALL = {"patch_size": 4, "patch_stride": 3, "n_blocks": 2, "n_heads": 2, "embed_dim": 8}
SMALL |= {"mlp_dim": 4, "max_epochs": 1, "batch_size": 16, "random_state": 0, "device": "cpu"}


class Looking(v1.nn.Core):
    """Its class token attends to a blob that goes where the last two columns of behaviour say."""

    patch = 2

    def __init__(self, input_shape, width=1.0):
        super().__init__(input_shape)
        channels, height, self_width = self.input_shape
        self.grid = (height // self.patch, self_width // self.patch)
        self.output_shape = (2, *self.grid)
        self.mix = torch.nn.Conv2d(channels, 2, self.patch, self.patch)
        self.width = width

    def forward(self, images, behaviors=None, sizes=None):
        return self.mix(images)

    def attention_by_block(self, images, behaviors=None, sizes=None):
        rows, columns = (torch.arange(n, dtype=images.dtype) for n in self.grid)
        x = (self.grid[1] - 1) / 2 + behaviors[:, -2, None, None]
        y = (self.grid[0] - 1) / 2 + behaviors[:, -1, None, None]
        away = (columns - x) ** 2 + (rows[:, None] - y) ** 2  # (B, h', w')
        blob = torch.exp(-away / 2 / self.width**2).flatten(1)
        n_tokens = 1 + blob.shape[1]
        weights = images.new_full((len(images), 1, n_tokens, n_tokens), 1 / n_tokens)
        weights[:, 0, 0, 0] = 0
        weights[:, 0, 0, 1:] = blob / blob.sum(1, keepdim=True)
        yield weights


@pytest.fixture(scope="session")
def trials():
    """Mice A and B, 30 trials for training and 16 for tests, images of 12 x 16 pixels."""
    return v1.Trials(two_mice(n_trials=33))


@pytest.fixture(scope="session")
def fit(trials):
    """Fit small V1T models, each once; not to be changed."""
    made = {}

    def get(kind=v1.V1TRegressor, **params):
        key = (kind, *sorted(params.items()))
        if key not in made:
            made[key] = kind(**SMALL | params).fit(trials.sel(tier="train"))
        return made[key]

    return get


@pytest.fixture(scope="session")
def looking(trials):
    """A model whose attention follows the eye by construction."""
    settings = {"max_epochs": 1, "batch_size": 16, "random_state": 0, "device": "cpu"}
    settings |= {"behavior_mode": "core", "behavior_columns": "all"}
    model = v1.EncodingRegressor(core=Looking, **settings)
    return model.fit(trials.sel(tier="train"))
