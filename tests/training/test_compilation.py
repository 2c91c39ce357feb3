"""When the core is compiled, and that nothing but time is changed by it."""

import copy
import os
import pickle
import sys
import warnings

import pytest
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
    resolve_settings,
    train,
)
from v1tlearn.training.compilation import (
    LEAST_STEPS,
    compiled,
    missing_compiler,
    resolve_compile,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def transformer():
    sizes = {"patch_size": 4, "patch_stride": 4, "n_blocks": 2, "n_heads": 2, "embed_dim": 8}
    rates = dict.fromkeys(("patch_dropout", "attention_dropout", "mlp_dropout"), 0.0)
    return nn.ViTCore((1, 8, 12), mlp_dim=8, **sizes, **rates)


def cnn():
    sizes = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 3, "hidden_kernel": 3}
    return nn.Stacked2dCore((1, 8, 12), **sizes)


def make_model(core=transformer):
    torch.manual_seed(0)
    core = core()
    readout = nn.GaussianReadout(core.output_shape, 3)
    return nn.EncodingModel(core, {"A": readout}, cropper=nn.ImageCropper((8, 12)))


def make_data(n=11, device=CPU):
    generator = torch.Generator().manual_seed(1)
    return {
        "A": MouseData(
            torch.randn(n, 1, 8, 12, generator=generator).to(device),
            responses=torch.rand(n, 3, generator=generator).to(device),
            scale_trials=n,
        )
    }


def run(model, device=CPU, **settings):
    settings = TrainingSettings(**{"batch_size": 4, "max_epochs": 2} | settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    state, data = new_state(initial_rng(0)), make_data(device=device)
    objective, schedule = PoissonObjective(), ConstantSchedule()
    return train(Run(model, objective, optimizer, schedule, data, settings, state))


def test_the_table():
    core = torch.nn.Linear(1, 1)
    missing = None

    def decided(*args):
        return resolve_compile(*args, missing=lambda device: missing)

    long, short = LEAST_STEPS, LEAST_STEPS - 1
    assert decided("auto", core, CUDA, long) == "auto"
    assert not decided("auto", core, CUDA, short)
    assert not decided("auto", core, CPU, long)
    assert decided(True, core, CPU, 1) is True
    assert not decided(False, core, CUDA, long)
    assert decided("reduce-overhead", core, CUDA, 1) == "reduce-overhead"
    with pytest.raises(ValueError, match="records CUDA graphs, and the device is 'cpu'"):
        decided("reduce-overhead", core, CPU, long)
    core.requires_grad_(False)  # a frozen one
    assert not decided("auto", core, CUDA, long)
    core.requires_grad_(True)
    missing = "a compiler"
    assert not decided("auto", core, CUDA, long)
    with pytest.raises(ValueError, match=r"compile=True needs a compiler, which was not found"):
        decided(True, core, CPU, long)
    with pytest.raises(ValueError, match=r"compile='reduce-overhead' needs a compiler, which"):
        decided("reduce-overhead", core, CUDA, long)


def test_short_runs_are_not_compiled_by_themselves():
    settings = TrainingSettings(batch_size=4, max_epochs=7)
    found = resolve_settings(make_model(), PoissonObjective(), make_data(), settings)
    assert found.compile is False


@pytest.mark.skipif(os.name == "nt", reason="programs have other names")
def test_what_compiling_needs(monkeypatch, tmp_path):
    def install(name):
        (tmp_path / name).touch(mode=0o755)

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "C++ compiler" in missing_compiler(CPU)
    install("my++")
    assert "C++ compiler" in missing_compiler(CPU)
    monkeypatch.setenv("CXX", "my++")
    assert missing_compiler(CPU) is None
    monkeypatch.delenv("CXX")
    install("c++")
    assert missing_compiler(CPU) is None
    monkeypatch.setitem(sys.modules, "triton", None)  # cannot be imported
    assert "triton" in missing_compiler(CUDA)


def test_the_module_stays_plain(compiler):
    """A stand-in for the compiler is called in training and nowhere else."""
    calls = compiler.passes
    core = transformer()
    names, images = list(core.state_dict()), torch.zeros(2, 1, 8, 12)
    with compiled(core, False):
        core(images)
    assert not calls
    with compiled(core, True):
        core(images)
        assert list(core.state_dict()) == names
        with torch.no_grad():
            core(images)
    assert calls == [{"dynamic": True}]
    assert "forward" not in vars(core)
    plain, fast = make_model(), make_model()
    run(plain)
    run(fast, compile=True)
    assert len(calls) > 1
    for name, value in fast.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name])
    pickle.dumps(fast)
    calls.clear()
    with compiled(core, "reduce-overhead"):
        core(images)
    assert calls == [{"dynamic": True, "mode": "reduce-overhead"}]
    with pytest.raises(ZeroDivisionError), compiled(core, True):
        raise ZeroDivisionError
    assert "forward" not in vars(core)


@pytest.mark.parametrize("wanted", ["auto", "reduce-overhead", True])
@pytest.mark.parametrize("origin", ["torch._dynamo.exc", "triton.compiler.errors"])
def test_what_the_compiler_cannot_do(compiler, caplog, wanted, origin):
    unsupported = type("Unsupported", (RuntimeError,), {"__module__": origin})

    core, images = transformer(), torch.zeros(2, 1, 8, 12)
    compiler.error = ValueError("of the model")
    with pytest.raises(ValueError, match="of the model"), compiled(core, wanted):
        core(images)
    compiler.error = unsupported("some operation")
    if wanted != "auto":
        with pytest.raises(unsupported), compiled(core, wanted):
            core(images)
        return
    with compiled(core, wanted):
        assert core(images).shape == (2, 8, 2, 3)
        core(images)
    told = [r.getMessage() for r in caplog.records if r.name == "v1tlearn"]
    assert told == ["torch.compile failed, and training goes on without it: some operation"]


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler(CPU) is not None, reason="no C++ compiler")
@pytest.mark.parametrize("core", [transformer, cnn])
@pytest.mark.parametrize("again", [False, True])
def test_compiled_training_ends_where_plain_training_does(core, again):
    plain = make_model(core)
    fast = copy.deepcopy(plain)
    expected = run(plain, compile=False, checkpoint_activations=again)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's compiler, about itself
        state = run(fast, compile=True, checkpoint_activations=again)
    for name, value in fast.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)
    assert list(state["best"]) == list(expected["best"])
    losses = [[record["loss"] for record in s["history"]] for s in (state, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    pickle.dumps(fast)


@pytest.mark.gpu
@pytest.mark.parametrize("core", [transformer, cnn])
@pytest.mark.parametrize("wanted", [True, "reduce-overhead"])
def test_compiled_training_on_cuda(core, wanted):
    plain = make_model(core).to(CUDA)
    fast = copy.deepcopy(plain)
    run(plain, CUDA, compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(fast, CUDA, compile=wanted)
    for name, value in fast.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)
