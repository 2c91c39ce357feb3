"""Retrieval is the same in any order, batch and part, and never holds all similarities at once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from tests.held_memory import HeldMemory
from v1tlearn.nn import closest

TINY = {"map_size": (4, 6), "map_channels": 3, "hidden_channels": 4, "n_layers": 2}
TINY |= {"input_kernel": 3, "hidden_units": (12,), "neural_channels": 4, "embed_dim": 4}
TINY |= {"max_epochs": 3, "random_state": 0, "device": "cpu", "batch_size": 16}
K = 4
CLOSE = 1e-5  # cosines that differ by less may change places: towers round as batches are cut

seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module", params=["mlp", "attention"])
def fitted(request):
    """An alignment, responses and a gallery; not to be changed."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(30, 1, 12, 16)).astype(np.uint8)
    responses = rng.random((30, 6)).astype(np.float32)
    est = v1.DINAAligner(neural_tower=request.param, validation_fraction=0, **TINY)
    est.fit(images, None, responses)
    return est, responses, images


def assert_same(places, cosines, similarity):
    """That places hold the most similar images of a matrix (n, m), and cosines theirs."""
    expected = -np.sort(-similarity, axis=1)[:, : places.shape[1]]
    np.testing.assert_allclose(cosines, expected, atol=CLOSE)
    np.testing.assert_allclose(np.take_along_axis(similarity, places, 1), expected, atol=CLOSE)
    assert all(len(set(own)) == len(own) for own in places.tolist())


@given(seed=seeds)
def test_any_order_of_queries_and_gallery_finds_the_same_images(fitted, seed):
    est, responses, images = fitted
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(responses)), rng.permutation(len(images))
    similarity = est.similarity(responses, images)
    np.testing.assert_allclose(
        est.similarity(responses[rows], images[columns]), similarity[rows][:, columns], atol=CLOSE
    )
    found = est.retrieve(responses[rows], images[columns], k=K)
    assert_same(columns[found.places], found.similarities, similarity[rows])


@pytest.mark.slow
@given(data=st.data())
def test_queries_in_parts_find_what_all_find(fitted, data):
    est, responses, images = fitted
    cuts = sorted(data.draw(st.sets(st.integers(1, len(responses) - 1))))
    found = [est.retrieve(some, images, k=K) for some in np.split(responses, cuts)]
    places, cosines = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert_same(places, cosines, est.similarity(responses, images))


@given(data=st.data())
def test_images_in_batches_have_the_maps_of_all(fitted, data):
    est, _, images = fitted
    cuts = sorted(data.draw(st.sets(st.integers(1, len(images) - 1))))
    parts = [est.transform_images(some) for some in np.split(images, cuts)]
    np.testing.assert_allclose(np.concatenate(parts), est.transform_images(images), atol=CLOSE)


@given(seed=seeds, data=st.data())
def test_the_parts_of_a_gallery_make_no_difference_to_the_bit(seed, data):
    generator = torch.Generator().manual_seed(seed)
    n = data.draw(st.integers(2, 60))
    k = data.draw(st.integers(1, n))
    gallery = torch.randn(n, 24, generator=generator)
    gallery[n // 2 :] = gallery[torch.randint(n // 2, (n - n // 2,), generator=generator)]  # twins
    queries = torch.randn(7, 24, generator=generator)
    queries[3] = 0  # as similar to all
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1))))
    whole = closest(queries, [gallery], k)
    parts = closest(queries, torch.tensor_split(gallery, cuts), k)
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])
    unit = [x.double() / x.double().norm(dim=1, keepdim=True) for x in (queries, gallery)]
    cosines = (unit[0] @ unit[1].T).nan_to_num().float().numpy()
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :k]  # the first of twins first
    assert np.array_equal(whole[0], expected)
    assert np.array_equal(whole[1], np.take_along_axis(cosines, expected, 1))


@pytest.fixture(scope="module")
def of_two_mice():
    recordings = v1.make_v1_recordings(
        n_mice=2, n_neurons=5, n_trials=20, n_test_images=2, image_shape=(12, 16), random_state=0
    )
    trials = v1.Trials(recordings).sel(tier="train")
    est = v1.DINAAligner(**TINY | {"max_epochs": 1}).fit(trials)
    alone = np.concatenate([est.transform_images(trials[[i]]) for i in range(len(trials))])
    return est, trials, alone


@given(seed=seeds)
def test_a_gallery_of_several_mice_keeps_its_order(of_two_mice, seed):
    est, trials, alone = of_two_mice
    order = np.random.default_rng(seed).permutation(len(trials))
    mixed = trials[order]
    np.testing.assert_allclose(est.transform_images(mixed), alone[order], atol=CLOSE)
    queries = est.transform_responses(trials)
    found = est.retrieve(queries, mixed, k=K)
    assert_same(found.places, found.similarities, est.similarity(queries, mixed))


# --------------------------------------------------------------------------------- large galleries


def held(n_images, n_queries=300, n_features=16):
    """Bytes that a search holds beside queries and gallery, which come one part at a time."""
    queries = torch.randn(n_queries, n_features)

    def parts():
        for _ in range(0, n_images, 500):
            yield torch.randn(500, n_features)

    with HeldMemory() as memory:
        closest(queries, parts(), 5)
    return memory.most


@pytest.mark.slow
def test_memory_does_not_grow_with_the_gallery():
    few, many = held(4_000), held(16_000)
    assert many < 1.05 * few
    assert many < 300 * 16_000 * 4 / 2  # of all similarities


@pytest.mark.slow
def test_a_thousand_queries_in_a_gallery_of_a_hundred_thousand():
    n_queries, n_images, size = 1_000, 100_000, (6, 8)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(n_images, 1, 12, 16)).astype(np.uint8)
    responses = rng.random((n_queries, 6)).astype(np.float32)
    est = v1.DINAAligner(**TINY | {"map_size": size, "max_epochs": 1, "validation_fraction": 0})
    est.fit(images[:100], None, responses[:100])
    with HeldMemory() as streamed:
        found = est.retrieve(responses, images, k=5)
    some = rng.choice(n_queries, 20, replace=False)
    assert_same(
        found.places[some], found.similarities[some], est.similarity(responses[some], images)
    )
    with HeldMemory() as materialised:
        similarity = torch.from_numpy(est.similarity(responses, images))
        similarity.topk(5)
    ratio = materialised.most / streamed.most
    assert streamed.most < 4 * n_queries * n_images / 4  # of the similarities alone
    assert ratio > 4
