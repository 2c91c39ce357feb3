"""`checkpoint_dir`: what is cut goes on to the model that it would have become."""

import pickle

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.sweeps import quick

SCHEDULES = {
    "plateau": {"schedule": "plateau", "lr_patience": 0, "max_lr_drops": 5},
    "rounds": {"schedule": "rounds", "lr_patience": 0, "max_lr_drops": 5},
    "constant": {"schedule": "constant", "validation_fraction": 0.0},
    "ema": {"ema_decay": 0.9},
}


class CutError(Exception):
    """The end of a process, as far as a test can have it within one."""


def same_models(one, other):
    for (name, a), b in zip(
        one.module_.state_dict().items(), other.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert without_seconds(one) == without_seconds(other)
    assert one.best_epoch_ == other.best_epoch_
    assert one.stop_reason_ == other.stop_reason_


def without_seconds(model):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in model.history_]


def cut_after(epoch):
    def on_epoch(record):
        if record["epoch"] == epoch:
            raise CutError

    return on_epoch


@pytest.mark.parametrize("kind", quick(SCHEDULES, 0))
def test_a_fit_cut_after_any_epoch_goes_on_to_the_same_model(kind, small, trials, tmp_path):
    options = {"max_epochs": 4, "random_state": 3, **SCHEDULES[kind]}
    whole = small(**options).fit(trials)
    for epoch in range(1, len(whole.history_) + 1):
        folder = tmp_path / f"{epoch}"
        with pytest.raises(CutError):
            small(**options).fit(trials, checkpoint_dir=folder, on_epoch=cut_after(epoch))
        torch.rand(7)  # what is drawn in between is not the fit's
        same_models(small(**options).fit(trials, checkpoint_dir=folder), whole)
        same_models(small(**options).fit(trials, checkpoint_dir=folder), whole)  # it is over


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["pickle", "save"])
def test_what_is_kept_from_on_epoch_goes_on_to_the_same_model(kept, small, trials, tmp_path):
    options = {"max_epochs": 4, "random_state": 3, "warm_start": True}
    copies = []

    def on_epoch(record):
        if kept == "pickle":
            copies.append(pickle.loads(pickle.dumps(model)))
        else:
            model.save(tmp_path / f"{record['epoch']}")
            copies.append(v1.load(tmp_path / f"{record['epoch']}"))

    model = small(**options)
    model.fit(trials, on_epoch=on_epoch)
    for epoch, copy in enumerate(copies[:-1], 1):
        copy.set_params(max_epochs=4 - epoch)
        copy.fit(trials)
        same_models(copy, model)


def test_a_copy_from_on_epoch_predicts_with_the_best_weights_so_far(small, trials, tmp_path):
    scores = []

    def on_epoch(record):
        model.save(tmp_path / "model")
        best = v1.load(tmp_path / "model")
        scores.append(max(r["validation_correlation"] for r in model.history_))
        assert best.history_[best.best_epoch_ - 1]["validation_correlation"] == scores[-1]

    model = small(max_epochs=3, random_state=0)
    model.fit(trials, on_epoch=on_epoch)
    same = v1.load(tmp_path / "model")
    np.testing.assert_array_equal(same.predict(trials)["A"], model.predict(trials)["A"])


def test_callbacks_do_not_change_the_model(small, trials):
    def on_epoch(record):
        torch.rand(1)
        np.random.default_rng().random()
        small(max_epochs=1, random_state=9).fit(trials)
        torch.manual_seed(5)

    options = {"max_epochs": 3, "random_state": 0}
    same_models(small(**options).fit(trials, on_epoch=on_epoch), small(**options).fit(trials))


def test_generators_and_switches_are_the_callers_within_a_callback(small, trials):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    found = []

    def on_epoch(record):
        found.append(torch.equal(torch.get_rng_state(), before))

    small(max_epochs=2, random_state=0).fit(trials, on_epoch=on_epoch)
    assert found == [True, True]


def test_the_last_two_states_are_kept(small, trials, tmp_path):
    small(max_epochs=4, random_state=0).fit(trials, checkpoint_dir=tmp_path / "states")
    names = sorted(path.name for path in (tmp_path / "states").iterdir())
    assert names == ["epoch-000003", "epoch-000004"]


