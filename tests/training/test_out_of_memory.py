"""Memory that ends in a training step: words that help, and a model that is in order."""

import copy
import errno
import os
import pickle
import sys

import pytest
import torch

from tests.training.models import (
    ConvCore,
    Transformer,
    assert_same,
    in_a_process,
    make_data,
    make_model,
    run,
)
from v1tlearn.training import InsufficientMemoryError, PoissonObjective, TrainingSettings, memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


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
        RuntimeError("bad allocation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("unable to mmap 64 bytes from file <a>: Cannot allocate memory (12)"),
        RuntimeError("NetCDF: Memory allocation (malloc) failure"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        MemoryError("Unable to allocate 2.00 GiB for an array"),
        MemoryError(),
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
    for word in ("batch_size=4", "'b.2': 3", "8 x 10", "smaller micro_batch_size"):
        assert word in str(told.value)
    for word in ("low_memory=True", "precision='bfloat16'"):
        assert word in str(told.value)
    asked = {"CUDA out": "2.00 GiB", "[enforce": "8589934592 bytes", "DefaultC": "64 bytes"}
    asked["Unable t"] = "2.00 GiB"
    size = asked.get(str(error)[:8])
    assert ("more were asked for" in str(told.value)) is (size is not None)
    assert size is None or f"({size} more were asked for)" in str(told.value)
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
    _, remedies, _ = memory.step_in_words(
        make_model(Transformer), PoissonObjective(), make_data(), settings
    )
    assert remedies == ["a smaller batch_size"]
    _, remedies, _ = memory.step_in_words(
        make_model(ConvCore), PoissonObjective(), make_data(), TrainingSettings(4, 1)
    )
    assert "a smaller micro_batch_size" not in remedies


@pytest.mark.parametrize("error", [RuntimeError("shapes"), OSError(errno.ENOSPC, "full")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as told, memory.remedies_named("", []):
        raise error
    assert told.value is error


def test_memory_that_is_full_before_the_first_step():
    """Nothing is left for the copy of the weights that is kept as the best."""
    model = make_model(Transformer)
    before = copy.deepcopy(model.state_dict())

    def fail(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 b")

    model.state_dict = fail
    with pytest.raises(InsufficientMemoryError, match="a smaller batch_size"):
        run(model)
    del model.state_dict
    assert_same(model.state_dict(), before)


def test_a_block_that_finds_no_room_is_done_without():
    """What is allocated to make steps quicker, and not for them, ends nothing."""
    memory.keep_freed_memory(2**62)  # more than any machine has


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
                                   PoissonObjective, Run, TrainingSettings, train)
    torch.set_num_threads(1)
    core = nn.ViTCore((1, 36, 64), patch_size=8, patch_stride=4, n_blocks=4, n_heads=1,
                      embed_dim=64, mlp_dim=256)
    model = nn.EncodingModel(core, {"A": nn.GaussianReadout(core.output_shape, 5)},
                             cropper=nn.ImageCropper((36, 64)))
    optimizer = torch.optim.Adam(model.parameters())

    def step(trials, at_once):
        data = MouseData(torch.zeros(trials, 1, 36, 64, dtype=torch.uint8),
                         responses=torch.ones(trials, 5), scale_trials=trials)
        settings = TrainingSettings(trials, 1, micro_batch_size=at_once)
        train(Run(model, PoissonObjective(), optimizer, ConstantSchedule(), {"A": data}, settings))

    step(2, 1)  # what is imported at its first use is there
    no_limit = resource.getrlimit(resource.RLIMIT_AS)
    for room in (2**27, 2**28, 2**28 + 2**24):  # bytes; others come to the end of each
        before = {k: v.clone() for k, v in model.state_dict().items()}
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + room, no_limit[1]))
        try:
            step(256, 256)
        except InsufficientMemoryError as error:
            print(error)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
        step(2, 1)
        resource.setrlimit(resource.RLIMIT_AS, no_limit)
    print("and went on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.slow
def test_a_step_that_fills_memory_in_truth():
    """Whoever notices first, torch, NumPy or the C++ library, which does not say what it wanted."""
    *told, went_on = in_a_process(FULL).stdout.splitlines()
    assert len(told) == 3
    for message in told:
        assert message.startswith("memory does not suffice for training steps of batch_size=256")
        assert "a smaller micro_batch_size" in message
        assert message.endswith("The best model so far is kept.")
    assert went_on == "and went on"


@pytest.mark.gpu
def test_full_cuda_memory_is_told():
    model, data = make_model(Transformer).to(CUDA), make_data(device=CUDA)
    _, total = torch.cuda.mem_get_info()
    assert 0 < memory.available_memory(CUDA) < total

    def fail(images):
        return torch.empty(2 * total, dtype=torch.uint8, device=CUDA)

    model.core.tokenizer.forward = fail
    with pytest.raises(InsufficientMemoryError, match="GiB more were asked for"):
        run(model, data=data)
