"""Small MATLAB files with a stimulus and spikes, as those of Mahuas et al. (2020)."""

import netCDF4
import numpy as np
import scipy.io

N_BINS, N_TRIALS, N_REPEATS, N_NEURONS = 24, 5, 7, 3


def make_bins(n_bins=N_BINS, n_test_bins=16):
    """Arrays of both files, {tier: {name: array}}, as MATLAB shows them."""
    rng = np.random.default_rng(0)
    return {
        "train": {
            "stimulus": rng.integers(0, 2, (6, 4, n_bins, N_TRIALS)).astype(bool),
            "spikes_train": rng.poisson(0.5, (N_NEURONS, n_bins, N_TRIALS)).astype(float),
            "Xell": rng.random((8, N_NEURONS)),
        },
        "test": {
            "stimulus_test": rng.integers(0, 2, (6, 4, n_test_bins)).astype(bool),
            "spikes_test": rng.poisson(0.5, (N_NEURONS, n_test_bins, N_REPEATS)).astype(float),
        },
    }


def write(path, arrays):
    """Write a file of version 5."""
    scipy.io.savemat(path, arrays, do_compression=True)
    return path


def write_v73(path, arrays):
    """Write HDF5, which names the slowest axis first."""
    with netCDF4.Dataset(path, "w") as file:
        for name, values in arrays.items():
            values = values.astype("u1") if values.dtype == bool else values
            dims = [f"{name}_{axis}" for axis in range(values.ndim)]
            for dim, size in zip(dims, values.T.shape, strict=True):
                file.createDimension(dim, size)
            file.createVariable(name, values.dtype.str[1:], dims)[:] = values.T
    return path
