"""Names of folders and files in the layout of Sensorium 2022 and Franke 2022.

`data/{images,responses,behavior,pupil_center}/{trial}.npy` and `meta/{neurons,trials,statistics}/`.
"""

from __future__ import annotations

from v1tlearn.datasets.schema import BEHAVIOR_NAMES

# Which folders below data/ make up which variable, and how many columns behaviour files have.
DATA_FOLDERS = {
    "stimuli": ("images",),
    "behaviors": ("behavior", "pupil_center"),
    "responses": ("responses",),
    "expected_responses": ("expected_responses",),  # ours, for simulated recordings
}
BEHAVIOR_FOLDERS = {"behavior": BEHAVIOR_NAMES[:3], "pupil_center": BEHAVIOR_NAMES[3:]}
NEURON_FILES = {
    "unit_ids": "neuron",
    "area": "area",
    "layer": "layer",
    "animal_ids": "animal_id",
    "sessions": "session",
    "scan_idx": "scan",
    "cell_motor_coordinates": "position",
}
IMAGE_LABEL_PREFIXES = ("frame", "colorframeprojector")
IMAGE_LABELS = {"image_id": "image_id", "image_class": "category"}
TRIAL_FILES = {"tiers": "tier", "trial_idx": "trial_id"} | {
    f"{prefix}_{stem}": label
    for prefix in IMAGE_LABEL_PREFIXES
    for stem, label in IMAGE_LABELS.items()
}
# Statistics over all frames, and over the frames with a stimulus; the suffix of our names for each.
STATISTIC_SUBSETS = {"all": "", "stimulus_frame": "_stimulus_frame"}
WITHHELD_TIERS = ("test", "final_test")
TRACKS = ("main", "bonus", "1", "2")
# Names of tiers elsewhere: of Sensorium 2023, whose test tiers come in two tracks or two rounds.
TIER_NAMES = {
    "training": "train",
    "val": "validation",
    "oracle": "validation",
    "live_test": "test",
    **{f"live{kind}_{track}": "test" for kind in ("_test", "") for track in TRACKS},
    **{f"final{kind}_{track}": "final_test" for kind in ("_test", "") for track in TRACKS},
}

# The layout of Sensorium 2023, which has movies: the last axis of every file is time.
MOVIE_FOLDERS = {
    "stimuli": ("videos",),
    "behaviors": ("behavior", "pupil_center"),
    "responses": ("responses",),
}
# Folder: {number of columns: their names}.
MOVIE_BEHAVIOR: dict[str, dict[int, tuple[str, ...]]] = {
    "behavior": {2: (BEHAVIOR_NAMES[0], BEHAVIOR_NAMES[2]), 3: BEHAVIOR_NAMES[:3]},
    "pupil_center": {2: BEHAVIOR_NAMES[3:]},
}
