"""Small files of every kind that the package writes, to be opened by later releases.

``python -m tests.kept_files NAME`` writes into one zip those of today that no zip of today's format
holds. A zip is never written anew: its worth is that an earlier version wrote it. That of the older
backbone was written beside transformers 5.0, which calls weights otherwise than 5.18 and later.
"""

import json
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.frozen import FrozenEstimator

import v1tlearn as v1
from tests.mice import two_mice
from tests.search.pretended import search_pretended
from v1tlearn.tracking import CSVLog, RunFolder

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


CORE = partial(v1.nn.Stacked2dCore, n_layers=1, hidden_channels=2, input_kernel=5)
MINI = {"hidden_channels": 2, "hidden_kernel": 3, "space_init": 0.3, **FIT}


def unfitted():
    """One of each class, by the recordings that it is fitted to."""
    pretrained = v1.PretrainedViTRegressor(
        BACKBONE, weights=None, block=0, image_size=(14, 14), **FIT
    )
    return {
        "images": [
            v1.LNRegressor(**CNN),
            v1.CNNRegressor(**CNN),
            v1.EncodingRegressor(CORE, **FIT, **FEW),
            v1.FullModelRegressor(**FULL),
            v1.MinimodelRegressor(full_model=v1.FullModelRegressor(**FULL), **MINI),
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


def fitted(training):
    """Each class as it is kept, and more of what classes keep: (name, recordings, fitted model).

    Names begin with that of the class.
    """
    for name, models in unfitted().items():
        for model in models:
            yield type(model).__name__, name, model.fit(training[name])
    images = training["images"]
    first, second = (images.sel(mouse_id=mouse) for mouse in images.mice)
    start = v1.LNRegressor(**CNN).fit(first)
    yield "LNRegressor-transferred", "images", start.transfer(second)
    full = FrozenEstimator(v1.FullModelRegressor(**FULL).fit(images))
    frozen = v1.MinimodelRegressor(full_model=full, **MINI)
    yield "MinimodelRegressor-frozen", "images", frozen.fit(images)
    factorized = v1.EncodingRegressor(CORE, readout="factorized", **FIT)
    yield "EncodingRegressor-factorized", "images", factorized.fit(images)
    learned = v1.EnsembleRegressor(v1.LNRegressor(**CNN), 1, 1, combine="learned", random_state=0)
    yield "EnsembleRegressor-learned", "images", learned.fit(images)
    with_lags = v1.V1TRegressor(**VIT | {"batch_size": 4, "window_frames": 8}, readout_lags=2)
    yield "V1TRegressor-movies", "movies", with_lags.fit(training["movies"])


def interrupted():
    """Models that are trained in steps of different kinds, by the recordings they are fitted to."""
    kinds = {"images": (v1.MinimodelRegressor, v1.DINAAligner), "movies": (v1.ViSTRegressor,)}
    for name, models in unfitted().items():
        yield from ((name, model) for model in models if isinstance(model, kinds[name]))


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
    predicted = model.predict(trials.sel(mouse_id=model.mice_))
    return {
        mouse: np.concatenate([np.ravel(trial) for trial in predicted.get(mouse)])
        for mouse in predicted.mice
    }


def write(folder):
    """Write recordings, models with what they give, responses, states of fits, a study, a run."""
    recordings = {name: v1.Trials(found) for name, found in made_recordings().items()}
    for name, trials in recordings.items():
        trials.to_netcdf(folder / f"{name}.nc")
    tests, training = (
        {name: trials.sel(tier=tier) for name, trials in recordings.items()}
        for tier in ("test", "train")
    )
    for kind, name, model in fitted(training):
        model.save(folder / kind)
        np.savez_compressed(folder / f"{kind}.npz", **outputs(model, tests[name]))
    model, train = v1.load(folder / "CNNRegressor", device="cpu"), training["images"]
    model.predict(tests["images"]).to_netcdf(folder / "predicted.nc")
    v1.LNRegressor(**CNN).fit(train, checkpoint_dir=folder / "checkpoints")
    for name, model in interrupted():
        model.fit(training[name], checkpoint_dir=folder / f"checkpoints-{type(model).__name__}")
    search_pretended(storage=folder / "study.db", n_trials=2).fit(train)
    with RunFolder(folder / "run", model := v1.LNRegressor(**CNN), train) as run:
        log = CSVLog(run.path / "epochs.csv")
        model.fit(train, on_epoch=[run, log], checkpoint_dir=run.checkpoints)
    anonymous(folder / "run" / "run.json")


def anonymous(path):
    """Take out of the description of a run where it ran."""
    document = json.loads(path.read_text())
    document["machine"] = {}
    document["attempts"][0] |= {"host": "somewhere", "process": 1}
    path.write_text(json.dumps(document, indent=1))


def held(model_format):
    """What the zips of a format hold already: parts of their first level."""
    for path in FOLDER.glob(f"format_{model_format}*.zip"):
        with zipfile.ZipFile(path) as archive:
            yield from (name.partition("/")[0] for name in archive.namelist())


def main(target):
    with tempfile.TemporaryDirectory() as made:
        write(Path(made))
        document = json.loads(Path(made, "LNRegressor", "model.json").read_text())
        left_out = set(held(document["format"])) - {"images.nc", "movies.nc"}
        with zipfile.ZipFile(target, "x", zipfile.ZIP_LZMA) as archive:
            for path in sorted(Path(made).rglob("*")):
                name = path.relative_to(made).as_posix()
                if path.is_file() and name.partition("/")[0] not in left_out:
                    archive.write(path, name)


if __name__ == "__main__":
    main(FOLDER / f"{sys.argv[1]}.zip")
