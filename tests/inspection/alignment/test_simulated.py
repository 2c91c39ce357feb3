"""Sweeps over simulated recordings of which is known what reaches the neurons."""

import pytest

import v1tlearn as v1
from v1tlearn.inspection import alignment_map, cutoff_of, manipulation_curve

VALUES = [0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12]


@pytest.mark.slow
@pytest.mark.parametrize("cutoff", [2.0, 4.0])
def test_sweeps_find_the_octave_below_the_cutoff_that_neurons_see(cutoff):
    # neurons are filters of frequencies from half the cut-off to the cut-off
    recordings = v1.make_coarse_recordings(
        n_neurons=200, n_trials=900, n_test_images=100, image_shape=(24, 36), cutoff=cutoff,
        informative=1.0, explainable_variance=0.8, random_state=0,
    )  # fmt: skip
    trials = v1.Trials(recordings)
    est = v1.DINAAligner(
        max_epochs=15, map_size=(12, 18), map_channels=8, hidden_channels=16, image_lr=3e-3,
        neural_lr=1e-3, random_state=0,
    )  # fmt: skip
    est.fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))
    test = trials.sel(tier="test")
    options = {"values": VALUES, "n_bootstrap": 200, "n_permutations": 100}
    low = manipulation_curve(est, test, "low_pass", **options)
    high = manipulation_curve(est, test, "high_pass", **options)
    for curve in (low, high):
        curve["share"] = curve["estimate"] / curve["unchanged"]
    whole = float(low["unchanged"].sel(measure="top1", mouse="A"))
    assert whole > 0.8  # chance is .01
    for measure in ("top1", "similarity"):
        kept, left = (c["share"].sel(measure=measure, mouse="A") for c in (low, high))
        assert float(kept.sel(value=cutoff)) > 0.97  # nothing above it is missed
        assert float(kept.sel(value=cutoff / 2)) < 0.9
        assert float(left.sel(value=cutoff)) < 0.12  # and nothing above it tells anything
        assert float(left.sel(value=cutoff / 2)) > 0.5
        for curve, share in ((low, 0.9), (high, 0.1)):
            found = cutoff_of(curve, measure=measure, share=share)["cutoff"].sel(mouse="A")
            assert cutoff / 2 < float(found) < 1.1 * cutoff, (measure, share)
    # phases, not the power at each frequency, tell images apart
    scrambled = manipulation_curve(est, test, "scramble_phases", **options | {"values": [1.0]})
    assert float(scrambled["p_value"].sel(measure="top1", mouse="A")[0]) > 0.01
    assert float(alignment_map(est, test)["area"].sel(mouse="A")) > 0.5
