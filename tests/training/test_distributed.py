"""Processes that share the steps of a run: gradients, statistics, random numbers."""

import pytest

from tests.processes import alone, torchrun

# One step of gradient descent at a rate of 1, so that weights change by the gradient.
STEPS = """
    from tests.training import loop_runs, models, test_contrastive
    from v1tlearn.training import (
        ConstantSchedule, ContrastiveObjective, PoissonObjective, Run, TrainingSettings,
        initial_rng, join, new_state, train,
    )

    def step(model, objective=None, data=None, **settings):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        data = data or loop_runs.make_data(trials={"A": 7, "b.2": 7})
        settings = TrainingSettings(**{"batch_size": 7, "max_epochs": 1} | settings)
        state = train(
            Run(
                model, objective or PoissonObjective(), optimizer, ConstantSchedule(), data,
                settings, new_state(initial_rng(1)), join(),
            )
        )
        record, weights = state["history"][0], state["model"]
        return {
            "gradients": {n: (before[n] - weights[n]).flatten().tolist() for n in before},
            "buffers": {n: b.double().flatten().tolist() for n, b in model.named_buffers()},
            "record": {name: record[name] for name in ("loss", "penalty", "lr")},
            "rng": state["rng"]["cpu"].tolist(),
        }

    def without_dropout(core):
        return models.make_model(lambda: getattr(models, core)(0.0))

    tell(
        size=join().size,
        **{
            "CNN": step(loop_runs.make_model()),
            "CNN, mouse by mouse": step(loop_runs.make_model(), joint=False),
            "mean over what was recorded": step(
                loop_runs.make_model(), PoissonObjective(loss_scale="per_recorded")),
            "transformer": step(without_dropout("Transformer")),
            "transformer with dropout": step(models.make_model(models.Transformer)),
            "transformer in parts, computed again": step(
                models.make_model(models.Transformer), micro_batch_size=3,
                checkpoint_activations=True),
            "core of one's own": step(without_dropout("ConvCore")),
            "alignment": step(
                test_contrastive.make_model(dropout=0.3), ContrastiveObjective((1.0, 0.5, 0.5)),
                test_contrastive.make_data(), batch_size=24),
        },
    )
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return alone(STEPS, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module", params=[2, 4])
def several(request, tmp_path_factory):
    return torchrun(STEPS, request.param, tmp_path_factory.mktemp("several"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "CNN",
        "CNN, mouse by mouse",
        "mean over what was recorded",
        "transformer",
        "transformer with dropout",
        "transformer in parts, computed again",
        "core of one's own",
        "alignment",
    ],
)
def test_a_step_is_that_of_one_process(kind, one, several):
    assert [process["size"] for process in several] == [len(several)] * len(several)
    assert one["size"] == 1
    expected = one[kind]
    largest = max(abs(value) for values in expected["gradients"].values() for value in values)
    for process in several:
        found = process[kind]
        for name, values in expected["gradients"].items():
            assert found["gradients"][name] == pytest.approx(values, rel=0, abs=1e-6 * largest)
        for name, values in expected["buffers"].items():
            assert found["buffers"][name] == pytest.approx(values, rel=1e-5, abs=1e-6)
        assert found["record"] == pytest.approx(expected["record"], rel=1e-6)
        assert found["rng"] == expected["rng"]  # what follows is drawn as in one process
    assert all(process[kind] == several[0][kind] for process in several)


@pytest.mark.slow
def test_dropout_of_parts_is_that_of_the_whole_batch(one):
    whole, parts = (
        one[f"transformer {how}"]["gradients"]
        for how in ("with dropout", "in parts, computed again")
    )
    for name, values in whole.items():
        assert parts[name] == pytest.approx(values, rel=1e-4, abs=1e-5)
    assert whole != one["transformer"]["gradients"]


SENT = """
    import torch.distributed as dist
    from tests.training import loop_runs, models
    from v1tlearn.training import (
        ConstantSchedule, PoissonObjective, Run, TrainingSettings, initial_rng, join, new_state,
        train,
    )

    sent = []

    def counted(operation):
        def counting(values, *args, **kwargs):
            sent.append(values.nbytes)
            return operation(values, *args, **kwargs)
        return counting

    ranks = join()
    dist.all_reduce, dist.broadcast = counted(dist.all_reduce), counted(dist.broadcast)

    def count(n_steps, make):
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        data = loop_runs.make_data(trials={"A": 4 * n_steps, "b.2": 4 * n_steps})
        sent.clear()
        train(Run(
            model, PoissonObjective(), optimizer, ConstantSchedule(), data,
            TrainingSettings(batch_size=4, max_epochs=1), new_state(initial_rng(1)), ranks))
        return [len(sent), sum(sent)]

    def transformer():
        return models.make_model(models.Transformer)

    tell(
        transformer=[count(n, transformer) for n in (3, 8)],
        CNN=[count(n, loop_runs.make_model) for n in (3, 8)],
        trained=sum(p.nbytes for p in transformer().parameters()),
        CNN_trained=sum(p.nbytes for p in loop_runs.make_model().parameters()),
        losses=8 * 2)
"""


@pytest.mark.slow
def test_a_step_sends_its_gradient_at_once_and_nothing_else(tmp_path):
    for told in torchrun(SENT, 2, tmp_path):
        (few, fewer_bytes), (many, bytes_) = told["transformer"]
        assert many - few == 5
        # beside it, once per epoch, the losses of all steps and mice
        assert bytes_ - fewer_bytes == 5 * (told["trained"] + told["losses"] / 2)
        # and with batch normalisation mean and variance of its 2 layers of 4 channels, both ways
        (few, fewer_bytes), (many, bytes_) = told["CNN"]
        assert many - few == 5 * (1 + 2 * 2)
        assert bytes_ - fewer_bytes < 5 * (told["CNN_trained"] + 2 * (3 * 4 * 8 * 2) + 16)
