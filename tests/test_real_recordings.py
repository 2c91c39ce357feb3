"""Models on real recordings, which stay outside the repository.

The folder with `macaque_v4`, `rat_retina` and `sensorium_models` is named by the environment
variable V1TLEARN_TEST_DATA; `--log-cli-level=INFO` shows the scores.
"""

import io
import logging
import zipfile

import numpy as np
import pytest
import scipy.io
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import RidgeCV

import v1tlearn as v1
from v1tlearn.metrics import single_trial_correlation
from v1tlearn.model_selection import image_train_test_split

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.timeout(1800)

MACAQUE_SESSIONS = ("190927", "190928", "190929")
MACAQUE_SIDE = 28  # pixels, a quarter of the 112 in the files


def macaque_trials(folder, side):
    """Three sessions of macaque V4 (Cowley et al. 2023): colour images, mean responses."""
    stimuli, responses = [], []
    for session in MACAQUE_SESSIONS:
        images = []
        with zipfile.ZipFile(folder / f"macaque_v4/images/images_{session}.zip") as archive:
            for name in sorted(archive.namelist()):
                image = Image.open(io.BytesIO(archive.read(name)))
                small = image.resize((side, side), Image.Resampling.BOX)
                images.append(np.asarray(small).transpose(2, 0, 1))
        stimuli.append(np.stack(images))
        responses.append(np.load(folder / f"macaque_v4/responses/responses_{session}.npy").T)
    return v1.Trials.from_arrays(stimuli, None, responses, list(MACAQUE_SESSIONS))


@pytest.fixture(scope="module")
def macaque(real_recordings):
    return macaque_trials(real_recordings, MACAQUE_SIDE)


def ridge_on_pixels(train, test):
    """Predictions of a ridge regression per session, every neuron with a penalty of its own."""
    predictions = {}
    for session in train.mice:
        pixels, others = (
            t.get("stimuli", session).reshape(len(t.rows(session)[0]), -1).astype(float)
            for t in (train, test)
        )
        mean, std = pixels.mean(axis=0), pixels.std()
        ridge = RidgeCV(alphas=np.logspace(1, 7, 25), alpha_per_target=True)
        ridge.fit((pixels - mean) / std, train.responses.get(session))
        predictions[session] = ridge.predict((others - mean) / std)
    return v1.Responses.from_arrays(predictions, like=test)


@pytest.mark.slow
def test_macaque_sessions_are_as_described(macaque):
    assert macaque.n_neurons == {"190927": 31, "190928": 24, "190929": 33}
    assert len(macaque) == 3600
    assert macaque.get("stimuli", "190928").shape == (1200, 3, MACAQUE_SIDE, MACAQUE_SIDE)


@pytest.mark.slow
def test_a_cnn_beats_ridge_regression_on_pixels(macaque):
    train, test = image_train_test_split(macaque, 0.2, random_state=0)
    assert not set(train.image_ids) & set(test.image_ids)
    linear = single_trial_correlation(test.responses, ridge_on_pixels(train, test))
    cnn = v1.CNNRegressor(
        n_layers=3,
        hidden_channels=32,
        input_kernel=7,
        hidden_kernel=5,
        batch_size=32,
        lr=0.005,
        lr_patience=3,
        max_epochs=25,
        random_state=0,
    ).fit(train)
    deep = cnn.score(test)
    logger.info("ridge %.3f, CNN %.3f", linear, deep)
    assert linear > 0.2  # a fair opponent
    assert deep > linear + 0.03


