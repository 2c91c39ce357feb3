"""Most exciting images and tuning of neurons of the published CNN of Sensorium 2022.

    python examples/published_neurons.py sensorium_sota_model.pth figure.png

draws 100 neurons of one mouse (Willeke et al., 2022), whose weights are at
github.com/sinzlab/sensorium. It takes two minutes of processor time.
"""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import (
    MostExcitingImagesDisplay,
    gratings,
    most_exciting_images,
    tuning_curves,
    tuning_properties,
)


def main(path: str, figure: str) -> None:
    """Draw images, and the distributions of what neurons prefer."""
    model = v1.load_sensorium(path)
    (mouse,) = model.mice_
    neurons = np.linspace(0, model.n_neurons_[mouse] - 1, 100).astype(int)
    images = most_exciting_images(model, neurons)[mouse]
    stimuli = gratings(
        (36, 64),
        orientation=np.arange(0, 180, 15),
        spatial_frequency=np.geomspace(0.02, 0.2, 7),
        phase=np.arange(0, 360, 45),
        background=0,  # the model was fitted to standardised images
        amplitude=1.5,
    )
    properties = tuning_properties(tuning_curves(model, stimuli, neurons))[mouse]
    whole = plt.figure(figsize=(12, 12), layout="constrained")
    top, bottom = whole.subfigures(2, 1, height_ratios=(4, 1))
    axes = top.subplots(10, 10)
    MostExcitingImagesDisplay(images, 100).plot(axes.ravel())
    for ax, label in zip(
        bottom.subplots(1, 4),
        ("preferred_orientation", "global_osi", "preferred_spatial_frequency", "spread"),
        strict=True,
    ):
        values = (images if label == "spread" else properties)[label]
        ax.hist(values, 15, color="tab:blue")
        unit = values.attrs.get("units")
        ax.set(xlabel=label.replace("_", " ") + (f" [{unit}]" if unit else ""), ylabel="neurons")
        ax.spines[["top", "right"]].set_visible(False)
    whole.savefig(figure, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
