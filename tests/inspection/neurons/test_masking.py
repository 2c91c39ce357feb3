"""Masking curves, against the published ones and against every weight written out."""

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.nn.towers.published_towers import load, load_weights, own_neural, under
from v1tlearn.inspection import PUBLISHED_THRESHOLDS, attention_masking

KEPT = ("key", "non_key")


def published(name, map_size, grid, embed_dim, hidden_units, map_scale):
    """An aligner with the published neural tower in double precision, and trials of its input."""
    arrays = load(name)
    weights, names = under(arrays, "w/"), {}
    if "positional" in arrays:
        weights["embedding.bias"] = weights["embedding.bias"] + arrays["positional"]
        names = {"ff1.weight": "to_map.0.weight", "ff1.bias": "to_map.0.bias"}
    rng = np.random.default_rng(0)
    stimuli = rng.integers(0, 255, (2 + len(arrays["s"]), 1, 12, 16)).astype(np.uint8)
    est = v1.DINAAligner(
        neural_tower="attention",
        embed_dim=embed_dim,
        hidden_units=hidden_units,
        grid=grid,
        map_size=map_size,
        map_channels=1,
        map_scale=map_scale,
        max_epochs=0,
        validation_fraction=0,
        device="cpu",
        random_state=0,
    )
    edges = np.stack([np.zeros_like(arrays["s"][0]), np.ones_like(arrays["s"][0])])
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        est.fit(stimuli[:2], None, edges)  # responses from 0 to 1 stay as they are
    tower = est.module_.readouts[0]
    load_weights(tower, weights, lambda n: names.get(n) or own_neural(n)).double()
    return arrays, est, v1.Trials.from_arrays(stimuli[2:], None, arrays["s"])


def correlation(maps, others):
    return np.mean(
        [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps, others, strict=True)]
    )


def ssim(maps, others):
    both = (v1.nn.scale_maps(torch.tensor(m, dtype=torch.float64)[:, None]) for m in (maps, others))
    return v1.nn.structural_similarity(*both).mean().item()


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("masking_map", ((8, 12), (4, 6), 6, (10, 8), "minmax")),
        ("masking_predecessor", ((6, 6), (6, 6), 2, (), "none")),
    ],
)
def test_curves_are_those_of_the_published_analysis(name, sizes):
    arrays, est, trials = published(name, *sizes)
    np.testing.assert_allclose(PUBLISHED_THRESHOLDS, arrays["thresholds"], rtol=1e-12)
    (curves,) = attention_masking(est, trials, rankings="attention").values()
    found = curves.sel(responses="recorded", ranking="attention")
    key_weights = arrays["attention"][:, 0].astype(np.float64).mean(1)
    np.testing.assert_allclose(found["key_weight"], key_weights.mean(0), rtol=1e-5)
    for j, keep in enumerate(KEPT):
        for i, threshold in enumerate(arrays["thresholds"]):
            one, masked = found.sel(keep=keep).isel(step=i), arrays["masked"][i, j]
            kept = key_weights > threshold if keep == "key" else key_weights < threshold
            assert one["fraction"].item() == pytest.approx(kept.mean())
            expected = correlation(masked, arrays["unmasked"])
            assert one["correlation_full"].item() == pytest.approx(expected, abs=1e-5)
            expected = ssim(masked, arrays["unmasked"])
            assert one["ssim_full"].item() == pytest.approx(expected, abs=1e-5)


def reading(tower, responses, keep):
    """What neurons read, all weights written out (trials, neurons)."""
    with v1.nn.plain(), torch.no_grad():
        weights = tower.attention_weights(responses) * keep[:, :, None]
        values = tower.to_value(tower.embed(responses)).unflatten(-1, (tower.n_heads, -1))
        mixed = (weights @ values.transpose(1, 2)).transpose(1, 2).flatten(2)
        return (tower.projection(mixed) * tower.reader).sum(-1) + tower.reader_bias


def flat(maps):
    maps = v1.nn.scale_maps(maps, "center").flatten(1)
    return (maps / maps.norm(dim=1, keepdim=True)).detach()


@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("ranking", ["attention", "amplitude", "mine"])
def test_shares_of_the_best_neurons_are_kept(precise, seen, scaled, image_vectors, ranking, keep):
    est, fractions = precise["attention"], [0.2, 0.5, 1.0]
    mine = {"A": [3, 1, 4, 1.5, 9, 2.6, 5, 3.5, 8], "B": [6, 5, 4, 3, 2, 1]}
    found = attention_masking(
        est, seen, rankings=["attention", "amplitude"], scores={"mine": mine}, fractions=fractions
    )
    for mouse, curves in found.items():
        tower, responses = est.module_.readout(mouse), scaled(est, seen, mouse)
        images, ids = image_vectors(est, seen, mouse), seen.sel(mouse_id=mouse).image_ids
        with torch.no_grad():
            ranked = {
                "attention": tower.attention_weights(responses).mean(2),
                "amplitude": responses[:, None].expand(-1, 2, -1),
                "mine": torch.tensor(mine[mouse]).expand(len(responses), 2, -1),
            }[ranking]
            whole = flat(tower(responses))
        own = curves.sel(responses="recorded", ranking=ranking, keep=keep)
        assert own["wanted_fraction"].values.tolist() == fractions
        for i, fraction in enumerate(fractions):
            count = round(fraction * responses.shape[1])
            order = ranked.argsort(dim=-1, descending=True, stable=True)
            order = order[..., :count] if keep == "key" else order[..., -count:]
            kept = torch.zeros(ranked.shape).scatter(-1, order, 1.0).double()
            masked = flat(tower.maps_of(reading(tower, responses, kept)))
            one = own.isel(step=i)
            assert one["fraction"].item() == pytest.approx(count / responses.shape[1])
            # Maps of images are in single precision, whose numbers near 1 are 1.2e-7 apart.
            for name, others, off in (("full", whole, 1e-8), ("image", images, 1.2e-7)):
                # each channel of a map is centred, so cosines are correlations
                expected = (masked * others).sum(1).mean().item()
                assert one[f"correlation_{name}"].item() == pytest.approx(expected, abs=off)
            best = (masked @ images.T).argmax(1).numpy()
            assert one["top1"].item() == pytest.approx((ids[best] == ids).mean())


