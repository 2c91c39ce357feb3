"""Data that stay on the host arrive as if they had been on the device; threads end with loops."""

import threading
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from v1tlearn.training import MouseData
from v1tlearn.training.data import epoch_batches, step_batches
from v1tlearn.training.sources import READ_AHEAD, HostArray, read_ahead

CPU = torch.device("cpu")


def threads():
    return [t for t in threading.enumerate() if t.name == "v1tlearn-read-ahead"]


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert not threads()


def same(first, second):
    if first is None or second is None:
        return first is second
    return first.dtype == second.dtype and torch.equal(first, second)


def mouse(n, *, seed=0, missing=False, dtype=np.uint8, device=CPU, behaviors=True):
    """One mouse's data on the device, and the same on the host."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 1, 3, 4)).astype(dtype)
    responses = rng.exponential(size=(n, 6)).astype(np.float32)
    if missing:
        responses[rng.random(responses.shape) < 0.3] = np.nan
    columns = torch.as_tensor(rng.normal(size=(n, 2)).astype(np.float32), device=device)
    common = {"image_mean": 101.7, "image_std": 3.9, "scale_trials": n}
    common |= {"behaviors": columns, "pupil": columns + 1} if behaviors else {}
    common["complete"] = not missing
    resident = MouseData(
        torch.as_tensor(images, device=device),
        responses=torch.as_tensor(responses, device=device),
        **common,
    )
    streamed = MouseData(
        HostArray(images),
        responses=HostArray(responses),
        device=torch.device(device),
        **common,
    )
    return resident, streamed


def check_equal_steps(resident, streamed, steps):
    first, second = list(step_batches(resident, steps)), list(step_batches(streamed, steps))
    assert len(first) == len(second) == len(steps)
    for (inputs, targets), (other_inputs, other_targets) in zip(first, second, strict=True):
        assert list(inputs) == list(targets) == list(other_inputs) == list(other_targets)
        for name in inputs:
            assert all(map(same, inputs[name], other_inputs[name]))
            assert all(map(same, targets[name], other_targets[name]))


@given(
    lengths=st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 30), min_size=1),
    batch_size=st.integers(1, 12),
    missing=st.booleans(),
    dtype=st.sampled_from([np.uint8, np.float32]),
    on_device=st.sets(st.sampled_from("ABCD")),
)
def test_streamed_batches_are_those_on_the_device(lengths, batch_size, missing, dtype, on_device):
    pairs = {
        name: mouse(n, seed=i, missing=missing, dtype=dtype, behaviors=i % 2 == 0)
        for i, (name, n) in enumerate(lengths.items())
    }
    resident = {name: pair[0] for name, pair in pairs.items()}
    streamed = {name: pair[name not in on_device] for name, pair in pairs.items()}
    check_equal_steps(resident, streamed, epoch_batches(lengths, batch_size, CPU))


@pytest.mark.parametrize("rows", [slice(None), slice(2, 5), torch.tensor([4, 0, 0])])
def test_any_rows_are_read_at_once(rows):
    resident, streamed = mouse(7, missing=True)
    assert len(streamed) == 7
    assert streamed.device == CPU
    assert all(map(same, resident.batch(rows), streamed.batch(rows)))
    assert all(map(same, resident.targets(rows), streamed.targets(rows)))
    check_equal_steps({"A": resident}, {"A": streamed}, [{"A": rows}, {"A": slice(0, 1)}])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("which", [0, 1])
def test_standardising_a_batch_leaves_what_is_kept_as_it_is(dtype, which):
    data = mouse(7, missing=True, dtype=dtype)[which]
    first = data.batch(slice(None)).images.clone(), data.targets(slice(None))[0].clone()
    for rows in (slice(None), slice(1, 4), torch.arange(7)):
        data.batch(rows), data.targets(rows)
    assert same(data.batch(slice(None)).images, first[0])
    assert same(data.targets(slice(None))[0], first[1])


class Counted(HostArray):
    """Counts its reads, and how far they are ahead of the loop; fails at one of them."""

    def __init__(self, values, fail_at=None):
        super().__init__(values)
        self.reads, self.fail_at = 0, fail_at
        self.asked_for, self.furthest_ahead = 0, 0
        self.read_once = threading.Semaphore(0)

    def read(self, rows, out):
        self.reads += 1
        self.furthest_ahead = max(self.furthest_ahead, self.reads - self.asked_for)
        if self.reads == self.fail_at:
            raise ValueError("mouse 'A': the file ends here.")
        super().read(rows, out)
        self.read_once.release()


def one_source(**options):
    return Counted(np.arange(40.0), **options), [{"x": np.array([i])} for i in range(20)]


def test_reading_is_ahead_but_not_by_more_than_asked():
    source, steps = one_source()
    n_awaited = 0
    with closing(read_ahead({"x": source}, steps, CPU)) as stream:
        for i in range(20):
            source.asked_for += 1
            assert float(next(stream)["x"]) == i
            assert len(threads()) <= 1
            while n_awaited < min(20, i + 1 + READ_AHEAD):  # which nobody asks for any more
                assert source.read_once.acquire(timeout=300)  # for ever if nothing is ahead
                n_awaited += 1
        assert next(stream, None) is None
    assert source.reads == 20
    assert source.furthest_ahead == READ_AHEAD


@pytest.mark.parametrize("together", [1, 3])
def test_what_is_read_next_is_announced_before_others_are_read(together):
    told = []

    class Told(HostArray):
        def read(self, rows, out):
            told.append(("read", *rows))
            super().read(rows, out)

        def announce(self, rows):
            told.append(("soon", *rows))

    steps = [{"x": np.array([i])} for i in range(7)]
    assert len(list(read_ahead({"x": Told(np.arange(7.0))}, steps, CPU, together=together))) == 7
    groups = [range(7)[i : i + together] for i in range(0, 7, together)]
    expected = [("read", *groups[0])]
    for group in groups[1:]:
        expected[-1:] = [("soon", *group), expected[-1], ("read", *group)]
    assert told == expected


def test_the_thread_ends_when_the_iterator_is_closed():
    source, steps = one_source()
    stream = read_ahead({"x": source}, steps, CPU)
    next(stream)
    stream.close()
    assert not threads()
    assert source.reads <= 2 + READ_AHEAD
    assert next(stream, None) is None


def test_the_thread_ends_when_an_iterator_was_never_used():
    source, steps = one_source()
    stream = read_ahead({"x": source}, steps, CPU)
    assert not threads()
    stream.close()
    assert source.reads == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_loop_leaves_no_thread(error):
    _, streamed = mouse(30)
    steps = epoch_batches({"A": 30}, 2, CPU)

    def loop():
        with closing(step_batches({"A": streamed}, steps)) as batches:
            for i, _ in enumerate(batches):
                if i == 3:
                    raise error

    with pytest.raises(error):
        loop()
    assert not threads()


def test_an_error_of_reading_reaches_the_loop_at_its_step():
    source, steps = one_source(fail_at=6)
    stream = read_ahead({"x": source}, steps, CPU)
    assert [float(next(stream)["x"]) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="mouse 'A': the file ends here"):
        next(stream)


def test_other_devices_are_used_by_the_loop_alone():
    """Two threads that compute on Apple's GPUs at once may end the process."""
    users = []

    class Noting(TorchFunctionMode):
        """Notes the calls of the thread that is within."""

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to:
                users.append(threading.current_thread())
            return function(*args, **kwargs or {})

    source, steps = one_source()
    with Noting():
        arrived = list(read_ahead({"x": source}, steps, torch.device("meta")))
    assert {step["x"].device.type for step in arrived} == {"meta"}
    assert len(users) == len(steps)
    assert set(users) == {threading.current_thread()}


