"""The whole alignment: maps of all mice, scaled responses, and the steps of the published code."""

import numpy as np
import pytest
import torch

from tests.nn.towers.published_towers import (
    assert_agrees,
    image_tower,
    images_of,
    load,
    load_weights,
    neural_tower,
    own_image,
    own_neural,
    under,
)
from v1tlearn import nn
from v1tlearn.training import ContrastiveObjective, make_optimizers

READOUTS = ("published", "stated")


def published_model(arrays, readout, dtype, **options):
    """Both towers of a fixture, with the weights they begin with."""
    core = image_tower(arrays, readout, **options)
    load_weights(core, under(arrays, "start/image/"), own_image)
    weights = under(arrays, "start/neural/")
    tower = neural_tower(arrays, weights, int(arrays["neural_heads"]))
    load_weights(tower, weights, own_neural)
    cropper = nn.ImageCropper(arrays["image"].shape[-2:])
    return nn.AlignmentModel(core, {"mouse": tower}, cropper=cropper).to(dtype)


def step(model, objective, inputs, targets):
    losses = objective.loss(model, inputs, targets, {}, {})
    total = objective.penalty(model, inputs) + losses["mouse"].minimised
    total.backward()
    return losses["mouse"]


def assert_first_gradients_agree(parameters, first, not_determined, single, name):
    """As in single precision everywhere, but for the one that 7 digits do not determine."""
    if single and name == "published joint":
        return  # other orders of summation move it by up to 5e-5, as do other instructions
    largest = max(np.abs(g).max() for g in first.values())
    for one, reference in first.items():
        difference = np.abs(parameters[one].grad.double().numpy() - reference).max()
        loose = single or one in not_determined
        limit = 1e-5 * largest if loose else 1e-6 * np.abs(reference).max()
        assert difference < limit, one


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["joint", "released"])
@pytest.mark.parametrize("readout", READOUTS)
def test_three_steps_are_those_of_the_published_code(readout, kind, dtype):
    arrays, name = load(f"three_steps_{readout}"), f"{readout} {kind}"
    model = published_model(arrays, readout, dtype, backbone_trained=kind == "joint")
    model.train()
    inputs = {"mouse": nn.MouseBatch(images_of(arrays, dtype))}
    targets = {"mouse": (torch.from_numpy(arrays["s"]).to(dtype), None)}
    optimizers, objective = make_optimizers(model), ContrastiveObjective()
    known = under(arrays, f"{kind}/")
    names = {f"image/{n}": f"core.{own_image(n)}" for n in under(arrays, "start/image/")}
    names |= {f"neural/{n}": f"readouts.0.{own_neural(n)}" for n in under(arrays, "start/neural/")}
    single, losses = dtype == torch.float32, []
    first = under(known, "first_gradient/")
    parameters = {n: dict(model.named_parameters())[names[n]] for n in first}
    assert len(first) == sum(p.requires_grad for p in parameters.values())
    fixed = {n: np.abs(g) <= 1e-6 * np.abs(g).max() for n, g in first.items()}
    fixed |= {n: np.ones(first[n].shape, bool) for n in known["not_determined"]}
    begun = {n: p.detach().clone() for n, p in parameters.items()}
    for number in range(4):
        found = step(model, objective, inputs, targets)
        losses.append(found.summed.item() / found.count)
        if number == 0:
            own = {n for n, p in model.named_parameters() if p.grad is not None}
            assert own == {names[n] for n in first}
            assert_first_gradients_agree(parameters, first, known["not_determined"], single, name)
        if number < 3:
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        for one, parameter in parameters.items() if single else ():
            # no gradient but rounding noise, which an optimiser makes into steps of full size
            parameter.data[torch.from_numpy(fixed[one])] = begun[one][torch.from_numpy(fixed[one])]
    assert losses == pytest.approx(known["loss"].tolist(), rel=1e-4 if single else 1e-6)
    state = model.state_dict()
    for one, reference in under(known, "after/").items():
        if one not in known["not_determined"]:
            kept = ~fixed.get(one, np.zeros(reference.shape, bool))
            value = state[names[one]].double().numpy()
            assert_agrees(value[kept], reference[kept], 1e-3 if single else 1e-6)
    model.eval()
    with torch.no_grad():
        maps = model(inputs)["mouse"], model.encode_responses("mouse", *targets["mouse"])
    for own, of in zip(maps, ("image", "neural"), strict=True):
        assert_agrees(own, known[f"eval_map_{of}"], 1e-3 if single else 1e-6)


