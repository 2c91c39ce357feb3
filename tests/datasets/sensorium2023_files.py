"""A small mouse in the layout of Sensorium 2023, file by file."""

import numpy as np

from tests.datasets.sensorium_files import save

NAME = "dynamic29156-11-10-Video-8744edeac3b4d1ce16b680916b5267ce"
N_NEURONS, LONGEST = 4, 12
TIERS = np.array(["train", "train", "oracle", "live_main", "train", "final_main", "none"])
N_FRAMES = np.array([12, 9, 12, 10, 7, 12, 12])


def write_movies(root, *, dtype="f8", behavior=True, padded=True):
    """Write a mouse; return what its files hold, {folder: [array with time last]}."""
    rng = np.random.default_rng(4)
    n = len(TIERS)
    data = {
        "videos": [rng.integers(0, 256, (6, 8, LONGEST)).astype(dtype) for _ in range(n)],
        "responses": [rng.gamma(0.5, 2, (N_NEURONS, LONGEST)) for _ in range(n)],
    }
    data["responses"][3][:] = 0  # withheld
    if behavior:
        data["behavior"] = [rng.normal(size=(2, LONGEST)) for _ in range(n)]
        data["pupil_center"] = [rng.normal(size=(2, LONGEST)) for _ in range(n)]
    for folder, values in data.items():
        for trial, value in enumerate(values):
            if padded:
                if value.dtype.kind == "f":
                    value[..., N_FRAMES[trial] :] = np.nan
            else:
                values[trial] = value = value[..., : N_FRAMES[trial]]
            save(root, f"data/{folder}/{trial}", value)
        for k, statistic in enumerate(("mean", "std", "min", "max", "median")):
            size = () if folder == "videos" else (len(values[0]),)
            save(root, f"meta/statistics/{folder}/all/{statistic}", np.full(size, k + 0.5))
    save(root, "meta/neurons/cell_motor_coordinates", rng.integers(-800, 500, (N_NEURONS, 3)))
    save(root, "meta/neurons/unit_ids", np.arange(1, N_NEURONS + 1))
    save(root, "meta/trials/tiers", TIERS)
    return data
