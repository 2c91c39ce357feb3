"""The loss of Vi-ST, against the numbers of the published code and its terms."""

import pytest
import torch

from tests.nn.movies.published_vist import load, relative_error, under
from v1tlearn import nn
from v1tlearn.nn.movies.loss import window_starts

FILES = ("loss_T40", "loss_T60", "loss_T100")
each_file = pytest.mark.parametrize("name", FILES)


def responses(arrays, dtype=torch.float64):
    """Prediction and target (items, frames, neurons)."""
    prediction = torch.from_numpy(arrays["prediction"]).to(dtype).transpose(1, 2).contiguous()
    return prediction.requires_grad_(), torch.from_numpy(arrays["target"]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("way", ["auto", "plain"])
@each_file
def test_totals_and_gradients_are_the_published_ones(name, way, dtype):
    arrays = load(name)
    prediction, target = responses(arrays, dtype)
    with nn.fast.using(way):
        total = nn.vist_loss(prediction, target)
        (gradient,) = torch.autograd.grad(total, prediction)
    precision = 1e-11 if dtype == torch.float64 else 1e-6
    assert total.item() == pytest.approx(float(arrays["stated/total"]), rel=precision)
    kind = "float64" if dtype == torch.float64 else "float32"
    # The alignment of the published loss is in single precision either way.
    assert relative_error(gradient.mT, arrays[f"published/{kind}/grad"]) < (
        1e-6 if dtype == torch.float64 else 1e-5
    )


@each_file
def test_single_terms_are_the_stated_ones(name):
    arrays = load(name)
    prediction, target = responses(arrays)

    def term(**weights):
        others = {"error_weight": 0, "negative_weight": 0, "alignment_weight": 0}
        return nn.vist_loss(prediction, target, **{**others, **weights}).item()

    assert term(error_weight=1) == pytest.approx(float(arrays["stated/rmse"]), rel=1e-12)
    assert term(negative_weight=1) == pytest.approx(float(arrays["stated/negative"]), rel=1e-12)
    for scale, key in ((20, "w1"), (10, "w2")):
        expected = arrays[f"stated/{key}/divergence"].mean()
        assert term(alignment_weight=1, scales=(scale,)) == pytest.approx(expected, rel=1e-9)
    assert term() == 0


@each_file
def test_windows_and_their_gradients_are_the_published_ones(name):
    arrays = load(name)
    n_frames = arrays["target"].shape[1]
    prediction, target = responses(arrays)
    for scale, key in ((20, "w1"), (10, "w2")):
        case, window = under(arrays, f"published/{key}/"), n_frames // scale
        starts = window_starts(n_frames, window)
        assert window == arrays[f"{key}/length"]
        assert list(starts) == arrays[f"{key}/starts"].tolist()
        of_prediction, of_target = (
            torch.cat([r.detach()[:, s : s + window] for s in starts]) for r in (prediction, target)
        )
        of_prediction.requires_grad_()
        values = nn.soft_dtw_divergence(of_prediction, of_target)
        (gradient,) = torch.autograd.grad(values.sum(), of_prediction)
        assert relative_error(values, arrays[f"stated/{key}/divergence"]) < 1e-9
        assert relative_error(values, case["divergence"]) < 1e-6
        assert relative_error(gradient, case["grad_window"]) < 5e-6


@each_file
def test_gradients_are_not_the_wrong_ones_of_the_library_of_2024(name):
    arrays = load(name)
    keys = [k for k in arrays if k.startswith("published_2024/") and k.endswith("grad_window")]
    assert keys
    for key in keys:
        now = arrays[key.replace("published_2024", "published")]
        assert relative_error(now, arrays[key]) > 0.01


@each_file
def test_perfect_predictions_have_no_loss_and_a_finite_gradient(name):
    _, target = responses(load(name))
    target = target.abs()
    prediction = target.clone().requires_grad_()
    total = nn.vist_loss(prediction, target)
    (gradient,) = torch.autograd.grad(total, prediction)
    assert total.item() == pytest.approx(0, abs=1e-12)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e-6


def test_a_spike_late_within_a_window_aligns_and_one_that_is_missing_does_not():
    target = torch.zeros(1, 200, 3)
    target[0, 25] = 5.0
    late, missing = target.roll(1, 1), torch.zeros_like(target)
    alone = {"error_weight": 0, "negative_weight": 0, "alignment_weight": 1}
    alone["scales"] = (10,)  # of 20 frames, none of which begins or ends between 25 and 26
    assert nn.vist_loss(late, target, **alone) < nn.vist_loss(missing, target, **alone) / 20
    assert nn.vist_loss(late, target, error_weight=1, alignment_weight=0) > nn.vist_loss(
        missing, target, error_weight=1, alignment_weight=0
    )


def test_movies_that_are_too_short_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="windows of 1 frames in movies of 39"):
        nn.vist_loss(torch.zeros(1, 39, 2), torch.zeros(1, 39, 2))
    assert nn.vist_loss(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2), alignment_weight=0) == 0
    with pytest.raises(ValueError, match=r"expected one shape \(items, frames, neurons\)"):
        nn.vist_loss(torch.zeros(1, 40, 2), torch.zeros(1, 2, 40))
    with pytest.raises(ValueError, match="windows of 40 frames in movies of 40"):
        nn.vist_loss(torch.zeros(1, 40, 2), torch.zeros(1, 40, 2), scales=(1,))


def test_a_missing_response_makes_the_loss_nan():
    target = torch.zeros(1, 40, 2)
    target[0, 3, 1] = torch.nan
    assert nn.vist_loss(torch.zeros(1, 40, 2), target).isnan()
