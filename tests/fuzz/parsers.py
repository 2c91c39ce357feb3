"""The readers of the package, each with small files of our own writers and what they must give.

A parser is a folder made once, the files in it that are changed, one call through a public door,
and an oracle that says whether what was read of a changed file is right.
"""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.datasets.nat60k_files import (
    STACK_V73,
    few_images,
    make_macaque,
    make_responses,
    write_stack,
)
from tests.datasets.nwb_files import calcium
from tests.datasets.sensorium_files import GRAY, recording, write_by_hand
from tests.datasets.stringer_files import (
    N_IMAGES,
    write_classes,
    write_images,
    write_recording,
)
from tests.interop.published_runs import Published
from tests.interop.test_minimodel import small as published_full_model
from tests.interop.test_sensorium import make_state
from tests.search.pretended import search_pretended
from v1tlearn import Trials, load, load_minimodel, load_sensorium, load_v1t
from v1tlearn.datasets import (
    make_v1_recordings,
    open_recordings,
    read_cadena2019,
    read_nat60k,
    read_natimg2800,
    read_nwb,
    read_sensorium,
    save_recordings,
    write_sensorium,
)


def always(found):
    """What was read cannot be told from what might have been written."""
    return True


@dataclass
class Parser:
    """One reader.

    Attributes
    ----------
    root : Path
        What is read.
    targets : list of Path
        Files that are changed, one at a time.
    read : callable
        The public door, without arguments.
    is_right : callable
        Whether what `read` gave is right for the files as they now are.
    in_child : bool
        Whether it is tried in a process of its own, because a library in C may crash or hang.
    """

    root: Path
    targets: list[Path]
    read: Callable[[], Any]
    is_right: Callable[[Any], bool] = always
    in_child: bool = False


def _loaded(tree):
    return {name: node.to_dataset().load() for name, node in tree.children.items()}


def npy(folder):
    """Images, responses, labels and statistics of a mouse, held against NumPy's own reader."""
    root = folder / GRAY
    write_by_hand(root)
    names = ("data/images/0", "data/images/3", "data/responses/0", "data/pupil_center/5")
    names += ("meta/trials/tiers", "meta/trials/frame_image_id", "meta/neurons/unit_ids")
    names += ("meta/neurons/cell_motor_coordinates", "meta/statistics/responses/all/std")
    targets = [root / f"{name}.npy" for name in names]

    def is_right(found):
        ((_, dataset),) = found.items()
        for trial in (0, 3, 5):
            for name, file in (("stimuli", "images"), ("responses", "responses")):
                stored = np.load(root / f"data/{file}/{trial}.npy", allow_pickle=False)
                with np.errstate(all="ignore"):
                    stored = stored.astype(dataset[name].dtype)
                if len(dataset.trial) == 12 and not np.array_equal(
                    dataset[name][trial].values, stored, equal_nan=True
                ):
                    return False
        return True

    return Parser(root, targets, lambda: _loaded(read_sensorium(root)), is_right)


def zips(folder):
    """A zip of a mouse: its members have checksums, so no damage may give other data."""
    position = ("neuron", "axis"), np.arange(9, dtype="f4").reshape(3, 3)
    (path,) = write_sensorium({"m": recording(position=position)}, folder, zip=True)
    intact = _loaded(read_sensorium(path))["m"]

    def is_right(found):
        (dataset,) = found.values()
        shared = set(dataset.variables) & set(intact.variables)
        needed = {"stimuli", "responses", "tier"} <= shared
        return needed and all(
            dataset[name].variable.equals(intact[name].variable) for name in shared
        )

    return Parser(path, [path], lambda: _loaded(read_sensorium(path)), is_right)


def config(folder):
    """The JSON of our own writer beside the files of a mouse."""
    (path,) = write_sensorium(
        {"m": recording().assign_coords(trial_Own=("trial", [1, 2, 3, 4])).assign_attrs(a=[1, 2])},
        folder,
    )
    return Parser(path, [path / "config.json"], lambda: _loaded(read_sensorium(path)))


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
    description = root / "model.json"  # without its checksum, so that weights are parsed
    document = json.loads(description.read_text())
    del document["checksum"]
    description.write_text(json.dumps(document))
    targets = [root / "model.json", root / "model.json", weights]
    return Parser(root, targets, lambda: load(root, device="cpu"))


def netcdf(folder):
    """Recordings in netCDF4, compressed."""
    path = folder / "a.nc"
    save_recordings({"m": recording()}, path)
    return Parser(path, [path], lambda: _loaded(open_recordings(path)), in_child=True)


def trials(folder):
    """The same through `Trials.open`, uncompressed."""
    path = folder / "a.nc"
    save_recordings({"m": recording()}, path, compression=None)
    return Parser(path, [path], lambda: Trials.open(path).stimuli[:], in_child=True)


