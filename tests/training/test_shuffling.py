"""Batches drawn from blocks: every trial once, from anywhere, and read in a row."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.training import MouseData
from v1tlearn.training.data import epoch_batches, step_batches
from v1tlearn.training.shuffling import MIXED, block_batches, steps_of_window
from v1tlearn.training.sources import HostArray

CPU = torch.device("cpu")


def drawn(n, batch_size, block):
    """Rows of an epoch of one mouse in their order."""
    return torch.cat([step["A"] for step in block_batches({"A": n}, batch_size, CPU, block)])


@given(
    lengths=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    batch_size=st.integers(1, 40),
    block=st.integers(2, 50),
    seed=st.integers(0, 99),
)
def test_every_trial_comes_once_in_batches_of_the_same_sizes(lengths, batch_size, block, seed):
    torch.manual_seed(seed)
    sizes = dict(zip("AB", lengths, strict=True))
    batches = block_batches(sizes, batch_size, CPU, block)
    plain = epoch_batches(sizes, batch_size, CPU)
    for mouse, n in sizes.items():
        assert [len(s[mouse]) for s in batches] == [len(s[mouse]) for s in plain]
        rows = torch.cat([step[mouse] for step in batches])
        for start in range(0, len(rows), n):
            counts = torch.bincount(rows[start : start + n], minlength=n)
            assert counts.max() == 1 or start + n > len(rows)
            assert len(rows[start : start + n]) < n or counts.min() == 1


def n_runs(rows):
    return 1 + int((np.diff(np.sort(rows)) != 1).sum())


@pytest.mark.parametrize(("n", "batch_size", "block"), [(3000, 16, 8), (5000, 128, 32), (40, 7, 9)])
def test_a_window_is_few_blocks(n, batch_size, block):
    window = steps_of_window(batch_size, block) * batch_size
    assert MIXED * block <= window < MIXED * block + batch_size
    torch.manual_seed(0)
    for _ in range(10):
        rows = drawn(n, batch_size, block).numpy()
        for start in range(0, n, window):
            own = rows[start : start + window]
            # whole blocks, two that are cut at its ends, and the first and last of the recording
            assert n_runs(own) <= len(own) / block + 4
    if n > 2 * window:
        assert n_runs(torch.randperm(n)[:window].numpy()) > window / 2  # as it is otherwise


def test_any_trial_comes_at_any_place_alike():
    """Positions of 1600 epochs against the uniform distribution, by a chi-squared per trial."""
    n, batch_size, block, epochs, parts = 320, 8, 4, 1600, 8
    torch.manual_seed(0)
    counts = torch.zeros(n, parts)
    for _ in range(epochs):
        order = drawn(n, batch_size, block)
        counts[order, torch.arange(n) * parts // n] += 1
    expected = epochs / parts
    chi = ((counts - expected) ** 2 / expected).sum(1)  # 7 degrees of freedom
    assert chi.mean() == pytest.approx(parts - 1, rel=0.15)
    assert chi.max() < 35  # of 320; 1e-5 of the distribution is above


def test_neighbours_share_batches_as_stated():
    """The price: trials in a row are in one batch with batch / window, not batch / n."""
    n, batch_size, block, epochs = 2048, 16, 16, 200
    window = steps_of_window(batch_size, block) * batch_size
    torch.manual_seed(0)
    together = 0
    for _ in range(epochs):
        batch_of = torch.empty(n, dtype=torch.long)
        batch_of[drawn(n, batch_size, block)] = torch.arange(n) // batch_size
        together += (batch_of[1:] == batch_of[:-1]).float().mean()
    expected = (1 - 1 / block) * (batch_size - 1) / (window - 1)
    assert together / epochs == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("batch_size", "block"), [(16, 8), (16, 32), (128, 32)])
def test_slow_changes_are_mixed_as_stated(batch_size, block):
    """What changes slowly over trials correlates within a batch as if 16 blocks were one each.

    Trials that follow each other in an epoch are of one block with (block - 1) / (window - 1), so
    that places correlate by this, and means of batches vary 1 + (batch - 1) times this more.
    """
    n, epochs = 6144, 60
    shared = (block - 1) / (steps_of_window(batch_size, block) * batch_size - 1)
    torch.manual_seed(0)
    places, spread = [], []
    for _ in range(epochs):
        order = drawn(n, batch_size, block).double()
        places.append(np.corrcoef(order[1:], order[:-1])[0, 1])
        slow = torch.sin(2 * np.pi * order / 500)
        spread.append(slow.view(-1, batch_size).mean(1).var() * batch_size / slow.var())
    assert np.mean(places) == pytest.approx(shared, abs=0.01)
    assert np.mean(spread) == pytest.approx(1 + (batch_size - 1) * shared, rel=0.12)
    assert shared < 1 / (MIXED - 0.5)


def test_the_generator_is_that_of_torch():
    orders = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        orders.append(drawn(50, 7, 5).tolist())
    assert orders[0] == orders[1] != orders[2]


class Noted(HostArray):
    """Notes the rows of each reading."""

    def __init__(self, values):
        super().__init__(values)
        self.readings = []

    def read(self, rows, out):
        self.readings.append(rows)
        super().read(rows, out)


@pytest.mark.parametrize("lengths", [(100, 100), (100, 37)])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_several_steps_are_read_at_once_and_batches_are_the_same(lengths, steps):
    rng = np.random.default_rng(0)
    resident, streamed = {}, {}
    for mouse, n in zip("AB", lengths, strict=True):
        images = rng.integers(0, 256, (n, 1, 2, 3), dtype=np.uint8)
        responses = rng.random((n, 4), dtype=np.float32)
        tensors = torch.from_numpy(images), torch.from_numpy(responses)
        resident[mouse] = MouseData(tensors[0], responses=tensors[1])
        streamed[mouse] = MouseData(
            Noted(images), responses=Noted(responses), device=CPU, read_steps=steps
        )
    torch.manual_seed(0)
    batches = block_batches(dict(zip("AB", lengths, strict=True)), 8, CPU, 5)
    pairs = zip(step_batches(resident, batches), step_batches(streamed, batches), strict=True)
    for (inputs, targets), (others, other_targets) in pairs:
        for mouse in "AB":
            assert torch.equal(inputs[mouse].images, others[mouse].images)
            assert torch.equal(targets[mouse][0], other_targets[mouse][0])
    for mouse in "AB":
        assert len(streamed[mouse].images.readings) == -(-len(batches) // steps)
        read = np.concatenate(streamed[mouse].responses.readings)
        assert read.tolist() == torch.cat([step[mouse] for step in batches]).tolist()
