"""Processes that share the steps of a run: gradients, and what they tell each other."""

import pytest

from tests.processes import alone, torchrun

# One step of gradient descent at a rate of 1, so that weights change by the gradient.
STEP = """
    from tests.training import loop_runs, models
    from v1tlearn.training import (
        ConstantSchedule, PoissonObjective, Run, TrainingSettings, initial_rng, join, new_state,
        train,
    )

    kind, joint = sys.argv[2], sys.argv[3] == "joint"
    if kind == "cnn":
        model = loop_runs.make_model()
    else:
        model = models.make_model(lambda: getattr(models, kind)(0.0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    data = loop_runs.make_data(trials={"A": 7, "b.2": 7})
    settings = TrainingSettings(batch_size=7, max_epochs=1, joint=joint)
    ranks = join()
    state = train(
        Run(
            model, PoissonObjective(loop_runs.mean_rate_score), optimizer, ConstantSchedule(), data,
            settings, new_state(initial_rng(1)), ranks, validation=loop_runs.make_data(9),
        )
    )
    record = {k: v for k, v in state["history"][0].items() if k != "seconds"}
    weights = state["model"]
    tell(
        size=ranks.size,
        record=record,
        gradients={name: (before[name] - weights[name]).flatten().tolist() for name in before},
        buffers={
            name: b.double().flatten().tolist() for name, b in model.named_buffers()
        },
        rng=state["rng"]["cpu"].tolist(),
    )
"""


def assert_alike(one, other, tolerance):
    """Compare vectors by the largest difference, over the largest value of all of a kind."""
    assert one.keys() == other.keys()
    largest = max(abs(value) for values in other.values() for value in values)
    for name in one:
        for first, second in zip(one[name], other[name], strict=True):
            assert abs(first - second) <= tolerance * largest, name


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize(
    ("kind", "passes"),
    [("cnn", "joint"), ("cnn", "per mouse"), ("Transformer", "joint"), ("ConvCore", "joint")],
)
def test_the_gradient_of_a_step_is_that_of_one_process(kind, passes, n, tmp_path):
    told = torchrun(STEP, n, tmp_path, kind, passes)
    one = alone(STEP, tmp_path, kind, passes)
    assert one["size"] == 1
    for process in told:
        assert process["size"] == n
        assert_alike(process["gradients"], one["gradients"], 1e-6)
        assert process["buffers"].keys() == one["buffers"].keys()
        for name, values in one["buffers"].items():
            assert process["buffers"][name] == pytest.approx(values, rel=1e-5, abs=1e-6), name
        assert process["record"] == pytest.approx(one["record"], rel=1e-5, abs=1e-6)
        assert process["rng"] == one["rng"]  # what follows is drawn as in one process
    assert all(process == told[0] for process in told)
