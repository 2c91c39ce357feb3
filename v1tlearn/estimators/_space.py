"""What is done in the space of a fitted alignment: maps, similarity, retrieval, score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn.estimators._alignment import check_images, closest, image_maps, response_maps
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._leaks import warn_of_seen_images
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._reading import read_predict, read_responses, read_score
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.nn import AlignmentModel, unit_length
from v1tlearn.training.contrastive import first_ranks
from v1tlearn.trials import Trials

_AXES = ("channel", "height", "width")


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
        stimuli : Trials, dict, list or ndarray
            As in `fit`, or images (n, channels, height, width) of no mouse in particular: all mice
            share the image tower.
        flat : bool, default=False
            Give vectors of length 1 instead of maps.

        Returns
        -------
        DataArray of dims (trial, channel, height, width), or (trial, feature)
            In the order of the trials, with the coordinate ``image_id`` where `Trials` came.

        Raises
        ------
        ValueError
            For images of another shape than at `fit`.
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        trials = self._read_images(stimuli)
        rows = np.concatenate([trials.rows(mouse)[0] for mouse in trials.mice])
        maps = torch.cat([part.cpu() for part in self._maps_of_images(trials)])
        maps = maps[torch.from_numpy(np.argsort(rows))]
        labels = {"image_id": trials.image_ids} if isinstance(stimuli, Trials) else {}
        return _labelled(maps, flat, labels)

    @explained
    def transform_responses(
        self, responses: Any, mouse_ids: Any = None, *, flat: bool = False
    ) -> xr.DataArray:
        """Bring responses to the space of the alignment.

        Parameters
        ----------
        responses : Trials, Responses, dict or ndarray
            `Trials` bring theirs; a dict has (trials, neurons) per mouse, an array is of one mouse.
            In the units of those at `fit`, NaN where not recorded.
        mouse_ids : str, optional
            Whose an array is, where the model has several mice.
        flat : bool, default=False
            Give vectors of length 1 instead of maps.

        Returns
        -------
        DataArray of dims (trial, channel, height, width), or (trial, feature)
            With the coordinate ``mouse_id``; in the order of the trials, and of a dict mouse by
            mouse.

        Raises
        ------
        ValueError
            For a mouse the model does not know, or another number of neurons.
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        by_mouse, rows = self._read_responses(responses, mouse_ids)
        order = np.argsort(np.concatenate(list(rows.values())))
        mice = np.concatenate([np.full(len(own), m) for m, own in by_mouse.items()])[order]
        self._to_device()
        maps = torch.cat(
            [
                part.cpu()
                for mouse, own in by_mouse.items()
                for part in response_maps(self.module_, self.fitted_, mouse, own, self.device_)
            ]
        )
        return _labelled(maps[torch.from_numpy(order)], flat, {"mouse_id": mice})

    @explained
    def transform(self, stimuli: Any) -> np.ndarray:
        """Give the maps of images as vectors of length 1, for the steps of a Pipeline.

        Parameters
        ----------
        stimuli : Trials, dict, list or ndarray
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
        gallery : Trials, dict, list, ndarray or DataArray
            As in `transform_images`, or what it gave.

        Returns
        -------
        ndarray of shape (n_responses, n_images)
            From -1 to 1; 0 for flat maps.
        """
        check_is_fitted(self)
        queries, images = self._queries(responses), self._gallery(gallery)
        queries = unit_length(queries)
        return torch.cat([queries @ unit_length(part).T for part in images], 1).cpu().numpy()

    @explained
    def retrieve(self, responses: Any, gallery: Any, k: int = 5) -> Retrieval:
        """Find the images that are most similar to responses.

        Parameters
        ----------
        responses : Trials, Responses, dict, ndarray or DataArray
            As in `transform_responses`, or what it gave.
        gallery : Trials, dict, list, ndarray or DataArray
            As in `transform_images`, or what it gave. It passes in parts, so that the similarities
            of all are never there at once.
        k : int, default=5
            How many, at most as many as the gallery has.

        Returns
        -------
        Retrieval
            Of equally similar images the first in the gallery come first.

        Raises
        ------
        ValueError
            If `k` is no number from 1 to the size of the gallery.
        """
        check_is_fitted(self)
        if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
            raise ValueError(f"k={k!r}: expected a whole number from 1 on.")
        places, cosines = closest(self._queries(responses), self._gallery(gallery), int(k))
        if places.shape[1] < k:
            raise ValueError(f"k={k}, but the gallery has {places.shape[1]} images: lower k.")
        return Retrieval(places.cpu().numpy(), cosines.cpu().numpy())

    @explained
    def score(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
    ) -> float:
        """Share of the trials whose image is found among all images of these trials.

        Parameters
        ----------
        stimuli, behaviors, responses, mouse_ids
            As in `fit`; behaviour is not looked at.

        Returns
        -------
        float
            Top-1, mean over trials, then over mice. Chance is one over the number of images.

        Raises
        ------
        ValueError
            If all trials of a mouse show one image.
        """
        check_is_fitted(self)
        call = read_score(self.fitted_, stimuli, behaviors, responses, mouse_ids)
        check_like_fit(self.fitted_, self.module_, call.trials)
        check_images(call.trials)
        warn_of_seen_images(self.__dict__.get("_seen"), call.trials)
        self._to_device()
        found = []
        for mouse in call.trials.mice:
            rows = call.trials.rows(mouse)[0]
            images = torch.cat(list(self._maps_of_images(call.trials, mouse)))
            own = call.target[rows].get(mouse)
            maps = torch.cat(
                list(response_maps(self.module_, self.fitted_, mouse, own, self.device_))
            )
            labels = np.unique(call.trials.image_ids[rows], return_inverse=True)[1]
            ranks = first_ranks(maps, images, torch.from_numpy(labels).to(self.device_))
            found.append((ranks == 1).double().mean().item())
        return float(np.mean(found))

    # ------------------------------------------------------------------------- what came

    def _read_images(self, stimuli: Any) -> Trials:
        if hasattr(stimuli, "shape") and not isinstance(stimuli, Trials):
            trials, _ = read_predict(self.fitted_, stimuli, None, self.mice_[0], None)
        else:
            trials, _ = read_predict(self.fitted_, stimuli, None, None, None)
        check_like_fit(self.fitted_, self.module_, trials)
        return trials

    def _maps_of_images(self, trials: Trials, *mice: str) -> Iterator[torch.Tensor]:
        """Maps of images in parts, on the device, mouse by mouse."""
        self._to_device()
        for mouse in mice or trials.mice:
            data = mouse_data(self.fitted_, trials, mouse, self.device_)
            yield from image_maps(self.module_, data, self.precision)

    def _read_responses(
        self, responses: Any, mouse_ids: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Responses per mouse, and the places of their trials."""
        if isinstance(responses, Trials):
            check_like_fit(self.fitted_, self.module_, responses)
        return read_responses(responses, mouse_ids, self.n_neurons_)

    def _queries(self, responses: Any) -> torch.Tensor:
        self._to_device()
        if not isinstance(responses, xr.DataArray):
            responses = self.transform_responses(responses)
        return self._as_maps(responses, "responses")

    def _gallery(self, gallery: Any) -> Iterator[torch.Tensor]:
        """Maps of the images of a gallery in parts, on the device, in their order."""
        self._to_device()
        if isinstance(gallery, xr.DataArray):
            yield from self._as_maps(gallery, "gallery").split(4096)
            return
        trials = self._read_images(gallery)
        if len(trials.mice) == 1:
            yield from self._maps_of_images(trials)
        else:
            yield from self._as_maps(self.transform_images(trials), "gallery").split(4096)

    def _as_maps(self, values: xr.DataArray, name: str) -> torch.Tensor:
        size = int(np.prod(self.map_shape_))
        flat = np.asarray(values, dtype=np.float32).reshape(len(values), -1)
        if flat.shape[1] != size:
            raise ValueError(
                f"{name} has {flat.shape[1]} features per trial, the maps of this model {size}."
            )
        return torch.from_numpy(flat).to(self.device_)


def _labelled(maps: torch.Tensor, flat: bool, labels: Mapping[str, np.ndarray]) -> xr.DataArray:
    values, dims = (unit_length(maps), ("feature",)) if flat else (maps, _AXES)
    coords = {name: ("trial", of) for name, of in labels.items()}
    return xr.DataArray(values.numpy(), dims=("trial", *dims), coords=coords)
