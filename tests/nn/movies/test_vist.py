"""The whole network of Vi-ST: published numbers, causality, streaming, ablations."""

import numpy as np
import pytest
import torch

from tests.nn.movies.published_vist import (
    assert_gradients_agree,
    load,
    relative_error,
    tensors,
    under,
)
from v1tlearn import nn
from v1tlearn.nn.movies.published import published_name

DTYPES = (torch.float64, torch.float32)
MODELS = ("model_causal", "model_symmetric", "model_one_item")
each = pytest.mark.parametrize


def small(causal=True, **options):
    torch.manual_seed(0)
    sizes = {"grid": 7, "n_layers": 3, "channels": 6, "kernels": ((1, 9), (1, 3, 5))}
    model = nn.ViST(4, 3, causal=causal, **{**sizes, **options})
    if model.modulation is not None:
        torch.nn.init.normal_(model.modulation.condition.weight)
    return model.eval()


def inputs(n_frames=40, n_items=2):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(n_items, n_frames, 49, 4, generator=generator)
    return features, torch.rand(3, 7, 7, generator=generator)


def published_model(arrays, dtype):
    return nn.vist_from_published(
        tensors(under(arrays, "w/"), dtype), causal=bool(arrays["causal"]), dropout=0.0
    )


@each("dtype", DTYPES)
@each("way", ["auto", "plain"])
@each("mode", ["train", "eval"])
@each("name", MODELS)
def test_whole_networks_agree_with_the_published_one(name, mode, way, dtype):
    arrays = load(name)
    model = published_model(arrays, dtype).train(mode == "train")
    assert sum(p.numel() for p in model.parameters()) == arrays["parameters"]
    assert len(model.layers) == arrays["layers"]
    assert model.grid == arrays["grid"]
    x, rf = (torch.from_numpy(arrays[k]).to(dtype).requires_grad_() for k in ("x", "rf"))
    case, tolerance = under(arrays, f"{mode}/"), 1e-6 if dtype == torch.float64 else 1e-4
    with nn.fast.using(way):
        y = model(x, rf).transpose(1, 2)
        (y * torch.from_numpy(arrays["cotangent"])).sum().backward()
    assert relative_error(y, case["y"]) < tolerance
    n_blocks = len(model.blocks)
    found = {published_name(n, n_blocks): p.grad for n, p in model.named_parameters()}
    found |= {"rf": rf.grad}
    if mode == "train":
        found |= {"x_item0": x.grad[0]}
    known = {n: g.reshape(found[n].shape) for n, g in under(case, "grad/").items()}
    assert_gradients_agree(found, known, dtype, case["zero_gradient"])
    own = {published_name(n, n_blocks): value for n, value in model.state_dict().items()}
    for statistic, value in under(case, "after/").items():
        assert relative_error(own[statistic], value) < tolerance


@each("name", MODELS)
def test_published_states_load_with_the_names_that_checkpoints_have(name):
    arrays = load(name)
    model, state = (
        published_model(arrays, torch.float32),
        tensors(under(arrays, "w/"), torch.float32),
    )
    if arrays["causal"]:  # then the names tell, too
        state = {_causal(n): value for n, value in state.items()}
    found = nn.vist_from_published({f"net.{n}": v for n, v in state.items()})
    features, rf = (torch.from_numpy(arrays[k]).float() for k in ("x", "rf"))
    with torch.no_grad():
        assert torch.equal(found(features, rf), model(features, rf))
    assert (found.context_frames[1] == 0) is bool(arrays["causal"])


def _causal(name):
    """Name of a branch as it is in the saved state of a causal network."""
    head, embed, rest = name.partition(".embed.")
    if not embed:
        return name
    number, _, kind = rest.split(".")
    return f"{head}.embed.{number}.0.conv.{kind}"


def test_states_that_do_not_fit_are_refused():
    state = tensors(under(load("model_causal"), "w/"), torch.float32)

    def refused(match, **changes):
        changed = {**state, **changes}
        changed = {n: v for n, v in changed.items() if v is not None}
        with pytest.raises(ValueError, match=match):
            nn.vist_from_published(changed, causal=True)

    refused("no array 'stage1.conv_out.bias'", **{"stage1.conv_out.bias": None})
    refused("no place for: \\['other'\\], 1 in all", other=torch.zeros(2))
    refused("the rest of the network asks for", **{"adaln.net.1.bias": torch.zeros(7)})
    refused("'msb_5.bias' holds NaN", **{"msb_5.bias": torch.full((4,), np.nan)})
    refused("no array 'msb_5.weight'", **{n: None for n in state if n.startswith("msb_")})
    causal = {_causal(n): v for n, v in state.items()}
    with pytest.raises(ValueError, match="as causal ones are"):
        nn.vist_from_published(causal, causal=False)


