"""Readers of models and studies, each with small files of our own writers.

A parser is a folder made once, the files in it that are changed, one call through a public door,
and an oracle that says whether what was read of a changed file is right.
"""

import shutil
import zipfile

import numpy as np
import torch

import v1tlearn as v1
from tests.backbones import DINOV2, random_backbone
from tests.descriptions import unsealed
from tests.fuzz.arguments import arrays, in_form, tiny
from tests.fuzz.parser import Parser
from tests.interop.published_runs import Published
from tests.interop.test_dina import towers
from tests.interop.test_minimodel import small as published_full_model
from tests.interop.test_sensorium import make_state
from tests.interop.test_vist import load as published_vist
from tests.interop.test_vist import under
from tests.search.pretended import search_pretended
from v1tlearn import Trials, load, load_minimodel, load_sensorium, load_v1t
from v1tlearn.datasets import make_v1_recordings


def _run(folder, **changed):
    args = Published.arguments(**changed)
    return Published.write(folder / "run", args, Published.arrays(args))


def yaml(folder):
    """The arguments of a published run."""
    root = _run(folder)
    return Parser(root, [root / "args.yaml"], lambda: load_v1t(root))


def _same_weights(found, intact):
    weights = found.module_.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in intact.items())


def checkpoint(folder):
    """The checkpoint of a published run, in the format with checksums."""
    root = _run(folder)
    intact = load_v1t(root).module_.state_dict()
    target = root / "ckpt" / "model_state.pt"
    return Parser(root, [target], lambda: load_v1t(root), lambda e: _same_weights(e, intact))


def pickles(folder):
    """The pickle and the arrays inside a checkpoint, packed anew with right checksums."""
    root = _run(folder)
    path, parts = root / "ckpt" / "model_state.pt", folder / "parts"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        archive.extractall(parts)

    def read():
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(parts / name, name)
        return load_v1t(root)

    targets = [parts / name for name in names if name.endswith(("data.pkl", "byteorder", "/0"))]
    return Parser(root, [targets[0], targets[0], *targets], read)


def legacy(folder):
    """A checkpoint in the format without a zip."""
    path = folder / "model.pt"
    state = make_state()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return Parser(path, [path], lambda: load_sensorium(path, image_shape=(1, 14, 18)))


def npz(folder):
    """Weights as NumPy arrays."""
    path = folder / "model.npz"
    np.savez_compressed(path, **{name: value.numpy() for name, value in make_state().items()})
    intact = load_sensorium(path, image_shape=(1, 14, 18)).module_.state_dict()
    return Parser(
        path,
        [path],
        lambda: load_sensorium(path, image_shape=(1, 14, 18)),
        lambda found: _same_weights(found, intact),
    )


def minimodel(folder):
    """Weights of a full model as NumPy arrays."""
    path = folder / "model.npz"
    state = published_full_model()
    np.savez_compressed(path, **{name: value.numpy() for name, value in state.items()})
    intact = load_minimodel(path).module_.state_dict()
    return Parser(
        path, [path], lambda: load_minimodel(path), lambda found: _same_weights(found, intact)
    )


def model(folder):
    """A saved estimator: JSON and safetensors."""
    source = folder / "model.pt"
    torch.save(make_state(), source)
    root = folder / "saved"
    load_sensorium(source, image_shape=(1, 14, 18)).save(root)
    (weights,) = root.glob("*.safetensors")
    unsealed(root / "model.json")
    targets = [root / "model.json", root / "model.json", weights]
    return Parser(root, targets, lambda: load(root, device="cpu"))


def studies(folder):
    """The database of a search, through a search that goes on with it."""
    path = folder / "study.db"
    mice = make_v1_recordings(
        n_mice=1, n_neurons=2, n_trials=16, n_test_images=2, n_repeats=2, image_shape=(16, 24)
    )
    data = Trials(mice).sel(tier="train")

    def read():
        return search_pretended(storage=path, n_trials=2).fit(data).results_

    def is_sane(table):
        states = {"complete", "pruned", "failed", "interrupted", "running"}
        done = table[table["state"].isin(["complete", "pruned"])]
        scores, lr = done["score"].to_numpy(float), done["param_lr"].to_numpy(float)
        in_space = (lr >= 0.1) & (lr <= 1.0)
        return (
            len(done) >= 2
            and in_space.all()
            and np.isfinite(scores).all()
            and (set(table["state"]) <= states)
        )

    read()
    return Parser(path, [path], read, is_sane=is_sane)