# As docs/not_a_mouse.rst advises, but trained for less long.
POOLING = {"space_init": 0.1, "channel_init": 0.1, "batch_size": 32, "max_epochs": 15}
POOLING |= {"random_state": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        v1.FullModelRegressor(
            channels=(32, 64), kernels=(7, 5), lr=0.003, schedule="plateau", **POOLING
        ),
        v1.CNNRegressor(
            n_layers=3,
            hidden_channels=32,
            input_kernel=7,
            hidden_kernel=5,
            readout="factorized",
            **POOLING,
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_readout_that_pools_is_far_ahead_of_pixels(real_recordings, model):
    """Ridge regression on Gabor energies and colour reaches .49 here."""
    train, test = image_train_test_split(macaque_trials(real_recordings, 32), 0.2, random_state=0)
    linear = single_trial_correlation(test.responses, ridge_on_pixels(train, test))
    pooled = model.fit(train).score(test)
    logger.info("macaque V4: ridge %.3f, %s %.3f", linear, type(model).__name__, pooled)
    assert linear > 0.2  # a fair opponent
    assert pooled > linear + 0.12


RETINA_FRAME = 10  # bins of 1.667 ms in one frame
RETINA_HISTORY = 20  # frames


def retina_trials(stimulus, spikes):
    """Trials of binned sequences: history x pixels as image, mean spike count per frame.

    `stimulus` (pixels, bins, sequences), `spikes` (cells, bins, sequences).
    """
    images, counts = [], []
    for k in range(stimulus.shape[-1]):
        frames = stimulus[..., k].reshape(31, -1, RETINA_FRAME).mean(-1).T  # (frames, pixels)
        windows = np.lib.stride_tricks.sliding_window_view(frames, RETINA_HISTORY, axis=0)
        images.append(255 * windows.transpose(0, 2, 1)[:, None])  # (trials, 1, history, pixels)
        binned = spikes[..., k].reshape(len(spikes), -1, RETINA_FRAME).sum(-1).T
        counts.append(binned[RETINA_HISTORY - 1 :])
    return v1.Trials.from_arrays(
        np.concatenate(images).astype(np.float32), None, np.concatenate(counts).astype(np.float32)
    )


@pytest.mark.slow
def test_an_ln_model_follows_retinal_ganglion_cells(real_recordings):
    """Rat ganglion cells under a moving bar (Mahuas et al. 2020), against their mean over repeats.

    The mean rate, all that there is without a model, correlates with nothing.
    """
    fit = scipy.io.loadmat(real_recordings / "rat_retina/nonrepeat_data_bars.mat")
    held_out = scipy.io.loadmat(real_recordings / "rat_retina/test_data_bars.mat")
    stimulus, spikes = fit["stimulus"][:, 0], fit["spikes_train"]
    train = retina_trials(stimulus[..., :5], spikes[..., :5])
    validation = retina_trials(stimulus[..., 5:6], spikes[..., 5:6])
    mean_over_repeats = held_out["spikes_test"].mean(axis=-1, keepdims=True)
    test = retina_trials(held_out["stimulus_test"].transpose(0, 2, 1), mean_over_repeats)
    ln = v1.LNRegressor(
        n_layers=1,
        hidden_channels=12,
        input_kernel=15,
        batch_size=256,
        lr=0.01,
        lr_patience=3,
        max_epochs=30,
        random_state=0,
    ).fit(train, validation=validation)
    score = ln.score(test)
    logger.info("retina: LN %.3f", score)
    assert score > 0.5


def log_decoding(table):
    """Write what was found, whatever it is."""
    for row in table[table.metric == "top_1"].itertuples():
        logger.info(
            "%s, %s: %.3f of %d images found (%.3f to %.3f), chance %.4f, shuffled %.4f, p %.4f",
            row.model, row.mouse, row.value, row.gallery_size, row.low, row.high, row.chance,
            row.null, row.p_value,
        )  # fmt: skip
    for row in table[table.metric == "pixel_correlation"].itertuples():
        logger.info("%s, %s: pixel correlation %.3f", row.model, row.mouse, row.value)


@pytest.mark.slow
def test_images_are_found_by_responses_of_macaque_neurons(macaque):
    """Unique images, shown once in a session, which nothing was fitted to."""
    train, test = image_train_test_split(macaque, 0.2, random_state=0)
    ids, counts = np.unique(test.image_ids, return_counts=True)
    test = test[np.flatnonzero(np.isin(test.image_ids, ids[counts == 1]))]
    aligner = v1.DINAAligner(
        map_size=(7, 7),
        hidden_units=(64,),
        dropout=0.3,
        response_scale="std",
        image_lr=2e-3,
        neural_lr=1e-3,
        selection="loss",
        max_epochs=25,
        random_state=0,
    ).fit(train)
    decoders = {"alignment": aligner, "ridge": v1.RidgeDecoder().fit(train)}
    table = v1.decoding_table(decoders, test, gallery_sizes=(100,), n_permutations=500)
    table = table[table.direction == "response_to_image"]
    log_decoding(table[table.mouse != "mean"])
    for session in test.mice:
        own = table[(table.mouse == session) & (table.metric == "top_1")]
        for size, of_size in own.groupby("gallery_size"):
            found, linear = (of_size[of_size.model == name].iloc[0] for name in decoders)
            assert found.p_value == 1 / 501, (session, size)
            assert found.low > 3 * max(found.null, found.chance), (session, size)
            assert found.low > linear.high, (session, size)


def plain_forward(arrays, images, linear):
    """A Sensorium 2022 CNN or LN without behaviour in float64, from the arrays of its file."""
    a = {name: value.double() for name, value in arrays.items()}
    x, layer = images.double(), 0
    while (base := f"core.features.layer{layer}") + ".norm.weight" in a:
        if layer == 0:
            x = F.conv2d(x, a[f"{base}.conv.weight"])
        else:
            x = F.conv2d(x, a[f"{base}.ds_conv.in_depth_conv.weight"])
            spatial = a[f"{base}.ds_conv.spatial_conv.weight"]
            x = F.conv2d(x, spatial, padding=spatial.shape[-1] // 2, groups=len(spatial))
            x = F.conv2d(x, a[f"{base}.ds_conv.out_depth_conv.weight"])
        norm = [a[f"{base}.norm.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *norm)
        x = x if linear else F.elu(x)
        layer += 1
    (mouse,) = {name.split(".")[1] for name in a if name.startswith("readout.")}
    readout = {name.split(".", 2)[2]: a[name] for name in a if name.startswith("readout.")}
    mu = F.linear(
        readout["source_grid"], readout["mu_transform.0.weight"], readout["mu_transform.0.bias"]
    )
    mu = F.linear(F.elu(mu), readout["mu_transform.2.weight"], readout["mu_transform.2.bias"])
    points = mu.tanh()[None, :, None].expand(len(x), -1, -1, -1)  # (B, n, 1, 2)
    sampled = F.grid_sample(x, points, align_corners=True)[..., 0]  # (B, C, n)
    out = (sampled * readout["_features"][0, :, 0]).sum(1) + readout["bias"]
    return mouse, (F.elu(out) + 1).numpy()


def test_released_models_predict_what_their_arrays_say(real_recordings):
    """All files of the folder, on photographs of 36 x 64 pixels in shuffled order."""
    photographs = []
    with zipfile.ZipFile(real_recordings / "macaque_v4/images/images_190927.zip") as archive:
        for name in np.random.default_rng(0).permutation(sorted(archive.namelist()))[:8]:
            image = Image.open(io.BytesIO(archive.read(str(name)))).convert("L")
            photographs.append(np.asarray(image.resize((64, 36), Image.Resampling.BOX)))
    images = np.stack(photographs)[:, None].astype(np.float32)  # (B, 1, 36, 64)
    images = (images - images.mean()) / images.std()
    files = sorted((real_recordings / "sensorium_models").glob("*.pth"))
    assert files
    for path in files:
        linear = "_ln_" in path.name
        arrays = torch.load(path, map_location="cpu", weights_only=True)
        mouse, expected = plain_forward(arrays, torch.from_numpy(images), linear)
        found = v1.load_sensorium(path, linear=linear).predict({mouse: images})[mouse]
        error = np.abs(found - expected).max()
        logger.info("%s: %s, off by %.1e at most", path.name, found.shape, error)
        assert found.shape == expected.shape
        assert expected.std(axis=0).min() > 0  # every neuron answers to images
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
