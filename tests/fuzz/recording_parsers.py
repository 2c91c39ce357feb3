"""Readers of recordings, each with small files of our own writers and what they must give.

A parser is a folder made once, the files in it that are changed, one call through a public door,
and an oracle that says whether what was read of a changed file is right.
"""

import shutil
import struct
import zipfile

import numpy as np

from tests.datasets.nat60k_files import (
    STACK_V73,
    few_images,
    make_macaque,
    make_responses,
    write_stack,
)
from tests.datasets.nwb_files import calcium, movie_shown_often
from tests.datasets.onken_files import SHAPE, write_onken
from tests.datasets.sensorium2023_files import NAME, write_movies
from tests.datasets.sensorium_files import GRAY, recording, write_by_hand
from tests.datasets.stimulus_spikes_files import make_bins, write, write_v73
from tests.datasets.stringer_files import (
    N_IMAGES,
    write_classes,
    write_images,
    write_recording,
)
from tests.fuzz.parser import Parser, loaded
from v1tlearn import Trials
from v1tlearn.datasets import (
    checksums,
    open_recordings,
    read_cadena2019,
    read_nat60k,
    read_natimg2800,
    read_nwb,
    read_nwb_movies,
    read_onken2016,
    read_sensorium,
    read_sensorium2023,
    read_stimulus_spikes,
    save_recordings,
    write_sensorium,
)


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

    return Parser(root, targets, lambda: loaded(read_sensorium(root)), is_right)


def zips(folder):
    """A zip of a mouse: its members have checksums, so no damage may give other data."""
    position = ("neuron", "axis"), np.arange(9, dtype="f4").reshape(3, 3)
    (path,) = write_sensorium({"m": recording(position=position)}, folder, zip=True)
    intact = loaded(read_sensorium(path))["m"]

    def is_right(found):
        (dataset,) = found.values()
        shared = set(dataset.variables) & set(intact.variables)
        needed = {"stimuli", "responses", "tier"} <= shared
        return needed and all(
            dataset[name].variable.equals(intact[name].variable) for name in shared
        )

    return Parser(path, [path], lambda: loaded(read_sensorium(path)), is_right)


def config(folder):
    """The JSON of our own writer beside the files of a mouse."""
    (path,) = write_sensorium(
        {"m": recording().assign_coords(trial_Own=("trial", [1, 2, 3, 4])).assign_attrs(a=[1, 2])},
        folder,
    )
    return Parser(path, [path / "config.json"], lambda: loaded(read_sensorium(path)))


def netcdf(folder):
    """Recordings in netCDF4, compressed."""
    path = folder / "a.nc"
    save_recordings({"m": recording()}, path)
    return Parser(path, [path], lambda: loaded(open_recordings(path)), in_child=True)


def sealed(folder):
    """The same with checksums that are right whatever it says, as a stranger can make them, too."""
    path, plain = folder / "a.nc", folder / "plain.nc"
    save_recordings({"m": recording()}, path)
    written = path.read_bytes()
    (length,) = struct.unpack("<Q", written[-16:-8])  # of the checksums, ahead of 20 bytes
    plain.write_bytes(written[: -20 - length])

    def read():
        path.write_bytes(plain.read_bytes())
        checksums.append(path, {})
        return loaded(open_recordings(path))

    return Parser(folder, [plain], read, in_child=True)


def trials(folder):
    """The same through `Trials.open`, uncompressed."""
    path = folder / "a.nc"
    save_recordings({"m": recording()}, path, compression=None)
    return Parser(path, [path], lambda: Trials.open(path).stimuli[:], in_child=True)


def _mouse(folder, *, compressed=False):
    """Responses, with repeats as an array of objects, and images, of which few are there."""
    held = make_responses(n_trials=30)
    held["istim_sp"] = held["istim_sp"] % 600
    images = few_images()
    write_stack(folder / "stack.mat", images, compressed=compressed)
    np.savez(folder / "m_nat60k.npz", **held)

    def read():
        responses, stack = folder / "m_nat60k.npz", folder / "stack.mat"
        return loaded(read_nat60k(responses, stack, window=None, names=["m"]))["m"]

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
        return loaded(read_natimg2800(path, images, classes=classes))

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
    intact = loaded(read_cadena2019(path))["macaque"]

    def is_right(found):
        return (
            found["macaque"]
            .drop_vars("repetitions", errors="ignore")
            .equals(intact.drop_vars("repetitions"))
        )

    return Parser(path, [path], lambda: loaded(read_cadena2019(path)), is_right)