def checkpoint_folder(folder):
    """States that a fit goes on from: a fit with damaged ones is the fit without, or an error."""
    root, data = folder / "states", in_form(arrays(), "dict")
    tiny(max_epochs=1).fit(**data, checkpoint_dir=root)
    expected = tiny(max_epochs=2).fit(**data).module_.state_dict()
    kept = shutil.copytree(root, folder / "kept")
    files = sorted(root.rglob("model.json")) + sorted(root.rglob("*.safetensors"))

    def read():
        try:
            return tiny(max_epochs=2).fit(**data, checkpoint_dir=root)
        finally:
            for path in root.iterdir():
                shutil.rmtree(path)
            shutil.copytree(kept, root, dirs_exist_ok=True)

    return Parser(root, files, read, lambda found: _same_weights(found, expected))


def ensemble(folder):
    """A saved ensemble."""
    root = folder / "saved"
    data = in_form(arrays(), "dict")
    member = tiny(validation_fraction=0.4)
    v1.EnsembleRegressor(member, n_candidates=2, n_members=2, random_state=0).fit(**data).save(root)
    unsealed(root / "model.json")
    targets = [root / "model.json", *root.glob("*.safetensors")]
    return Parser(root, targets, lambda: load(root, device="cpu"))


def weights(folder):
    """The tensors of a saved model, with their checksum: no damage may give other weights."""
    root = folder / "saved"
    intact = tiny().fit(**in_form(arrays(), "dict"))
    intact.save(root)
    expected = intact.module_.state_dict()
    (target,) = root.glob("*.safetensors")
    return Parser(
        root, [target], lambda: load(root, device="cpu"), lambda e: _same_weights(e, expected)
    )


def decoder(folder):
    """A saved decoder of images."""
    root, trials = folder / "saved", Trials.from_arrays(**in_form(arrays(), "dict"))
    v1.RidgeDecoder().fit(trials).save(root)
    unsealed(root / "model.json")
    targets = [root / "model.json", *root.glob("*.safetensors")]
    return Parser(root, targets, lambda: load(root, device="cpu"))


def dina(folder):
    """The towers of a published aligner as NumPy arrays, and as torch saves them."""
    _, image, neural, options = towers()
    paths = folder / "image.pt", folder / "neural.npz"
    torch.save({n: torch.from_numpy(np.array(w)) for n, w in image.items()}, paths[0])
    np.savez(paths[1], **neural)
    return Parser(folder, [*paths], lambda: v1.load_dina(*paths, **options))


def vist(folder):
    """A published model of movies, as torch saves it."""
    held, path = published_vist("model_causal"), folder / "last.ckpt"
    state = {n: torch.from_numpy(np.array(w)) for n, w in under(held, "w/").items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    fields = held["rf"][0]
    return Parser(path, [path], lambda: v1.load_vist(path, fields, causal=True))


def backbone(folder):
    """The folder of a pretrained vision transformer: JSON and safetensors."""
    root, data = folder / "dinov2", arrays()
    random_backbone(DINOV2).save_pretrained(root)
    rng = np.random.default_rng(0)
    images = {m: rng.integers(0, 256, (6, 1, 28, 42)).astype("u1") for m in data["responses"]}
    options = {
        "block": 1,
        "max_epochs": 0,
        "device": "cpu",
        "random_state": 0,
        "validation_fraction": 0,
    }

    def read():
        model = v1.PretrainedViTRegressor(backbone=str(root), **options)
        return model.fit(images, None, data["responses"])

    return Parser(root, [root / "config.json", root / "model.safetensors"], read)
