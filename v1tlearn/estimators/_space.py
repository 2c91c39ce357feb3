"""What is done in the space of a fitted alignment: maps, similarity, retrieval, score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn._values import as_whole
from v1tlearn.estimators._alignment import image_maps, response_maps
from v1tlearn.estimators._alike import check_images
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._leaks import warn_of_seen_images
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._populations import Population
from v1tlearn.estimators._ranges import warn_of_other_ranges
from v1tlearn.estimators._reading import names_at_fit, read_score
from v1tlearn.estimators._space_inputs import (
    are_maps,
    as_maps,
    labelled,
    read_images,
    read_responses,
)
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.nn import AlignmentModel, check_towers, closest, steady_cosines
from v1tlearn.training.contrastive import first_ranks
from v1tlearn.trials import Trials

_TRIALS_AT_ONCE = 2048  # whose images are brought to the device, and whose maps are there


class Retrieval(NamedTuple):
    """What `DINAAligner.retrieve` finds.

    Attributes
    ----------
    places : ndarray of int of shape (n_responses, k)
        Of the most similar images in the gallery, the best first.
    similarities : ndarray of shape (n_responses, k)
        Their cosines, from -1 to 1.
    """

    places: np.ndarray
    similarities: np.ndarray


class SpaceMixin:
    """`transform_images`, `transform_responses`, `similarity`, `retrieve` and `score`."""

    mice_: list[str]
    n_neurons_: dict[str, int]
    fitted_: Fitted
    module_: AlignmentModel
    device_: torch.device
    precision: str
    _to_device: Callable[[], None]

    @property
    def map_shape_(self) -> tuple[int, int, int]:
        """Channels, height and width of the maps."""
        return self.module_.core.output_shape

    @explained
    def transform_images(self, stimuli: Any, *, flat: bool = False) -> xr.DataArray:
        """Bring images to the space of the alignment.

        Parameters
        ----------
        stimuli : Trials, dict, ndarray or DataArray
            `Trials`, or grey levels (trials, channels, height, width) in a dict per mouse or an
            array of no mouse in particular: all mice share the image tower. Dimensions of a
            DataArray go by name.
        flat : bool, default=False
            Give vectors of length 1 instead of maps.

        Returns
        -------
        DataArray of dims (trial, channel, height, width), or (trial, feature)
            In the order of the trials, with the coordinate ``image_id`` where `Trials` came.

        Raises
        ------
        ValueError
            For images of another shape than at `fit`, or NaN in them.
        MissingTowerError
            If the model has no image tower, see `load_dina`.
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        trials = read_images(self.fitted_, self.module_, stimuli)
        maps = torch.cat([part.cpu() for part in self._maps_of_images(trials)])
        labels = {"image_id": trials.image_ids} if isinstance(stimuli, Trials) else {}
        return labelled(maps, labels, flat=flat)

    @explained
    def transform_responses(
        self, responses: Any, mouse_ids: Any = None, *, flat: bool = False
    ) -> xr.DataArray:
        """Bring responses to the space of the alignment.

        Parameters
        ----------
        responses : Trials, Responses, dict, ndarray, DataArray or DataFrame
            `Trials` bring theirs; a dict has (trials, neurons) per mouse, an array is of one mouse.
            In the units of those at `fit`, NaN where not recorded, which counts as the mean of the
            neuron. Labelled dimensions and neurons are brought to the order of `fit`.
        mouse_ids : str, optional
            Whose an array is, where the model has several mice.
        flat : bool, default=False
            Give vectors of length 1 instead of maps.

        Returns
        -------
        DataArray of dims (trial, channel, height, width), or (trial, feature)
            With the coordinate ``mouse_id``, and ``image_id`` where `Trials` came; in the order of
            the trials, and of a dict mouse by mouse.

        Raises
        ------
        ValueError
            For a mouse the model does not know, other neurons, or a trial of which no response was
            recorded.
        TypeError
            If `mouse_ids` came beside what tells it, or is no single id.
        MissingTowerError
            If the model has no neural tower, see `load_dina`.
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        population = read_responses(self.fitted_, self.module_, responses, mouse_ids)
        mice = [np.full(len(own), mouse) for mouse, own in population.by_mouse.items()]
        labels = {"mouse_id": np.concatenate(mice)[population.order]}
        if isinstance(responses, Trials):
            labels["image_id"] = responses.image_ids
        return labelled(self._maps_of_responses(population).cpu(), labels, flat=flat)

    @explained
    def transform(self, stimuli: Any) -> np.ndarray:
        """Give the maps of images as vectors of length 1, for the steps of a Pipeline.

        Parameters
        ----------
        stimuli : Trials, dict, ndarray or DataArray
            As in `transform_images`.

        Returns
        -------
        ndarray of shape (n_trials, features)
        """
        return self.transform_images(stimuli, flat=True).values

    @explained
    def similarity(self, responses: Any, gallery: Any) -> np.ndarray:
        """Cosine of the maps of responses and of images.

        Parameters
        ----------
        responses : Trials, Responses, dict, ndarray or DataArray
            As in `transform_responses`, or what it gave.
        gallery : Trials, dict, ndarray or DataArray
            As in `transform_images`, or what it gave.

        Returns
        -------
        ndarray of shape (n_responses, n_images)
            From -1 to 1; 0 for flat maps.
        """
        check_is_fitted(self)
        _, images = self._gallery(gallery)
        queries = self._queries(responses)
        return torch.cat([steady_cosines(queries, part).cpu() for part in images], 1).numpy()

    @explained
    def retrieve(self, responses: Any, gallery: Any, k: int = 5) -> Retrieval:
        """Find the images that are most similar to responses.

        Parameters
        ----------
        responses : Trials, Responses, dict, ndarray or DataArray
            As in `transform_responses`, or what it gave.
        gallery : Trials, dict, ndarray or DataArray
            As in `transform_images`, or what it gave. It passes in parts, so that the similarities
            of all are never there at once.
        k : int, default=5
            How many, at most as many as the gallery has.

        Returns
        -------
        Retrieval
            Of equally similar images the first in the gallery come first. The same in any order,
            batch and part, but for images whose cosines differ by rounding.

        Raises
        ------
        ValueError
            If `k` is no number from 1 to the size of the gallery.
        """
        check_is_fitted(self)
        k = as_whole(k, "k")
        n, images = self._gallery(gallery)
        if n < k:
            raise ValueError(f"k={k}, but the gallery has {n} images: lower k.")
        places, cosines = closest(self._queries(responses), images, k)
        return Retrieval(places.cpu().numpy(), cosines.cpu().numpy())

    @explained
    def score(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
    ) -> float:
        """Share of the trials whose image is found among all that the mouse sees in them.

        Parameters
        ----------
        stimuli, behaviors, responses, mouse_ids
            As in `fit`; behaviour is not looked at.

        Returns
        -------
        float
            Top-1, mean over trials, then over mice. Chance is one over the number of images of the
            mouse. An image that is just as similar counts against the one that was seen.

        Raises
        ------
        ValueError
            If all trials of a mouse show one image, or no response was recorded in one.
        MissingTowerError
            If the model lacks a tower, see `load_dina`.
        """
        check_is_fitted(self)
        check_towers(self.module_.core, *self.module_.readouts)
        call = read_score(
            self.fitted_.mice,
            stimuli,
            behaviors,
            responses,
            mouse_ids,
            names_at_fit(self.fitted_),
        )
        check_like_fit(self.fitted_, self.module_, call.trials)
        warn_of_other_ranges(self.fitted_, call.trials)
        check_images(call.trials)
        warn_of_seen_images(self.__dict__.get("_seen"), call.trials)
        found = []
        for mouse in call.trials.mice:
            own = call.trials[call.trials.rows(mouse)[0]]
            images = torch.cat(list(self._maps_of_images(own)))
            target = call.target[call.trials.rows(mouse)[0]].get(mouse)
            population = read_responses(self.fitted_, self.module_, {mouse: target})
            maps = self._maps_of_responses(population)
            labels = np.unique(own.image_ids, return_inverse=True)[1]
            ranks = first_ranks(maps, images, torch.from_numpy(labels).to(self.device_))
            found.append((ranks == 1).double().mean().item())
        return float(np.mean(found))

    # ------------------------------------------------------------------------- what came

    def _maps_of_images(self, trials: Trials) -> Iterator[torch.Tensor]:
        """Maps of images in parts, on the device, in the order of the trials."""
        self._to_device()
        for start in range(0, len(trials), _TRIALS_AT_ONCE):
            some = trials[start : start + _TRIALS_AT_ONCE]
            order = np.argsort(np.concatenate([some.rows(mouse)[0] for mouse in some.mice]))
            data = (mouse_data(self.fitted_, some, mouse, self.device_) for mouse in some.mice)
            maps = [m for own in data for m in image_maps(self.module_, own, self.precision)]
            yield torch.cat(maps)[torch.from_numpy(order).to(self.device_)]

    def _maps_of_responses(self, population: Population) -> torch.Tensor:
        """Maps of responses, on the device, in the order of the trials."""
        self._to_device()
        maps = [
            part
            for mouse, own in population.by_mouse.items()
            for part in response_maps(
                self.module_, self.fitted_, mouse, own, self.device_, self.precision
            )
        ]
        return torch.cat(maps)[torch.from_numpy(population.order).to(self.device_)]

    def _queries(self, responses: Any) -> torch.Tensor:
        self._to_device()
        if are_maps(responses, self.map_shape_):
            return as_maps(responses, self.map_shape_, "responses").to(self.device_)
        population = read_responses(self.fitted_, self.module_, responses)
        return self._maps_of_responses(population).flatten(1)

    def _gallery(self, gallery: Any) -> tuple[int, Iterator[torch.Tensor]]:
        """Count the images of a gallery, and give their maps in parts, in their order."""
        self._to_device()
        if are_maps(gallery, self.map_shape_, self.fitted_.image_shape):
            maps = as_maps(gallery, self.map_shape_, "gallery")
            return len(maps), (some.to(self.device_) for some in maps.split(_TRIALS_AT_ONCE))
        trials = read_images(self.fitted_, self.module_, gallery)
        return len(trials), (maps.flatten(1) for maps in self._maps_of_images(trials))
