"""Small files of every kind that the package writes, to be opened by later releases.

``python -m tests.kept_files`` writes those of today into one zip. The zip of a format is never
written anew: its worth is that an earlier release wrote it.
"""

import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

import v1tlearn as v1
from tests.mice import two_mice
from tests.search.pretended import search_pretended

FOLDER = Path(__file__).parent / "reference" / "kept"

FIT = {"batch_size": 16, "max_epochs": 1, "random_state": 0, "device": "cpu"}
FEW = {"position_hidden_units": 3}
LAYERS = {"n_layers": 2, "hidden_channels": 2, "input_kernel": 5, "hidden_kernel": 3}
CNN = {**FIT, **FEW, **LAYERS}
VIT = {
    **FIT,
    **FEW,
    "patch_size": 4,
    "patch_stride": 4,
    "n_blocks": 1,
    "n_heads": 1,
    "embed_dim": 4,
}
VIT |= {"mlp_dim": 4}
MOVIE = {**FIT, "batch_size": 4, "window_frames": 8}
IN_TIME = {"input_time_kernel": 2, "hidden_time_kernel": 2}
BACKBONE = {"model_type": "dinov2", "hidden_size": 4, "num_hidden_layers": 1}
BACKBONE |= {"num_attention_heads": 1, "patch_size": 7, "image_size": 42}
FULL = {"channels": (2, 3), "kernels": (5, 3), "space_init": 0.3, **FIT}
VIST = {"grid": 4, "n_layers": 1, "channels": 2, "kernels": ((1, 3),), "window_frames": 12}
VIST |= {"batch_size": 3, "steps_per_epoch": 1, "max_epochs": 1, "warmup_epochs": 0, "loss": "rmse"}
DINA = {"map_size": (2, 3), "map_channels": 2, "hidden_channels": 2, "n_layers": 2}
DINA |= {"input_kernel": 3, "hidden_units": (4,), "neural_channels": 2}


def unfitted():
    """One of each class, by the recordings that it is fitted to."""
    core = partial(v1.nn.Stacked2dCore, n_layers=1, hidden_channels=2, input_kernel=5)
    pretrained = v1.PretrainedViTRegressor(
        BACKBONE, weights=None, block=0, image_size=(14, 14), **FIT
    )
    mini = {"hidden_channels": 2, "hidden_kernel": 3, "space_init": 0.3, **FIT}
    return {
        "images": [
            v1.LNRegressor(**CNN),
            v1.CNNRegressor(**CNN),
            v1.EncodingRegressor(core, **FIT, **FEW),
            v1.FullModelRegressor(**FULL),
            v1.MinimodelRegressor(full_model=v1.FullModelRegressor(**FULL), **mini),
            v1.ViTRegressor(**VIT),
            v1.V1TRegressor(**VIT),
            pretrained,
            v1.EnsembleRegressor(v1.LNRegressor(**CNN), 1, 1, random_state=0),
            v1.DINAAligner(**DINA, max_epochs=1, random_state=0, device="cpu"),
            v1.RidgeDecoder(),
        ],
        "movies": [
            v1.MovieLNRegressor(**MOVIE, n_lags=2),
            v1.MovieCNNRegressor(**MOVIE, **FEW, **LAYERS, **IN_TIME),
            v1.ViSTRegressor(**VIST, random_state=0, device="cpu"),
        ],
    }


def made_recordings():
    """Recordings as small as every model takes them."""
    movies = {"n_frames": (14, 16), "image_shape": (8, 8), "behavior": False, "random_state": 0}
    return {
        "images": two_mice(
            n_neurons=[2, 3], n_trials=11, n_test_images=2, n_repeats=2, image_shape=(8, 12)
        ),
        "movies": v1.make_movie_recordings(1, 2, 4, 2, 2, **movies),
    }


def outputs(model, trials):
    """What a fitted model gives for trials: {name: array}."""
    if isinstance(model, v1.DINAAligner):
        flat = (
            model.transform_images(trials, flat=True),
            model.transform_responses(trials, flat=True),
        )
        return dict(zip(("images", "neurons"), (values.values for values in flat), strict=True))
    if isinstance(model, v1.RidgeDecoder):
        return {"images": model.predict(trials.responses).values}
    predicted = model.predict(trials)
    return {
        mouse: np.concatenate([np.ravel(trial) for trial in predicted.get(mouse)])
        for mouse in predicted.mice
    }


def write(folder):
    """Write recordings, models with what they give, responses, a checkpoint and a study."""
    recordings = made_recordings()
    for name, models in unfitted().items():
        trials = v1.Trials(recordings[name])
        test = trials.sel(tier="test")
        trials.to_netcdf(folder / f"{name}.nc")
        for model in models:
            fitted = model.fit(trials.sel(tier="train"))
            kind = type(model).__name__
            fitted.save(folder / kind)
            np.savez_compressed(folder / f"{kind}.npz", **outputs(fitted, test))
    images = v1.Trials(recordings["images"])
    test, train = images.sel(tier="test"), images.sel(tier="train")
    v1.load(folder / "CNNRegressor", device="cpu").predict(test).to_netcdf(folder / "predicted.nc")
    v1.LNRegressor(**CNN).fit(train, checkpoint_dir=folder / "checkpoints")
    search_pretended(storage=folder / "study.db", n_trials=2).fit(train)


if __name__ == "__main__":
    target = FOLDER / f"{sys.argv[1]}.zip"
    with tempfile.TemporaryDirectory() as made:
        write(Path(made))
        with zipfile.ZipFile(target, "x", zipfile.ZIP_LZMA) as archive:
            for path in sorted(Path(made).rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(made).as_posix())
