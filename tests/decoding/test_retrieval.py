"""Reconstruction by retrieval."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from v1tlearn.decoding import reconstruct_by_retrieval


@pytest.mark.slow
def test_the_nearest_image_is_the_reconstruction(aligner, trials, test_trials):
    found = reconstruct_by_retrieval(aligner, test_trials, trials.sel(mouse_id="A"))
    images = trials.get("stimuli", "A")
    places = aligner.retrieve(test_trials, trials.sel(mouse_id="A"), k=1).places[:, 0]
    assert np.array_equal(found, images[places])
    assert found.mouse_id.values.tolist() == test_trials.mouse_ids.tolist()
    assert found.image_id.values.tolist() == test_trials.image_ids.tolist()


@pytest.mark.parametrize("weights", ["uniform", "similarity"])
def test_several_images_are_averaged(aligner, trials, test_trials, weights):
    gallery = trials.get("stimuli", "B")
    responses = aligner.transform_responses(test_trials)
    found = reconstruct_by_retrieval(aligner, responses, gallery, k=4, weights=weights)
    places, cosines = aligner.retrieve(responses, gallery, k=4)
    shares = np.ones(cosines.shape) if weights == "uniform" else cosines.clip(min=0)
    shares = np.where(shares.sum(1, keepdims=True) > 0, shares, 1)
    for row, share, at in zip(found.values, shares, places, strict=True):
        expected = np.average(gallery[at].astype(float), axis=0, weights=share)
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-4)


def test_an_image_that_was_shown_often_counts_once(aligner, test_trials):
    n_images = len(set(test_trials.image_ids.tolist()))
    found = reconstruct_by_retrieval(aligner, test_trials, test_trials, k=n_images)
    _, first = np.unique(test_trials.image_ids, return_index=True)
    images = [test_trials[[i]].get("stimuli", test_trials.mouse_ids[i])[0] for i in first]
    mean = np.broadcast_to(np.mean(images, axis=0), found.shape)
    np.testing.assert_allclose(found, mean, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=f"the gallery has {n_images} images"):
        reconstruct_by_retrieval(aligner, test_trials, test_trials, k=n_images + 1)


def test_what_gives_no_images_is_refused(aligner, trials, test_trials):
    with pytest.raises(TypeError, match="of maps no image is made"):
        reconstruct_by_retrieval(aligner, test_trials, aligner.transform_images(trials))
    with pytest.raises(TypeError, match="fitted DINAAligner"):
        reconstruct_by_retrieval(v1.RidgeDecoder(), test_trials, trials)
    with pytest.raises(NotFittedError):
        reconstruct_by_retrieval(v1.DINAAligner(), test_trials, trials)
    with pytest.raises(ValueError, match="weights"):
        reconstruct_by_retrieval(aligner, test_trials, trials, weights="rank")
