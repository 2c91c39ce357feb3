"""The training loop against a plain retelling, its speed, and its devices."""

import copy
import dataclasses
import math
import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.host_reads import HostReads
from tests.training.loop_runs import (
    CPU,
    TRIALS,
    assert_same,
    make_data,
    make_model,
    mean_rate_score,
    run,
)
from v1tlearn import nn
from v1tlearn.training import (
    MouseData,
    PoissonObjective,
    TrainingSettings,
    initial_rng,
    isolated_rng,
    predict_mouse,
)
from v1tlearn.training.data import epoch_batches
from v1tlearn.training.sources import HostArray

EPS = torch.finfo(torch.float32).eps


# -------------------------------------------------------------------------------- the loss


def test_published_loss_scale():
    data, objective = MouseData(torch.zeros(1, 1, 2, 2), scale_trials=4490), PoissonObjective()
    assert objective.scale(data, 16) == pytest.approx(16.75, abs=0.005)
    assert objective.scale(data, 10) == pytest.approx(math.sqrt(449))  # a short batch counts more
    assert PoissonObjective(loss_scale=2).scale(data, 16) == 2.0


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("loss_scale", ["sqrt", 0.5])
def test_weights_after_training_are_those_of_a_plain_loop(joint, loss_scale):
    model, data = make_model(), make_data()
    trained, state = run(
        2,
        model=copy.deepcopy(model),
        validation=False,
        optimizer=torch.optim.SGD,
        lr=1e-3,
        joint=joint,
        loss_scale=loss_scale,
    )
    # not Adam, which makes steps of the float noise in gradients that are zero in truth
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    table = []
    with isolated_rng(initial_rng(1), CPU):
        for _ in range(2):
            total_loss, count, penalties = 0.0, 0, []
            for rows in epoch_batches(TRIALS, 4, CPU):
                optimizer.zero_grad()
                batches = {
                    m: nn.MouseBatch(
                        (d.images[rows[m]].float() - 120) / 60,
                        d.behaviors[rows[m]],
                        d.pupil[rows[m]],
                    )
                    for m, d in data.items()
                }
                predictions = (
                    model(batches)
                    if joint
                    else {m: model({m: batch})[m] for m, batch in batches.items()}
                )
                loss, penalty = 0.0, (1 if joint else 2) * model.core.penalty()
                for mouse, d in data.items():
                    penalty = penalty + 0.0076 * model.readout(mouse).features.abs().sum()
                    rate, response = predictions[mouse] + EPS, d.responses[rows[mouse]]
                    known = ~response.isnan()
                    terms = rate[known] - (response[known] + EPS) * rate[known].log()
                    scale = loss_scale
                    if loss_scale == "sqrt":
                        scale = math.sqrt(TRIALS[mouse] / len(response))
                    loss = loss + scale * terms.sum()
                    total_loss, count = total_loss + terms.sum().item(), count + terms.numel()
                (loss + penalty).backward()
                optimizer.step()
                penalties.append(penalty.item())
            table.append((total_loss / count, np.mean(penalties)))
    for (name, one), other in zip(
        trained.state_dict().items(), model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)
    history = [(r["loss"], r["penalty"]) for r in state["history"]]
    np.testing.assert_allclose(history, table, rtol=1e-5)


def test_loss_and_score_of_validation():
    model, data = make_model().eval(), make_data()
    settings = TrainingSettings(batch_size=3, max_epochs=1)
    seen = []

    def score(predictions, responses, recorded):
        seen.append((predictions, responses, recorded))
        return torch.tensor(float(len(seen)))

    record = PoissonObjective(score).score(model, data, settings)
    assert record["validation_correlation"] == 1.5  # mean over mice
    neurons = [d.responses.shape[1] for d in data.values()]
    scores = iter(torch.tensor([1.0, 2.0]))
    known = PoissonObjective(lambda *_: next(scores))
    by_neurons = known.score(model, data, settings, "neurons")
    expected = (1 * neurons[0] + 2 * neurons[1]) / sum(neurons)
    assert by_neurons["validation_correlation"] == pytest.approx(expected)
    loss, count = 0.0, 0
    for (predictions, responses, recorded), (mouse, d) in zip(seen, data.items(), strict=True):
        batch = d.batch(slice(None))
        torch.testing.assert_close(predictions, model({mouse: batch})[mouse].detach())
        assert responses is not None
        assert (recorded is None) == d.complete
        rate = predictions.double() + EPS
        terms = rate - (responses.double() + EPS) * rate.log()
        terms = terms if recorded is None else terms[recorded]
        loss, count = loss + terms.sum().item(), count + terms.numel()
    assert record["validation_loss"] == pytest.approx(loss / count, rel=1e-5)


