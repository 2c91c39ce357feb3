"""The plain models of benchmarks/ are the models they are compared with."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import v1tlearn as v1
from v1tlearn import nn
from v1tlearn.nn import (
    EncodingModel,
    GaussianReadout,
    ImageCropper,
    MouseBatch,
    Shifter,
    Stacked2dCore,
    StimulusShifter,
    ViTCore,
)

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # no package, but scripts with siblings

import _models  # noqa: E402
import _plain  # noqa: E402
import bench_epoch  # noqa: E402

sys.path.remove(str(BENCHMARKS))

IMAGE = (16, 20)


def model_of(core, *, channels=False, gaussian="full", shift="none", free=False):
    """Two mice of different size, with and without a shifter."""
    mice = {"A": 5, "B": 3}
    return EncodingModel(
        core,
        {
            m: GaussianReadout(
                core.output_shape,
                n,
                positions=None if free else torch.rand(n, 3),
                gaussian=gaussian,
                bias_init=torch.randn(n),
            )
            for m, n in mice.items()
        },
        cropper=ImageCropper(
            IMAGE,
            shifters={"A": StimulusShifter()} if shift == "stimulus" else None,
        ),
        shifters={"A": Shifter()} if shift == "readout" else None,
        behavior_channels=channels,
    )


def batches_of(n_trials=(4, 3), n_behaviors=2, missing=False):
    inputs, targets = {}, {}
    for (mouse, neurons), n in zip({"A": 5, "B": 3}.items(), n_trials, strict=True):
        inputs[mouse] = MouseBatch(
            torch.randn(n, 1, *IMAGE), torch.randn(n, n_behaviors), torch.randn(n, 2)
        )
        recorded = torch.rand(n, neurons) > 0.3 if missing else None
        targets[mouse] = (torch.rand(n, neurons), recorded)
    return inputs, targets


def transformer(**options):
    sizes = {"n_blocks": 2, "n_heads": 2, "embed_dim": 8, "mlp_dim": 6, "patch_stride": 3}
    rates = {"patch_dropout": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0}
    return ViTCore((1, *IMAGE), **{**sizes, **rates, **options})


VIT_OPTIONS = {
    "tokenizer": st.sampled_from(["unfold", "conv", "spt", "cct", "dual_norm"]),
    "patch_size": st.integers(5, 8),
    "patch_stride": st.integers(2, 5),
    "attention": st.sampled_from(["standard", "lsa"]),
    "behavior_mode": st.sampled_from(
        ["none", "b_mlp", "b_mlp_first_block", "b_mlp_shared", "b_mlp_per_mouse"]
    ),
    "bias": st.booleans(),
    "drop_path": st.sampled_from([0.0, 0.3]),
}
CNN_OPTIONS = {
    "n_layers": st.integers(1, 3),
    "hidden_channels": st.integers(1, 6),
    "input_kernel": st.integers(1, 7),
    "hidden_kernel": st.sampled_from([1, 3, 5]),
    "depth_separable": st.booleans(),
    "linear": st.booleans(),
}
MODEL_OPTIONS = {
    "gaussian": st.sampled_from(["full", "uncorrelated", "isotropic"]),
    "shift": st.sampled_from(["none", "readout", "stimulus"]),
    "free": st.booleans(),
}


@given(st.fixed_dictionaries(VIT_OPTIONS), st.fixed_dictionaries(MODEL_OPTIONS), st.integers(0, 99))
@settings(max_examples=15)
def test_plain_transformer_predicts_the_same(options, of_model, seed):
    torch.manual_seed(seed)
    core = transformer(**options, n_behaviors=2, mice=("A", "B"))
    model = model_of(core, **of_model)
    inputs, _ = batches_of()
    assert _plain.check_same(model, _plain.plain_model(model), inputs) < 1e-5


@given(st.fixed_dictionaries(CNN_OPTIONS), st.fixed_dictionaries(MODEL_OPTIONS), st.integers(0, 99))
@settings(max_examples=15)
def test_plain_convolutions_predict_the_same(options, of_model, seed):
    torch.manual_seed(seed)
    model = model_of(Stacked2dCore((3, *IMAGE), **options), **of_model, channels=True)
    model.train()
    inputs, _ = batches_of()
    model(inputs)  # running statistics other than the initial ones
    assert _plain.check_same(model, _plain.plain_model(model), inputs) < 1e-5


@pytest.mark.parametrize("kind", ["transformer", "lsa", "convolution"])
@pytest.mark.parametrize("missing", [False, True])
def test_plain_and_our_step_take_the_same_step(kind, missing):
    torch.manual_seed(0)
    options = {"behavior_mode": "b_mlp", "n_behaviors": 2, "l1": 0.1}
    if kind == "convolution":
        core = Stacked2dCore((3, *IMAGE), hidden_channels=4, n_layers=2, laplace=0.5)
    else:
        core = transformer(**options, attention="lsa" if kind == "lsa" else "standard")
    model = model_of(core, channels=kind == "convolution", shift="readout")
    with torch.no_grad():
        for readout in model.readouts:
            readout.sigma.zero_()  # no random positions
    plain = _plain.plain_model(model)
    inputs, targets = batches_of(missing=missing)
    if kind == "convolution":  # batch norm sees one mouse at a time in the plain form
        del inputs["B"]
    before = {n: p.clone() for n, p in model.named_parameters()}
    # plain gradient descent shows gradients as they are
    ours = torch.optim.SGD(model.parameters(), lr=1e-3)
    other = torch.optim.SGD(plain.parameters(), lr=1e-3)
    loss = _plain.our_step(model, inputs, targets, ours, scale=2.0)()
    expected = _plain.plain_step(plain, inputs, targets, other, scale=2.0)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    for (name, p), q in zip(model.named_parameters(), plain._model[0].parameters(), strict=True):
        if name.endswith(".sigma"):
            continue  # its gradient is that of the random numbers, which both draw for themselves
        torch.testing.assert_close(p - before[name], q - before[name], rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("kind", ["transformer", "convolution"])
def test_training_curves_of_plain_and_our_steps_coincide(kind):
    """Without random numbers, by the optimisers that the benchmarks use; new weights each step."""
    torch.manual_seed(1)
    convolution = kind == "convolution"
    if convolution:
        core = Stacked2dCore((3, *IMAGE), hidden_channels=4, n_layers=3, laplace=0.5)
    else:
        core = transformer(behavior_mode="b_mlp", n_behaviors=2, l1=0.01)
    model = model_of(core, channels=convolution, shift="readout")
    for readout in model.readouts:
        readout.sigma.requires_grad_(False).zero_()  # no random positions
    inputs, targets = batches_of()
    if convolution:  # batch norm sees one mouse at a time in the plain form
        del inputs["B"]
    plain = _plain.plain_model(model)
    plain_optimizer = _plain.plain_optimizer(plain, lr=3e-3)
    ours = _plain.our_step(model, inputs, targets, _plain.our_optimizer(model, lr=3e-3))
    curves = []
    for _ in range(15):
        curves.append((ours(), _plain.plain_step(plain, inputs, targets, plain_optimizer)))
    found, expected = torch.tensor(curves).T
    assert expected[-1] < 0.95 * expected[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("kind", "mice"), [("V1T", 2), ("CNN", 1)])
def test_plain_epochs_are_the_epochs_of_a_fit(kind, mice):
    """Without random numbers and with a step per epoch, where the order of trials says nothing."""
    rates = {"patch_dropout": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0}
    n, neurons = 6, 4
    estimator = {"V1T": v1.V1TRegressor, "CNN": v1.CNNRegressor}[kind]
    params = _models.V1T["tiny"] | rates if kind == "V1T" else _models.CNN["tiny"]
    trials = _models.make_trials(mice, n, neurons, IMAGE)
    params = params | {"batch_size": n, "init_sigma": 1e-8, "lr": 1e-3}
    fitted = _models.make_estimator(estimator, params, trials, "cpu")
    plain = bench_epoch.prepare(fitted, trials)
    fitted.set_params(max_epochs=4).fit(trials)
    # The scale of a loss over all trials is 1.
    expected = [r["loss"] * mice * n * neurons + r["penalty"] for r in fitted.history_]
    found = [float(plain()) for _ in expected]
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    # The width of the positions is trained, too, and grows by a step of Adam at a time.
    assert found == pytest.approx(expected, rel=5e-4)
    assert np.ptp(expected) > 5e-3 * expected[0]


def test_plain_model_has_weights_of_its_own():
    model = model_of(transformer())
    plain = _plain.plain_model(model)
    inputs, targets = batches_of()
    before = [p.clone() for p in model.parameters()]
    _plain.plain_step(plain, inputs, targets, _plain.plain_optimizer(plain))
    assert len(before) == len(list(plain.parameters()))
    for was, now in zip(before, model.parameters(), strict=True):
        assert torch.equal(was, now)
    with pytest.raises(AssertionError, match="mouse 'A': the plain model and ours differ"):
        _plain.check_same(model, plain, inputs)


def test_recomputing_the_plain_blocks_changes_no_gradient():
    torch.manual_seed(0)
    model = model_of(transformer(attention_dropout=0.3, mlp_dropout=0.2))
    inputs, targets = batches_of()
    updates = []
    for recompute in (False, True):
        plain = _plain.plain_model(model, checkpoint_activations=recompute)
        torch.manual_seed(1)
        _plain.plain_step(plain, inputs, targets, torch.optim.SGD(plain.parameters(), lr=0.1))
        updates.append(torch.cat([p.detach().flatten() for p in plain.parameters()]))
    torch.testing.assert_close(*updates)


def test_plain_dropout_keeps_its_share():
    """Otherwise the comparison would be between different models."""
    torch.manual_seed(0)
    layer = transformer(attention_dropout=0.25).blocks[0].attention
    tokens = torch.randn(1, 30, 8)
    with torch.no_grad(), nn.plain():
        expected = layer.eval()(tokens)
        layer.train()
        drawn = torch.stack([layer(tokens) for _ in range(400)])
    torch.testing.assert_close(drawn.mean(0), expected, rtol=0.2, atol=4 * float(drawn.std()) / 20)
    assert (drawn == 0).float().mean() == pytest.approx(0.25, abs=0.01)  # of the output


def test_plain_models_tell_what_they_cannot_be_made_of():
    model = model_of(transformer())
    model.core.freeze()
    with pytest.raises(ValueError, match="frozen"):
        _plain.plain_model(model)
    other = model_of(transformer())
    other.core = nn.Core((1, *IMAGE))
    with pytest.raises(ValueError, match="no plain form of a Core"):
        _plain.plain_model(other)


def test_work_of_a_training_step_at_published_size():
    assert _plain.training_flop(ViTCore((1, 36, 64))) == pytest.approx(103e9, rel=0.005)
