"""
What does a ring around the field do?
=====================================

A grating in the middle of the field of a neuron, and around it a ring of other orientations: does
it suppress, and does that depend on its orientation?
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Fit a model
# -----------
# Simulated cells divide by the energy of the image in their field and close around it. A network
# with several layers can learn that, a linear-nonlinear one can only add up.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import (
    gratings,
    most_exciting_images,
    surround,
    tuning_curves,
    tuning_properties,
)

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=40,
    n_trials=1500,
    image_shape=(18, 32),
    explainable_variance=0.8,
    random_state=0,
)
train = v1.Trials(recordings).sel(tier="train")
settings = {"laplace": 0.5, "readout_l1": 0.001, "init_sigma": 0.2, "batch_size": 64}
settings |= {"hidden_channels": 16, "hidden_kernel": 5, "max_epochs": 15, "random_state": 0}
models = {
    "CNN": v1.CNNRegressor(n_layers=3, **settings).fit(train),
    "LN": v1.LNRegressor(n_layers=2, **settings).fit(train),
}

# %%
# Find the field, its grating, and its size
# -----------------------------------------
# The place of a field is that of the most exciting image. Gratings of several diameters lie there,
# of the orientation and frequency that the neuron prefers.

shape = (18, 32)
first = gratings(shape, spatial_frequency=np.geomspace(0.06, 0.35, 6))
diameters = [2, 4, 6, 8, 11, 14, 18, 24]
found = {}
for name, model in models.items():
    fields = most_exciting_images(model, limits=(0, 255), n_steps=24)
    properties = tuning_properties(tuning_curves(model, first))
    by_size = gratings(
        shape,
        orientation=properties["A"]["preferred_orientation"],
        spatial_frequency=properties["A"]["preferred_spatial_frequency"],
        diameter=diameters,
        x=fields["A"]["center_x"],
        y=fields["A"]["center_y"],
        phase=np.arange(0, 360, 90),
    )
    sizes = tuning_properties(tuning_curves(model, {"A": by_size}))["A"]
    properties["A"] = properties["A"].assign(preferred_diameter=sizes["preferred_diameter"])
    print(f"{name}: median suppression index {float(sizes['suppression_index'].median()):.2f}")
    found[name] = surround(
        model, fields, properties, diameter=6, inner_diameters=[1, 1.5, 2, 3], n_phases=4
    )["A"]

# %%
# Rings
# -----
# Below 0 a ring suppresses. Each line is the median over cells, the band holds half of them. The
# centre is smaller than most fields: a ring at its edge, of its orientation, drives a cell further,
# and one across it does not. From two diameters on it is beyond the fields, and nothing is left:
# neither these cells nor these models look so far.

figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained", sharey=True)
for ax, (name, one) in zip(axes, found.items(), strict=True):
    for inner, color in zip((1, 2), ("tab:blue", "tab:orange"), strict=True):
        index = one["index"].sel(inner_diameter=inner)
        low, middle, high = index.quantile([0.25, 0.5, 0.75], "neuron").values
        angle = index["relative_orientation"].values
        ax.plot(angle, middle, color=color, marker="o", label=f"ring from {inner} diameters on")
        ax.fill_between(angle, low, high, color=color, alpha=0.2, lw=0)
    ax.axhline(0, color="0.6", lw=1)
    ax.set(title=name, xlabel="ring against centre [degree]", xticks=angle)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("(both − centre) / (both + centre)")
axes[0].legend(frameon=False, fontsize="small")
plt.show()
