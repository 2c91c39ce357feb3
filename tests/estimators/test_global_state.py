"""Models are what they are, whatever the caller set of torch and NumPy; and it stays so set."""

import os
import pickle
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.inspection import receptive_fields

PRODUCTS = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)


@contextmanager
def switched(write, value, before):
    write(value)
    try:
        yield
    finally:
        write(before)


@contextmanager
def newer_switches():
    before = [backend.fp32_precision for backend in PRODUCTS]
    try:
        for backend in PRODUCTS:
            backend.fp32_precision = "bf16"
        yield
    finally:
        for backend, value in zip(PRODUCTS, before, strict=True):
            backend.fp32_precision = value


STATES = {
    "float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "float16": lambda: switched(torch.set_default_dtype, torch.float16, torch.float32),
    "default device": lambda: switched(torch.set_default_device, "meta", None),
    "device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": lambda: switched(
        lambda on: torch.use_deterministic_algorithms(on, warn_only=on), True, False
    ),
    "older precision": lambda: switched(torch.set_float32_matmul_precision, "medium", "highest"),
    "newer precision": newer_switches,
    "NumPy's errors": lambda: np.errstate(all="raise"),
}


def older_precision():
    """Torch does not tell it where the newer switches were used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def seen():
    """Everything that may be set."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        older_precision(),
        [backend.fp32_precision for backend in PRODUCTS],
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        np.geterr(),
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def computed(small, trials, other, folder):
    """Numbers of everything public that computes."""
    model = small().fit(trials)
    model.save(folder)
    loaded = v1.CNNRegressor.load(folder)
    again = pickle.loads(pickle.dumps(model)).partial_fit(trials)
    transferred = loaded.transfer(other, max_epochs=1)
    resized = v1.Trials(trials.recordings)
    resized = v1.ResizeStimuli((10, 14)).fit_transform(v1.CenterCrop(0.9).fit_transform(resized))
    fields = receptive_fields(model, n_images=64)
    simulated = v1.make_v1_recordings(
        n_mice=1,
        n_neurons=2,
        n_trials=4,
        n_test_images=2,
        n_repeats=2,
        image_shape=(12, 16),
        random_state=0,
    )
    predictions = [m.predict(trials) for m in (model, loaded, again)]
    predictions.append(transferred.predict(other))
    return [
        *(p.get(mouse) for p in predictions for mouse in p.mice),
        *(fields[mouse].values for mouse in fields),
        *(resized.get("stimuli", mouse) for mouse in resized.mice),
        *(np.asarray(simulated["A"][name].values) for name in ("stimuli", "responses")),
        np.array([m.score(trials) for m in (model, again)]),
    ]


@pytest.fixture(scope="module")
def other():
    recordings = v1.make_v1_recordings(
        n_mice=1,
        n_neurons=4,
        n_trials=20,
        n_test_images=2,
        n_repeats=2,
        image_shape=(12, 16),
        random_state=1,
    )
    return v1.Trials(recordings).sel(tier="train")


@pytest.fixture(scope="module")
def expected(small, trials, other, tmp_path_factory):
    return computed(small, trials, other, tmp_path_factory.mktemp("expected") / "model")


@pytest.mark.parametrize("state", quick(STATES, 0, 4))
def test_models_are_the_same_and_switches_stay(state, small, trials, other, expected, tmp_path):
    with STATES[state]():
        before = seen()
        found = computed(small, trials, other, tmp_path / "model")
        assert seen() == before
    for one, same in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("state", quick(STATES, 0, 4))
def test_switches_stay_where_a_fit_raises(state, small, trials):
    def end(record):
        raise KeyboardInterrupt

    with STATES[state]():
        before = seen()
        with pytest.raises(KeyboardInterrupt):
            small(deterministic=True).fit(trials, on_epoch=end)
        with pytest.raises(FloatingPointError):
            small(deterministic=True, lr=1e30).fit(trials)
        assert seen() == before


def test_callbacks_find_the_switches_of_the_caller(small, trials):
    found = []
    with switched(torch.set_default_dtype, torch.float64, torch.float32):
        small(deterministic=True).fit(trials, on_epoch=lambda _: found.append(torch.ones(()).dtype))
    assert found == [torch.float64] * 2


def test_callbacks_find_the_floating_point_errors_of_the_caller(small, trials):
    found = []
    with np.errstate(all="raise"):
        before = np.geterr()
        small().fit(trials, on_epoch=lambda _: found.append(np.geterr()))
    assert found == [before] * 2


def test_a_model_loaded_in_inference_mode_trains_on(small, trials, tmp_path, equal):
    model = small().fit(trials)
    model.save(tmp_path / "model")
    with torch.inference_mode():
        loaded = v1.CNNRegressor.load(tmp_path / "model")
    for one in (model, loaded):
        one.partial_fit(trials)
    assert equal(model.predict(trials), loaded.predict(trials))


@pytest.mark.parametrize("found", [torch.float32, torch.float64])
def test_threads_that_compute_at_a_time_put_switches_back_together(small, trials, found, equal):
    model = small(deterministic=True).fit(trials)
    expected = model.predict(trials)
    start, wrong = threading.Barrier(3), []

    def work():
        start.wait()
        for _ in range(5):
            if not equal(model.predict(trials), expected):
                wrong.append("predictions")

    with ExitStack() as stack:
        if found != torch.float32:
            stack.enter_context(switched(torch.set_default_dtype, found, torch.float32))
        before = seen()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen() == before
    assert not wrong


def test_fits_in_threads_leave_switches_as_found(small, trials, equal):
    expected = small(deterministic=True).fit(trials).predict(trials)
    models, before = [], seen()

    def fit():
        models.append(small(deterministic=True).fit(trials))

    threads = [threading.Thread(target=fit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen() == before
    assert all(equal(model.predict(trials), expected) for model in models)