def nwb(folder):
    """Images, traces and behaviour, which have no checksums, by libraries in C."""
    path = folder / "mouse.nwb"
    calcium(path, n_trials=4)
    wanted = {"pupil_x": ("place", 0), "running_speed": "speed"}
    return Parser(path, [path], lambda: read_nwb(path, behaviors=wanted).load(), in_child=True)


def nwb_movies(folder):
    """A movie of which indices tell when each frame was shown, as `nwb`."""
    path = folder / "mouse.nwb"
    movie_shown_often(path, n_frames=4, repeats=2, n_neurons=2)

    def is_sane(dataset):
        shown, frames = dataset["stimuli"].dims, dataset.sizes.get("time", 0)
        times = dataset["time"].values
        return (
            shown == ("trial", "time", "channel", "height", "width")
            and dataset["responses"].dims == ("trial", "time", "neuron")
            and min(dataset.sizes.values()) > 0
            and (np.diff(times) > 0).all()
            and np.isfinite(times).all()
            and not np.isinf(dataset["responses"].values).any()
            and ("n_frames" not in dataset or 0 < int(dataset["n_frames"].max()) <= frames)
        )

    return Parser(
        path, [path], lambda: read_nwb_movies(path).load(), is_sane=is_sane, in_child=True
    )


def movies(folder):
    """Movies, responses, behaviour and labels of a mouse, held against NumPy's own reader."""
    root = folder / NAME
    write_movies(root)
    names = ("data/videos/0", "data/responses/1", "data/behavior/0", "data/pupil_center/2")
    names += ("meta/trials/tiers", "meta/neurons/unit_ids", "meta/statistics/videos/all/mean")
    targets = [root / f"{name}.npy" for name in names]

    def is_right(found):
        ((_, dataset),) = found.items()
        if len(dataset.trial) != 6:  # trials of unknown tiers are left out, with a warning
            return True
        stored = np.load(root / "data/videos/0.npy", allow_pickle=False)
        shown = dataset["stimuli"].values[0, :, 0]
        n = int(dataset["n_frames"][0])
        with np.errstate(all="ignore"):
            stored = np.moveaxis(stored.astype(shown.dtype), -1, 0)
        return np.array_equal(shown[:n], stored[:n], equal_nan=True)

    return Parser(root, targets, lambda: loaded(read_sensorium2023(root)), is_right)


def cells(folder):
    """Cells of spike times and outlines in MATLAB's version 5, and raw frames."""
    root = write_onken(folder / "onken", compressed=False)
    names = ("NeuralData/Spikes/Movie1Exp1.mat", "NeuralData/ReceptiveFields/Movie1Exp1.mat")
    targets = [root / name for name in (*names, "Stimuli/Movie1/frame3.raw")]
    options = {"frame_shape": SHAPE, "grid": (4, 4), "files": ["Movie1Exp1"]}
    return Parser(root, targets, lambda: loaded(read_onken2016(root, **options)))


def spikes(folder):
    """A stimulus and spikes in MATLAB's version 5, deflated, with a checksum."""
    path = write(folder / "spikes.mat", make_bins()["train"])
    intact = loaded(read_stimulus_spikes(path, 0.01))["recording"]

    def is_right(found):
        return all(found["recording"][n].equals(intact[n]) for n in ("stimuli", "responses"))

    return Parser(path, [path], lambda: loaded(read_stimulus_spikes(path, 0.01)), is_right)


def spikes_v73(folder):
    """The same in version 7.3, by a library in C."""
    path = write_v73(folder / "spikes.mat", make_bins()["train"])
    return Parser(path, [path], lambda: loaded(read_stimulus_spikes(path, 0.01)), in_child=True)
