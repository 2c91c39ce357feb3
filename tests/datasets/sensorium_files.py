"""Small recordings in the Sensorium layout, as files written by hand and as datasets."""

import zipfile

import numpy as np
import xarray as xr

GRAY = "static1-2-3-GrayImageNet-94c6ff995dac583098847cfecd43e7b6"
COLOR = "static4-5-6-ColorImageNet-104e446ed0128d89c639eef0abe4655b"
N_TRIALS, N_NEURONS = 12, 5
STATISTICS = ("mean", "std", "min", "max", "median")


def save(root, name, values):
    path = root / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def write_by_hand(root, *, image_shape=(1, 6, 8), image_dtype="u1", behavior=True, color=False):
    """Write a mouse file by file, as the publisher lays it out; return what its files hold."""
    rng = np.random.default_rng(3)
    data = {
        "images": rng.integers(0, 256, (N_TRIALS, *image_shape)).astype(image_dtype),
        "responses": rng.gamma(0.5, 2, (N_TRIALS, N_NEURONS)),
    }
    if behavior:
        data["behavior"] = rng.normal(size=(N_TRIALS, 3))
        data["pupil_center"] = rng.normal(size=(N_TRIALS, 2))
    for folder, values in data.items():
        for trial, value in enumerate(values):
            save(root, f"data/{folder}/{trial}", value)
        for k, statistic in enumerate(STATISTICS):
            value = np.float64(k) if folder == "images" else np.full(values.shape[1:], k + 0.5)
            save(root, f"meta/statistics/{folder}/all/{statistic}", value)
            save(root, f"meta/statistics/{folder}/stimulus_frame/{statistic}", value + 100)
    neurons = {
        "unit_ids": np.arange(1, N_NEURONS + 1),
        "area": np.array(["V1"] * N_NEURONS),
        "layer": np.array(["L2/3"] * N_NEURONS),
        "animal_ids": np.full(N_NEURONS, 1),
        "sessions": np.full(N_NEURONS, 2),
        "scan_idx": np.full(N_NEURONS, 3),
        "cell_motor_coordinates": rng.integers(-800, 500, (N_NEURONS, 3)),
    }
    prefix = "colorframeprojector" if color else "frame"
    trials = {
        "tiers": np.array(["train", "validation", "test"] * (N_TRIALS // 3)),
        "trial_idx": rng.permutation(N_TRIALS),
        f"{prefix}_image_id": rng.integers(0, 5000, N_TRIALS),
        f"{prefix}_image_class": np.array(["imagenet"] * N_TRIALS),
        f"{prefix}_trial_ts": np.array([f"2020-01-01 00:00:{i:02}" for i in range(N_TRIALS)]),
    }
    for name, values in neurons.items():
        save(root, f"meta/neurons/{name}", values)
    for name, values in trials.items():
        save(root, f"meta/trials/{name}", values)
    return data | neurons | trials


def pack(root, target, *, top=None):
    """Zip a folder; its content lies under `top`, or directly at the top of the zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        if top:
            archive.mkdir(top)
            archive.writestr(f"__MACOSX/{top}/data/images/._0.npy", b"x")
        for path in sorted(root.rglob("*.npy")):
            name = path.relative_to(root).as_posix()
            archive.write(path, f"{top}/{name}" if top else name)
    return target


def recording(**changes):
    rng = np.random.default_rng(1)
    dataset = xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                rng.integers(0, 256, (4, 1, 3, 5), np.uint8),
            ),
            "responses": (("trial", "neuron"), rng.random((4, 3), np.float32)),
        },
        coords={"tier": ("trial", ["train", "train", "validation", "test"])},
    )
    return dataset.assign(changes)
