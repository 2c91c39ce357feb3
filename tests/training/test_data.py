"""Batches: who is seen how often, and what of the data reaches the model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.training import MouseData
from v1tlearn.training.data import epoch_batches, n_steps, step_batches

CPU = torch.device("cpu")


@given(
    lengths=st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 30), min_size=1),
    batch_size=st.integers(1, 12),
)
def test_an_epoch_sees_the_longest_mouse_once_and_cycles_the_others(lengths, batch_size):
    batches = epoch_batches(lengths, batch_size, CPU)
    steps = -(-max(lengths.values()) // batch_size)
    assert len(batches) == steps == n_steps(lengths, batch_size)
    for mouse, n in lengths.items():
        assert all(list(step) == list(lengths) for step in batches)
        rows = [step[mouse].tolist() for step in batches]
        per_pass = -(-n // batch_size)
        for start in range(0, steps, per_pass):
            one_pass = rows[start : start + per_pass]
            sizes = [batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0)
            assert [len(r) for r in one_pass] == sizes[: len(one_pass)]
            seen = [i for r in one_pass for i in r]
            assert len(set(seen)) == len(seen)
            if len(one_pass) == per_pass:
                assert sorted(seen) == list(range(n))


def test_every_pass_has_a_new_order():
    torch.manual_seed(0)
    rows = [step["short"].tolist() for step in epoch_batches({"long": 90, "short": 30}, 30, CPU)]
    assert len({tuple(r) for r in rows}) == 3
    assert all(sorted(r) == list(range(30)) for r in rows)


@pytest.mark.parametrize("rows", [slice(1, 4), torch.tensor([4, 0, 0])])
def test_a_batch_is_standardised_and_aligned(rows):
    images = torch.arange(5 * 6, dtype=torch.uint8).reshape(5, 1, 2, 3)
    trial = torch.arange(5.0)
    data = MouseData(
        images,
        image_mean=4.0,
        image_std=2.0,
        behaviors=trial[:, None].repeat(1, 3),
        pupil=trial[:, None].repeat(1, 2),
        responses=torch.where(trial > 1, trial, torch.nan)[:, None].repeat(1, 4),
        complete=False,
    )
    batch = data.batch(rows)
    assert batch.images.dtype == torch.float32
    torch.testing.assert_close(batch.images, (images[rows].float() - 4) / 2)
    torch.testing.assert_close(batch.behaviors, data.behaviors[rows])
    torch.testing.assert_close(batch.pupil, data.pupil[rows])
    assert batch.shifter_inputs is None
    target, recorded = data.targets(rows)
    known = (trial[rows] > 1)[:, None].repeat(1, 4)
    assert torch.equal(recorded, known)
    torch.testing.assert_close(target, torch.where(known, trial[rows, None], 0.0))
    assert len(data) == 5


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 0])])
def test_trials_may_share_the_rows_of_images(rows):
    images, shown = torch.randn(2, 1, 2, 2), torch.tensor([1, 0, 1])
    own = images.clone()
    data = MouseData(images, 0.5, 2.0, image_rows=shown)
    assert len(data) == 3
    torch.testing.assert_close(data.batch(rows).images, (own[shown[rows]] - 0.5) / 2)
    assert torch.equal(images, own)


def test_what_a_mouse_lacks_stays_none():
    data = MouseData(torch.ones(3, 1, 2, 2), responses=torch.ones(3, 2))
    batch = data.batch(slice(0, 2))
    assert batch.behaviors is batch.pupil is batch.shifter_inputs is None
    assert data.targets(slice(0, 2))[1] is None


def test_steps_are_cut_in_their_order():
    data = {
        mouse: MouseData(torch.arange(n)[:, None, None, None], responses=torch.arange(n)[:, None])
        for mouse, n in (("A", 7), ("B", 4))
    }
    assert data["A"].device == CPU
    steps = epoch_batches({m: len(d) for m, d in data.items()}, 3, CPU)
    cut = list(step_batches(data, steps))
    assert len(cut) == len(steps)
    for rows, (inputs, targets) in zip(steps, cut, strict=True):
        assert list(inputs) == list(targets) == list(rows)
        for mouse in rows:
            assert torch.equal(inputs[mouse].images.flatten(), rows[mouse].float())
            assert torch.equal(targets[mouse][0].flatten(), rows[mouse])
