"""What each neuron adds, against finite differences, its integral, and the neuron left out."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from v1tlearn.inspection import neuron_importance

TOWERS = ("mlp", "attention")


def mean_of(est, mouse):
    """Mean response of each neuron at `fit`, scaled."""
    own = est.statistics_[mouse]
    span = own["response_high"].astype(np.float64) - own["response_low"]
    return torch.from_numpy((own["response_mean"] - own["response_low"]) / span)


@pytest.mark.parametrize("tower", TOWERS)
def test_slopes_are_those_of_finite_differences(precise, seen, scaled, image_vectors, tower):
    est, h = precise[tower], 1e-6
    found = neuron_importance(est, seen)
    assert list(found) == ["A", "B"]
    for mouse, own in found.items():
        responses, images = scaled(est, seen, mouse), image_vectors(est, seen, mouse)

        @torch.no_grad()
        def similarity(given, mouse=mouse, images=images):
            maps = v1.nn.scale_maps(est.module_.readout(mouse)(given), "center").flatten(1)
            return (maps / maps.norm(dim=1, keepdim=True) * images).sum(1)

        for i in range(responses.shape[1]):
            step = h * torch.eye(responses.shape[1])[i].double()
            slope = (similarity(responses + step) - similarity(responses - step)) / (2 * h)
            adds = slope * (responses[:, i] - mean_of(est, mouse)[i])
            assert own["signed"][i].item() == pytest.approx(adds.mean().item(), rel=1e-5, abs=1e-9)
            assert own["absolute"][i].item() == pytest.approx(
                adds.abs().mean().item(), rel=1e-5, abs=1e-9
            )
        assert own["neuron"].values.tolist() == seen.neuron_ids(mouse).tolist()


@pytest.mark.parametrize("baseline", ["mean", "silence"])
@pytest.mark.parametrize("tower", TOWERS)
def test_integrated_gradients_sum_to_what_all_neurons_add(precise, seen, tower, baseline):
    own = neuron_importance(
        precise[tower], seen, "integrated_gradients", baseline=baseline, n_steps=100, n_shuffles=0
    )["A"]
    total = own["similarity"] - own["baseline_similarity"]
    assert own["signed"].sum().item() == pytest.approx(total.item(), abs=1e-8)
    assert abs(total) > 1e-5


@pytest.mark.parametrize("tower", TOWERS)
def test_an_ablated_neuron_is_one_that_was_not_recorded(aligners, seen, with_responses, tower):
    est, responses = aligners[tower], seen.get("responses", "A")
    own = neuron_importance(est, seen, "ablation", n_shuffles=0)["A"]
    images = seen.sel(mouse_id="A")

    def similarity(values):
        trials = with_responses(seen, "A", values)
        return np.diag(est.similarity(trials, images))

    for i in range(responses.shape[1]):
        without = responses.copy()
        without[:, i] = np.nan
        loss = similarity(responses) - similarity(without)
        assert own["signed"][i].item() == pytest.approx(loss.mean(), abs=1e-6)
        assert own["absolute"][i].item() == pytest.approx(np.abs(loss).mean(), abs=1e-6)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "ablation"])
def test_missing_responses_do_not_count(aligners, seen, with_responses, method):
    est, responses = aligners["mlp"], seen.get("responses", "B").copy()
    responses[:4, 1], responses[:, 3] = np.nan, np.nan
    trials = with_responses(seen, "B", responses)
    own = neuron_importance(est, trials, method)["B"]
    assert own["n_trials"].values.tolist() == [18, 14, 18, 0, 18, 18]
    assert np.isnan(own["signed"]).values.tolist() == [False, False, False, True, False, False]
    rest = neuron_importance(est, trials[4:], method)["B"]  # where neuron 1 was always recorded
    assert own["signed"][1].item() == pytest.approx(rest["signed"][1].item(), rel=1e-6)


def test_shuffled_pairs_are_of_images_that_were_not_seen(aligners, seen):
    own = seen.sel(mouse_id="A")
    two = own[np.isin(own.image_ids, np.unique(own.image_ids)[:2])]
    found = neuron_importance(aligners["attention"], two, n_shuffles=3)["A"]
    other = {image: two.get("stimuli", "A")[two.image_ids != image][0] for image in two.image_ids}
    swapped = v1.Trials.from_arrays(
        {"A": np.stack([other[image] for image in two.image_ids])},
        None,
        {"A": two.get("responses", "A")},
        image_ids={"A": two.image_ids},
    )
    expected = neuron_importance(aligners["attention"], swapped)["A"]
    for shuffled in found["signed_shuffled"].values:  # of two images there is but one other
        np.testing.assert_allclose(shuffled, expected["signed"], rtol=1e-6, atol=1e-9)


def test_the_seed_decides_on_pairs_alone(aligners, seen):
    first, again = (neuron_importance(aligners["mlp"], seen, random_state=1)["A"] for _ in range(2))
    other = neuron_importance(aligners["mlp"], seen, random_state=2)["A"]
    assert first.identical(again)
    assert first["signed"].identical(other["signed"])
    assert not first["signed_shuffled"].identical(other["signed_shuffled"])


def test_the_aligner_stays_as_it_is_without_gradients_of_its_own(aligners, seen):
    est = aligners["attention"]
    before = {n: w.clone() for n, w in est.module_.state_dict().items()}
    with torch.inference_mode():
        inside = neuron_importance(est, seen)["A"]
    assert inside.identical(neuron_importance(est, seen)["A"])
    assert all(torch.equal(w, before[n]) for n, w in est.module_.state_dict().items())
    assert all(p.grad is None for p in est.module_.parameters())


def test_trials_that_repeat_images_of_the_training_are_told(aligners, alignments_trials):
    train = alignments_trials.sel(tier="train", mouse_id="A")
    again = v1.Trials.from_arrays(
        {"A": train.get("stimuli", "A")},
        None,
        {"A": train.get("responses", "A")},
        image_ids={"A": train.image_ids},
    )
    with pytest.warns(UserWarning, match="show images that the model was trained on"):
        neuron_importance(aligners["mlp"], again)


def test_one_neuron_is_enough(alignments_trials):
    responses = alignments_trials.get("responses", "A")[:, :1]
    own = alignments_trials.sel(mouse_id="A")
    stimuli = own.get("stimuli", "A")
    est = v1.DINAAligner(max_epochs=1, map_size=(4, 6), map_channels=2, random_state=0)
    trials = v1.Trials.from_arrays(stimuli, None, responses, image_ids=own.image_ids)
    (found,) = neuron_importance(est.fit(trials), trials, "ablation").values()
    gain = found["similarity"] - found["baseline_similarity"]
    assert found["signed"][0].item() == pytest.approx(gain.item(), abs=1e-6)


def test_what_cannot_be_told_is_refused(aligners, seen, with_responses):
    est = aligners["mlp"]
    silent = np.zeros_like(seen.get("responses", "A"))
    with pytest.raises(ValueError, match="mouse 'A': its responses are the same in all 18 trials"):
        neuron_importance(est, with_responses(seen, "A", silent))
    lost = seen.get("responses", "A").copy()
    lost[[2, 5]] = np.nan
    with pytest.raises(ValueError, match="no response was recorded in the trials"):
        neuron_importance(est, with_responses(seen, "A", lost))
    with pytest.raises(ValueError, match="show one image"):
        neuron_importance(est, seen[seen.image_ids == seen.image_ids[0]])
    with pytest.raises(ValueError, match="unknown mouse 'C'"):
        neuron_importance(
            est,
            v1.Trials.from_arrays(
                {"C": seen.get("stimuli", "A")}, None, {"C": seen.get("responses", "A")}
            ),
        )
    with pytest.raises(TypeError, match="expected a fitted DINAAligner"):
        neuron_importance(v1.LNRegressor(), seen)
    with pytest.raises(NotFittedError):
        neuron_importance(v1.DINAAligner(), seen)
    with pytest.raises(TypeError, match="expected Trials"):
        neuron_importance(est, seen.get("responses", "A"))
    for options, said in (
        ({"method": "shap"}, "method='shap'"),
        ({"baseline": 0}, "baseline=0"),
        ({"n_steps": 0}, "n_steps=0"),
        ({"n_shuffles": True}, "n_shuffles=True"),
    ):
        with pytest.raises(ValueError, match=said):
            neuron_importance(est, seen, **options)
