"""Where the model looks: receptive fields, retinotopy and attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.inspection.attention import AttentionRolloutDisplay
from v1tlearn.inspection.field_display import ReceptiveFieldDisplay
from v1tlearn.inspection.fields import receptive_fields
from v1tlearn.inspection.kernels import KernelDisplay
from v1tlearn.inspection.positions import readout_positions
from v1tlearn.inspection.reports._asking import asked
from v1tlearn.inspection.reports._parts import Absent, Section, Text
from v1tlearn.inspection.reports._pictures import picture
from v1tlearn.inspection.retinotopy import retinotopy_smoothness
from v1tlearn.inspection.retinotopy_display import RetinotopyDisplay
from v1tlearn.trials import Trials

_NEIGHBORS = 10
_PERMUTATIONS = 500


def fields_section(model: Any, neurons: Mapping[str, Any], seed: int) -> Section:
    """Draw receptive fields of some neurons, by gradients at grey.

    Parameters
    ----------
    model : estimator
        One model.
    neurons : mapping of str to sequence
        Unit ids by mouse.
    seed : int

    Returns
    -------
    Section
    """
    section = Section("fields", "Receptive fields")
    fields = asked(
        "receptive fields",
        receptive_fields,
        model,
        mice=list(neurons),
        neurons=neurons,
        method="gradient",
        random_state=seed,
    )
    if isinstance(fields, Absent):
        section.parts.append(fields)
        return section
    for mouse, own in fields.items():
        alt = f"Receptive fields of {own.sizes['neuron']} neurons of mouse {mouse}"
        if "lag" in own.dims:
            figure = KernelDisplay.from_kernels(own, n_neurons=own.sizes["neuron"]).figure_
            told = "Gradients of the predicted responses by the pixels of the frames before, in a "
            told += "grey movie: red where light raises the response, blue where it lowers it."
        else:
            figure = ReceptiveFieldDisplay.from_fields(own, n_fields=own.sizes["neuron"]).figure_
            told = "Gradients of the predicted responses by the pixels of a grey image: red where "
            told += "light raises the response, blue where it lowers it. Ellipses are fitted "
            told += "Gaussians at two standard deviations, dashed where they fit badly."
        caption = f"Mouse {mouse}, neurons that are predicted best. {told}"
        section.parts.append(picture(figure, f"{alt}.", caption))
    return section


def retinotopy_section(model: Any, mice: Sequence[str], seed: int) -> Section:
    """Draw where neurons look over where they lie in cortex.

    Parameters
    ----------
    model : estimator
        One model.
    mice : sequence of str
    seed : int

    Returns
    -------
    Section
    """
    section = Section("retinotopy", "Retinotopy")
    places = asked("retinotopy", readout_positions, model, mice=mice)
    if isinstance(places, Absent):
        section.parts.append(places)
        return section
    computed = False
    for mouse, own in places.items():
        display = asked(f"retinotopy of mouse {mouse}", RetinotopyDisplay, own)
        if isinstance(display, Absent):
            section.parts.append(display)
            continue
        computed |= bool(own.attrs["from_cortex"])
        figure = _map_of(own, seed).plot().figure_
        alt = f"Two maps of the neurons of mouse {mouse} in cortex, coloured by where they look"
        told = f"Mouse {mouse}: where in the image the readout of each neuron looks."
        section.parts.append(picture(figure, f"{alt}, along x and along y.", told))
    if computed:
        told = "The model computes these places from the cortical positions by a smooth function: "
        told += "that the maps are smooth was not learned from the recordings."
        section.parts.append(Text(told))
    return section


def _map_of(places: xr.Dataset, seed: int) -> RetinotopyDisplay:
    """Retinotopy, with its smoothness where that says something."""
    smoothness = None
    if not places.attrs["from_cortex"]:
        found = asked(
            "smoothness",
            retinotopy_smoothness,
            places,
            n_neighbors=_NEIGHBORS,
            n_permutations=_PERMUTATIONS,
            random_state=seed,
        )
        smoothness = None if isinstance(found, Absent) else found
    return RetinotopyDisplay(places, smoothness=smoothness)


def attention_section(estimator: Any, trials: Trials, n_images: int, seed: int) -> Section:
    """Draw the attention over some images of the first mouse.

    Parameters
    ----------
    estimator : estimator
    trials : Trials
    n_images : int
        Images that are drawn by lot.
    seed : int

    Returns
    -------
    Section
    """
    section = Section("attention", "Attention")
    mouse = trials.mice[0]
    own = trials.sel(mouse_id=mouse)
    first = np.sort(np.unique(own.image_ids, return_index=True)[1])  # trial of each image
    rng = np.random.default_rng(seed)
    some = np.sort(rng.choice(first, min(n_images, len(first)), replace=False))
    shown = asked(
        "attention",
        AttentionRolloutDisplay.from_estimator,
        estimator,
        own[some],
        n_images=len(some),
    )
    if isinstance(shown, Absent):
        section.parts.append(shown)
        return section
    told = f"Attention rollout over images of mouse {mouse}, drawn by lot, with its behaviour in "
    told += "the trial. Red is where the last block has most of its content from; the cross is the "
    told += "middle of the map."
    alt = f"{len(some)} images with their attention maps in yellow and red"
    section.parts.append(picture(shown.figure_, f"{alt}.", told))
    return section
