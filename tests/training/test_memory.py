"""Parts of batches and recomputed blocks: the same result, and what "auto" makes of memory."""

import copy
import platform
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.held_memory import HeldMemory
from tests.training.models import (
    NEURONS,
    ConvCore,
    Transformer,
    assert_same,
    in_a_process,
    make_data,
    make_model,
    run,
    without_randomness,
)
from v1tlearn import nn
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    PoissonObjective,
    Run,
    TrainingSettings,
    initial_rng,
    memory,
    new_state,
    resolve_settings,
    train,
)
from v1tlearn.training.steps import backward

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
POISSON = PoissonObjective()


def resolved(model, data, settings):
    return resolve_settings(model, POISSON, data, settings)


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
    objective = PoissonObjective(loss_epsilon=1e-4)
    settings = TrainingSettings(9, 1, micro_batch_size=size)
    losses, count, penalty = backward(model, objective, inputs, targets, scales, settings)
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
        found = resolved(make_model(ConvCore), make_data(), settings)
        assert found.micro_batch_size == 20
        assert resolved(make_model(ConvCore), make_data(), found) == found
    frozen = make_model(ConvCore)
    frozen.core.freeze()  # normalises with running statistics
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
    for part in again.core.recomputed_parts():
        assert "forward" not in vars(part)


def test_blocks_are_put_back_when_the_training_fails():
    model = make_model(Transformer)
    data = make_data()
    data["A"].responses[:] = torch.inf
    with pytest.raises(FloatingPointError):
        run(model, data=data, checkpoint_activations=True)
    assert all("forward" not in vars(block) for block in model.core.blocks)


@pytest.mark.slow
def test_recomputed_blocks_hold_less_memory():
    sizes = {"patch_size": 4, "patch_stride": 4, "n_heads": 1, "embed_dim": 64, "mlp_dim": 128}
    rates = {"attention_dropout": 0.0, "patch_dropout": 0.0}
    core = nn.ViTCore((1, 36, 64), n_blocks=16, **sizes, **rates)
    images, most = torch.randn(4, 1, 36, 64), []
    with nn.fast.using("blocked"):  # compiled kernels have some memory for each thread
        for wanted in (False, True):
            core.zero_grad(set_to_none=True)
            with memory.checkpointed(core, wanted), HeldMemory() as held:
                core(images).square().sum().backward()
            most.append(held.most)
    assert most[1] < 0.25 * most[0]


