"""New animals on a trained core."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression

import v1tlearn as v1
from v1tlearn.model_selection import leave_one_mouse_out


@pytest.fixture(scope="module")
def fitted(small, trials):
    """A CNN that knows mouse A."""
    return small().fit(trials.sel(mouse_id="A"))


@pytest.fixture(scope="module")
def new_mouse(trials):
    return trials.sel(mouse_id="B")


@pytest.fixture(scope="module")
def three():
    return v1.Trials(v1.make_v1_recordings(3, 4, 40, 3, 4, image_shape=(12, 16), random_state=2))


def core_state(est):
    return {k: v.clone() for k, v in est.module_.core.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[k], second[k]) for k in first)


def test_only_readout_and_shifter_of_the_new_mouse_are_trained(fitted, new_mouse):
    before = core_state(fitted)
    start = fitted.transfer(new_mouse, max_epochs=0)
    est = fitted.transfer(new_mouse)
    assert est.mice_ == ["B"]
    assert est.core_frozen_
    assert not fitted.core_frozen_
    assert same(before, core_state(est))  # running statistics, too
    assert same(before, core_state(fitted))
    assert not torch.equal(start.module_.readouts[0].features, est.module_.readouts[0].features)
    initial, trained = (e.module_.shifters[0].state_dict() for e in (start, est))
    assert not same(initial, trained)


def test_readouts_learn_on_the_features_that_prediction_uses(fitted, new_mouse):
    """One step of Adam on the frozen features, written out."""
    params = {"validation_fraction": 0.0, "batch_size": 64, "init_sigma": 1e-9, "random_state": 3}
    start = fitted.transfer(new_mouse, max_epochs=0, **params)
    est = fitted.transfer(new_mouse, max_epochs=1, **params)
    readout, stats = start.module_.readouts[0], start.statistics_["B"]
    images = torch.as_tensor(new_mouse.get("stimuli", "B")).float()
    images = (images - stats["image_mean"]) / stats["image_std"]
    names = start.behavior_names_["B"]
    behaviors = (new_mouse.get("behaviors", "B") - stats["behavior_shift"]) / stats[
        "behavior_scale"
    ]
    behaviors = torch.as_tensor(behaviors.astype(np.float32))
    planes = behaviors[:, [names.index(c) for c in start.core_columns_]]
    pupil = behaviors[:, [names.index(c) for c in ("pupil_x", "pupil_y")]]
    fitted.module_.eval()
    with torch.no_grad():
        size = (-1, -1, *images.shape[-2:])
        features = fitted.module_.core(
            torch.cat([images, planes[:, :, None, None].expand(size)], 1)
        )
    rates = torch.nn.functional.elu(readout(features, start.module_.shifters[0](pupil))) + 1
    target = torch.as_tensor(new_mouse.responses.get("B") / stats["response_scale"])
    eps = torch.finfo(torch.float32).eps
    loss = ((rates + eps) - (target + eps) * (rates + eps).log()).sum()  # one batch: scale 1
    gradient = torch.autograd.grad(loss + readout.penalty(), readout.features)[0]
    step = start.lr * gradient / (gradient.abs() + 1e-8)  # Adam's first step
    expected = readout.features - step
    torch.testing.assert_close(est.module_.readouts[0].features, expected, rtol=0, atol=1e-6)


def test_fine_tuning_moves_the_core_at_its_own_rate(fitted, new_mouse):
    before = core_state(fitted)
    est = fitted.transfer(new_mouse, freeze_core=False, core_lr=1e-6)
    assert not est.core_frozen_
    weights = [k for k in before if "running" not in k and "num" not in k]
    moved = max((core_state(est)[k] - before[k]).abs().max() for k in weights)
    n_steps = 3 * len(est.history_)
    assert 0 < moved <= 2e-6 * n_steps  # Adam's steps are about as long as the learning rate
    readout = est.module_.readouts[0].features
    assert (readout - 1 / readout.shape[1]).abs().max() > 1e-4


def test_a_frozen_core_has_no_penalty(fitted, new_mouse):
    est = fitted.transfer(new_mouse, readout_l1=0.0)
    assert all(record["penalty"] == 0 for record in est.history_)
    tuned = fitted.transfer(new_mouse, freeze_core=False, readout_l1=0.0)
    assert all(record["penalty"] > 0 for record in tuned.history_)


def test_the_core_stays_frozen_in_what_follows(fitted, new_mouse, tmp_path, equal):
    before = core_state(fitted)
    est = fitted.transfer(new_mouse)
    est.save(tmp_path / "model")
    for again in (
        v1.CNNRegressor.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(est)),
    ):
        assert again.core_frozen_
        assert equal(again.predict(new_mouse), est.predict(new_mouse))
        assert same(before, core_state(again.partial_fit(new_mouse)))
        assert same(before, core_state(again.set_params(warm_start=True).fit(new_mouse)))
    assert not est.set_params(warm_start=False).fit(new_mouse).core_frozen_  # a fit anew


def test_the_seed_decides(fitted, new_mouse, equal):
    first, second, other = (
        fitted.transfer(new_mouse, random_state=seed).predict(new_mouse) for seed in (1, 1, 2)
    )
    assert equal(first, second)
    assert not equal(first, other)


def test_networks_of_each_mouse_are_new(small, trials, new_mouse):
    est = small(v1.V1TRegressor, behavior_mode="b_mlp_per_mouse").fit(trials.sel(mouse_id="A"))
    start, new = (est.transfer(new_mouse, max_epochs=n) for n in (0, 2))
    trained = dict(est.module_.core.named_parameters())
    initial = dict(start.module_.core.named_parameters())
    for name, value in new.module_.core.named_parameters():
        if name.startswith("behavior_mlps."):
            assert not torch.equal(value, initial[name])
            assert not torch.equal(value, trained[name])
        else:
            assert torch.equal(value, trained[name])


@pytest.mark.parametrize("kind", [v1.V1TRegressor, v1.ViTRegressor, v1.LNRegressor])
def test_every_model_transfers(kind, small, trials, new_mouse):
    est = small(kind).fit(trials.sel(mouse_id="A"))
    new = est.transfer(new_mouse)
    assert same(core_state(est), core_state(new))
    assert np.isfinite(new.predict(new_mouse)["B"]).all()


def test_a_core_crosses_data_sets_of_other_channels_and_size(small, trials):
    colour = v1.Trials(
        v1.make_v1_recordings(1, 4, 30, 2, 2, image_shape=(24, 32), n_channels=2, random_state=1)
    ).sel(tier="train")
    est = small(image_size=(12, 16)).fit(v1.Grayscale().fit_transform(colour))
    new = est.transfer(trials)
    assert new.mice_ == ["A", "B"]
    assert new.image_shape_ == (1, 12, 16)
    coloured = small(image_size=(12, 16)).fit(colour)
    with pytest.raises(ValueError, match="Grayscale makes one channel"):
        coloured.transfer(trials)


def test_validation_trials_choose_the_best_epoch(fitted, recordings, new_mouse):
    validation = v1.Trials(recordings).sel(tier="validation", mouse_id="B")
    est = fitted.transfer(new_mouse, validation=validation, max_epochs=4)
    best = max(record["validation_correlation"] for record in est.history_)
    assert est.score(validation) == pytest.approx(best, abs=1e-5)


class TestErrors:
    def test_not_fitted(self, small, trials):
        with pytest.raises(NotFittedError):
            small().transfer(trials)

    def test_arrays(self, fitted, arrays):
        with pytest.raises(TypeError, match="expected Trials"):
            fitted.transfer(arrays["stimuli"])

    def test_another_core(self, fitted, new_mouse):
        with pytest.raises(ValueError, match=r"parameters that changed \(hidden_channels\)"):
            fitted.transfer(new_mouse, hidden_channels=5, max_epochs=1, random_state=7)

    def test_other_behavior(self, fitted, new_mouse):
        with pytest.raises(ValueError, match="the core takes behaviour by 'channels'"):
            fitted.transfer(new_mouse, behavior_mode="none")

    def test_unknown_parameter(self, fitted, new_mouse):
        with pytest.raises(ValueError, match="no parameter 'learning_rate': did you mean lr"):
            fitted.transfer(new_mouse, learning_rate=1.0)

    def test_responses_beside_trials(self, fitted, new_mouse):
        with pytest.raises(TypeError, match="freeze_core is a Responses: expected True or False"):
            fitted.transfer(new_mouse, new_mouse.responses)

    def test_a_learning_rate_for_a_frozen_core(self, fitted, new_mouse):
        with pytest.raises(ValueError, match="set freeze_core=False"):
            fitted.transfer(new_mouse, core_lr=1e-4)


class TestLeaveOneMouseOut:
    @pytest.mark.slow
    def test_rows_are_scores_of_the_fits_they_name(self, small, three):
        table = leave_one_mouse_out(small(), three, max_epochs=1)
        assert table.columns.tolist() == ["mouse", "training", "correlation", "n_trials"]
        assert table["mouse"].tolist() == ["A", "A", "B", "B", "C", "C"]
        train, val, test = (three.sel(tier=t) for t in ("train", "validation", "test"))
        direct = small().fit(train.sel(mouse_id="B"), validation=val.sel(mouse_id="B"))
        others = small().fit(
            train.sel(mouse_id=["A", "C"]), validation=val.sel(mouse_id=["A", "C"])
        )
        moved = others.transfer(
            train.sel(mouse_id="B"), validation=val.sel(mouse_id="B"), max_epochs=1
        )
        expected = [e.score(test.sel(mouse_id="B")) for e in (direct, moved)]
        assert table["correlation"][2:4].tolist() == expected
        assert table["n_trials"].tolist() == [36] * 6

    @pytest.mark.slow
    def test_processes_change_nothing(self, small, three):
        two = three.sel(mouse_id=["A", "B"])
        one, other = (leave_one_mouse_out(small(max_epochs=1), two, n_jobs=n) for n in (1, 2))
        np.testing.assert_allclose(one["correlation"], other["correlation"], atol=1e-5)

    def test_threads_change_nothing(self, small, three):
        two = three.sel(mouse_id=["A", "B"])
        alone = leave_one_mouse_out(small(max_epochs=1), two)
        with joblib.parallel_config(backend="threading", n_jobs=3):
            threads = leave_one_mouse_out(small(max_epochs=1), two)
        pd.testing.assert_frame_equal(alone, threads)

    def test_trials_to_score_on_may_be_given(self, small, three):
        train, test = three.sel(tier="train"), three.sel(tier="test")
        table = leave_one_mouse_out(small(max_epochs=1), train, test)
        assert table["correlation"].between(-1, 1).all()

    def test_errors(self, small, three):
        with pytest.raises(TypeError, match="LinearRegression has no transfer"):
            leave_one_mouse_out(LinearRegression(), three)
        with pytest.raises(ValueError, match="needs at least two"):
            leave_one_mouse_out(small(), three.sel(mouse_id="A"))
        with pytest.raises(ValueError, match=r"no tier \['test'\]"):
            leave_one_mouse_out(small(), three.sel(tier="train"))
        with pytest.raises(ValueError, match=r"the mice \['C'\] have no test trials"):
            leave_one_mouse_out(small(), three, three.sel(mouse_id=["A", "B"]))
