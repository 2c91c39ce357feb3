"""How many neurons find the image, against neurons that were not recorded."""

import numpy as np
import pytest
import torch

import v1tlearn as v1
from v1tlearn.inspection import neurons_for_performance

RANKINGS = ("importance", "amplitude", "reliability", "random", "greedy")


@pytest.fixture(scope="module")
def found(aligners, seen):
    return {
        tower: neurons_for_performance(
            est, seen, rankings=RANKINGS, n_seeds=3, n_greedy=4, n_candidates=6
        )["A"]
        for tower, est in aligners.items()
    }


def share_found(est, trials, judged, kept):
    """Share of the judged trials whose image is found with the neurons that are kept."""
    own = trials.sel(mouse_id="A")
    responses = np.where(kept, own.get("responses", "A"), np.nan)[judged]
    images = own[np.flatnonzero(judged)]
    images = images[np.unique(images.image_ids, return_index=True)[1]]
    similarity = est.similarity({"A": responses}, images)
    right = own.image_ids[judged][:, None] == images.image_ids
    return (similarity >= similarity[right][:, None]).sum(1) == 1


@pytest.mark.parametrize("tower", ["mlp", "attention"])
def test_other_neurons_are_as_if_not_recorded(aligners, seen, found, tower):
    own = found[tower]
    for seed in range(3):
        judged = ~own["ranked_on"].values[seed]
        for ranking in RANKINGS:
            one = own.sel(ranking=ranking).isel(seed=seed)
            for count in (1, 3, 4, 9):
                if ranking == "greedy" and count > 4:
                    assert np.isnan(one["top1"].sel(count=count))
                    continue
                hits = share_found(aligners[tower], seen, judged, one["place"].values < count)
                assert one["top1"].sel(count=count).item() == pytest.approx(hits.mean())
        everything = share_found(aligners[tower], seen, judged, np.ones(9, bool))
        assert own["top1_all"][seed].item() == pytest.approx(everything.mean())


def test_images_are_divided_with_their_repeats(seen, found):
    own, images = found["mlp"], seen.sel(mouse_id="A").image_ids
    assert own["chance"].values == pytest.approx(1 / 3)
    for ranked in own["ranked_on"].values:
        assert len(set(images[ranked])) == 3
        assert not set(images[ranked]) & set(images[~ranked])
    assert len(np.unique(own["ranked_on"], axis=0)) > 1


def test_places_are_those_of_what_ranks(aligners, seen, found, scaled):
    own, trials = found["mlp"], seen.sel(mouse_id="A")
    for seed, ranked in enumerate(own["ranked_on"].values):
        first = trials[np.flatnonzero(ranked)]
        strong = scaled(aligners["mlp"], first, "A").mean(0).numpy()
        reliable = v1.metrics.oracle_correlation(
            first.get("responses", "A"), image_ids=first.image_ids, multioutput="raw_values"
        )
        adds = v1.inspection.neuron_importance(aligners["mlp"], first, n_shuffles=0)["A"]
        for ranking, values in (
            ("amplitude", strong),
            ("reliability", np.asarray(reliable)),
            ("importance", adds["signed"].values),
        ):
            places = own["place"].sel(ranking=ranking)[seed].values
            assert (np.diff(values[np.argsort(places)]) <= 1e-7).all()
    assert sorted(own["place"].sel(ranking="random")[0].values) == list(range(9))


@pytest.mark.parametrize("tower", ["mlp", "attention"])
def test_greedy_adds_the_neuron_with_the_smallest_loss(aligners, seen, found, tower):
    est, own, trials = aligners[tower], found[tower], seen.sel(mouse_id="A")
    first = trials[np.flatnonzero(own["ranked_on"].values[0])]
    responses, images = first.get("responses", "A"), first
    images = first[np.unique(first.image_ids, return_index=True)[1]]
    labels = torch.from_numpy(np.searchsorted(images.image_ids, first.image_ids))
    temperature = est.module_.temperature.item()
    place = own["place"].sel(ranking="importance")[0].values
    candidates, chosen = set(np.flatnonzero(place < 6)), []
    for _ in range(4):
        losses = {}
        for neuron in sorted(candidates - set(chosen)):
            given = np.full_like(responses, np.nan)
            given[:, [*chosen, neuron]] = responses[:, [*chosen, neuron]]
            logits = torch.from_numpy(est.similarity({"A": given}, images)).double() / temperature
            losses[neuron] = torch.nn.functional.cross_entropy(logits, labels).item()
        chosen.append(min(losses, key=losses.get))
    greedy = own["place"].sel(ranking="greedy")[0].values
    assert np.argsort(greedy)[:4].tolist() == chosen  # NaN, not chosen, comes last
    assert np.isnan(greedy).sum() == 5


def test_needed_is_the_first_count_that_reaches_the_share(found):
    for own in found.values():
        for seed in range(3):
            for ranking in RANKINGS:
                one = own.sel(ranking=ranking).isel(seed=seed)
                enough = one["top1"].values >= 0.9 * one["top1_all"].item() - 1e-9
                told = one["needed"].item()
                if not enough.any() or one["top1_all"] <= one["chance"]:
                    assert np.isnan(told)
                else:
                    assert told == own["count"].values[enough].min()
                    assert one["needed_share"].item() == pytest.approx(told / 9)


def test_own_scores_counts_and_seed(aligners, seen):
    options = {"rankings": ["random"], "scores": {"mine": {"A": range(9), "B": range(6)}}}
    options |= {"counts": [2, 5], "n_seeds": 2, "random_state": 4}
    first, again = (neurons_for_performance(aligners["mlp"], seen, **options) for _ in range(2))
    assert first["A"]["count"].values.tolist() == [2, 5, 9]
    assert first["B"]["count"].values.tolist() == [2, 5, 6]
    assert first["A"].identical(again["A"])
    assert first["A"]["place"].sel(ranking="mine")[1].values.tolist() == list(range(8, -1, -1))
    assert first["B"]["neuron"].values.tolist() == seen.neuron_ids("B").tolist()


def test_what_cannot_be_counted_is_refused(aligners, seen, with_responses):
    est = aligners["mlp"]
    few = seen[np.isin(seen.image_ids, np.unique(seen.image_ids)[:3])]
    with pytest.raises(ValueError, match="mouse 'A' saw 3 images"):
        neurons_for_performance(est, few)
    silent = np.zeros_like(seen.get("responses", "A"))
    with pytest.raises(ValueError, match="are the same in all"):
        neurons_for_performance(est, with_responses(seen, "A", silent))
    for options, said in (
        ({"share": 0}, "share=0"),
        ({"share": 1.1}, "share=1.1"),
        ({"rankings": ["size"]}, "'size' came"),
        ({"counts": [0]}, "whole numbers from 1 to 9"),
        ({"counts": []}, "whole numbers from 1 to 9"),
        ({"counts": [2.5]}, "whole numbers from 1 to 9"),
        ({"n_seeds": 0}, "n_seeds=0"),
        ({"n_greedy": 0.5}, "n_greedy=0.5"),
        ({"n_candidates": -1}, "n_candidates=-1"),
    ):
        with pytest.raises(ValueError, match=said):
            neurons_for_performance(est, seen, **options)
