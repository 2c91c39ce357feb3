"""The neural towers, against the numbers of the published code."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.nn.towers.published_towers import (
    NEURAL,
    assert_agrees,
    assert_gradients_agree,
    load,
    load_weights,
    neural_tower,
    own_neural,
    under,
)
from v1tlearn import nn

DTYPES = (torch.float64, torch.float32)
TOWERS = ("neural_tower_1head", "neural_tower_2heads", "neural_tower_one_stimulus")
WAYS = ("plain", "auto")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TOWERS)
def test_neural_towers_agree_with_the_published_one(name, dtype, way):
    arrays, tolerance = load(name), 1e-6 if dtype == torch.float64 else 1e-4
    weights = under(arrays, "w/")
    tower = load_weights(neural_tower(arrays, weights, int(arrays["heads"])), weights, own_neural)
    responses = torch.from_numpy(arrays["s"]).to(dtype).requires_grad_()
    with nn.fast.using(way, parts=1e-5):
        tower.to(dtype)
        assert_agrees(tower.read(responses), arrays["unembedded"], tolerance)
        maps = tower(responses)
        assert_agrees(maps, arrays["upsampled"], tolerance)
        scaled = nn.scale_maps(maps)
        assert_agrees(scaled, arrays["map"], 1e-6 if dtype == torch.float64 else 1e-3)
        (scaled * torch.from_numpy(arrays["cotangent"])).sum().backward()
    assert_agrees(tower.embed(responses), arrays["embedded"], tolerance)
    assert_agrees(tower.attention_weights(responses), arrays["attention"], tolerance)
    known = under(arrays, "grad/")
    assert_gradients_agree(tower, known, own_neural, dtype, arrays["zero_gradient"])
    assert_agrees(responses.grad, known["s"], 1e-6 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_the_masking_curve_is_that_of_the_predecessor(way):
    arrays = load("masking_predecessor")
    weights = under(arrays, "w/")
    tower = nn.AttentionTower(30, (1, 6, 6), grid=(6, 6), embed_dim=2, hidden_units=())
    weights["embedding.bias"] = weights["embedding.bias"] + arrays["positional"]
    names = {"ff1.weight": "to_map.0.weight", "ff1.bias": "to_map.0.bias"}
    load_weights(tower, weights, lambda name: names.get(name) or own_neural(name)).double()
    responses = torch.from_numpy(arrays["s"]).double()
    with torch.no_grad(), nn.fast.using(way):
        key_weights = tower.key_weights(responses)
        assert_agrees(key_weights, arrays["key_weight"], 1e-6)
        assert_agrees(tower.read(responses), arrays["unmasked_unembedded"], 1e-6)
        for i, threshold in enumerate(arrays["thresholds"]):
            for j, keep in enumerate((key_weights > threshold, key_weights < threshold)):
                assert keep.sum(-1).numpy().tolist() == arrays["kept"][i, j].tolist()
                read = arrays["masked_unembedded"][i, j]
                assert_agrees(tower.read(responses, keep), read, 1e-6)
                maps = tower(responses, keep)[:, 0]
                assert_agrees(maps, arrays["masked"][i, j], 1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_the_masking_curve_of_maps_is_that_of_the_published_tower(way):
    arrays = load("masking_map")
    weights = under(arrays, "w/")
    tower = load_weights(neural_tower(arrays, weights, 1), weights, own_neural).double()
    responses = torch.from_numpy(arrays["s"]).double()
    with torch.no_grad(), nn.fast.using(way):
        assert_agrees(nn.scale_maps(tower(responses))[:, 0], arrays["unmasked"], 1e-6)
        key_weights = tower.key_weights(responses)
        for i, threshold in enumerate(arrays["thresholds"]):
            for j, keep in enumerate((key_weights > threshold, key_weights < threshold)):
                maps = nn.scale_maps(tower(responses, keep))[:, 0]
                assert_agrees(maps, arrays["masked"][i, j], 1e-6)


def make_tower(n_neurons, n_heads=1, seed=0, **options):
    torch.manual_seed(seed)
    options = {"grid": (2, 3), "embed_dim": 8, "hidden_units": (5,)} | options
    return nn.AttentionTower(n_neurons, (1, 4, 6), n_heads=n_heads, **options)


@pytest.fixture(autouse=True)
def _generator_as_found():
    with torch.random.fork_rng(devices=[]):
        yield


def test_attention_rows_sum_to_one_and_keeping_all_changes_nothing():
    tower, responses = make_tower(17, n_heads=2), torch.rand(3, 17)
    rows = tower.attention_weights(responses).sum(-1)
    assert torch.allclose(rows, torch.ones_like(rows), atol=1e-6)
    all_kept = torch.ones(3, 2, 17, dtype=torch.bool)
    assert torch.allclose(tower(responses), tower(responses, all_kept), atol=1e-6)
    none_kept = tower.read(responses, ~all_kept)
    constant = tower.reader @ tower.projection.bias + tower.reader_bias
    assert torch.allclose(none_kept, constant.expand(3, -1), atol=1e-6)


@pytest.mark.parametrize("n_heads", [1, 2])
def test_what_is_gathered_block_by_block_is_what_all_weights_give(n_heads):
    tower, responses = make_tower(23, n_heads).double(), torch.rand(5, 23).double()
    weights = tower.attention_weights(responses).detach()
    keep = torch.rand(4, 5, n_heads, 23) > 0.4
    with torch.no_grad(), nn.fast.using("auto", parts=1e-4):
        assert torch.allclose(tower.key_weights(responses), weights.mean(2), atol=1e-12)
        blocks = list(tower.mean_attention(responses))
        assert [rows.start for rows, _ in blocks] == sorted(rows.start for rows, _ in blocks)
        rows = torch.cat([part for _, part in blocks], 1)
        assert torch.allclose(rows, weights.mean(0), atol=1e-12)
        apart = torch.stack([tower.read(responses, one) for one in keep])
        assert torch.allclose(tower.read_subsets(responses, keep), apart, atol=1e-12)
        assert torch.equal(tower.maps_of(tower.read(responses)), tower(responses))
    with nn.plain():
        assert torch.allclose(tower.read_subsets(responses, keep), apart, atol=1e-12)


class Largest(TorchDispatchMode):
    """Notes how many values the largest tensor has that is made within it."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() // 4 for x in tree_leaves(out) if torch.is_tensor(x)]
        self.values = max([self.values, *sizes])
        return out


