"""Parts of batches, recomputed blocks and full memory: the same result, and words that help."""

import copy
import pickle
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn import nn
from v1tlearn.training import (
    ConstantSchedule,
    InsufficientMemoryError,
    MouseData,
    TrainingSettings,
    initial_rng,
    isolated_rng,
    memory,
    new_state,
    resolve_settings,
    train,
)
from v1tlearn.training.loop import backward

NEURONS = {"A": 4, "b.2": 3}
CUDA = torch.device("cuda")


class ConvCore(torch.nn.Module):
    """Layers with batch normalisation and dropout, as a core; counts its passes."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.input_shape, self.output_shape = (3, 8, 10), (4, 8, 10)
        self.layers = torch.nn.Sequential(
            *(
                torch.nn.Sequential(
                    torch.nn.Conv2d(n, 4, 3, padding=1),
                    torch.nn.BatchNorm2d(4),
                    torch.nn.ELU(),
                    torch.nn.Dropout(dropout),
                )
                for n in (3, 4)
            )
        )
        self.passes = 0

    def checkpointed_parts(self):
        return list(self.layers)

    def mouse_parameters(self):
        return []

    def penalty(self):
        return sum(p.abs().sum() for p in self.parameters())

    def forward(self, images, behaviors=None, sizes=()):
        self.passes += 1
        return self.layers(images)


class Transformer(nn.ViTCore):
    def __init__(self, dropout=0.3, n_blocks=2):
        rates = dict.fromkeys(("patch_dropout", "attention_dropout", "mlp_dropout"), dropout)
        sizes = {"patch_size": 4, "n_heads": 2, "embed_dim": 6, "mlp_dim": 5}
        super().__init__(
            (1, 8, 10),
            n_blocks=n_blocks,
            behavior_mode="b_mlp_per_mouse",
            n_behaviors=2,
            mice=tuple(NEURONS),
            drop_path=dropout,
            **sizes,
            **rates,
        )

    def checkpointed_parts(self):
        return list(self.blocks)


def make_model(core, seed=0):
    torch.manual_seed(seed)
    core = core()
    return nn.EncodingModel(
        core,
        {m: nn.GaussianReadout(core.output_shape, n) for m, n in NEURONS.items()},
        cropper=nn.ImageCropper((8, 10)),
        shifters={"A": nn.Shifter()},
        behavior_channels=core.input_shape[0] == 3,
    )


def without_randomness(core, seed=0):
    """A model that gives the same in training every time."""
    model = make_model(lambda: core(dropout=0.0), seed)
    for readout in model.readouts:
        readout.sigma.requires_grad_(False).zero_()
    return model


def make_data(trials=(("A", 11), ("b.2", 7)), device="cpu"):
    generator = torch.Generator().manual_seed(1)
    data = {}
    for mouse, n in dict(trials).items():
        recorded = torch.rand(n, NEURONS[mouse], generator=generator) > 0.2
        responses = -torch.rand(n, NEURONS[mouse], generator=generator).log()
        data[mouse] = MouseData(
            torch.randint(0, 256, (n, 1, 8, 10), generator=generator, dtype=torch.uint8).to(device),
            image_mean=120.0,
            image_std=60.0,
            behaviors=torch.randn(n, 2, generator=generator).to(device),
            pupil=torch.randn(n, 2, generator=generator).to(device),
            responses=torch.where(recorded, responses, 0).to(device),
            recorded=recorded.to(device) if mouse == "A" else None,
            scale_trials=n,
        )
    return data


def run(model, epochs=2, state=None, data=None, optimizer=torch.optim.SGD, lr=1e-3, **settings):
    state = new_state(initial_rng(1)) if state is None else state
    settings = TrainingSettings(**{"batch_size": 4, "max_epochs": epochs} | settings)
    data = data or make_data()
    made = optimizer(model.parameters(), lr=lr)
    train(model, data, settings, made, ConstantSchedule(), state)
    return state


def assert_same(one, other, **tolerance):
    for (name, first), second in zip(one.items(), other.values(), strict=True):
        torch.testing.assert_close(first, second, **{"rtol": 0, "atol": 0} | tolerance, msg=name)


# ------------------------------------------------------------------------------- micro-batches


@given(
    trials=st.fixed_dictionaries({}, optional={m: st.integers(1, 9) for m in NEURONS}).filter(bool),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_gradients_of_parts_add_up_to_that_of_the_plain_sum(trials, size, seed):
    model = without_randomness(Transformer, seed).double().train()
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    inputs, targets, plain = {}, {}, 0.0
    for mouse, n in trials.items():
        batch = nn.MouseBatch(
            torch.randn(n, 1, 8, 10, **draw), torch.randn(n, 2, **draw), torch.randn(n, 2, **draw)
        )
        target = torch.rand(n, NEURONS[mouse], **draw)
        recorded = torch.rand(n, NEURONS[mouse], **draw) > 0.3 if mouse == "A" else None
        inputs[mouse], targets[mouse] = batch, (target, recorded)
    scales = {m: MouseData(torch.zeros(1), scale_trials=50) for m in trials}
    for mouse, rates in model(inputs).items():
        target, recorded = targets[mouse]
        terms = rates + 1e-4 - (target + 1e-4) * (rates + 1e-4).log()
        terms = terms if recorded is None else terms[recorded]
        plain = plain + (50 / trials[mouse]) ** 0.5 * terms.sum()
        plain = plain + 0.0076 * model.readout(mouse).features.abs().sum()
    plain = plain + 0.5379 * sum(p.abs().sum() for p in model.core.parameters())
    plain.backward()
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    settings = TrainingSettings(9, 1, loss_epsilon=1e-4, micro_batch_size=size)
    losses, count, penalty = backward(inputs, targets, scales, model, settings)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)
    scaled = sum((50 / n) ** 0.5 * loss for n, loss in zip(trials.values(), losses, strict=True))
    assert (scaled + penalty).item() == pytest.approx(plain.item(), rel=1e-5)
    assert int(count) == sum(
        t.numel() if recorded is None else int(recorded.sum()) for t, recorded in targets.values()
    )


@pytest.mark.parametrize("joint", [True, False])
def test_training_curves_of_parts_and_whole_batches_coincide(joint):
    initial = without_randomness(Transformer)
    initial.core.l1 = 0.0  # its gradient jumps where a weight passes zero
    models, states = [], []
    for size in (4, 3, 1):
        models.append(copy.deepcopy(initial))
        # one epoch: the readouts draw, and so trials come in another order in the next
        states.append(run(models[-1], epochs=1, joint=joint, micro_batch_size=size))
        assert_same(models[-1].state_dict(), models[0].state_dict(), rtol=1e-4, atol=1e-5)
    for state in states:
        for name in ("loss", "penalty"):
            values = [record[name] for record in state["history"]]
            assert values == pytest.approx([r[name] for r in states[0]["history"]], rel=1e-5)


def test_parts_are_not_cut_where_they_would_change_batch_statistics():
    with pytest.raises(ValueError, match=r"micro_batch_size=2 is below batch_size=4.*batch norm"):
        run(make_model(ConvCore), micro_batch_size=2)
    run(make_model(ConvCore), epochs=1, micro_batch_size=4)
    for size in ("auto", 20):  # more than there are trials
        settings = TrainingSettings(20, 1, micro_batch_size=size)
        found = resolve_settings(make_model(ConvCore), make_data(), settings)
        assert found.micro_batch_size == 20
        assert resolve_settings(make_model(ConvCore), make_data(), found) == found
    frozen = make_model(ConvCore)
    frozen.freeze_core()  # normalises with running statistics
    run(frozen, epochs=1, micro_batch_size=2)


# ------------------------------------------------------------------------------ recomputation


@pytest.mark.parametrize("core", [Transformer, ConvCore])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recomputed_blocks_give_the_same_result_bit_for_bit(core, precision):
    plain, again = make_model(core), make_model(core)
    options = {"optimizer": torch.optim.Adam, "precision": precision}
    expected = run(plain, checkpoint_activations=False, **options)
    state = run(again, checkpoint_activations=True, **options)
    assert_same(again.state_dict(), plain.state_dict())  # running statistics included
    assert_same(state["model"], expected["model"])
    assert torch.equal(state["rng"]["cpu"], expected["rng"]["cpu"])
    for part in again.core.checkpointed_parts():
        assert "forward" not in vars(part)


def test_blocks_are_put_back_when_the_training_fails():
    model = make_model(Transformer)
    data = make_data()
    data["A"].responses[:] = torch.inf
    with pytest.raises(FloatingPointError):
        run(model, data=data, checkpoint_activations=True)
    assert all("forward" not in vars(block) for block in model.core.blocks)


PEAK = """
    import sys, torch
    from v1tlearn import nn
    from v1tlearn.training import memory
    torch.set_num_threads(1)
    core = nn.ViTCore((1, 36, 64), patch_size=4, patch_stride=4, n_blocks=8, n_heads=1,
                      embed_dim=64, mlp_dim=128, attention_dropout=0.0, patch_dropout=0.0)
    core.checkpointed_parts = lambda: list(core.blocks)
    def step(n):
        core(torch.randn(n, 1, 36, 64)).square().sum().backward()
    def peak():
        return next(int(s.split()[1]) for s in open("/proc/self/status") if s.startswith("VmHWM"))
    step(1)
    before = peak()
    with memory.checkpointed(core, sys.argv[1] == "True"):
        step(16)
    print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_recomputed_blocks_need_less_memory():
    peaks = [int(in_a_process(PEAK, str(wanted)).stdout) for wanted in (False, True)]
    assert peaks[1] < 0.4 * peaks[0]