def test_masking_nothing_changes_nothing(aligners, seen):
    curves = attention_masking(aligners["attention"], seen, fractions=[1.0], n_random=2)["A"]
    for name in ("ssim", "correlation"):
        np.testing.assert_allclose(curves[f"{name}_full"], 1, atol=1e-5)
        whole = curves[f"{name}_image_unmasked"].values[:, None, None, None]
        np.testing.assert_allclose(curves[f"{name}_image"] - whole, 0, atol=1e-5)
    assert (curves["top1"] == curves["top1_unmasked"]).all()
    assert curves["top1_random"].dims == ("responses", "draw", "keep", "step")


def test_what_is_told_of_key_weights(precise, seen, scaled):
    est = precise["attention"]
    tower, responses = est.module_.readout("A"), scaled(est, seen, "A")
    with torch.no_grad():
        keys = tower.attention_weights(responses).mean(2).numpy()  # (trials, heads, neurons)
    thresholds = np.quantile(keys, [0.3, 0.8])
    curves = attention_masking(est, seen, rankings="amplitude", thresholds=[*thresholds, 0.99])["A"]
    own = curves.sel(responses="recorded")
    np.testing.assert_allclose(own["key_weight"], keys.mean((0, 1)), rtol=1e-9)
    assert own["key_weight"].sum().item() == pytest.approx(1)
    apart = np.abs(keys[..., None] - keys[..., None, :]).sum((-1, -2))
    np.testing.assert_allclose(own["gini"], (apart / (2 * 9)).mean(1), rtol=1e-9)
    participation = 1 / (keys**2).sum(-1)
    np.testing.assert_allclose(own["participation"], participation.mean(1), rtol=1e-9)
    for i, threshold in enumerate(thresholds):
        shares, chances = [], []
        for trial, strength in zip(keys, responses.numpy(), strict=True):
            for head in trial:
                mine = set(np.flatnonzero(head > threshold))
                strongest = set(np.argsort(-strength, kind="stable")[: len(mine)])
                if mine:
                    shares.append(len(mine & strongest) / len(mine))
                    chances.append(len(mine) / 9)
        assert own["overlap"][i].item() == pytest.approx(np.mean(shares))
        assert own["overlap_chance"][i].item() == pytest.approx(np.mean(chances))
    assert np.isnan(own["overlap"][-1])  # no key weight is so high
    assert own["fraction"].sel(keep="key")[-1] == 0


def test_shuffled_responses_are_those_of_the_same_neurons(aligners, seen):
    first, again = (
        attention_masking(aligners["attention"], seen, n_random=2, random_state=3)["B"]
        for _ in range(2)
    )
    assert first.identical(again)
    recorded, shuffled = (first.sel(responses=which) for which in ("recorded", "shuffled"))
    assert not np.allclose(recorded["gini"], shuffled["gini"])
    assert first["neuron"].values.tolist() == seen.neuron_ids("B").tolist()


def test_reliability_ranks_by_repeats(aligners, seen):
    reliable = v1.metrics.oracle_correlation(
        seen.get("responses", "A"),
        image_ids=seen.sel(mouse_id="A").image_ids,
        multioutput="raw_values",
    )
    options = {"fractions": [0.3, 0.6], "scores": {"mine": {"A": np.asarray(reliable)}}}
    own = seen.sel(mouse_id="A")
    curves = attention_masking(aligners["attention"], own, rankings="reliability", **options)["A"]
    by_name = (curves["ssim_full"].sel(ranking=name) for name in ("reliability", "mine"))
    np.testing.assert_array_equal(*by_name)
    once = own[np.unique(own.image_ids, return_index=True)[1]]
    with pytest.raises(ValueError, match="mouse 'A': reliability needs repeats"):
        attention_masking(aligners["attention"], once, rankings=["reliability"])


def test_what_cannot_be_masked_is_refused(aligners, seen, with_responses):
    est = aligners["attention"]
    with pytest.raises(TypeError, match="has a MLPTower, which has no attention weights"):
        attention_masking(aligners["mlp"], seen)
    with pytest.raises(ValueError, match="are the same in all"):
        attention_masking(est, with_responses(seen, "A", np.ones_like(seen.get("responses", "A"))))
    with pytest.raises(TypeError, match="scores is a list"):
        attention_masking(est, seen, scores=[1])
    for options, said in (
        ({"rankings": "size"}, "'size' came"),
        ({"rankings": []}, "rankings is empty"),
        ({"scores": {"random": [1]}}, "is the name of a ranking"),
        ({"scores": {"mine": [1, 2]}}, "expected one number for each of the 9"),
        ({"scores": {"mine": {"A": [np.nan] * 9}}}, "with NaN"),
        ({"scores": {"mine": {"A": range(9)}}}, "not 'B'"),
        ({"thresholds": [0.1], "fractions": [0.1]}, "give one of them"),
        ({"thresholds": [0.0]}, "above 0"),
        ({"fractions": [1.5]}, "up to 1"),
        ({"fractions": []}, "at least one"),
        ({"n_random": 0}, "n_random=0"),
    ):
        with pytest.raises(ValueError, match=said):
            attention_masking(est, seen, **options)