def test_weights_of_many_neurons_are_never_there_at_once():
    n = 1500
    tower, responses = make_tower(n, embed_dim=4), torch.rand(2, n)
    with torch.no_grad(), Largest() as largest:
        tower.key_weights(responses)
        tower.read_subsets(responses, torch.rand(5, 2, 1, n) > 0.5)
        for _, rows in tower.mean_attention(responses):
            assert rows.shape[1] < n / 10
    assert largest.values < n**2 / 5  # weights of a fifth of the neurons, in one trial


def test_trials_do_not_depend_on_their_batch():
    tower, responses = make_tower(40), torch.rand(9, 40)
    together = tower(responses)
    assert torch.allclose(tower(responses.flip(0)).flip(0), together, atol=1e-6)
    apart = torch.cat([tower(one) for one in responses.split(2)])
    assert torch.allclose(apart, together, atol=1e-6)


def test_the_tower_of_the_paper_has_its_parameters():
    tower = nn.AttentionTower(150)
    assert sum(p.numel() for p in tower.parameters()) == 2_770_838
    assert set(NEURAL.values()) <= {n.removesuffix(".weight") for n, _ in tower.named_parameters()}


def test_a_fully_connected_tower_trains_every_parameter():
    tower = nn.MLPTower(11, (3, 8, 12), grid=(4, 6), hidden_units=(7, 6), hidden_channels=4)
    maps = tower(torch.rand(5, 11))
    assert maps.shape == (5, 3, 8, 12)
    maps.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tower.parameters())
    assert tower.penalty().item() == 0
    assert sum(p.numel() for g in tower.groups() for p in g["params"]) == sum(
        p.numel() for p in tower.parameters()
    )


def test_what_cannot_be_attended_to_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        nn.AttentionTower(1)
    with pytest.raises(ValueError, match="expected a multiple"):
        nn.AttentionTower(3, embed_dim=8, n_heads=3)
    with pytest.raises(NotImplementedError, match="what it computes"):
        nn.NeuralTower(3, (1, 2, 2))(np.zeros((1, 3)))