def test_an_empty_epoch_has_no_step():
    source, _ = one_source()
    assert list(read_ahead({"x": source}, [], CPU)) == []
    assert list(step_batches({}, [])) == []


@pytest.mark.gpu
@pytest.mark.parametrize("missing", [False, True])
def test_streams_to_a_gpu_are_what_is_there(missing):
    device = torch.device("cuda")
    lengths = {"A": 300, "B": 170}
    pairs = {
        name: mouse(n, seed=i, missing=missing, device=device)
        for i, (name, n) in enumerate(lengths.items())
    }
    resident, streamed = ({name: pair[k] for name, pair in pairs.items()} for k in (0, 1))
    torch.cuda.manual_seed(0)
    for _ in range(3):
        check_equal_steps(resident, streamed, epoch_batches(lengths, 7, device))
    for r in (slice(3, 9), torch.tensor([5, 1], device=device)):
        assert all(map(same, resident["A"].batch(r), streamed["A"].batch(r)))


@pytest.mark.gpu
def test_buffers_wait_until_their_copy_is_done():
    device = torch.device("cuda")
    values = np.random.default_rng(0).normal(size=(64, 1 << 20)).astype(np.float32)
    steps = [{"x": np.arange(i % 32, i % 32 + 32)} for i in range(40)]
    expected = [values[s["x"]].astype(np.float64).sum() for s in steps[:32]] * 2
    busy = torch.randn(4096, 4096, device=device)
    sums = []
    for step in read_ahead({"x": HostArray(values)}, steps, device):
        busy = busy @ busy / 4096  # the loop's stream is behind the host
        sums.append(step["x"].double().sum())
    np.testing.assert_allclose([float(s) for s in sums], expected[:40], rtol=1e-9)
