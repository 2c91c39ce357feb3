"""Minimodels of many neurons at once, against published values and plain modules of one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.minimodel_files import images_of
from tests.nn.minimodels import FILES, NAMES, array_of, load, model_of, random_readout
from v1tlearn import nn
from v1tlearn.nn import fast

WAYS = ("auto", "plain")


def near(found, expected, tolerance):
    found = np.asarray(found.detach() if torch.is_tensor(found) else found, dtype=np.float64)
    expected = np.asarray(expected, dtype=np.float64).reshape(found.shape)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < tolerance, error


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_two_published_minimodels_in_one(precision, how):
    files = load(*FILES)
    prefix, activity, others = ("f64/", 1e-10, 1e-10)
    if precision == "float32":
        prefix, activity, others = ("", 1e-5, 1e-4)
    model = model_of(files, getattr(torch, precision))
    readout, rows = model.readout("mouse"), files[0]["batch_index"]
    images = images_of(files[0]["images"], precision)[rows]
    responses = np.concatenate([file["responses"] for file in files], 1)
    responses = torch.from_numpy(responses).to(images.dtype)[rows]
    near(model.encode("mouse", images), files[0]["layer0/conv"], 1e-5)
    with fast.using(how):
        for mode in ("eval", "train"):
            model.train(mode == "train")
            rates = model({"mouse": nn.MouseBatch(images)})["mouse"]
            losses = nn.poisson_loss(rates, responses, eps=1e-12, per_neuron=True)
            penalty = readout.penalty()
            for i, file in enumerate(files):
                near(rates[:, i], file[f"{prefix}{mode}/prediction"], activity)
            total = sum(float(file[f"{prefix}{mode}/loss"]) for file in files)
            near((losses.sum() + penalty)[None], [total], activity)
        (losses.sum() + penalty).backward()
    for name, p in readout.named_parameters():
        for i, file in enumerate(files):
            near(p.grad[i], file[f"{prefix}grad/{NAMES[name]}"], others)
    for name, b in readout.named_buffers():
        known = array_of(files, f"{prefix}running_after_one_training_pass/", name, b)
        near(b, known, others)


def published(readout, images_maps, neuron, training):
    """One minimodel as it is written down: normalisation, ReLU and pooling in this order."""
    own = readout.selected(torch.tensor([neuron]))
    statistics = (own.first_mean[0].clone(), own.first_variance[0].clone())
    x = F.batch_norm(
        images_maps,
        *statistics,
        own.first_gain[0],
        own.first_offset[0],
        training,
        own.momentum,
        1e-5,
    )
    x = F.relu(x)
    x = F.max_pool2d(x, own.pool) if own.pool > 1 else x
    x = F.conv2d(x, own.mixing[0][:, :, None, None])
    x = F.conv2d(x, own.filters[0][:, None], padding=own.padding, groups=own.filters.shape[1])
    again = (own.second_mean[0].clone(), own.second_variance[0].clone())
    x = F.relu(
        F.batch_norm(x, *again, own.second_gain[0], own.second_offset[0], training, own.momentum)
    )
    r = own.reading
    seen = torch.einsum("bkyx,ry,rx,rk->b", x, r.rows[0], r.columns[0], r.channels[0])
    return seen + r.bias[0], own, (*statistics, *again)


@given(
    sides=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    kernel=st.integers(1, 5),
    pool=st.sampled_from([1, 2, 3]),
    rank=st.integers(1, 2),
    sizes=st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    how=st.sampled_from(WAYS),
    parts=st.sampled_from([1e-6, 1e-4, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_many_at_once_are_each_as_it_is_written_down(
    sides, kernel, pool, rank, sizes, how, parts, seed
):
    n_images, n_neurons, n_inputs, n_hidden = sizes
    if min(side // pool + 2 * (kernel // 2) - kernel + 1 for side in sides) < 1:
        return
    readout = random_readout(
        (n_inputs, *sides),
        n_neurons,
        seed,
        hidden_channels=n_hidden,
        hidden_kernel=kernel,
        pool=pool,
        batch_norm_momentum=0.3,
        factorized={"rank": rank},
    )
    maps = torch.randn(n_images, n_inputs, *sides, dtype=torch.float64)
    weights = torch.randn(n_images, n_neurons, dtype=torch.float64)
    with fast.using(how, parts=parts):
        evaluated = readout.eval()(maps)
        for i in range(n_neurons):
            one = published(readout, maps, i, training=False)[0]
            torch.testing.assert_close(evaluated[:, i], one, rtol=1e-9, atol=1e-9)
        known = [published(readout, maps, i, training=True) for i in range(n_neurons)]
        outputs = readout.train()(maps)
        (outputs * weights).sum().backward()
    for i, (one, own, statistics) in enumerate(known):
        torch.testing.assert_close(outputs[:, i], one, rtol=1e-9, atol=1e-9)
        (one * weights[:, i]).sum().backward()
        for (name, p), single in zip(readout.named_parameters(), own.parameters(), strict=True):
            size = 1 + single.grad.abs().max()
            assert (p.grad[i] - single.grad[0]).abs().max() < 1e-9 * size, name
        for name, value in zip(
            ("first_mean", "first_variance", "second_mean", "second_variance"),
            statistics,
            strict=True,
        ):
            torch.testing.assert_close(getattr(readout, name)[i], value, rtol=1e-9, atol=1e-9)


def test_statistics_of_images_are_those_of_the_batch():
    maps = 5 + torch.randn(4, 3, 7, 9, dtype=torch.float64) * torch.arange(1, 4)[:, None, None]
    pooled = nn.pool_maps(maps, 2).rows(torch.tensor([3, 0, 2]))
    mean, variance = pooled.statistics()
    torch.testing.assert_close(mean, maps[[3, 0, 2]].mean((0, 2, 3)))
    expected = maps[[3, 0, 2]].var((0, 2, 3), correction=0)
    torch.testing.assert_close(variance, expected)
    assert pooled.n_values == 63
    assert pooled.largest.shape == pooled.smallest.shape == (3, 3, 3, 4)


def test_maps_far_from_zero_keep_their_variance():
    """In float32, second-layer maps whose mean is a thousand times their spread."""
    readout = random_readout((2, 9, 9), 2, hidden_channels=3, hidden_kernel=1, pool=1)
    with torch.no_grad():
        readout.first_offset.fill_(3000.0)
    maps = torch.randn(6, 2, 9, 9, dtype=torch.float64)
    exact = readout.train()(maps)
    rounded = readout.float()(maps.float())
    assert (rounded - exact).abs().max() < 2e-3 * exact.abs().max()


def test_gradients_for_images_pass_through_in_training_and_evaluation():
    readout = random_readout((1, 4, 6), 2, hidden_channels=2, hidden_kernel=3)
    maps = torch.randn(2, 1, 4, 6, dtype=torch.float64, requires_grad=True)
    for training in (False, True):
        readout.train(training)
        assert torch.autograd.gradcheck(lambda x: readout(x), (maps,))


def test_second_derivatives_are_refused_by_the_quick_form_and_there_in_the_plain_one():
    readout = random_readout((2, 6, 6), 1, hidden_channels=2, hidden_kernel=3).train()
    maps = torch.randn(3, 2, 6, 6, dtype=torch.float64)

    def first(create_graph):
        out = readout(maps).square().sum()
        return torch.autograd.grad(out, readout.mixing, create_graph=create_graph)[0]

    with pytest.raises(RuntimeError):
        torch.autograd.grad(first(True).sum(), readout.filters)
    with nn.plain():
        assert torch.autograd.grad(first(True).sum(), readout.filters)[0].any()


def test_neurons_can_be_taken_out_and_put_back():
    readout = random_readout((2, 8, 8), 4, hidden_channels=3, hidden_kernel=3).eval()
    maps = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    before = readout(maps).detach()
    some = readout.selected(torch.tensor([3, 1]))
    torch.testing.assert_close(some(maps), before[:, [3, 1]])
    assert some.n_neurons == 2
    with torch.no_grad():
        for values in some.state_dict().values():
            values += 0.25
    assert torch.equal(readout(maps), before)  # they were copies
    readout.put_(torch.tensor([3, 1]), some)
    torch.testing.assert_close(readout(maps)[:, [3, 1]], some(maps))
    assert torch.equal(readout(maps)[:, [0, 2]], before[:, [0, 2]])


def test_penalties_groups_and_constraint_are_those_of_factorised_readouts():
    options = {"channel_hoyer": 0.03, "space_weight_decay": 1.0, "channel_weight_decay": 0.2}
    readout = random_readout((2, 8, 8), 3, hidden_channels=4, hidden_kernel=3, factorized=options)
    channels = readout.reading.channels.detach()
    expected = 0.03 * nn.hoyer_square(channels.flatten(1)).sum()
    torch.testing.assert_close(readout.penalty().detach(), expected)
    decays = {
        id(p): group.get("weight_decay") for group in readout.groups() for p in group["params"]
    }
    told = {name: decays[id(p)] for name, p in readout.named_parameters()}
    assert told["reading.rows"] == told["reading.columns"] == 1.0
    assert told["reading.channels"] == 0.2
    assert told["reading.bias"] == 0.0
    assert told["mixing"] is told["first_gain"] is told["second_offset"] is None
    readout.project_()
    assert (readout.reading.rows >= 0).all()
    assert (readout.reading.columns >= 0).all()


def test_silent_neurons_stay_silent():
    readout = random_readout((2, 8, 8), 3, hidden_channels=4, hidden_kernel=3).eval()
    readout.silence_(torch.tensor([1]))
    rates = nn.elu_plus_one(readout(torch.randn(5, 2, 8, 8, dtype=torch.float64)))
    torch.testing.assert_close(rates[:, 1], torch.full((5,), 1e-3, dtype=torch.float64))
    assert rates[:, 0].std() > 0


def test_wrong_shapes_and_shifts_are_refused():
    readout = nn.MinimodelReadout((2, 8, 8), 3, hidden_channels=4, hidden_kernel=3)
    with pytest.raises(ValueError, match=r"feature maps of shape \(2, 8, 8\), got \(1, 8, 8\)"):
        readout(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="do not move"):
        readout(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="too small to be pooled over 2 x 2"):
        nn.MinimodelReadout((2, 1, 8), 3)
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\), got \(1, 8, 9\)"):
        nn.FirstConvolution((1, 8, 8), kernel=3)(torch.zeros(1, 1, 8, 9))