def studies(folder):
    """The database of a search, through a search that goes on with it."""
    path = folder / "study.db"
    mice = make_v1_recordings(
        n_mice=1, n_neurons=2, n_trials=16, n_test_images=2, n_repeats=2, image_shape=(16, 24)
    )
    data = Trials(mice).sel(tier="train")

    def read():
        return search_pretended(storage=path, n_trials=2).fit(data).results_

    read()
    return Parser(path, [path], read)


def _mouse(folder, *, compressed=False):
    """Responses, with repeats as an array of objects, and images, of which few are there."""
    held = make_responses(n_trials=30)
    held["istim_sp"] = held["istim_sp"] % 600
    images = few_images()
    write_stack(folder / "stack.mat", images, compressed=compressed)
    np.savez(folder / "m_nat60k.npz", **held)

    def read():
        responses, stack = folder / "m_nat60k.npz", folder / "stack.mat"
        return _loaded(read_nat60k(responses, stack, window=None, names=["m"]))["m"]

    return held, images, read


def _same_images(found, images):
    shown = found["image_id"].values
    return np.array_equal(found["stimuli"].values[:, 0], images[shown])


def nat60k(folder):
    """Responses of a mouse: members of a zip have checksums, so no damage may give other data."""
    held, images, read = _mouse(folder)
    single, repeats = held["sp"].T, np.concatenate(held["ss_all"])

    def is_right(found):
        right = np.array_equal(found["responses"].values, np.concatenate([single, repeats]))
        return right and _same_images(found, images)

    return Parser(folder, [folder / "m_nat60k.npz"], read, is_right)


def objects(folder):
    """The pickle of their repeats, packed anew with right checksums."""
    _, _, read = _mouse(folder)
    path, parts = folder / "m_nat60k.npz", folder / "parts"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        archive.extractall(parts)

    def read_packed():
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(parts / name, name)
        return read()

    targets = [parts / f"{name}.npy" for name in ("ss_all", "ss_all", "istim_sp", "xpos")]
    return Parser(folder, targets, read_packed)


def mat(folder):
    """Images in MATLAB's version 5, as they are: nothing tells one pixel from another."""
    _, _, read = _mouse(folder)
    return Parser(folder, [folder / "stack.mat"], read)


def deflated_mat(folder):
    """Deflated images, with a checksum."""
    _, images, read = _mouse(folder, compressed=True)
    target = folder / "stack.mat"
    return Parser(folder, [target], read, lambda found: _same_images(found, images))


def mat73(folder):
    """Images in MATLAB's version 7.3, by a library in C."""
    _, _, read = _mouse(folder)
    shutil.copyfile(STACK_V73, folder / "stack.mat")
    return Parser(folder, [folder / "stack.mat"], read, in_child=True)


def _recording(folder, *, compressed):
    path, images = folder / "natimg2800_m.mat", write_images(folder / "images.mat")
    write_recording(path, compressed=compressed)
    classes = write_classes(folder / "classes.mat", np.arange(N_IMAGES) % 3)

    def read():
        return _loaded(read_natimg2800(path, images, classes=classes))

    return [path, path, classes], read


def structs(folder):
    """Structures and cells in MATLAB's version 5, as they are: no number has a checksum."""
    return Parser(folder, *_recording(folder, compressed=False))


def deflated_structs(folder):
    """Deflated ones, with a checksum."""
    targets, read = _recording(folder, compressed=True)
    intact = read()["m"]

    def is_right(found):
        names = set(intact.variables) - {"category", "position", "axis"}
        return all(found["m"][name].equals(intact[name]) for name in names)

    return Parser(folder, targets[:2], read, is_right)


def cadena2019(folder):
    """Arrays of macaque responses."""
    path = folder / "macaque.npz"
    np.savez_compressed(path, **make_macaque())
    intact = _loaded(read_cadena2019(path))["macaque"]

    def is_right(found):
        return (
            found["macaque"]
            .drop_vars("repetitions", errors="ignore")
            .equals(intact.drop_vars("repetitions"))
        )

    return Parser(path, [path], lambda: _loaded(read_cadena2019(path)), is_right)


def nwb(folder):
    """Images, traces and behaviour, which have no checksums, by libraries in C."""
    path = folder / "mouse.nwb"
    calcium(path, n_trials=4)
    wanted = {"pupil_x": ("place", 0), "running_speed": "speed"}
    return Parser(path, [path], lambda: read_nwb(path, behaviors=wanted).load(), in_child=True)


PARSERS = {
    make.__name__: make
    for make in (
        npy,
        zips,
        config,
        yaml,
        checkpoint,
        pickles,
        legacy,
        npz,
        minimodel,
        model,
        netcdf,
        trials,
        studies,
        nat60k,
        objects,
        mat,
        deflated_mat,
        mat73,
        structs,
        deflated_structs,
        cadena2019,
        nwb,
    )
}