def test_a_damaged_newest_state_falls_back_with_a_warning(small, trials, tmp_path):
    options = {"max_epochs": 4, "random_state": 0}
    whole = small(**options).fit(trials)
    with pytest.raises(CutError):
        small(**options).fit(trials, checkpoint_dir=tmp_path, on_epoch=cut_after(3))
    newest = tmp_path / "epoch-000003"
    (tensors,) = newest.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="damaged or incomplete.*goes on from the state before"):
        again = small(**options).fit(trials, checkpoint_dir=tmp_path)
    same_models(again, whole)
    for damaged in (newest, tmp_path / "epoch-000004"):
        (damaged / "model.json").write_text("{")
    with pytest.warns(UserWarning, match="damaged"):
        same_models(small(**options).fit(trials, checkpoint_dir=tmp_path), whole)


def test_other_data_and_parameters_are_refused_with_the_difference(small, trials, tmp_path):
    small(max_epochs=1, random_state=0).fit(trials, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"parameter lr \(was 0\.\d+, is 0\.5\)"):
        small(max_epochs=1, random_state=0, lr=0.5).fit(trials, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"recording of mouse A \(was .*trials.*, is .*trials"):
        small(max_epochs=1, random_state=0).fit(trials[5:], checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"recording of mouse B .*not there"):
        small(max_epochs=1, random_state=0).fit(trials.sel(mouse_id="A"), checkpoint_dir=tmp_path)
    other = trials.responses + 0.5
    with pytest.raises(ValueError, match=r"recording of mouse A .*hash"):
        small(max_epochs=1, random_state=0).fit(trials, other, checkpoint_dir=tmp_path)


def test_a_fit_that_goes_on_from_its_model_wants_a_directory_of_its_own(small, trials, tmp_path):
    model = small(max_epochs=2, random_state=0, warm_start=True)
    model.fit(trials, checkpoint_dir=tmp_path / "first")
    with pytest.raises(ValueError, match="with warm_start=True, goes on from its own"):
        model.fit(trials, checkpoint_dir=tmp_path / "first")
    assert model.n_iter_ == 2
    model.fit(trials, checkpoint_dir=tmp_path / "second")
    assert model.n_iter_ == 4


def test_more_epochs_are_the_same_fit(small, trials, tmp_path):
    small(max_epochs=2, random_state=0).fit(trials, checkpoint_dir=tmp_path)
    more = small(max_epochs=3, random_state=0).fit(trials, checkpoint_dir=tmp_path)
    same_models(more, small(max_epochs=3, random_state=0).fit(trials))


@pytest.mark.parametrize("draw", [lambda: None, np.random.RandomState])
def test_a_seed_of_the_system_is_that_of_the_state(draw, small, trials, tmp_path):
    first = small(max_epochs=2, random_state=draw())
    with pytest.raises(CutError):
        first.fit(trials, checkpoint_dir=tmp_path, on_epoch=cut_after(1))
    again = small(max_epochs=2, random_state=draw()).fit(trials, checkpoint_dir=tmp_path)
    assert again.seed_ == first.seed_
    assert len(again.history_) == 2


def test_interrupted_fits_leave_a_usable_model(small, trials, tmp_path):
    def on_epoch(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    model = small(max_epochs=5, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(trials, on_epoch=on_epoch)
    assert model.stop_reason_ == "interrupted"
    assert len(model.history_) == 2
    two = small(max_epochs=2, random_state=0).fit(trials)
    np.testing.assert_array_equal(model.predict(trials)["A"], two.predict(trials)["A"])


@pytest.mark.slow
def test_ensembles_go_on_and_name_their_candidates(small, trials, tmp_path):
    def ensemble():
        return v1.EnsembleRegressor(small(max_epochs=2), 3, 2, random_state=0)

    told = []
    whole = ensemble().fit(trials, on_epoch=told.append)
    assert [(r["candidate"], r["epoch"]) for r in told] == [
        (c, e) for c in range(3) for e in (1, 2)
    ]

    def cut(record):
        if (record["candidate"], record["epoch"]) == (1, 1):
            raise CutError

    with pytest.raises(CutError):
        ensemble().fit(trials, on_epoch=cut, checkpoint_dir=tmp_path)
    left = []
    again = ensemble().fit(trials, on_epoch=left.append, checkpoint_dir=tmp_path)
    assert [(r["candidate"], r["epoch"]) for r in left] == [(1, 2), (2, 1), (2, 2)]
    np.testing.assert_array_equal(again.validation_scores_, whole.validation_scores_)
    np.testing.assert_array_equal(again.predict(trials)["B"], whole.predict(trials)["B"])
    with pytest.raises(ValueError, match=r"parameter n_members \(was 2, is 1\)"):
        ensemble().set_params(n_members=1).fit(trials, checkpoint_dir=tmp_path)