FREED = """
    import ctypes

    from v1tlearn.training.memory import keep_freed_memory

    FIELDS = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
              "fordblks", "keepcost"]


    class Mallinfo(ctypes.Structure):
        _fields_ = [(name, ctypes.c_int) for name in FIELDS]


    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.mallinfo.restype = Mallinfo
    SIZES = [2**20 * (1 + i % 5) for i in range(15)]  # 45 MiB


    def taken():
        # By the C library from the system, in bytes.
        info = libc.mallinfo()
        return info.arena + info.hblkhd


    def given_back():
        # Of the C library, lest an object of Python lie above what is freed, and keep it.
        blocks = [libc.malloc(size) for size in SIZES]
        before = taken()
        for block in reversed(blocks):
            libc.free(block)
        return before - taken()


    given_back()
    without = given_back()
    keep_freed_memory()
    given_back()
    print(without, given_back())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does with freed memory")
@pytest.mark.slow
def test_what_a_step_frees_serves_the_next_one(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("LD_PRELOAD", raising=False)  # of another allocator
    without, given_back = map(int, in_a_process(FREED).stdout.split())
    assert without > 2**25  # of 45 MiB
    assert given_back == 0


# ---------------------------------------------------------------------------- what "auto" takes


def convolutional():
    sizes = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 3, "hidden_kernel": 3}
    return nn.Stacked2dCore((3, 8, 10), **sizes)


class Known(nn.Core):
    """Keeps, of every image, 80 numbers ahead of its part, and 160 within."""

    output_shape = (1, 8, 10)

    def __init__(self):
        super().__init__((1, 8, 10))
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.part = torch.nn.Sequential(torch.nn.Sigmoid(), torch.nn.Tanh())

    def recomputed_parts(self):
        return [self.part]

    def penalty(self):
        return self.weight.abs()

    def forward(self, images, behaviors=None, sizes=()):
        return self.part(images * self.weight)  # saves images, and what either activation gives


def test_what_is_kept_is_counted():
    def footprint(core, **settings):
        settings = TrainingSettings(4, 1, **settings)
        return memory.measure(make_model(core), POISSON, make_data(), settings)

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
    first = memory.measure(model, POISSON, data, TrainingSettings(4, 1))
    assert_same(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in model.parameters())
    assert getattr(model.core, "passes", 0) == passes
    assert not model.core.recomputed_parts()[0]._forward_hooks
    assert memory.measure(model, POISSON, data, TrainingSettings(4, 1)) == first


def test_measuring_follows_the_settings_of_the_run():
    """Torch asks at the first matrix product of a process whether cuBLAS is deterministic."""
    model, seen = make_model(Transformer), []
    model.core.register_forward_pre_hook(
        lambda *_: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    for wanted in (True, False):
        settings = TrainingSettings(4, 1, deterministic=wanted)
        memory.measure(model, POISSON, make_data(), settings)
    assert seen == [True, False]


@pytest.mark.parametrize(
    ("core", "given", "measured"),
    [
        (Transformer, {}, 1),
        (Transformer, {"micro_batch_size": 2}, 1),
        (Transformer, {"micro_batch_size": 2, "checkpoint_activations": True}, 0),
        (ConvCore, {}, 1),
        (ConvCore, {"checkpoint_activations": False}, 0),  # whole batches
        (convolutional, {}, 0),  # and computed again always
    ],
)
def test_nothing_is_measured_twice_or_in_vain(core, given, measured):
    model, data, passes = make_model(core), make_data(), []
    model.core.register_forward_pre_hook(lambda *_: passes.append(1))  # also of a copy
    found = resolved(model, data, TrainingSettings(4, 1, **given))
    assert resolved(model, data, found) == found
    assert len(passes) == measured


def test_recomputation_is_recommended_where_it_brings_something():
    settings = TrainingSettings(4, 1, micro_batch_size=2)
    for core, helps in ((Transformer, True), (ConvCore, True), (convolutional, False)):
        model = make_model(core)
        assert memory.saves_memory(model, settings) is helps
        _, remedies, _ = memory.step_in_words(model, POISSON, make_data(), settings)
        assert "low_memory=True" in remedies  # data may lie elsewhere in any case
        if core is not Transformer:
            with pytest.raises(ValueError, match="batch norm") as told:
                memory.check_micro_batches(model, POISSON, settings)
            assert ("low_memory=True" in str(told.value)) is helps
    compiled = TrainingSettings(4, 1, compile=True)
    assert memory.saves_memory(make_model(convolutional), compiled)


def test_deterministic_runs_do_not_ask_what_is_free():
    seen = []

    def available(device, *, deterministic=False):
        seen.append(deterministic)

    for wanted in (True, False):
        settings = TrainingSettings(4, 1, deterministic=wanted)
        memory.plan(make_model(Transformer), POISSON, make_data(), settings, available)
    assert seen == [True, True, False, False]


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
def test_auto_fits_steps_into_memory(core, share, expected):
    model, data, settings = make_model(core), make_data(), TrainingSettings(8, 1)
    whole = 8 * memory.measure(model, POISSON, data, settings).step(checkpointed=False)

    def planned(settings):
        return memory.plan(model, POISSON, data, settings, lambda device, **_: share * whole)

    found = planned(settings)
    assert (found.micro_batch_size, found.checkpoint_activations) == expected
    assert planned(found) == found


def test_objectives_that_compare_trials_get_whole_batches():
    class Contrast(PoissonObjective):
        in_parts = False

    model, data = make_model(Transformer), make_data()
    found = memory.plan(model, Contrast(), data, TrainingSettings(8, 1), lambda device, **_: 1.0)
    assert (found.micro_batch_size, found.checkpoint_activations) == (8, True)
    _, remedies, _ = memory.step_in_words(model, Contrast(), data, found)
    assert "a smaller micro_batch_size" not in remedies
    with pytest.raises(ValueError, match=r"micro_batch_size=2 is below.*not the sum of"):
        resolve_settings(model, Contrast(), data, TrainingSettings(8, 1, micro_batch_size=2))


def test_what_was_asked_for_is_done():
    model, data = make_model(Transformer), make_data()

    def planned(available, **wanted):
        settings = TrainingSettings(8, 1, **wanted)
        found = memory.plan(model, POISSON, data, settings, lambda device, **_: available)
        return found.micro_batch_size, found.checkpoint_activations

    assert planned(1.0, micro_batch_size=8) == (8, True)
    assert planned(1.0, checkpoint_activations=False) == (1, False)
    assert planned(None) == (8, False)  # not known
    assert planned(None, checkpoint_activations=True) == (8, True)


def test_predictions_follow_the_widest_layer_and_the_largest_readout():
    model = make_model(convolutional)

    def at_once(available=1e15):
        return memory.prediction_batch_size(model, CPU, available=lambda device, **_: available)

    channels, height, width = model.core.output_shape
    assert at_once() == 2**21 // (height * width * channels)
    model.readouts[1].n_neurons = 10**5
    assert at_once() == 2**21 // 10**5
    model.readouts[1].n_neurons = 10**9
    assert at_once() == 1
    model.readouts[1].n_neurons = 10**5
    assert at_once(4.0 * 8 * 3.5 * 10**5) == 3  # which eight layers of float32 fit into


def test_predictions_follow_images_that_are_larger_than_all_that_is_made_of_them():
    cropper = nn.ImageCropper((400, 600), image_size=(20, 24))
    model = make_model(convolutional)
    model.cropper = cropper
    assert memory.prediction_batch_size(model, CPU) == 2**21 // (400 * 600)


def test_images_at_once_follow_layers_that_are_larger_than_maps():
    tower = nn.CNNTower((1, 40, 60), (4, 5, 6), hidden_channels=16)  # the first layer has no stride
    assert memory.images_at_once(tower, CPU) == 2**21 // (16 * 40 * 60)
    assert memory.images_at_once(tower, CPU, least=10**6) == 2
    maps = nn.CNNTower((1, 40, 60), (4, 80, 90), hidden_channels=16, n_layers=1)
    assert memory.images_at_once(maps, CPU) == 2**21 // (16 * 80 * 90)


def test_parts_on_a_cpu_do_not_leave_the_caches():
    def footprint(largest):
        return memory.Footprint(kept=1.0, recomputed=1.0, largest=largest, mice=1)

    share = 2**23 * torch.get_num_threads()
    assert memory.quickest_at_once(footprint(share / 3.5), 8, CPU) == 3
    assert memory.quickest_at_once(footprint(2 * share), 8, CPU) == 1
    assert memory.quickest_at_once(footprint(share / 100), 8, CPU) == 8
    assert memory.quickest_at_once(footprint(2 * share), 8, CUDA) == 8


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
@pytest.mark.parametrize("core", [Transformer, ConvCore])
@pytest.mark.parametrize("joint", [True, False])
def test_no_step_waits_for_the_device(core, joint):
    """Synchronisations of an epoch, as CUDA's runtime sees them, whatever the number of steps."""
    counts = []
    for batch_size in (11, 4, 1):
        model, data = make_model(core).to(CUDA), make_data(device=CUDA)
        settings = TrainingSettings(batch_size, 3, joint=joint, checkpoint_activations=False)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)

        def watch(record):
            torch.cuda.set_sync_debug_mode("warn" if record["epoch"] == 1 else "default")

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                state, schedule = new_state(initial_rng(0)), ConstantSchedule()
                train(Run(model, POISSON, optimizer, schedule, data, settings, state), watch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchron" in str(w.message) for w in seen))
    assert counts[0] == counts[1] == counts[2] >= 1  # the one of the epoch


def test_runs_use_their_own_generator_for_measuring():
    """What "auto" measures does not move the run's random numbers."""
    expected = run(make_model(Transformer), micro_batch_size=4, checkpoint_activations=False)
    state = run(make_model(Transformer))
    assert_same(state["model"], expected["model"])
