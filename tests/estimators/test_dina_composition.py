"""Alignments in the tools of scikit-learn: searches, pipelines, clones, fits that go on."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

import v1tlearn as v1

TINY = {"map_size": (4, 6), "map_channels": 3, "hidden_channels": 4, "n_layers": 2}
TINY |= {"input_kernel": 3, "hidden_units": (12,), "neural_channels": 4}
TINY |= {"max_epochs": 2, "random_state": 0, "device": "cpu", "batch_size": 16}


def aligner(**parameters):
    return v1.DINAAligner(**TINY | parameters)


def weights(est):
    return {name: w.clone() for name, w in est.module_.state_dict().items()}


def same(first, second):
    return all(torch.equal(w, second[name]) for name, w in first.items())


def test_a_search_splits_by_image_and_keeps_the_better(trials):
    grid = {"temperature": [0.05, 0.5], "neural_tower": ["mlp", "attention"]}
    search = GridSearchCV(aligner(max_epochs=1), grid, cv=GroupKFold(2))
    search.fit(trials, groups=trials.image_ids)
    scores = search.cv_results_["mean_test_score"]
    assert scores.shape == (4,)
    assert np.isfinite(scores).all()
    assert search.best_score_ == scores.max()
    assert search.score(trials) == search.best_estimator_.score(trials)
    assert search.transform(trials).shape == (len(trials), 3 * 4 * 6)


def test_every_fold_is_scored_on_images_that_were_not_trained_on(trials):
    one = trials.sel(mouse_id="A")
    for rows, held_out in GroupKFold(3).split(one, groups=one.image_ids):
        assert not set(one[rows].image_ids) & set(one[held_out].image_ids)
    found = cross_val_score(
        aligner(max_epochs=1), one, one.responses, groups=one.image_ids, cv=GroupKFold(3)
    )
    by_hand = [
        aligner(max_epochs=1).fit(one[rows]).score(one[held_out])
        for rows, held_out in GroupKFold(3).split(one, groups=one.image_ids)
    ]
    assert found.tolist() == by_hand


def test_images_standardised_in_a_pipeline_are_those_of_the_model(trials, test_trials):
    one, test = trials.sel(mouse_id="A"), test_trials.sel(mouse_id="A")
    inside = aligner(validation_fraction=0).fit(one)
    pipeline = make_pipeline(
        v1.TrialStandardizer(), aligner(standardize=False, validation_fraction=0)
    ).fit(one)
    np.testing.assert_allclose(pipeline.transform(test), inside.transform(test), atol=1e-4)
    assert pipeline.score(test) == inside.score(test)
    clone(pipeline).fit(one, one.responses)


def test_the_space_is_a_step_ahead_of_a_classifier(trials):
    one = trials.sel(mouse_id="A")
    bright = np.array([image.mean() > 100 for image in one.get("stimuli", "A")])
    vectors = aligner().fit_transform(one)
    assert RidgeClassifier().fit(vectors, bright).score(vectors, bright) > 0.8


def test_clones_have_the_parameters_and_nothing_else(trials):
    est = aligner(loss_weights=(1, 0.5, 0), grid=(2, 3)).fit(trials)
    other = clone(est)
    assert other.get_params() == est.get_params()
    assert not hasattr(other, "history_")
    assert same(weights(other.fit(trials)), weights(est))


def test_a_pickle_goes_on_as_the_model_does(trials):
    est = aligner(warm_start=True).fit(trials)
    again = pickle.loads(pickle.dumps(est))
    assert again.history_ == est.history_
    est.fit(trials)
    again.fit(trials)
    assert len(again.history_) == 4
    assert same(weights(est), weights(again))


def test_a_warm_start_goes_on_with_the_parameters_of_training_alone(trials):
    est = aligner(warm_start=True).fit(trials)
    before = weights(est)
    est.set_params(neural_lr=1e-12, image_lr=1e-12, max_epochs=1).fit(trials)
    assert len(est.history_) == 3
    after = weights(est)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    est.set_params(train_image_tower=False).fit(trials)
    assert len(est.history_) == 4
    assert not any(p.requires_grad for p in est.module_.core.parameters())
    with pytest.raises(ValueError, match=r"parameters changed since fit: map_size"):
        est.set_params(map_size=(2, 3)).fit(trials)
    with pytest.raises(ValueError, match="fitted on the mice"):
        est.set_params(map_size=(4, 6)).fit(trials.sel(mouse_id="A"))


def test_a_partial_fit_is_one_more_epoch_on_all_trials(trials):
    est = aligner()
    for n in (1, 2, 3):
        est.partial_fit(trials)
        assert len(est.history_) == n
        assert "validation_loss" not in est.history_[-1]
    whole = aligner(max_epochs=3, validation_fraction=0).fit(trials)
    assert same(weights(est), weights(whole))
    with pytest.raises(ValueError, match="fitted on the mice"):
        est.partial_fit(trials.sel(mouse_id="A"))


def test_a_class_of_ones_own_is_saved_by_its_name(trials, tmp_path):
    est = aligner(neural_tower=Own).fit(trials)
    est.save(tmp_path / "model")
    again = v1.load(tmp_path / "model")
    assert np.array_equal(again.transform_responses(trials), est.transform_responses(trials))


class Own(v1.nn.MLPTower):
    """As the package has it."""


# ------------------------------------------------------------------------------------ new animals


def test_new_animals_join_the_space_of_a_trained_image_tower(trials, test_trials):
    est = aligner().fit(trials.sel(mouse_id="A"))
    other = trials.sel(mouse_id="B")
    new = est.transfer(other, max_epochs=5)
    assert new.mice_ == ["B"]
    assert new.core_frozen_
    images = test_trials.get("stimuli", "A")
    assert np.array_equal(new.transform_images(images), est.transform_images(images))
    assert new.history_[-1]["loss"] < new.history_[0]["loss"]
    assert new.transform_responses(test_trials.sel(mouse_id="B")).shape[1:] == est.map_shape_
    again = pickle.loads(pickle.dumps(new))
    assert same(weights(again), weights(new))
    assert not any(p.requires_grad for p in again.module_.core.parameters())
    further = est.transfer(other, freeze_core=False)
    assert not same(weights(further), weights(new))
    with pytest.raises(ValueError, match="the core has other layers"):
        est.transfer(other, hidden_channels=5)


def test_an_animal_that_saw_movies_cannot_join(trials):
    est = aligner().fit(trials.sel(mouse_id="A"))
    size = est.image_shape_[1:]
    movies = v1.Trials(v1.make_movie_recordings(1, 3, 4, 1, 2, image_shape=size, random_state=0))
    with pytest.raises(ValueError, match="are movies, of up to"):
        est.transfer(movies.sel(tier="train"))


def test_an_unknown_animal_is_pointed_to_transfer(trials):
    est = aligner().fit(trials.sel(mouse_id="A"))
    with pytest.raises(ValueError, match=r"model\.transfer\(trials\.sel"):
        est.score(trials.sel(mouse_id="B"))
