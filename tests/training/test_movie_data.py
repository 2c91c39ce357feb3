"""Windows of movies: each frame counts once, with all that its prediction depends on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.host_reads import HostReads
from v1tlearn import nn
from v1tlearn.training import MouseData, MovieData, PoissonObjective, cut_into_windows
from v1tlearn.training.data import step_batches
from v1tlearn.training.sources import HostArray

LENGTHS = np.array([9, 4, 12])


def frames_of(n_frames, *, missing=False, source=False):
    """Frames whose pixels tell their place, with responses that do so, too."""
    total = int(np.sum(n_frames))
    images = np.arange(total, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), "f4")
    responses = np.arange(total, dtype=np.float32)[:, None] + np.array([[0.0, 0.5]], "f4")
    if missing:
        responses[3:5, 1] = np.nan
    wrap = HostArray if source else torch.from_numpy
    return MouseData(
        wrap(images),
        behaviors=torch.arange(total, dtype=torch.float32)[:, None],
        responses=wrap(responses),
        complete=not missing,
        scale_trials=total,
    )


def windows_of(n_frames, context, window, **options):
    data = {"A": frames_of(n_frames, **options)}
    return cut_into_windows(data, {"A": np.asarray(n_frames)}, context, window)["A"]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(1, 12),
)
def test_each_frame_counts_once_with_its_context(n_frames, before, after, window):
    longest = max(n_frames)
    if window > longest:
        with pytest.raises(ValueError, match=f"mouse 'A': window_frames is {window}, but"):
            windows_of(n_frames, (before, after), window)
        return
    if after and min(n_frames) < min(longest, before + after + window):
        with pytest.raises(ValueError, match=r"mouse 'A': a movie has .* causal=True"):
            windows_of(n_frames, (before, after), window)
        return
    cut = windows_of(n_frames, (before, after), window)
    ends = np.cumsum(n_frames)
    counts = np.zeros(ends[-1], int)
    for frames, counted in zip(cut.frames.numpy(), cut.counted.numpy(), strict=True):
        movie = int(np.searchsorted(ends, frames[0], side="right"))
        first, last = ends[movie] - n_frames[movie], ends[movie] - 1
        there = frames[np.r_[True, np.diff(frames) == 1]]
        assert (there == np.arange(there[0], there[0] + len(there))).all()  # successive frames
        assert first <= there[0]  # of one movie
        assert there[-1] <= last
        for frame in frames[counted]:
            counts[frame] += 1
            assert max(first, frame - before) >= there[0]
            assert min(last, frame + after) <= there[-1]
    assert (counts == 1).all()


@pytest.mark.parametrize(("before", "window"), [(8, 3), (9, 10), (20, 4), (30, 10)])
def test_mice_whose_movies_have_other_lengths_are_cut_alike(before, window):
    lengths = {"A": np.array([10, 10]), "B": np.array([16, 12])}
    data = {mouse: frames_of(own) for mouse, own in lengths.items()}
    cut = cut_into_windows(data, lengths, (before, 0), window)
    assert len({own.frames.shape[1] for own in cut.values()}) == 1
    for mouse, own in cut.items():
        counted = own.frames[own.counted].tolist()
        assert sorted(counted) == list(range(lengths[mouse].sum()))
        for frames, counts in zip(own.frames, own.counted, strict=True):
            first = 0 if frames[0] < lengths[mouse][0] else lengths[mouse][0]
            for frame in frames[counts].tolist():
                assert frames[0] <= max(first, frame - before)


def test_windows_that_cannot_go_on_through_a_longer_movie_are_refused():
    lengths = {"A": np.array([10]), "B": np.array([16])}
    data = {mouse: frames_of(own) for mouse, own in lengths.items()}
    with pytest.raises(ValueError, match=r"\{'A': 10, 'B': 16\} frames.* depends on 12 .*causal"):
        cut_into_windows(data, lengths, (6, 6), 4)


def test_batches_and_targets_are_those_of_the_frames():
    cut = windows_of(LENGTHS, (2, 0), 3, missing=True)
    rows = torch.tensor([4, 0])
    batch, (responses, recorded) = cut.batch(rows), cut.targets(rows)
    assert batch.images.shape == (2, 5, 1, 2, 2)
    assert batch.n_frames == 5
    places = batch.images[:, :, 0, 0, 0].long()
    assert torch.equal(places, cut.frames[rows])
    assert torch.equal(batch.behaviors[..., 0].long(), places)
    known = (places >= 3) & (places < 5)
    assert torch.equal(recorded[..., 0], cut.counted[rows])
    assert torch.equal(recorded[..., 1], cut.counted[rows] & ~known)
    assert torch.equal(responses[..., 0].long(), places)
    assert (responses[..., 1][known] == 0).all()


def test_windows_are_read_from_a_source_as_from_the_device():
    cuts = [windows_of(LENGTHS, (2, 0), 3, missing=True, source=s) for s in (False, True)]
    steps = [{"A": torch.tensor([3, 1])}, {"A": slice(2, 5)}]
    one, other = ([*step_batches({"A": cut}, steps)] for cut in cuts)
    for (inputs, targets), (again, known) in zip(one, other, strict=True):
        assert torch.equal(inputs["A"].images, again["A"].images)
        for a, b in zip(targets["A"], known["A"], strict=True):
            assert torch.equal(a, b)


def test_the_loss_of_windows_is_that_of_whole_movies():
    """Value and gradient: the context makes them exact, and its own frames do not count."""
    torch.manual_seed(0)
    readout = nn.KernelReadout((1, 4, 5), 3, 6)
    core = nn.FramesCore((1, 4, 5))
    model = nn.EncodingModel(core, {"A": readout}, cropper=nn.ImageCropper((4, 5))).double()
    images, responses = torch.randn(25, 1, 4, 5), torch.rand(25, 3)
    data = MouseData(images, responses=responses, scale_trials=25)
    objective = PoissonObjective(loss_scale=1.0)
    cut = cut_into_windows({"A": data}, {"A": LENGTHS}, model.context_frames, 4)["A"]
    found = []
    every = torch.arange(len(cut))
    batch = {"A": nn.MouseBatch(cut.batch(every).images.double())}
    targets = {"A": cut.targets(every)}
    loss = objective.loss(model, batch, targets, {"A": cut}, {"A": len(cut)})["A"]
    assert int(loss.count) == 25 * 3
    found.append((loss.minimised, torch.autograd.grad(loss.minimised, readout.space)[0]))
    total = 0
    for own, seen in zip(
        responses.split(LENGTHS.tolist()), images.split(LENGTHS.tolist()), strict=1
    ):
        rates = model({"A": nn.MouseBatch(seen[None].double())})["A"][0]
        total = total + objective.loss_of_mouse(rates, own.double())
    found.append((total, torch.autograd.grad(total, readout.space)[0]))
    torch.testing.assert_close(found[0], found[1])


def test_the_loss_scale_counts_frames():
    data = windows_of(np.array([20]), (0, 0), 5)
    assert isinstance(data, MovieData)
    objective = PoissonObjective()
    n_windows = 2
    assert objective.scale(data, n_windows * data.n_counted) == pytest.approx((20 / 10) ** 0.5)


def test_a_step_does_not_wait_for_the_device_to_know_its_loss_scale():
    core, readout = nn.FramesCore((1, 2, 2)), nn.KernelReadout((1, 2, 2), 2, 3)
    model = nn.EncodingModel(core, {"A": readout}, cropper=nn.ImageCropper((2, 2)))
    cut = windows_of(LENGTHS, (2, 0), 3)
    objective, rows = PoissonObjective(), torch.tensor([3, 1])

    def step():
        inputs, targets = {"A": cut.batch(rows)}, {"A": cut.targets(rows)}
        objective.loss(model, inputs, targets, {"A": cut}, {"A": 2})

    step()  # the first may
    with HostReads() as reads:
        step()
    assert reads.count == 0
