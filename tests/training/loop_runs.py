"""Small models, trials and training runs for tests of the loop."""

import torch

from v1tlearn import nn
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    PoissonObjective,
    Run,
    TrainingSettings,
    initial_rng,
    new_state,
    train,
)

CPU = torch.device("cpu")
TRIALS, NEURONS = {"A": 11, "b.2": 7}, {"A": 4, "b.2": 3}


def make_data(seed=0, trials=TRIALS, device=CPU, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    data = {}
    for mouse, n in trials.items():
        responses = -torch.rand(n, NEURONS[mouse], generator=generator).log()
        recorded = torch.rand(n, NEURONS[mouse], generator=generator) > 0.2
        data[mouse] = MouseData(
            torch.randint(0, 256, (n, 1, 8, 10), generator=generator).to(device, dtype),
            image_mean=120.0,
            image_std=60.0,
            behaviors=torch.randn(n, 2, generator=generator).to(device),
            pupil=torch.randn(n, 2, generator=generator).to(device),
            responses=torch.where(recorded | (mouse != "A"), responses, torch.nan).to(device),
            complete=mouse != "A",
            scale_trials=n,
        )
    return data


def make_model(seed=0, core=None):
    torch.manual_seed(seed)
    core = core or nn.Stacked2dCore(
        (3, 8, 10), n_layers=2, hidden_channels=4, input_kernel=3, hidden_kernel=3
    )
    return nn.EncodingModel(
        core,
        {m: nn.GaussianReadout(core.output_shape, n) for m, n in NEURONS.items()},
        cropper=nn.ImageCropper((8, 10)),
        shifters={"A": nn.Shifter()},
        behavior_channels=core.input_shape[0] == 3,
    )


def mean_rate_score(predictions, responses, recorded):
    """Some score on the device that depends on the weights."""
    return -(predictions - responses).square().mean()


def make_run(
    max_epochs=3,
    *,
    schedule=None,
    model=None,
    state=None,
    data=None,
    validation=True,
    score=mean_rate_score,
    optimizer=torch.optim.Adam,
    lr=0.02,
    average=None,
    loss_scale="sqrt",
    **settings,
):
    """A run of a small model, by default a new one from a state that is always the same."""
    model = make_model() if model is None else model
    state = new_state(initial_rng(1)) if state is None else state
    data = make_data() if data is None else data
    device = next(iter(data.values())).images.device
    schedule = ConstantSchedule() if schedule is None else schedule
    settings = TrainingSettings(**{"batch_size": 4, "max_epochs": max_epochs} | settings)
    return Run(
        model,
        PoissonObjective(score, loss_scale=loss_scale),
        optimizer(model.parameters(), lr=lr),
        schedule,
        data,
        settings,
        state,
        validation=make_data(9, device=device) if validation else None,
        average=average,
    )


def run(*args, on_epoch=None, **options):
    made = make_run(*args, **options)
    return made.model, train(made, on_epoch)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, msg=name)