def test_the_network_of_the_paper_has_its_size_and_reach():
    with torch.device("meta"):
        model = nn.ViST(1024, 90)
    assert sum(p.numel() for p in model.parameters()) == 1_702_952
    assert model.context_frames == (182, 0)


@each("way", ["auto", "plain"])
def test_frames_to_come_change_nothing_bit_for_bit_and_do_in_a_symmetric_network(way):
    features, fields = inputs()
    changed = features.clone()
    changed[:, 15:] = torch.randn(changed[:, 15:].shape)
    for causal in (True, False):
        model = small(causal)
        with nn.fast.using(way), torch.no_grad():
            same = model(changed, fields)[:, :15] == model(features, fields)[:, :15]
        assert bool(same.all()) is causal


def test_dilated_layers_and_blocks_can_look_ahead_each_for_itself():
    assert small((True, False)).context_frames == (14 + 4 + 2, 4 + 2)
    assert small((False, True)).context_frames == (7 + 12, 7)


@each("way", ["auto", "plain"])
@each("lengths", [(40,), (1, 2, 37), (13, 13, 13, 1), (1,) * 40])
def test_a_movie_in_parts_gives_what_the_whole_one_does(lengths, way):
    features, fields = inputs()
    model = small()
    with nn.fast.using(way), torch.no_grad():
        whole = model(features, fields)
        parts = list(model.stream(features.split(lengths, 1), fields))
    assert [part.shape[1] for part in parts] == list(lengths)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-6)


def test_streams_of_earlier_frames_keep_what_layers_look_back_and_no_more():
    model, past = small(), nn.Past()
    fields = inputs()[1]
    held = []
    with torch.no_grad():
        for _ in range(5):
            model(inputs(30, 1)[0], fields, past)
            held.append(sum(frames.numel() for frames in past._frames.values()))
    assert len(set(held)) == 1
    expected = sum(
        layer.context_frames[0] * layer.in_channels * side**2
        for layer, side in [(m.convolution, 7) for m in model.layers]
        + [(b, side) for m, side in zip(model.blocks, (7, 5), strict=True) for b in m.branches]
    )
    assert held[0] == expected


def test_streams_are_refused_where_they_would_be_wrong():
    features, fields = inputs()
    with pytest.raises(ValueError, match=r"call `eval\(\)` before"):
        next(small().train().stream([features], fields))
    with pytest.raises(ValueError, match="looks 13 frames ahead"):
        next(small(False).stream([features], fields))
    with pytest.raises(ValueError, match="symmetric kernel looks"):
        small(False)(features, fields, nn.Past())
    with pytest.raises(ValueError, match=r"hand over a new Past\(\)"):
        list(small().stream([features, features[:1]], fields))


def test_ablations_are_parameters():
    features, fields = inputs()
    for options in (
        {"n_layers": 0},
        {"kernels": ()},
        {"kernels": ((9,), (5,))},
        {"causal": False},
        {"condition": "per_cell"},
        {"condition": "none"},
        {"condition": "video"},
    ):
        model = small(**options)
        given = fields if model.takes_fields else None
        responses = model(features, given)
        assert responses.shape == (2, 40, 3)
        responses.square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters()), options
        with pytest.raises(ValueError, match="receptive fields"):
            model(features, None if given is fields else fields)


def test_fields_may_differ_from_item_to_item():
    features, fields = inputs()
    model = small()
    torch.testing.assert_close(
        model(features, torch.stack((fields, 2 * fields)))[1], model(features, 2 * fields)[1]
    )


def test_patches_are_those_of_each_frame_row_by_row():
    movies = torch.arange(2 * 3 * 2 * 6 * 9).view(2, 3, 2, 6, 9)
    patches = nn.frame_patches(movies, 3)
    assert patches.shape == (2, 3, 9, 2 * 2 * 3)
    for row in range(3):
        for column in range(3):
            cut = movies[1, 2, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
            assert torch.equal(patches[1, 2, 3 * row + column], cut.flatten())
    with pytest.raises(ValueError, match="that 4 patches can share"):
        nn.frame_patches(movies, 4)


def test_networks_say_what_they_need():
    with pytest.raises(ValueError, match="expected at least 9 x 9"):
        nn.ViST(4, 3, grid=8)
    with pytest.raises(ValueError, match="condition='rf': expected one of"):
        nn.ViST(4, 3, condition="rf")
    features, fields = inputs()
    with pytest.raises(ValueError, match=r"expected \(items, frames, 49, 4\)"):
        small()(features[..., :3], fields)
    with pytest.raises(ValueError, match=r"receptive fields have the shape \(4, 7, 7\)"):
        small()(features, torch.rand(4, 7, 7))


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same():
    features, fields = inputs()
    model = small()
    expected = model(features, fields)
    found = model.cuda()(features.cuda(), fields.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)
