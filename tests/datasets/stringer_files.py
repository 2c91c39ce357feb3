"""Small files in the layout of Stringer et al. (2019), written by SciPy, or as HDF5."""

import netCDF4
import numpy as np
import scipy.io

N_IMAGES, N_NEURONS = 50, 7
RED = np.array([0, 1, 0, 0, 0, 1, 0])
CLASS_NAMES = ["unknown", "birds", "cats"]


def make_images(dtype=np.uint8, seed=0):
    """Images (n, height, width)."""
    return np.random.default_rng(seed).integers(0, 256, (N_IMAGES, 6, 9)).astype(dtype)


def make_stim(seed=1):
    """What `stim` holds: every image twice, and the grey screen five times, in one order."""
    rng = np.random.default_rng(seed)
    shown = rng.permutation(np.concatenate([np.tile(np.arange(1, N_IMAGES + 1), 2), [51] * 5]))
    return {
        "resp": rng.gamma(1.0, 10.0, (len(shown), N_NEURONS)).astype("f4"),
        "istim": shown.astype(float)[:, None],
        "spont": rng.gamma(1.0, 5.0, (30, N_NEURONS)).astype("f4"),
    }


def make_position(seed=2):
    """Estimated position of each cell."""
    return np.random.default_rng(seed).uniform(0, 800, (N_NEURONS, 3))


def cells(red=RED):
    """The statistics of each cell, some of which are red; None: without that field."""
    fields = ["npix"] + ([] if red is None else ["redcell"])
    stat = np.empty((1, N_NEURONS), [(name, object) for name in fields])
    for number in range(N_NEURONS):
        stat["npix"][0, number] = 100.0 + number
        if red is not None:
            stat["redcell"][0, number] = float(red[number])
    return stat


def write_recording(path, stim=None, *, stat=None, med=None, compressed=True):
    """Write a recording as MATLAB does by default."""
    held = {"stim": stim or make_stim(), "db": {"mouse_name": "M1"}}
    held["stat"] = cells() if stat is None else stat
    held["med"] = make_position() if med is None else med
    scipy.io.savemat(path, held, do_compression=compressed)
    return path


def write_images(path, images=None):
    """Write a stack, (height, width, images)."""
    images = make_images() if images is None else images
    scipy.io.savemat(path, {"imgs": images.transpose(1, 2, 0)}, do_compression=True)
    return path


def write_table(folder, responses, images):
    """Write the two files of a mouse, whose images stand first."""
    folder.mkdir()
    scipy.io.savemat(folder / "responses.mat", {"responses": responses})
    scipy.io.savemat(folder / "images.mat", {"images": images})
    return folder / "responses.mat", folder / "images.mat"


def write_classes(path, numbers, names=CLASS_NAMES):
    """Write a number for each image, and the names that these count from 0."""
    texts = np.empty((1, len(names)), object)
    texts[0] = names
    scipy.io.savemat(path, {"class_assignment": np.atleast_2d(numbers), "class_names": texts})
    return path


def write_v73(path, stim=None, *, marks=None):
    """Write a recording as HDF5, which names the slowest axis first."""
    with netCDF4.Dataset(path, "w") as file:
        groups = {"stim": stim or make_stim(), "": {"med": make_position()}}
        if marks is not None:
            groups["stat"] = marks
        for name, arrays in groups.items():
            group = file.createGroup(name) if name else file
            for field, values in arrays.items():
                dims = []
                for size in values.T.shape:
                    dims.append(f"{field}_{len(dims)}")
                    group.createDimension(dims[-1], size)
                group.createVariable(field, values.dtype.str[1:], dims)[:] = values.T
    return path
