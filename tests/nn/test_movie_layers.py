"""Layers, cores and readouts that see time: against loops, in parts, and never ahead."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from v1tlearn import nn

SHAPE = (2, 12, 10)


def core(**changes):
    torch.manual_seed(0)
    options = {"n_layers": 2, "hidden_channels": 3, "input_kernel": 5, "hidden_kernel": 3}
    options |= {"input_time_kernel": 5, "hidden_time_kernel": 3}
    made = nn.MovieCNNCore(SHAPE, **(options | changes)).double()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after some training
            module.running_mean.normal_()
            module.bias.data.normal_()
    return made.eval()


def movie(n_frames=20, seed=1, n=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n_frames, *SHAPE, generator=generator, dtype=torch.float64)


def test_layers_of_several_widths_are_those_of_one_where_these_are_equal():
    x = movie(8)
    one, listed = core(hidden_channels=3), core(hidden_channels=[3, 3])
    torch.testing.assert_close(listed(x), one(x), rtol=0, atol=0)
    wider = core(hidden_channels=(3, 5), recurrent=True)
    assert wider(x).shape[2] == wider.output_shape[0] == 5


@pytest.mark.parametrize("channels", [(3,), (3, 3, 3), (3, 0), (3, 2.5)])
def test_widths_of_other_layers_are_refused(channels):
    with pytest.raises(ValueError, match=r"hidden_channels=.* of n_layers=2: expected one whole"):
        core(hidden_channels=channels)


@pytest.mark.parametrize("causal", [True, False])
def test_convolution_in_time_is_that_of_loops(causal):
    torch.manual_seed(0)
    layer = nn.TemporalConvolution(2, 3, causal=causal).double()
    x = movie(6)
    wanted = torch.zeros_like(x)
    for t in range(6):
        for tap in range(3):
            frame = t - 2 + tap if causal else t - 1 + tap
            if 0 <= frame < 6:
                weight = layer.weight[:, :, tap, 0]
                wanted[:, t] += torch.einsum("oi,bihw->bohw", weight, x[:, frame])
    torch.testing.assert_close(layer(x), wanted)


def test_the_memory_is_that_of_its_definition():
    torch.manual_seed(0)
    layer = nn.ConvGRU(2, 3).double()
    x = movie(4)
    h = torch.zeros_like(x[:, 0])
    for t, out in enumerate(layer(x).unbind(1)):
        z, r, n = layer.of_input(x[:, t]).chunk(3, 1)
        of_z, of_r = layer.of_gates(h).chunk(2, 1)
        z, r = torch.sigmoid(z + of_z), torch.sigmoid(r + of_r)
        h = z * h + (1 - z) * torch.tanh(n + layer.of_memory(r * h))
        torch.testing.assert_close(out, h)


@pytest.mark.parametrize("separable", [True, False])
def test_kernels_are_applied_as_loops_do(separable):
    torch.manual_seed(0)
    readout = nn.KernelReadout(SHAPE, 3, 4, separable=separable, bias_init=[0.1, 0.2, 0.3]).double()
    x = movie(7)
    kernels = readout.kernels()
    assert kernels.shape == (3, 4, *SHAPE)
    wanted = torch.zeros(2, 7, 3, dtype=torch.float64) + readout.bias.detach()
    for t in range(7):
        for lag in range(min(4, t + 1)):
            wanted[:, t] += torch.einsum("nchw,bchw->bn", kernels[:, lag], x[:, t - lag])
    found = readout.through_time(readout(x.flatten(0, 1)).unflatten(0, (2, 7)))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("separable", [True, False])
def test_the_penalty_of_kernels_is_that_of_loops(separable):
    torch.manual_seed(0)
    readout = nn.KernelReadout(
        SHAPE, 2, 3, separable=separable, space_smoothness=2.0, time_smoothness=3.0, l2=5.0
    ).double()
    space = readout.space.detach().numpy() / np.sqrt(readout.space[0].numel())
    wanted = 5.0 * (space**2).sum()
    _, _, _, height, width = space.shape
    for place in np.ndindex(space.shape):
        *which, y, x = place
        value = 0.0
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < height and 0 <= u < width
            value += space[place] - (space[(*which, v, u)] if inside else 0)
        wanted += 2.0 * value**2
    if separable:
        time = readout.time.detach().numpy() / np.sqrt(3)
        wanted += 5.0 * (time**2).sum() + 3.0 * (np.diff(time, axis=1) ** 2).sum()
    else:
        wanted += 3.0 * (np.diff(space, axis=1) ** 2).sum()
    assert readout.penalty().item() == pytest.approx(wanted)


def test_a_filter_behind_a_readout_is_that_of_scipy():
    torch.manual_seed(0)
    inner = nn.FactorizedReadout(SHAPE, 3, bias_init=[0.5, -1.0, 2.0])
    readout = nn.TemporalReadout(inner, 4).double()
    frames = movie(9)
    one = inner(frames.flatten(0, 1)).unflatten(0, (2, 9))
    found = readout.through_time(readout(frames.flatten(0, 1)).unflatten(0, (2, 9)))
    torch.testing.assert_close(found, one)  # it begins with the present frame alone
    torch.nn.init.normal_(readout.weight)
    found = readout.through_time(one).detach().numpy()
    bias, series = inner.bias.detach().numpy(), one.detach().numpy()
    for neuron, weight in enumerate(readout.weight.detach().numpy()):
        wanted = lfilter(weight, 1.0, series[..., neuron] - bias[neuron], axis=1)
        np.testing.assert_allclose(found[..., neuron], wanted + bias[neuron], rtol=1e-10)


CAUSAL = [core(), core(recurrent=True), core(input_time_kernel=1, hidden_time_kernel=1)]


@pytest.mark.parametrize("made", CAUSAL, ids=["convolutions", "recurrent", "frame by frame"])
@pytest.mark.parametrize("part", [1, 7])
def test_movies_in_parts_give_what_whole_ones_do(made, part):
    x, past = movie(), nn.Past()
    whole = made(x)
    assert whole.shape == (2, 20, *made.output_shape)
    parts = torch.cat([made(some, past=past) for some in x.split(part, 1)], 1)
    torch.testing.assert_close(parts, whole)


def test_readouts_take_movies_in_parts():
    torch.manual_seed(0)
    for readout in (
        nn.KernelReadout(SHAPE, 3, 5),
        nn.KernelReadout(SHAPE, 3, 5, separable=False),
        nn.TemporalReadout(nn.FactorizedReadout(SHAPE, 3), 5),
        nn.KernelReadout(SHAPE, 3, 1),
    ):
        readout.double()
        frames = readout(movie().flatten(0, 1)).unflatten(0, (2, 20))
        past = nn.Past()
        parts = [readout.through_time(some, past) for some in frames.split(3, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), readout.through_time(frames))


def looks_ahead(made):
    """Whether outputs up to a frame change with what comes after it, in any bit."""
    x = movie()
    other = x.clone()
    other[:, 11:] = movie(seed=2)[:, 11:]
    return not torch.equal(made(x)[:, :11], made(other)[:, :11])


def test_causal_cores_never_look_ahead_and_symmetric_ones_do():
    assert not looks_ahead(core())
    assert not looks_ahead(core(recurrent=True))
    assert looks_ahead(core(causal=False))


@pytest.mark.parametrize("causal", [True, False])
def test_the_context_is_all_that_outputs_depend_on_and_no_more(causal):
    made = core(causal=causal)
    before, after = made.context_frames
    assert (before, after) == ((6, 0) if causal else (3, 3))
    x = movie(30)
    whole, start, stop = made(x), 5, 25
    part = made(x[:, start:stop])
    torch.testing.assert_close(
        part[:, before : stop - start - after], whole[:, start + before : stop - after]
    )
    assert not torch.allclose(part[:, before - 1], whole[:, start + before - 1])


def test_a_memory_counts_from_when_it_was_told_to():
    assert core(recurrent=True, memory_frames=9).context_frames == (15, 0)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"symmetric kernel of 4 frames: expected .* odd"):
        core(causal=False, input_time_kernel=4)
    with pytest.raises(ValueError, match="looks back alone: set causal=True"):
        core(causal=False, recurrent=True)
    with pytest.raises(ValueError, match=r"looks 2 frames ahead, .* hand over whole movies"):
        core(causal=False)(movie(), past=nn.Past())
    with pytest.raises(ValueError, match=r"movies of frames of shape \(2, 12, 10\), got \(4, 2"):
        core()(movie()[0, :4])
    with pytest.raises(ValueError, match="hidden_kernel must be odd, got 4"):
        core(hidden_kernel=4)
    with pytest.raises(ValueError, match=r"input_kernel=11 does not fit into frames of 12 x 10"):
        core(input_kernel=11)


def test_filters_of_any_height_and_width_see_movies_of_one_row():
    made = nn.MovieCNNCore((1, 1, 31), n_layers=2, input_kernel=(1, 9), hidden_kernel=1)
    assert made.output_shape == (32, 1, 23)
    assert made(torch.zeros(2, 3, 1, 1, 31)).shape == (2, 3, 32, 1, 23)


def model(**changes):
    made = core(**changes)
    readout = nn.TemporalReadout(nn.FactorizedReadout(made.output_shape, 3), 4).double()
    return nn.EncodingModel(made, {"A": readout}, cropper=nn.ImageCropper(SHAPE[1:])).eval()


def test_a_model_depends_on_the_context_of_core_and_readout_together():
    made = model()
    assert made.context_frames == (9, 0)
    frames = nn.EncodingModel(
        nn.Stacked2dCore(SHAPE, n_layers=1, hidden_channels=2, input_kernel=3),
        {"A": nn.FactorizedReadout((2, 10, 8), 3)},
        cropper=nn.ImageCropper(SHAPE[1:]),
    )
    assert frames.context_frames is None
    movies = movie().float()  # frame by frame, with a time axis all the same
    one = frames.eval()({"A": nn.MouseBatch(movies)})["A"]
    other = frames({"A": nn.MouseBatch(movies.flatten(0, 1))})["A"]
    torch.testing.assert_close(one.flatten(0, 1), other)


def test_a_model_that_sees_time_refuses_images():
    with pytest.raises(ValueError, match="this model sees time: give movies"):
        model()({"A": nn.MouseBatch(movie()[0])})
    with pytest.raises(ValueError, match="this model sees time: give movies"):
        model().encode("A", movie()[0])
    with pytest.raises(ValueError, match="this model sees time: give movies"):
        model().respond("A", torch.zeros(2, *model().core.output_shape))
