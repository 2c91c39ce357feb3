"""Centres of attention against scipy, and correlations with the eye against known attention."""

import copy

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage, stats

import v1tlearn as v1
from v1tlearn.inspection import (
    attention_center_of_mass,
    attention_pupil_correlation,
    attention_rollout,
)

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 7))


@given(arrays(np.float64, SIZES, elements=st.floats(0, 100, width=16)))
def test_centres_are_those_of_scipy(values):
    maps = xr.DataArray(values, dims=("trial", "height", "width"))
    found = attention_center_of_mass(maps)
    assert found.dims == ("trial", "axis")
    for one, center in zip(values, found.values, strict=True):
        if one.sum() == 0:
            assert np.isnan(center).all()
        else:
            y, x = ndimage.center_of_mass(one)
            np.testing.assert_allclose(center, (x, y), atol=1e-9)


def test_centres_are_in_pixels_of_the_image_and_move_with_the_crop():
    maps = xr.DataArray(
        np.ones((2, 3, 4)),
        dims=("trial", "height", "width"),
        coords={"height": [2.0, 6.0, 10.0], "width": [10.0, 20.0, 30.0, 40.0]}
        | {"moved_x": ("trial", [0.0, 1.5]), "moved_y": ("trial", [0.0, -2.0])},
    )
    found = attention_center_of_mass({"A": maps.transpose("width", "trial", "height")})["A"]
    np.testing.assert_allclose(found.sel(axis="x"), [25, 26.5])
    np.testing.assert_allclose(found.sel(axis="y"), [6, 4])
    assert found.attrs["units"] == "pixel"


def test_what_is_no_map_is_refused():
    with pytest.raises(TypeError, match="maps is a ndarray"):
        attention_center_of_mass(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\['width'\] are missing"):
        attention_center_of_mass(xr.DataArray(np.ones((2, 3)), dims=("trial", "height")))
    for wrong in (-1.0, np.nan):
        values = np.ones((2, 3))
        values[0, 0] = wrong
        with pytest.raises(ValueError, match="negative or not finite"):
            attention_center_of_mass(xr.DataArray(values, dims=("height", "width")))


def test_correlations_are_those_of_scipy(fit, trials):
    model, test = fit(), trials.sel(tier="test")[::-1]
    found = attention_pupil_correlation(model, test, head_reduction="max", n_permutations=20)
    centers = attention_center_of_mass(attention_rollout(model, test, head_reduction="max"))
    assert found["mouse"].values.tolist() == ["A", "B"]
    for mouse, own in centers.items():
        pupil = test[mouse]["behaviors"].values[:, 3:]
        for i, axis in enumerate("xy"):
            expected = stats.pearsonr(own.sel(axis=axis), pupil[:, i])
            one = found.sel(mouse=mouse, axis=axis)
            assert float(one["correlation"]) == pytest.approx(expected.statistic, abs=1e-5)
            assert float(one["p_value"]) == pytest.approx(expected.pvalue, rel=1e-3)
    assert (found["n_trials"] == 16).all()


def test_attention_that_follows_the_eye_is_found(looking, trials):
    found = attention_pupil_correlation(looking, trials.sel(tier="test"))
    assert (found["correlation"] > 0.9).all()
    assert (found["p_value"] < 1e-4).all()
    assert (found["permutation_p_value"] < 0.01).all()
    # other columns of 16 trials are at chance: 95 % of |r| are below .5
    assert ((found["control"] > 0.35) & (found["control"] < 0.65)).all()
    table = attention_pupil_correlation(looking, trials.sel(tier="test"), as_table=True)
    assert table.index.tolist() == ["A", "B", "mean"]
    mean = found["correlation"].sel(axis="y").mean().item()
    assert table.loc["mean", ("y", "correlation")] == pytest.approx(mean)
    assert np.isnan(table.loc["mean", ("y", "p_value")])


def test_attention_that_does_not_see_the_eye_is_at_chance(fit, trials):
    """Permutations are uniform where nothing follows: no p value of a blind model is extreme."""
    blind = fit(behavior_mode="none", shift="none")
    found = attention_pupil_correlation(blind, trials, n_permutations=200)
    assert (found["permutation_p_value"] > 0.005).all()
    assert (np.abs(found["correlation"]) < 0.45).all()  # 49 trials
    seen = attention_pupil_correlation(blind, trials, n_permutations=200)
    xr.testing.assert_identical(found, seen)


def test_sign_and_columns(looking, trials):
    test = trials.sel(tier="test")
    found = attention_pupil_correlation(looking, test, columns=("pupil_y", "pupil_x"))
    straight = attention_pupil_correlation(looking, test)
    assert found["column"].values.tolist() == ["pupil_y", "pupil_x"]
    assert (np.abs(found["correlation"]) < straight["correlation"].min()).all()
    other = copy.deepcopy(looking)
    for mouse in ("A", "B"):
        other.statistics_[mouse]["behavior_scale"][3:] *= -1
    turned = attention_pupil_correlation(other, test)
    assert (turned["correlation"] < -0.9).all()


def test_without_a_pupil_there_is_no_answer(trials, fit):
    recordings = trials.sel(tier="test").recordings
    names = ["pupil_dilation", "running_speed"]
    blind = v1.Trials({m: recordings[m].to_dataset().sel(behavior=names) for m in "AB"})
    model = v1.ViTRegressor(
        patch_size=4, patch_stride=4, n_blocks=1, n_heads=1, embed_dim=4, mlp_dim=4, max_epochs=1,
        behavior_mode="none", shift="none", device="cpu", random_state=0,
    ).fit(trials.sel(tier="train"))  # fmt: skip
    with pytest.raises(ValueError, match=r"mouse 'A': \['pupil_x', 'pupil_y'\] are needed"):
        attention_pupil_correlation(model, blind)
    with pytest.raises(ValueError, match="expected two, for x and for y"):
        attention_pupil_correlation(model, blind, columns=["pupil_x"])
    with pytest.raises(ValueError, match="expected at least 3"):
        attention_pupil_correlation(fit(), trials.sel(tier="test", mouse_id="A")[:2])
