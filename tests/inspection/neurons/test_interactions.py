"""Edges of attention, correlations of pairs, and groups of edges, all written out."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import v1tlearn as v1
from v1tlearn.inspection import functional_interactions

GROUPS = ("keys attend keys", "keys attend others", "others attend keys", "others attend others")


@pytest.fixture(scope="module")
def found(precise, seen):
    return functional_interactions(precise["attention"], seen, n_edges=7, n_shuffles=3)


def weights_of(est, responses, mouse):
    """Attention weights (trials, heads, neurons, neurons)."""
    with torch.no_grad():
        return est.module_.readout(mouse).attention_weights(responses)


def test_edges_are_mean_attention_weights(precise, seen, scaled, found):
    est = precise["attention"]
    for mouse, own in found.items():
        mean = weights_of(est, scaled(est, seen, mouse), mouse).mean((0, 1)).numpy()
        np.testing.assert_allclose(own["attention"], mean, rtol=1e-9)
        np.testing.assert_allclose(own["excess"], mean - mean.mean(0), atol=1e-12)
        off = mean - 2 * np.eye(len(mean))
        order = np.argsort(-off, axis=None)[:7]
        ids = seen.neuron_ids(mouse)
        queries, keys = np.unravel_index(order, mean.shape)
        np.testing.assert_allclose(own["edge_weight"], off.ravel()[order], rtol=1e-9)
        assert own["edge_query"].values.tolist() == ids[queries].tolist()
        assert own["edge_key"].values.tolist() == ids[keys].tolist()


def test_correlations_are_those_of_pairs(seen, found):
    for mouse, own in found.items():
        responses = seen.get("responses", mouse).astype(np.float64)
        ids = seen.sel(mouse_id=mouse).image_ids
        images, labels = np.unique(ids, return_inverse=True)
        means = np.stack([responses[ids == image].mean(0) for image in images])
        off = ~np.eye(responses.shape[1], dtype=bool)
        signal, noise = np.corrcoef(means.T), np.corrcoef((responses - means[labels]).T)
        # as they were recorded: the tower takes them clipped to their range at `fit`
        np.testing.assert_allclose(own["signal_correlation"].values[off], signal[off], atol=1e-6)
        np.testing.assert_allclose(own["noise_correlation"].values[off], noise[off], atol=1e-6)
        assert np.isnan(own["noise_correlation"].values[~off]).all()
        positions = seen.positions(mouse)
        between = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        np.testing.assert_allclose(own["distance"], between, rtol=1e-5)


def test_missing_responses_leave_pairs_that_were_recorded(aligners, seen, with_responses):
    responses = seen.get("responses", "B").astype(np.float64)
    ids = seen.sel(mouse_id="B").image_ids
    first = [np.flatnonzero(ids == image)[0] for image in np.unique(ids)[:4]]
    responses[first, 2], responses[:, 5] = np.nan, np.nan
    trials = with_responses(seen, "B", responses)
    own = functional_interactions(aligners["attention"], trials, n_shuffles=0)["B"]
    ids, known = trials.image_ids, ~np.isnan(responses[:, 2])
    rest = responses[:, [2, 0]].copy()
    for image in np.unique(ids):
        shown = ids == image
        rest[shown] -= [responses[shown & known, 2].mean(), responses[shown, 0].mean()]
    several = known & (np.array([(known & (ids == image)).sum() for image in ids]) > 1)
    expected = np.corrcoef(rest[several].T)[0, 1]
    assert own["noise_correlation"][2, 0].item() == pytest.approx(expected, abs=1e-6)
    assert np.isnan(own["noise_correlation"][5]).all()
    assert np.isnan(own["signal_correlation"][5]).all()
    assert "distance" not in own  # no positions came
    assert own["compared"].values.tolist() == ["signal_correlation", "noise_correlation"]


def test_agreement_is_of_pairs_in_both_directions(precise, seen, scaled, found):
    own, est = found["A"], precise["attention"]
    above = np.triu_indices(9, 1)
    for what, values in (("weight", own["attention"].values), ("excess", own["excess"].values)):
        sums = (values + values.T)[above]
        for name in ("signal_correlation", "noise_correlation", "distance"):
            expected = spearmanr(sums, own[name].values[above])[0]
            told = own["agreement"].sel(what=what, compared=name).item()
            assert told == pytest.approx(expected, abs=1e-9)
    assert own["agreement_shuffled"].shape == (3, 2, 3)
    assert not np.allclose(own["agreement_shuffled"][0], own["agreement"])
    again = functional_interactions(est, seen, n_edges=7, n_shuffles=3)["A"]
    assert own.identical(again)


def test_groups_of_edges_are_taken_away(precise, seen, scaled, image_vectors, found):
    est = precise["attention"]
    tower, responses = est.module_.readout("A"), scaled(est, seen, "A")
    weights, ids = weights_of(est, responses, "A"), seen.sel(mouse_id="A").image_ids
    images = image_vectors(est, seen, "A")
    keys = torch.zeros(18, 9, dtype=torch.bool)
    keys[torch.arange(18), weights.mean((1, 2)).argmax(1)] = True  # a tenth of nine is one

    @torch.no_grad()
    def maps(weights):
        values = tower.to_value(tower.embed(responses)).unflatten(-1, (2, -1)).transpose(1, 2)
        mixed = tower.projection((weights @ values).transpose(1, 2).flatten(2))
        read = (mixed * tower.reader).sum(-1) + tower.reader_bias
        flat = v1.nn.scale_maps(tower.maps_of(read), "center").flatten(1)
        return flat / flat.norm(dim=1, keepdim=True)

    whole = maps(weights)
    for i, group in enumerate(GROUPS):
        attending = keys if group.startswith("keys") else ~keys
        attended = keys if group.endswith("keys") else ~keys
        gone = attending[:, None, :, None] & attended[:, None, None, :]
        rest = maps(torch.where(gone, 0.0, weights))
        own = found["A"].sel(group=group)
        expected = (rest * whole).sum(1).mean().item()
        assert own["correlation_full"].item() == pytest.approx(expected, abs=1e-9)
        expected = (rest * images).sum(1).mean().item()
        # maps of images are in single precision, whose numbers near 1 are 1.2e-7 apart
        assert own["correlation_image"].item() == pytest.approx(expected, abs=1.2e-7)
        hits = ids[(rest @ images.T).argmax(1).numpy()] == ids
        assert own["top1"].item() == pytest.approx(hits.mean())
        assert own["edges"].item() == pytest.approx([1, 8, 8, 64][i] / 81)
    assert found["A"]["top1_random"].shape == found["A"]["top1_shuffled"].shape == (3, 4)


def test_some_neurons_of_many_are_picked(precise, seen, found):
    few = functional_interactions(precise["attention"], seen, n_neurons=4, n_edges=7)["A"]
    assert few["attention"].shape == (4, 4)
    both = {"query": few["query"].values, "key": few["key"].values}
    for name in ("attention", "excess", "signal_correlation", "distance"):
        np.testing.assert_allclose(few[name], found["A"][name].sel(both), atol=1e-12)
    np.testing.assert_array_equal(few["edge_weight"], found["A"]["edge_weight"])
    every = functional_interactions(precise["attention"], seen, n_edges=1000)["A"]
    assert every.sizes["edge"] == 72


def test_without_repeats_there_are_no_noise_correlations(aligners, seen):
    own = seen.sel(mouse_id="A")
    once = own[np.unique(own.image_ids, return_index=True)[1]]
    found = functional_interactions(aligners["attention"], once, n_shuffles=0)["A"]
    assert np.isnan(found["noise_correlation"]).all()
    assert np.isnan(found["agreement"].sel(compared="noise_correlation")).all()
    assert not np.isnan(found["agreement"].sel(compared="signal_correlation")).any()


def test_what_has_no_edges_is_refused(aligners, seen, with_responses):
    with pytest.raises(TypeError, match="has a MLPTower, which has no attention weights"):
        functional_interactions(aligners["mlp"], seen)
    silent = np.zeros_like(seen.get("responses", "A"))
    with pytest.raises(ValueError, match="are the same in all"):
        functional_interactions(aligners["attention"], with_responses(seen, "A", silent))
    for options in (
        {"n_neurons": 1},
        {"n_edges": 0},
        {"key_share": 1},
        {"key_share": 0.0},
        {"n_shuffles": -1},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(options))}="):
            functional_interactions(aligners["attention"], seen, **options)