def in_a_process(script, *args):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *args],
        capture_output=True,
        text=True,
        check=True,
    )


# ---------------------------------------------------------------------------- what "auto" takes


class Known(torch.nn.Module):
    """Keeps, of every image, 80 numbers ahead of its part, and 160 within."""

    input_shape = output_shape = (1, 8, 10)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.part = torch.nn.Sequential(torch.nn.Sigmoid(), torch.nn.Tanh())

    def checkpointed_parts(self):
        return [self.part]

    def mouse_parameters(self):
        return []

    def penalty(self):
        return self.weight.abs()

    def forward(self, images, behaviors=None, sizes=()):
        return self.part(images * self.weight)  # saves images, and what either activation gives


def test_what_is_kept_is_counted():
    def footprint(core, **settings):
        return memory.measure(make_model(core), make_data(), TrainingSettings(4, 1, **settings))

    class Nothing(Known):
        def __init__(self):
            super().__init__()
            self.part = torch.nn.Identity()

        def forward(self, images, behaviors=None, sizes=()):
            return self.part(images + self.weight)

    map_bytes = 2 * 80 * 4  # of one trial of both mice
    known, nothing = footprint(Known), footprint(Nothing)
    assert known.kept - nothing.kept == pytest.approx(3 * map_bytes, rel=0.35)
    assert known.recomputed - nothing.recomputed == pytest.approx(3 * map_bytes, rel=0.35)
    deep = footprint(lambda: Transformer(n_blocks=8))
    shallow = footprint(lambda: Transformer(n_blocks=2))
    assert deep.kept > 3 * shallow.kept
    assert deep.recomputed < 0.4 * deep.kept
    alone = footprint(lambda: Transformer(n_blocks=8), joint=False)
    assert alone.mice == 1
    assert 0.4 * deep.kept < alone.kept < 0.7 * deep.kept