@pytest.mark.parametrize("size", [1, 4, 50])
def test_streamed_trials_are_read_ahead_in_validation(size):
    class Watched(HostArray):
        def read(self, rows, out):
            read.append((threading.current_thread() is threading.main_thread(), len(rows)))
            super().read(rows, out)

    model, data, read = make_model().eval(), make_data(), []
    streamed = {
        mouse: dataclasses.replace(
            d, images=Watched(d.images.numpy()), responses=Watched(d.responses.numpy())
        )
        for mouse, d in data.items()
    }
    settings = TrainingSettings(batch_size=3, max_epochs=1, prediction_batch_size=size)
    objective = PoissonObjective(mean_rate_score)
    first, second = (objective.score(model, d, settings) for d in (data, streamed))
    assert first == second
    assert not any(in_main for in_main, _ in read)
    assert sum(n for _, n in read) == 2 * sum(TRIALS.values())  # images and responses, once
    assert max(n for _, n in read) <= size


def test_prediction_does_not_depend_on_the_batch_size():
    model, data = make_model().eval(), make_data()
    whole = predict_mouse(model, "A", data["A"], 100, "float32")
    assert whole.shape == (11, 4)
    assert not whole.requires_grad
    for size in (1, 4, 11):
        parts = predict_mouse(model, "A", data["A"], size, "float32")
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------------- speed


class Lists(TorchFunctionMode):
    """Counts tensors that are made lists of numbers, which wait for the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.Tensor.tolist
        return func(*args, **(kwargs or {}))


def vit_core(**rates):
    return nn.ViTCore(
        (1, 8, 10),
        patch_size=4,
        n_blocks=1,
        n_heads=2,
        embed_dim=6,
        mlp_dim=5,
        behavior_mode="b_mlp_per_mouse",
        n_behaviors=2,
        mice=tuple(TRIALS),
        **rates,
    )


def vit_core_without_dropout():
    """Dropout on the CPU, and nowhere else, takes a seed on the host; CUDA has tests of its own."""
    return vit_core(patch_dropout=0.0, attention_dropout=0.0, mlp_dropout=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("core", [None, vit_core_without_dropout])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_host_reads_per_epoch_do_not_depend_on_the_number_of_steps(core, joint, optimizer):
    # torch imports more of itself at a process's first step, and reads tensors meanwhile
    run(1, model=make_model(), optimizer=partial(optimizer, fused=True))
    counts = []
    for batch_size in (12, 4, 1):  # 1, 3 and 11 steps
        with Lists() as lists, HostReads() as reads:
            run(
                2,
                model=make_model(core=core and core()),
                optimizer=partial(optimizer, fused=True),
                joint=joint,
                batch_size=batch_size,
            )
        counts.append((reads.count, lists.count))
    assert counts[0] == counts[1] == counts[2]
    assert counts[0][1] == 2 * 2  # per epoch one for training, one for validation


# ------------------------------------------------------------------------------------ devices


@pytest.mark.gpu
@pytest.mark.parametrize("core", [None, vit_core])
def test_training_on_cuda_in_bfloat16(core):
    device = torch.device("cuda")
    results = []
    for _ in range(2):
        model = make_model(core=core and core()).to(device)
        before = torch.cuda.get_rng_state()
        _, state = run(
            3,
            model=model,
            data=make_data(device=device),
            precision="bfloat16",
            deterministic=True,
        )
        assert torch.equal(torch.cuda.get_rng_state(), before)
        assert all(p.dtype == torch.float32 and p.is_cuda for p in model.parameters())
        assert all(math.isfinite(r["validation_loss"]) for r in state["history"])
        results.append(model.state_dict())
    assert_same(*results)


def test_training_under_bfloat16_autocast_stays_near_float32():
    exact, _ = run(2, validation=False)
    rough, state = run(2, validation=False, precision="bfloat16")
    assert all(p.dtype == torch.float32 for p in rough.parameters())
    assert all(math.isfinite(r["loss"]) for r in state["history"])
    one, other = (predict_mouse(m, "A", make_data()["A"], 99, "float32") for m in (exact, rough))
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.9