def test_scaled_responses():
    low, high, mean = (
        torch.tensor([0.0, 1.0, 2.0]),
        torch.tensor([2.0, 1.0, 4.0]),
        torch.ones(3) * 3,
    )
    responses = torch.tensor([[1.0, 5.0, 5.0], [3.0, 1.0, 0.0]])
    scaler = nn.ResponseScaler(low, high, mean)
    assert scaler(responses).tolist() == [[0.5, 0.0, 1.5], [1.5, 0.0, -1.0]]
    clipping = nn.ResponseScaler(low, high, mean, clip=True)
    assert clipping(responses).tolist() == [[0.5, 0.0, 1.0], [1.0, 0.0, 0.0]]
    recorded = torch.tensor([[True, True, False], [False, True, True]])
    assert scaler(responses, recorded).tolist() == [[0.5, 0.0, 0.5], [1.5, 0.0, -1.0]]


def make_model(**options):
    core = nn.CNNTower((1, 8, 10), (2, 4, 5), hidden_channels=3, n_layers=2, input_kernel=3)
    towers = {
        m: nn.MLPTower(n, (2, 4, 5), grid=(2, 3), hidden_units=(4,), hidden_channels=2)
        for m, n in {"A": 6, "b.2": 3}.items()
    }
    return nn.AlignmentModel(core, towers, cropper=nn.ImageCropper((8, 10)), **options)


def test_mice_share_images_and_have_responses_of_their_own():
    model, images = make_model(), torch.rand(5, 1, 8, 10)
    maps = model({"A": nn.MouseBatch(images[:3]), "b.2": nn.MouseBatch(images)})
    assert torch.allclose(maps["A"], maps["b.2"][:3], atol=1e-6)
    assert model.encode_images(images).shape == (5, 2, 4, 5)
    assert model.encode_responses("b.2", torch.rand(2, 3)).shape == (2, 2, 4, 5)
    with pytest.raises(ValueError, match=r"mouse 'C' is unknown; this model has \['A', 'b.2'\]"):
        model.encode_responses("C", torch.rand(2, 3))


def test_a_temperature_is_learned_where_asked_and_not_below_a_hundredth():
    assert not make_model().log_temperature.requires_grad
    assert make_model(temperature=0.07).temperature.item() == pytest.approx(0.07)
    learned = make_model(temperature=0.07, learn_temperature=True)
    assert learned.log_temperature.requires_grad
    with torch.no_grad():
        learned.log_temperature.fill_(-20.0)
    assert learned.temperature.item() == pytest.approx(0.01)


def test_towers_that_do_not_fit_are_refused():
    core = nn.CNNTower((1, 8, 10), (2, 4, 5), n_layers=1)
    tower, cropper = nn.MLPTower(3, (2, 4, 4)), nn.ImageCropper((8, 10))
    with pytest.raises(ValueError, match="at least one mouse"):
        nn.AlignmentModel(core, {}, cropper=cropper)
    with pytest.raises(ValueError, match=r"mouse 'A'.*\(2, 4, 4\).*\(2, 4, 5\)"):
        nn.AlignmentModel(core, {"A": tower}, cropper=cropper)
    scaler = nn.ResponseScaler(torch.zeros(3), torch.ones(3), torch.zeros(3))
    tower = nn.MLPTower(3, (2, 4, 5))
    with pytest.raises(ValueError, match=r"scalers came for the mice \['B'\]"):
        nn.AlignmentModel(core, {"A": tower}, cropper=cropper, scalers={"B": scaler})