@pytest.mark.parametrize("core", [Transformer, ConvCore])
def test_measuring_changes_nothing(core):
    model, data = make_model(core), make_data()
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    passes = getattr(model.core, "passes", 0)
    first = memory.measure(model, data, TrainingSettings(4, 1))
    assert_same(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in model.parameters())
    assert getattr(model.core, "passes", 0) == passes
    assert not model.core.checkpointed_parts()[0]._forward_hooks
    assert memory.measure(model, data, TrainingSettings(4, 1)) == first


@pytest.mark.parametrize(
    ("core", "share", "expected"),
    [  # memory as a share of what the whole batch of 8 needs
        (Transformer, 1.01, (8, False)),
        (Transformer, 0.99, (4, False)),  # two equal parts
        (Transformer, 0.3, (2, False)),
        (Transformer, 0.13, (1, False)),
        (Transformer, 0.12, (1, True)),
        (Transformer, 0.001, (1, True)),
        (ConvCore, 1.01, (8, False)),
        (ConvCore, 0.99, (8, True)),
    ],
)
def test_auto_fits_steps_into_memory(monkeypatch, core, share, expected):
    model, data, settings = make_model(core), make_data(), TrainingSettings(8, 1)
    whole = 8 * memory.measure(model, data, settings).step(checkpointed=False)
    monkeypatch.setattr(memory, "available_memory", lambda device: share * whole)
    found = resolve_settings(model, data, settings)
    assert (found.micro_batch_size, found.checkpoint_activations) == expected
    assert resolve_settings(model, data, found) is not settings
    assert resolve_settings(model, data, found) == found


