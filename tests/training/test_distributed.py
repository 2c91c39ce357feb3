"""Processes that share the steps of a run: gradients, statistics, random numbers."""

import pytest

from tests.processes import alone, torchrun

# One step of gradient descent at a rate of 1, so that weights change by the gradient.
STEPS = """
    from tests.training import loop_runs, models
    from v1tlearn.training import (
        ConstantSchedule, PoissonObjective, Run, TrainingSettings, initial_rng, join, new_state,
        train,
    )

    def step(model, joint):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        data = loop_runs.make_data(trials={"A": 7, "b.2": 7})
        settings = TrainingSettings(batch_size=7, max_epochs=1, joint=joint)
        state = train(
            Run(
                model, PoissonObjective(), optimizer, ConstantSchedule(), data, settings,
                new_state(initial_rng(1)), join(),
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
            "CNN": step(loop_runs.make_model(), True),
            "CNN, mouse by mouse": step(loop_runs.make_model(), False),
            "transformer": step(without_dropout("Transformer"), True),
            "core of one's own": step(without_dropout("ConvCore"), True),
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
@pytest.mark.parametrize("kind", ["CNN", "CNN, mouse by mouse", "transformer", "core of one's own"])
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
