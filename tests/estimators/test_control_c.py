"""Ctrl-C, and signals that end jobs of clusters: what is fitted is whole, whenever they come."""

import logging
import signal
import sys

import numpy as np
import pytest
from sklearn.base import clone

import v1tlearn as v1


@pytest.fixture(scope="module")
def trials():
    made = v1.make_v1_recordings(1, 4, 40, 2, 2, image_shape=(12, 16), random_state=0)
    return v1.Trials(made).sel(tier="train")


SIZES = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 3, "hidden_kernel": 3}
SIZES |= {"batch_size": 8, "max_epochs": 6, "lr": 0.1, "device": "cpu", "random_state": 0}


def fit(trials, told, checkpoint_dir=None, **params):
    """Fit, and be interrupted."""
    model = v1.CNNRegressor(**SIZES | params)
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            trials, on_epoch=lambda record: told(model, record), checkpoint_dir=checkpoint_dir
        )
    return model


def interrupt_after(epoch, what=signal.SIGINT):
    def told(model, record):
        if record["epoch"] == epoch:
            signal.raise_signal(what)

    return told


def test_a_second_one_waits_until_the_best_weights_are_back(trials):
    once = fit(trials, interrupt_after(5))
    assert once.best_epoch_ < 5  # other weights than those of the last epoch come back
    came = []

    def twice(model, record):
        if record["epoch"] == 5:
            for module in model.module_.modules():  # of which the first are loaded by then
                module.register_load_state_dict_post_hook(again)
            signal.raise_signal(signal.SIGINT)

    def again(module, keys):
        came.append(module)
        signal.raise_signal(signal.SIGINT)

    model = fit(trials, twice)
    assert came
    assert model.stop_reason_ == "interrupted"
    np.testing.assert_array_equal(model.predict(trials)["A"], once.predict(trials)["A"])


def test_one_while_an_epoch_is_counted_leaves_it_counted_whole(trials):
    """The weights are looked at, then copied, after the epoch has its number, then it is noted."""
    came = []

    def told(model, record):
        if record["epoch"] == 2:
            model.module_.register_state_dict_post_hook(interrupt)

    def interrupt(*state):
        came.append(state)
        if len(came) == 2:
            signal.raise_signal(signal.SIGINT)

    model = fit(trials, told, validation_fraction=0)
    assert len(came) > 1
    epochs = [record["epoch"] for record in model.history_]
    assert epochs == list(range(1, model.state_["epoch"] + 1))
    assert model.stop_reason_ == "interrupted"


def test_a_signal_to_terminate_ends_a_fit_where_the_script_says_so(trials, tmp_path):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        stopped = fit(
            trials, interrupt_after(3, signal.SIGTERM), checkpoint_dir=tmp_path / "states"
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.stop_reason_ == "interrupted"
    assert len(stopped.history_) == 3
    went_on = clone(stopped).fit(trials, checkpoint_dir=tmp_path / "states")
    whole = clone(stopped).fit(trials)
    np.testing.assert_array_equal(went_on.predict(trials)["A"], whole.predict(trials)["A"])


@pytest.mark.skipif(sys.platform == "win32", reason="it has no limit of file sizes")
def test_a_state_that_cannot_be_written_is_told_as_that(trials, tmp_path, caplog):
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    place = tmp_path / "states" / "epoch-000002"

    def told(model, record):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))

    model = v1.CNNRegressor(**SIZES)
    caplog.set_level(logging.INFO, "v1tlearn")
    try:
        with pytest.raises(OSError, match="File too large") as error:
            model.fit(trials, on_epoch=lambda record: told(model, record),
                      checkpoint_dir=tmp_path / "states")  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert error.value.filename.startswith(str(place))
    assert (model.stop_reason_, len(model.history_)) == ("error", 2)
    (end,) = [m for m in caplog.messages if "training ended" in m]
    assert "the state was not written to checkpoint_dir, OSError, [Errno 27] File too large" in end
    assert sorted(path.name for path in place.parent.iterdir()) == ["epoch-000001"]