def test_what_was_asked_for_is_done(monkeypatch):
    model, data = make_model(Transformer), make_data()
    monkeypatch.setattr(memory, "available_memory", lambda device: 1.0)
    found = resolve_settings(model, data, TrainingSettings(8, 1, micro_batch_size=8))
    assert (found.micro_batch_size, found.checkpoint_activations) == (8, True)
    found = resolve_settings(model, data, TrainingSettings(8, 1, checkpoint_activations=False))
    assert (found.micro_batch_size, found.checkpoint_activations) == (1, False)
    monkeypatch.setattr(memory, "available_memory", lambda device: None)  # not known
    found = resolve_settings(model, data, TrainingSettings(8, 1))
    assert (found.micro_batch_size, found.checkpoint_activations) == (8, False)
    found = resolve_settings(model, data, TrainingSettings(8, 1, checkpoint_activations=True))
    assert found.checkpoint_activations is True


def test_parts_on_a_cpu_do_not_leave_the_caches(monkeypatch):
    model, data, settings = make_model(Transformer), make_data(), TrainingSettings(8, 1)
    largest = memory.measure(model, data, settings).largest
    monkeypatch.setattr(memory, "_TENSOR_PER_THREAD", 3.5 * largest / torch.get_num_threads())
    found = resolve_settings(model, data, settings)
    assert found.micro_batch_size == 3  # three parts of 3, 3 and 2
    assert found.prediction_batch_size == 7  # images of two mice pass together in training


def test_memory_of_a_cpu_is_that_of_the_machine_or_the_container(monkeypatch, tmp_path):
    whole = memory.available_memory(torch.device("cpu"))
    assert whole == memory.available_memory(torch.device("cpu")) > 0
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (str(limit), str(tmp_path / "none")))
    limit.write_text("max\n")
    assert memory.available_memory(torch.device("cpu")) >= whole
    limit.write_text("1000000\n")
    assert memory.available_memory(torch.device("cpu")) == 500_000
    assert memory.available_memory(torch.device("meta")) is None


# ------------------------------------------------------------------------------ out of memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 8589934592 bytes. Error code 12"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."),
        RuntimeError("std::bad_alloc"),
        MemoryError("Unable to allocate 2.00 GiB for an array"),
    ],
)
def test_full_memory_is_told_with_remedies_and_the_best_model_stays(error):
    model = make_model(Transformer)
    state = run(model, epochs=1)
    best = copy.deepcopy(state["best"])
    forward = model.core.tokenizer.forward

    def fail(images):
        if state["epoch"] == 2:
            raise error
        return forward(images)

    model.core.tokenizer.forward = fail
    with pytest.raises(InsufficientMemoryError) as told:
        run(model, epochs=3, state=state)
    for word in ("batch_size=4", "'b.2': 3", "8 x 10", "smaller micro_batch_size", "stream_data"):
        assert word in str(told.value)
    for word in ("checkpoint_activations=True", "precision='bfloat16'"):
        assert word in str(told.value)
    asked = {"CUDA": "2.00 GiB", "[enf": "8589934592 bytes", "Defa": "64 bytes"}
    assert asked.get(str(error)[:4], "memory") in str(told.value)
    assert isinstance(told.value, MemoryError)
    again = pickle.loads(pickle.dumps(told.value))
    assert (type(again), str(again)) == (type(told.value), str(told.value))
    assert state["epoch"] == 2
    assert_same(model.state_dict(), state["best"])
    assert not all(torch.equal(best[name], state["best"][name]) for name in best)
    assert all(p.grad is None for p in model.parameters())
    del model.core.tokenizer.forward
    run(model, epochs=1, state=state)
    assert state["epoch"] == 3


def test_remedies_that_are_in_use_are_not_named():
    settings = TrainingSettings(
        4, 1, precision="bfloat16", checkpoint_activations=True, micro_batch_size=1
    )
    _, remedies, _ = memory.step_in_words(make_model(Transformer), make_data(), settings)
    assert [r.split(",")[0] for r in remedies] == ["a smaller batch_size", "stream_data=True"]
    _, remedies, _ = memory.step_in_words(make_model(ConvCore), make_data(), TrainingSettings(4, 1))
    assert "a smaller micro_batch_size" not in remedies


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes$"), memory.remedies_named("", []):
        raise RuntimeError("shapes")


