"""Images that explain responses best, through fitted encoding models under an image prior."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from v1tlearn.decoding import natural_image_prior, reconstruct_images
from v1tlearn.metrics import pixel_correlation

LINEAR = {"max_epochs": 0, "batch_size": 16, "random_state": 0, "device": "cpu"}
LINEAR |= {"behavior_mode": "none", "shift": "none", "init_mu_range": 0.9}


class Filters(v1.nn.Core):
    """A linear core."""

    def __init__(self, input_shape, channels=3):
        super().__init__(input_shape)
        self.filters = torch.nn.Conv2d(input_shape[0], channels, 5)
        self.output_shape = (channels, input_shape[1] - 4, input_shape[2] - 4)

    def forward(self, images, behaviors=None, sizes=None):
        return 30 * self.filters(images)  # or a model that is not trained hardly sees images


class Identity(v1.nn.Head):
    """Rates below zero, too."""

    def forward(self, outputs):
        return outputs

    def inverse(self, rates):
        return rates


@pytest.fixture(scope="module")
def linear(trials):
    """A model whose predictions are affine in the image; not to be changed."""
    return v1.EncodingRegressor(core=Filters, head=Identity, loss="squared", **LINEAR).fit(trials)


@pytest.fixture(scope="module")
def answers(linear, test_trials):
    """The test trials of both mice, with responses that the linear model has, and noise."""
    rng, rates = np.random.default_rng(0), linear.predict(test_trials)
    named = {m: test_trials[m].drop_vars("expected_responses") for m in test_trials.mice}
    for mouse, recording in named.items():
        scale = linear.statistics_[mouse]["response_scale"]
        noisy = rates.get(mouse) + 0.3 * scale * rng.normal(size=rates.get(mouse).shape)
        named[mouse] = recording.assign(responses=(recording.responses.dims, noisy))
    return v1.Trials(named)


@pytest.fixture(scope="module")
def cnn(trials):
    """A small model with behaviour and a shifter; not to be changed."""
    sizes = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
    return v1.CNNRegressor(
        **sizes, lr=2e-3, batch_size=16, max_epochs=2, random_state=0, device="cpu"
    ).fit(trials)


def affine(model, mouse, shape=(1, 12, 16)):
    """Matrix (neurons, pixels) and offset of a model, in units of the training, in float64."""
    size = int(np.prod(shape))
    probes = np.concatenate([np.zeros((1, size)), 100 * np.eye(size)]).reshape(-1, *shape)
    rates = model.predict(probes.astype(np.float32), None, mouse).astype(np.float64)
    rates /= model.statistics_[mouse]["response_scale"]
    return (rates[1:] - rates[0]).T / 100, rates[0]


def covariance(prior):
    """Of the pixels of one channel, by filtering every one of them."""
    _, height, width = prior.image_shape
    points = np.eye(height * width).reshape(-1, height, width)
    coloured = np.fft.irfft2(
        np.fft.rfft2(points, norm="ortho") * prior.power[0], s=(height, width), norm="ortho"
    )
    return coloured.reshape(len(points), -1)


def most_probable(model, by_mouse, prior, noise):
    """Image that several mice saw, in closed form."""
    parts = {mouse: affine(model, mouse) for mouse in by_mouse}
    matrix = np.concatenate([parts[m][0] for m in by_mouse])
    offset = np.concatenate([parts[m][1] for m in by_mouse])
    scales = {m: model.statistics_[m]["response_scale"] for m in by_mouse}
    given = np.concatenate([r / scales[m] for m, r in by_mouse.items()])
    recorded = ~np.isnan(given)
    matrix, offset, given = matrix[recorded], offset[recorded], given[recorded]
    spread, mean = covariance(prior), np.full(matrix.shape[1], prior.mean[0])
    gain = (
        spread
        @ matrix.T
        @ np.linalg.inv(matrix @ spread @ matrix.T + noise**2 * np.eye(len(given)))
    )
    return mean + gain @ (given - offset - matrix @ mean)


@pytest.mark.parametrize("noise", [1.0, 0.3])
def test_the_most_probable_image_of_a_linear_model_is_found(linear, answers, noise):
    responses = answers.get("responses", "A")[:5].copy()
    responses[1, 2] = np.nan
    found = reconstruct_images(linear, responses, "A", noise_std=noise, n_starts=2)
    mean, std = (linear.statistics_["A"][f"image_{name}"] for name in ("mean", "std"))
    prior = natural_image_prior(image_shape=(1, 12, 16), mean=mean, std=std)
    for row, image in zip(responses, found.reconstructions.values, strict=True):
        expected = most_probable(linear, {"A": row}, prior, noise)
        assert np.abs(expected - mean).max() > 5  # grey levels, or there is nothing to find
        np.testing.assert_allclose(image.ravel(), expected, rtol=0, atol=0.05)
    assert (np.diff(found.objective, axis=1) <= 0).all()


def test_all_mice_and_repeats_tell_of_an_image_together(linear, answers, trials):
    prior = natural_image_prior(trials)
    found = reconstruct_images(linear, answers, prior=prior, by="image", n_starts=1)
    assert found.reconstructions.dims == ("image", "channel", "height", "width")
    assert found.image_id.values.tolist() == sorted(set(answers.image_ids.tolist()))
    for i in (0, 3):
        shown = answers.sel(image_id=found.image_id.values[i])
        expected = _joint(linear, shown, prior)
        np.testing.assert_allclose(
            found.reconstructions.values[i].ravel(), expected, rtol=0, atol=0.05
        )


def _joint(model, shown, prior):
    matrices, offsets, given = [], [], []
    for mouse in shown.mice:
        matrix, offset = affine(model, mouse)
        for row in shown.get("responses", mouse):
            matrices.append(matrix)
            offsets.append(offset)
            given.append(row / model.statistics_[mouse]["response_scale"])
    matrix, offset, given = map(np.concatenate, (matrices, offsets, given))
    inverse = np.linalg.inv(covariance(prior))
    mean = np.full(matrix.shape[1], prior.mean[0])
    return np.linalg.solve(
        matrix.T @ matrix + inverse, matrix.T @ (given - offset) + inverse @ mean
    )


@pytest.mark.slow
def test_batches_and_starts_change_nothing_of_a_linear_model(linear, answers):
    test = answers[:7]
    one = reconstruct_images(linear, test, n_starts=1, n_steps=40)
    two = reconstruct_images(linear, test, n_starts=3, n_steps=40, batch_size=3, random_state=5)
    np.testing.assert_allclose(two.reconstructions, one.reconstructions, rtol=0, atol=0.05)
    assert (one.start == 0).all()
    assert one.mouse_id.values.tolist() == test.mouse_ids.tolist()
    assert one.image_id.values.tolist() == test.image_ids.tolist()


@pytest.mark.slow
def test_the_best_of_several_starts_is_kept(cnn, test_trials):
    test = test_trials[:4]
    courses = [
        reconstruct_images(cnn, test, n_starts=n, n_steps=15, noise_std=0.05) for n in (1, 4)
    ]
    last = [course.objective.values[:, -1] for course in courses]
    assert (last[1] <= last[0]).all()
    same = courses[1].start.values == 0
    assert np.array_equal(last[1][same], last[0][same])
    again = reconstruct_images(cnn, test, n_starts=4, n_steps=15, noise_std=0.05)
    assert again.identical(courses[1])


def test_behaviour_and_the_eye_are_those_of_the_trials(cnn, test_trials):
    """The objective of the mean image is that of what the model predicts for it."""
    test = test_trials.sel(mouse_id="B")[:3]
    found = reconstruct_images(cnn, test, n_starts=1, n_steps=1)
    recording = test["B"].copy()
    mean = cnn.statistics_["B"]["image_mean"]
    flat = np.full(recording.stimuli.shape, mean, dtype=np.float32)
    recording["stimuli"] = (recording.stimuli.dims, flat)
    rates = cnn.predict(v1.Trials({"B": recording})).get("B")
    errors = (test.get("responses", "B") - rates) / cnn.statistics_["B"]["response_scale"]
    expected = (errors**2).sum(axis=1) / 2
    np.testing.assert_allclose(found.objective[:, 0], expected, rtol=1e-4)
    poisson = reconstruct_images(cnn, test, n_starts=1, n_steps=1, likelihood="poisson")
    expected = (rates - test.get("responses", "B") * np.log(rates)).sum(axis=1)
    np.testing.assert_allclose(poisson.objective[:, 0], expected, rtol=1e-4)


def test_stimuli_of_the_trials_are_not_looked_at(cnn, test_trials):
    test = test_trials.sel(mouse_id="A")[:3]
    recording = test["A"].copy()
    recording["stimuli"] = (recording.stimuli.dims, recording.stimuli.values[::-1] // 2)
    blind = reconstruct_images(cnn, v1.Trials({"A": recording}), n_starts=1, n_steps=5)
    found = reconstruct_images(cnn, test, n_starts=1, n_steps=5)
    assert np.array_equal(blind.reconstructions, found.reconstructions)


def test_a_model_stays_as_it_is(cnn, test_trials):
    before = {n: w.clone() for n, w in cnn.module_.state_dict().items()}
    reconstruct_images(cnn, test_trials[:2], n_starts=1, n_steps=3)
    after = cnn.module_.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert all(weight.grad is None for weight in cnn.module_.parameters())


def test_a_transformer_can_be_gone_down_on(trials, test_trials):
    sizes = {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2, "embed_dim": 8}
    model = v1.V1TRegressor(**sizes, mlp_dim=8, max_epochs=1, batch_size=16, random_state=0)
    found = reconstruct_images(model.fit(trials), test_trials[:3], n_starts=1, n_steps=10)
    assert (found.objective[:, -1] < found.objective[:, 0]).all()


@pytest.mark.slow
def test_images_of_simulated_mice_are_reconstructed_better_than_the_prior_does():
    recordings = v1.make_v1_recordings(
        n_mice=1,
        n_neurons=120,
        n_trials=500,
        n_test_images=12,
        n_repeats=8,
        image_shape=(12, 16),
        behavior=False,
        explainable_variance=0.8,
        complex_fraction=0,
        shared_fraction=0,
        random_state=0,
    )
    trials = v1.Trials(recordings)
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    model = v1.CNNRegressor(
        n_layers=2,
        hidden_channels=8,
        input_kernel=5,
        hidden_kernel=3,
        lr=0.02,
        batch_size=32,
        max_epochs=12,
        random_state=0,
    ).fit(train, validation=trials.sel(tier="validation"))
    found = reconstruct_images(model, test, prior=train, by="image", n_starts=1, n_steps=40)
    first = np.unique(test.image_ids, return_index=True)[1]
    images, decoded = test[first].get("stimuli", "A").astype(float), found.reconstructions.values
    errors = ((images - decoded) ** 2).mean()
    assert errors < 0.95 * ((images - natural_image_prior(train).mean[0]) ** 2).mean()
    own = pixel_correlation(images, decoded).mean()
    others = [
        pixel_correlation(np.roll(images, shift, axis=0), decoded).mean() for shift in range(1, 12)
    ]
    assert own > 0.2
    assert own > max(others) + 0.05


# ------------------------------------------------------------------------------------- the prior


def test_the_stated_spectrum_falls_as_the_power_of_frequency():
    prior = natural_image_prior(image_shape=(2, 16, 32), exponent=3.0, mean=110.0, std=20.0)
    assert prior.power.shape == (2, 16, 17)
    ratio = prior.power[0, 0, 4] / prior.power[0, 0, 8]
    assert ratio == pytest.approx(8)
    assert prior.power[1, 8, 0] == pytest.approx(prior.power[1, 0, 16])
    assert covariance(prior)[0, 0] == pytest.approx(400)  # variance of a pixel
    assert prior.mean.tolist() == [110.0, 110.0]


def test_the_measured_spectrum_is_that_of_the_images():
    stated = natural_image_prior(image_shape=(1, 8, 12), mean=5.0, std=2.0)
    rng = np.random.default_rng(0)
    white = np.fft.rfft2(rng.normal(size=(4000, 1, 8, 12)), norm="ortho")
    images = 5 + np.fft.irfft2(white * np.sqrt(stated.power), s=(8, 12), norm="ortho")
    measured = natural_image_prior(images)
    np.testing.assert_allclose(measured.power, stated.power, rtol=0.15)
    assert measured.mean[0] == pytest.approx(5, abs=0.1)


def test_repeats_weigh_no_image_more_in_the_measured_spectrum(trials, test_trials):
    first = np.unique(test_trials.image_ids, return_index=True)[1]
    whole, once = natural_image_prior(test_trials), natural_image_prior(test_trials[np.sort(first)])
    assert np.array_equal(whole.power, once.power)


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"likelihood": "cauchy"}, "likelihood='cauchy'"),
        ({"by": "mouse"}, "by='mouse'"),
        ({"n_starts": 0}, "n_starts=0"),
        ({"n_steps": 2.5}, "n_steps=2.5"),
        ({"noise_std": 0.0}, "noise_std"),
        ({"noise_std": {"B": 1.0}}, "not mouse 'A'"),
        ({"prior": natural_image_prior(image_shape=(1, 8, 8))}, r"\(1, 8, 8\)"),
        ({"by": "image"}, "Trials or Responses"),
    ],
)
def test_wrong_options_are_told(cnn, test_trials, options, told):
    responses = {"A": test_trials.get("responses", "A")[:2]}
    with pytest.raises(ValueError, match=told):
        reconstruct_images(cnn, responses, **options)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_images_are_reconstructed_in_any_mode_of_torch(cnn, test_trials, mode):
    few = {"n_starts": 1, "n_steps": 2}
    expected = reconstruct_images(cnn, test_trials[:3], **few)
    with mode():
        assert reconstruct_images(cnn, test_trials[:3], **few).identical(expected)


def test_responses_that_tell_nothing_are_refused(cnn, test_trials):
    responses = test_trials.get("responses", "A")[:3].copy()
    responses[1] = np.nan
    with pytest.raises(ValueError, match="mouse 'A': no response was recorded in trial 1"):
        reconstruct_images(cnn, {"A": responses})
    responses[1] = -1
    with pytest.raises(ValueError, match="negative"):
        reconstruct_images(cnn, {"A": responses}, likelihood="poisson")
    tiny = 1e-8 * np.abs(responses) / np.abs(responses).max()
    with pytest.raises(ValueError, match="1e-08, which as counts tell nothing"):
        reconstruct_images(cnn, {"A": tiny}, likelihood="poisson")
    responses[1] = np.inf
    with pytest.raises(ValueError, match="finite"):
        reconstruct_images(cnn, {"A": responses})


def test_only_a_fitted_encoding_model_is_gone_through(aligner, test_trials):
    with pytest.raises(TypeError, match="DINAAligner"):
        reconstruct_images(aligner, test_trials)
    with pytest.raises(NotFittedError):
        reconstruct_images(v1.CNNRegressor(), test_trials)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "image_shape"),
        ({"image_shape": (1, 8, 8), "std": 0}, "std"),
        ({"images": np.zeros((1, 1, 4, 4))}, "at least two"),
        ({"images": np.full((3, 1, 4, 4), 7.0)}, "without contrast"),
        ({"images": np.eye(9).reshape(-1, 1, 3, 3), "image_shape": (1, 3, 3)}, "one of both"),
        ({"images": np.eye(9).reshape(-1, 1, 3, 3), "exponent": 3.0}, "one of both"),
    ],
)
def test_wrong_priors_are_told(arguments, told):
    with pytest.raises(ValueError, match=told):
        natural_image_prior(**arguments)
