"""Receptive fields, most exciting images, tuning and retinotopy of the published CNN.

    python examples/published_neurons.py sensorium_sota_model.pth figure.png

draws 100 neurons of one mouse (Willeke et al., 2022), whose weights are at
github.com/sinzlab/sensorium, in three quarters of a minute of processor time. The model computes
where neurons look from their cortical positions: its retinotopy is smooth by design.
"""

from __future__ import annotations

import argparse

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

import v1tlearn as v1
from v1tlearn.inspection import (
    RetinotopyDisplay,
    gratings,
    most_exciting_images,
    readout_positions,
    receptive_fields,
    tuning_curves,
    tuning_properties,
)

SHAPE = (144, 256)  # of the stimuli; the model brings them to a quarter of either side


def mosaic(ax: Axes, images: xr.DataArray, n_columns: int, title: str) -> None:
    """Draw images beside each other, each on a scale of its own around 0."""
    values = images.isel(channel=0).values
    values = values / np.abs(values).max((1, 2), keepdims=True)
    values = np.pad(values, ((0, -len(values) % n_columns), (1, 1), (1, 1)), constant_values=1)
    n, height, width = values.shape
    rows = values.reshape(n // n_columns, n_columns, height, width).swapaxes(1, 2)
    ax.imshow(rows.reshape(-1, n_columns * width), cmap="gray", vmin=-1, vmax=1)
    ax.set_title(title)
    ax.axis("off")


def main(path: str, figure: str, n_neurons: int) -> None:
    """Draw fields and images, what neurons prefer, and where they look."""
    model = v1.load_sensorium(path)
    (mouse,) = model.mice_
    neurons = np.linspace(0, model.n_neurons_[mouse] - 1, n_neurons).astype(int)
    fields = receptive_fields(model, neurons={mouse: neurons}, method="gradient")[mouse]
    # A small norm: with more contrast the response goes on growing, and images get artefacts.
    images = most_exciting_images(model, neurons, norm=6, smoothness=2)[mouse]
    stimuli = gratings(
        SHAPE,
        orientation=np.arange(0, 180, 15),
        spatial_frequency=np.geomspace(0.004, 0.08, 9),
        phase=np.arange(0, 360, 45),
        background=0,  # the model was fitted to standardised images
        amplitude=1.5,
    )
    properties = tuning_properties(tuning_curves(model, stimuli, neurons))[mouse]

    whole = plt.figure(figsize=(15, 9.5), layout="constrained")
    top, bottom = whole.subfigures(2, 1, height_ratios=(5, 4))
    left, right = top.subplots(1, 2)
    mosaic(left, fields, 10, "receptive fields: gradients at the mean grey level")
    mosaic(right, images["image"], 10, "most exciting images of norm 6")
    axes = bottom.subplots(2, 3)
    inside = ~properties["spatial_frequency_at_edge"]
    share = f"{int(inside.sum())} of {n_neurons} neurons, others at an end"
    for ax, values, label in zip(
        axes.flat[:4],
        (
            properties["preferred_orientation"],
            properties["global_osi"],
            properties["preferred_spatial_frequency"][inside.values],
            images["spread"],
        ),
        (
            "preferred orientation [degree]",
            "global orientation selectivity",
            f"preferred spatial frequency [cycle per pixel]\n({share})",
            "spread of the most exciting image [pixel]",
        ),
        strict=True,
    ):
        ax.hist(values, 15, color="tab:blue")
        ax.set(xlabel=label, ylabel="neurons")
        ax.spines[["top", "right"]].set_visible(False)
    RetinotopyDisplay(readout_positions(model)[mouse]).plot(axes.flat[4:])
    whole.savefig(figure, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("figure")
    parser.add_argument("--neurons", type=int, default=100)
    given = parser.parse_args()
    main(given.weights, given.figure, given.neurons)