def test_gradients_of_an_interrupted_step_are_gone():
    model = make_model(Transformer)
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) > 3:  # the second mouse of the second step
            raise KeyboardInterrupt

    model.core.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(model, joint=False, micro_batch_size=4, checkpoint_activations=False)
    assert all(p.grad is None for p in model.parameters())


FULL = """
    import resource, torch
    from v1tlearn import nn
    from v1tlearn.training import (ConstantSchedule, InsufficientMemoryError, MouseData,
                                   TrainingSettings, initial_rng, new_state, train)
    torch.set_num_threads(1)
    core = nn.ViTCore((1, 36, 64), patch_size=8, patch_stride=4, n_blocks=4, n_heads=1,
                      embed_dim=64, mlp_dim=256)
    model = nn.EncodingModel(core, {"A": nn.GaussianReadout(core.output_shape, 5)},
                             cropper=nn.ImageCropper((36, 64)))
    n = 256
    data = {"A": MouseData(torch.zeros(n, 1, 36, 64, dtype=torch.uint8),
                           responses=torch.ones(n, 5), scale_trials=n)}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, limit[1]))
    optimizer = torch.optim.Adam(model.parameters())
    for size in (n, 1):
        settings = TrainingSettings(n if size == n else 2, 1, micro_batch_size=size)
        try:
            train(model, {m: d for m, d in data.items()} if size == n else
                  {"A": MouseData(data["A"].images[:4], responses=data["A"].responses[:4],
                                  scale_trials=4)},
                  settings, optimizer, ConstantSchedule(), new_state(initial_rng(0)))
        except InsufficientMemoryError as error:
            assert size == n, error
            assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
            print(error)
    print("and went on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_step_that_fills_memory_in_truth():
    told, went_on = in_a_process(FULL).stdout.splitlines()
    assert "bytes more were asked for" in told
    assert "a smaller micro_batch_size" in told
    assert went_on == "and went on"


# ---------------------------------------------------------------------------------------- CUDA


@pytest.mark.gpu
@pytest.mark.parametrize("core", [Transformer, ConvCore])
def test_recomputed_blocks_give_the_same_result_on_cuda(core):
    results = []
    for again in (False, True):
        model = make_model(core).to(CUDA)
        run(model, data=make_data(device=CUDA), checkpoint_activations=again, deterministic=True)
        results.append(model.state_dict())
    assert_same(*results)


@pytest.mark.gpu
def test_full_cuda_memory_is_told():
    model, data = make_model(Transformer).to(CUDA), make_data(device=CUDA)
    _, total = torch.cuda.mem_get_info()
    fill = memory.available_memory(CUDA)
    assert 0 < fill < total

    def fail(images):
        return torch.empty(2 * total, dtype=torch.uint8, device=CUDA)

    model.core.tokenizer.forward = fail
    with pytest.raises(InsufficientMemoryError, match="GiB more were asked for"):
        run(model, data=data)


@pytest.mark.gpu
@pytest.mark.parametrize("core", [Transformer, ConvCore])
@pytest.mark.parametrize("joint", [True, False])
def test_no_step_waits_for_the_device(core, joint):
    """Synchronisations of an epoch, as CUDA's runtime sees them, whatever the number of steps."""
    counts = []
    for batch_size in (11, 4, 1):
        model, data = make_model(core).to(CUDA), make_data(device=CUDA)
        settings = TrainingSettings(batch_size, 3, joint=joint, checkpoint_activations=False)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        seen = []

        def watch(record, seen=seen):
            torch.cuda.set_sync_debug_mode("warn" if record["epoch"] == 1 else "default")

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                train(
                    model,
                    data,
                    settings,
                    optimizer,
                    ConstantSchedule(),
                    new_state(initial_rng(0)),
                    on_epoch=watch,
                )
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchron" in str(w.message) for w in seen))
    assert counts[0] == counts[1] == counts[2]


def test_runs_use_their_own_generator_for_measuring():
    """What "auto" measures does not move the run's random numbers."""
    expected = run(make_model(Transformer), micro_batch_size=4, checkpoint_activations=False)
    state = run(make_model(Transformer))
    with isolated_rng(initial_rng(3), torch.device("cpu")):
        torch.rand(3)
    assert_same(state["model"], expected["model"])
