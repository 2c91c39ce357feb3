"""Steps inside the models and the same steps outside lead to one model; what reaches the core, and
biases, in closed form.
"""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.preprocessing import CenterCrop, ResizeStimuli, TrialStandardizer

KINDS = [v1.CNNRegressor, v1.V1TRegressor]


@pytest.fixture(scope="module", params=["uint8", "float32"])
def grey(request, recordings):
    """Training trials with stimuli in either dtype; as floats they are no whole numbers."""
    if request.param == "uint8":
        return v1.Trials(recordings).sel(tier="train")
    changed = recordings.copy()
    for mouse in changed.children:
        images = changed[mouse]["stimuli"]
        changed[mouse]["stimuli"] = (images / 3).astype(np.float32)
    return v1.Trials(changed).sel(tier="train")


def predictions(model, trials):
    predicted = model.fit(trials).predict(trials)
    return {mouse: np.asarray(predicted[mouse]) for mouse in trials.mice}


@pytest.mark.parametrize("kind", quick(KINDS, 0))
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ({"crop_scale": 0.8}, [CenterCrop(0.8)]),
        ({"image_size": (9, 10)}, [ResizeStimuli((9, 10))]),
        ({"crop_scale": 0.8, "image_size": (9, 14)}, [CenterCrop(0.8), ResizeStimuli((9, 14))]),
    ],
)
def test_crop_and_resize_inside_and_outside(kind, inside, outside, small, grey, equal):
    """Without standardising there is nothing in between: equal to the last bit."""
    one = small(kind, standardize=False, **inside)
    other = make_pipeline(*outside, small(kind, standardize=False))
    assert equal(predictions(one, grey), predictions(other, grey))


@pytest.mark.parametrize("kind", quick(KINDS, 0))
def test_models_standardize_then_crop_then_resize(kind, small, grey):
    """With statistics of whole images; the same order outside gives the same model."""
    common = {"validation_fraction": 0.0}  # a set aside would have no part in the statistics
    one = small(kind, crop_scale=0.8, image_size=(9, 14), **common)
    est = small(kind, standardize=False, **common)
    steps = (TrialStandardizer(), CenterCrop(0.8), ResizeStimuli((9, 14)))
    inside, outside = (predictions(m, grey) for m in (one, make_pipeline(*steps, est)))
    for mouse, predicted in inside.items():
        np.testing.assert_allclose(outside[mouse], predicted, rtol=1e-4)


def test_a_crop_ahead_of_the_standardizer_changes_its_statistics(small, grey):
    """Why the order matters: then they are those of the crop."""
    whole = small(crop_scale=0.5, validation_fraction=0.0, max_epochs=0).fit(grey)
    cropped = make_pipeline(CenterCrop(0.5), small(validation_fraction=0.0, max_epochs=0))
    cropped.fit(grey)
    for mouse in grey.mice:
        images = np.array(grey.get("stimuli", mouse), dtype=float)
        centre = CenterCrop(0.5).transform(grey).get("stimuli", mouse).astype(float)
        assert whole.statistics_[mouse]["image_mean"] == pytest.approx(images.mean())
        assert cropped[-1].statistics_[mouse]["image_mean"] == pytest.approx(centre.mean())
        assert images.mean() != pytest.approx(centre.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_as_readout_bias_is_what_an_empty_readout_predicts(kind, small, arrays):
    """With rates below and above 1, where ELU + 1 changes its form."""
    responses = {m: r.astype(float) for m, r in arrays["responses"].items()}
    for values in responses.values():
        values[:, 0] += 3 * values[:, 0].std()
    est = small(kind, readout_bias="mean", max_epochs=0, validation_fraction=0.0)
    est.fit(arrays["stimuli"], arrays["behaviors"], responses)
    for mouse, values in responses.items():
        mean = values.mean(0) / values.std(0)
        assert mean.min() < 1 < mean.max()
        closed_form = [m - 1 if m >= 1 else np.log(m) for m in mean]
        bias = est.module_.readout(mouse).bias.detach().numpy()
        np.testing.assert_allclose(bias, closed_form, rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            est.module_.readout(mouse).features.zero_()
        predicted = est.predict(arrays["stimuli"], arrays["behaviors"])[mouse]
        np.testing.assert_allclose(predicted, np.tile(values.mean(0), (len(values), 1)), 1e-5)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(v1.V1TRegressor, "b_mlp"), (v1.V1TRegressor, "channels"), (v1.CNNRegressor, "channels")],
)
@pytest.mark.parametrize(
    "columns", [["running_speed"], ["pupil_y", "pupil_dilation"], "non_pupil", "all"]
)
def test_the_core_sees_the_columns_asked_for(kind, mode, columns, small, trials):
    """In their order: pupil position z-scored, other behaviour divided by its spread."""
    est = small(
        kind,
        behavior_mode=mode,
        behavior_columns=columns,
        validation_fraction=0.0,
        max_epochs=0,
        batch_size=100,
    ).fit(trials)
    seen = []
    est.module_.core.register_forward_pre_hook(lambda core, inputs: seen.append(inputs))
    est.predict(trials)
    names = list(trials.behavior_names("A"))
    wanted = {"all": names, "non_pupil": names[:3]}.get(str(columns), columns)
    for mouse, (images, behaviors, *_) in zip(trials.mice, seen, strict=True):
        values = np.array(trials.get("behaviors", mouse), dtype=float)
        centre = values.mean(0) * np.isin(names, ["pupil_x", "pupil_y"])
        expected = ((values - centre) / values.std(0))[:, [names.index(c) for c in wanted]]
        if mode == "channels" and kind is v1.V1TRegressor:
            assert behaviors is None
            assert images.shape[1] == 1 + len(wanted)
            planes = images[:, 1:].numpy()
            expected = np.broadcast_to(expected[:, :, None, None], planes.shape)
            np.testing.assert_allclose(planes, expected, rtol=1e-5, atol=1e-6)
        else:  # convolutions take planes as numbers
            assert images.shape[1] == 1
            np.testing.assert_allclose(behaviors.numpy(), expected, rtol=1e-5, atol=1e-6)
