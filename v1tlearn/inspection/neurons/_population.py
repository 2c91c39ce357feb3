"""What is read of a fitted aligner and of trials, once, for all that is asked of its neurons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from v1tlearn.estimators import DINAAligner
from v1tlearn.estimators._alignment import check_images, image_maps
from v1tlearn.estimators._leaks import warn_of_seen_images
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._populations import check_recorded
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.estimators.placement import scale_responses
from v1tlearn.inspection._controls import check_aligner
from v1tlearn.inspection._opened import check_trials
from v1tlearn.nn import (
    AttentionTower,
    NeuralTower,
    ranks_of_seen,
    scale_maps,
    steady_cosines,
    unit_length,
)
from v1tlearn.trials import Trials

# Values that pass a tower at once.
_CPU_VALUES, _OTHER_VALUES = 2**21, 2**26


@dataclass(frozen=True, eq=False)
class Population:
    """Responses of one mouse as its neural tower takes them, and the maps of what it saw.

    Attributes
    ----------
    mouse : str
    tower : NeuralTower
    map_scale : str
        What is done to its maps.
    responses : Tensor of shape (n_trials, n_neurons)
        Scaled; at the mean where they were not recorded.
    recorded : Tensor of bool of this shape
    mean, silence : Tensor of shape (n_neurons,)
        The neurons' mean over the trials at `fit`, and no activity at all, both scaled.
    gallery : Tensor of shape (n_images, channels, height, width)
        Maps of the images, each once.
    labels : Tensor of int of shape (n_trials,)
        Which of them each trial shows.
    trials : Trials
        Of this mouse.
    coords : dict of str to (str, ndarray)
        What is known of the neurons, for `xarray`; "neuron" is their places where no ids are.
    """

    mouse: str
    tower: NeuralTower
    map_scale: str
    responses: Tensor
    recorded: Tensor
    mean: Tensor
    silence: Tensor
    gallery: Tensor
    labels: Tensor
    trials: Trials
    coords: Mapping[str, tuple[str, np.ndarray]]

    @property
    def n_neurons(self) -> int:
        """How many neurons there are."""
        return self.responses.shape[1]

    @property
    def attending(self) -> AttentionTower:
        """The tower, where `populations` was asked for those that attend."""
        return cast(AttentionTower, self.tower)

    @property
    def images(self) -> Tensor:
        """Maps of the images, flat and of length 1 (n_images, features)."""
        return unit_length(self.gallery)

    @property
    def at_once(self) -> int:
        """Trials that pass the tower at once."""
        values = _CPU_VALUES if self.responses.device.type == "cpu" else _OTHER_VALUES
        return max(1, values // max(self.n_neurons, self.gallery[0].numel()))

    def maps(self, responses: Tensor) -> Tensor:
        """Maps (n, channels, height, width) of scaled responses."""
        return scale_maps(self.tower(responses), self.map_scale)

    def vectors(self, responses: Tensor) -> Tensor:
        """Maps of scaled responses, flat and of length 1 (n, features)."""
        return unit_length(self.maps(responses))

    def label(self, variables: Mapping[str, tuple[Any, ...]], **attrs: Any) -> xr.Dataset:
        """Make a Dataset of variables, with what is known of the neurons."""
        return xr.Dataset(dict(variables), coords=dict(self.coords), attrs={**attrs})


def populations(aligner: Any, trials: Any, *, attention: bool = False) -> Iterator[Population]:
    """Read the population of every mouse of the trials.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        With responses.
    attention : bool, default=False
        Whether the neural tower has to be one of attention.

    Yields
    ------
    Population

    Raises
    ------
    TypeError
        If this is no aligner or these are no trials, or the tower does not attend.
    NotFittedError
        Before `fit`.
    ValueError
        If mice, neurons or images are not those of `fit`, a mouse saw one image only, no response
        was recorded in a trial, or responses are the same in all trials.
    """
    check_aligner(aligner)
    check_trials(trials, "those of at least two images")
    model = aligner.module_
    check_like_fit(aligner.fitted_, model, trials)
    target = trials.responses
    check_images(trials)
    warn_of_seen_images(aligner.__dict__.get("_seen"), trials)
    aligner._to_device()
    model.eval()
    for mouse in trials.mice:
        tower = model.readout(mouse)
        if attention and not isinstance(tower, AttentionTower):
            raise TypeError(
                f"mouse {mouse!r} has a {type(tower).__name__}, which has no attention weights: "
                "fit with neural_tower='attention'."
            )
        own = trials[trials.rows(mouse)[0]]
        values = target.get(mouse)
        check_recorded(values, mouse, trials.rows(mouse)[1])
        maps, labels = _images(aligner, own, mouse)
        yield _population(aligner, own, mouse, values, maps, labels)


def _images(aligner: DINAAligner, trials: Trials, mouse: str) -> tuple[Tensor, Tensor]:
    """Maps of the images, each once, and which each trial shows."""
    _, first, labels = np.unique(trials.image_ids, return_index=True, return_inverse=True)
    data = mouse_data(aligner.fitted_, trials[first], mouse, aligner.device_)
    maps = torch.cat(list(image_maps(aligner.module_, data, aligner.precision)))
    return maps.clone(), torch.from_numpy(labels).to(aligner.device_)


def _population(
    aligner: DINAAligner,
    trials: Trials,
    mouse: str,
    values: np.ndarray,
    maps: Tensor,
    labels: Tensor,
) -> Population:
    model = aligner.module_
    tower, one = model.readout(mouse), aligner.fitted_.mice[mouse]
    dtype = next((p.dtype for p in tower.parameters()), torch.float32)
    scale = one.statistics["response_scale"]
    given = scale_responses(values, mouse, scale, np.arange(len(values)))
    scaled = torch.from_numpy(given).to(aligner.device_, dtype)
    recorded = ~scaled.isnan()
    nothing = torch.zeros_like(recorded[:1])
    responses = model.scale_responses(mouse, scaled.nan_to_num(), recorded)
    if not (responses != responses[:1]).any():
        raise ValueError(
            f"mouse {mouse!r}: its responses are the same in all {len(responses)} trials: there is "
            "nothing to tell neurons by. Give trials in which they respond."
        )
    ids = {"neuron": np.arange(one.n_neurons)} | trials.neuron_labels(mouse) | one.labels
    return Population(
        mouse=mouse,
        tower=tower,
        map_scale=model.map_scale,
        responses=responses,
        recorded=recorded,
        mean=model.scale_responses(mouse, torch.zeros_like(scaled[:1]), nothing)[0],
        silence=model.scale_responses(mouse, torch.zeros_like(scaled[:1]))[0],
        gallery=maps.to(dtype),
        labels=labels,
        trials=trials,
        coords={name: ("neuron", np.asarray(v)) for name, v in ids.items()},
    )


def check_halves(population: Population) -> None:
    """Check that there are images enough to choose neurons on half of them, and judge on the rest.

    Parameters
    ----------
    population : Population

    Raises
    ------
    ValueError
        If there are fewer than 4.
    """
    if len(population.gallery) < 4:
        raise ValueError(
            f"mouse {population.mouse!r} saw {len(population.gallery)} images: neurons are chosen "
            "on half of them, and judged on the others: give trials of at least 4."
        )


def some_trials(population: Population, rows: Tensor) -> Population:
    """Take some trials of a population, and the images that they show.

    Parameters
    ----------
    population : Population
    rows : Tensor of int of shape (n,)

    Returns
    -------
    Population
    """
    shown, labels = population.labels[rows].unique(return_inverse=True)
    return replace(
        population,
        responses=population.responses[rows],
        recorded=population.recorded[rows],
        gallery=population.gallery[shown],
        labels=labels,
        trials=population.trials[rows.cpu().numpy()],
    )


def found(vectors: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Whether the image that was seen is the most similar one of all, as `score` has it.

    Parameters
    ----------
    vectors : Tensor of shape (..., n_trials, features)
        Of responses.
    images : Tensor of shape (n_images, features)
    labels : Tensor of int of shape (n_trials,)
        Which image each trial shows.

    Returns
    -------
    Tensor of bool of shape (..., n_trials)
    """
    cosines = steady_cosines(vectors.flatten(0, -2), images)
    return ranks_of_seen(cosines.unflatten(0, vectors.shape[:-1]), labels) == 1
