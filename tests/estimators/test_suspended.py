"""A model between two epochs of its fit: it may be saved, and nobody is in anybody's way."""

import pickle
import threading

import pytest
import torch

import v1tlearn as v1


def same(one, other):
    weights = [est.module_.state_dict() for est in (one, other)]
    histories = [[{**r, "seconds": 0} for r in est.history_] for est in (one, other)]
    return histories[0] == histories[1] and all(
        torch.equal(value, weights[1][name]) for name, value in weights[0].items()
    )


@pytest.mark.parametrize("way", ["pickle", "save"])
def test_a_model_saved_between_epochs_goes_on_to_the_same_result(small, trials, tmp_path, way):
    est, saved = small(max_epochs=4, warm_start=True, schedule="plateau"), []

    def keep(record):
        if record["epoch"] == 2:
            est.save(tmp_path / "model")
            saved.append(pickle.dumps(est))

    est.fit(trials, on_epoch=keep)
    loaded = v1.CNNRegressor.load(tmp_path / "model")
    other = loaded if way == "save" else pickle.loads(saved[0])
    assert other.n_iter_ == 2
    assert same(other.set_params(max_epochs=2).fit(trials), est)


def test_what_is_drawn_between_epochs_changes_nothing(small, trials):
    expected = small(max_epochs=3).fit(trials)
    assert same(small(max_epochs=3).fit(trials, on_epoch=lambda _: torch.rand(1)), expected)


def test_models_are_loaded_while_another_is_in_a_step_of_its_training(small, trials):
    expected = small(max_epochs=1).fit(trials)
    content, loaded, waited = pickle.dumps(expected), [], []

    def load():
        loaded.append(pickle.loads(content))

    def core(shape):
        """Loads a model in another thread during a step of its own training."""
        core = v1.nn.Stacked2dCore(
            shape, n_layers=1, hidden_channels=2, input_kernel=3, hidden_kernel=3
        )
        core.register_forward_hook(during_a_step)
        return core

    def during_a_step(module, *_):
        if module.training and not loaded:
            thread = threading.Thread(target=load, daemon=True)
            thread.start()
            thread.join(timeout=60)  # for ever if it waited for this step
            waited.append(thread.is_alive())

    v1.EncodingRegressor(core, max_epochs=1, device="cpu", random_state=0).fit(trials)
    assert waited == [False]
    assert same(loaded[0], expected)
