"""Images from responses by linear regression, mouse by mouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from v1tlearn._by_name import ByName
from v1tlearn._documentation import DocumentationLinkMixin
from v1tlearn._rounding import ROUNDING_FLOAT32
from v1tlearn._values import plain
from v1tlearn.decoding._calls import (
    ALPHA_CONSTRAINTS,
    FOLDS_CONSTRAINTS,
    check_alpha,
    check_images,
    check_pixels,
    images_of,
    labelled_images,
    labels_of_answer,
    mean_correlation,
)
from v1tlearn.decoding._regression import LinearMap, choose_alpha, coordinates, fit_map
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._cards import FittedOn
from v1tlearn.estimators._fitted import plain_labels
from v1tlearn.estimators._leaks import Seen, warn_of_held_out_mice, warn_of_seen_images
from v1tlearn.estimators._populations import check_recorded, read_population
from v1tlearn.estimators._reading import read_fit, read_score, warn_about_tiers
from v1tlearn.estimators.base import SavingMixin
from v1tlearn.trials._fingerprint import fingerprint


@dataclass(frozen=True, eq=False)
class _Mouse:
    """What is known of one mouse, and its regression."""

    centre: np.ndarray  # (n_neurons,), which stands for responses that were not recorded
    scale: np.ndarray  # (n_neurons,)
    mean_image: np.ndarray  # (n_pixels,)
    weights: np.ndarray  # (n_neurons, n_coordinates)
    axes: np.ndarray | None  # (n_coordinates, n_pixels); None where pixels are the coordinates
    unit_ids: np.ndarray | None
    errors: xr.DataArray  # (alpha,)
    alpha: float

    @property
    def n_neurons(self) -> int:
        return len(self.centre)

    def decode(self, responses: np.ndarray) -> np.ndarray:
        found = LinearMap(self.mean_image, self.weights, self.axes)
        return found.predict(_scaled(responses, self.centre, self.scale))


@dataclass(eq=False, repr=False)
class RidgeDecoder(DocumentationLinkMixin, SavingMixin, ByName, BaseEstimator):
    r"""Reconstruct images from responses by ridge or reduced-rank ridge regression.

    Every mouse has a regression of its own, from all its neurons to all pixels, with one penalty.

    Parameters
    ----------
    alpha : "auto", float or sequence of float, default="auto"
        Penalty on the squared coefficients. Of several the one is taken whose squared error is
        least in images that were left out; "auto" are 17 from 1e-4 to 1e4 times the mean square
        of the responses along their principal axes.
    rank : int, optional
        Largest rank of the regression: images are then sums of so many patterns. None sets no
        limit.
    n_folds : int, default=5
        Parts in which images are left out to choose `alpha`; all repeats of an image are in one.
        At most as many as there are images.
    standardize : bool, default=True
        Divide the responses of each neuron by their standard deviation over the training trials.
        Without, neurons count by their variance, and so by the unit that each is recorded in: what
        is decoded changes where the unit of some neurons does, and, with an `alpha` that is given,
        where that of all does. ``alpha="auto"`` goes along with a unit of all.

    Attributes
    ----------
    mice_ : list of str
    n_neurons_ : dict of str to int
    image_shape_ : (int, int, int)
        Channels, height and width of the stimuli at `fit`.
    alpha_ : dict of str to float
        The penalty of each mouse.
    errors_ : dict of str to DataArray (alpha,)
        Mean squared error of a pixel in the images that were left out, in squared grey levels;
        NaN where `alpha` was given.

    Notes
    -----
    With responses X and images Y, both without their means, the coefficients B minimise
    :math:`\|Y - X B\|^2 + \alpha \|B\|^2`, among those of the rank where there is one: the ridge
    solution times the projection on the first right singular vectors of
    :math:`(X^T X + \alpha)^{1/2} B`.

    A response that was not recorded counts as the mean of the neuron over the training trials, in
    `fit` and in `predict`, and a neuron that was never recorded, or never varied, counts nothing.
    Behaviour is not looked at.

    All is computed in as many coordinates as there are trials, neurons or pixels, whichever is
    least, in float64: neither neurons times neurons nor pixels times pixels are ever there.

    References
    ----------
    Izenman, "Reduced-rank regression for the multivariate linear model", 1975. Mukherjee and Zhu,
    "Reduced rank ridge regression and its kernel extensions", 2011.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(12, 16), random_state=0))
    >>> decoder = v1.RidgeDecoder(rank=4).fit(trials.sel(tier="train"))
    >>> images = decoder.predict(trials.sel(tier="test"))
    >>> images.dims, images.shape
    (('trial', 'channel', 'height', 'width'), (30, 1, 12, 16))
    >>> -1 <= decoder.score(trials.sel(tier="test")) <= 1
    True
    """

    alpha: Any = "auto"
    rank: int | None = None
    n_folds: int = 5
    standardize: bool = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "alpha": ALPHA_CONSTRAINTS,
        "rank": [Interval(Integral, 1, None, closed="left"), None],
        "n_folds": FOLDS_CONSTRAINTS,
        "standardize": ["boolean"],
    }

    @explained
    def fit(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
        *,
        image_ids: Any = None,
    ) -> Self:
        """Fit to recordings of one or several mice.

        Parameters
        ----------
        stimuli : Trials, dict, list or ndarray
            `Trials`, which bring everything; or grey levels (trials, channels, height, width) as
            a dict per mouse, a list with one entry per recording, a flat array with one mouse id
            per trial, or an array of one mouse.
        behaviors : dict, list, ndarray or Responses, optional
            Not looked at. After `Trials` this is scikit-learn's `y`: the responses.
        responses : dict, list or ndarray, optional
            (trials, neurons) in the form of `stimuli`, in any unit; NaN where not recorded.
        mouse_ids : sequence, optional
            One id per recording (list) or per trial (flat array).
        image_ids : dict, list or ndarray, optional
            One label per trial; a hash of the image where not given.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a mouse saw one image only or images that are all equal, no neuron of a mouse ever
            varies, responses are infinite, none was recorded in a trial, or mice saw images of
            different shapes.
        """
        self._validate_params()
        check_alpha(self.alpha)
        call = read_fit(
            stimuli, behaviors, responses, mouse_ids, image_ids=image_ids, frame_wise=False
        )
        trials = call.trials
        warn_about_tiers(trials)
        warn_of_held_out_mice(trials)
        images = images_of(trials)
        fitted = {}
        for mouse in trials.mice:
            rows = trials.rows(mouse)[0]
            own, ids = images[rows], trials.image_ids[rows]
            check_images(ids, f"mouse {mouse!r}: ")
            check_pixels(own, f"mouse {mouse!r}: ")
            unit_ids = trials.neuron_labels(mouse).get("neuron")
            responses = call.target.get(mouse)
            check_recorded(responses, mouse, trials.rows(mouse)[1])
            fitted[mouse] = self._fit_mouse(mouse, responses, own, ids, unit_ids)
        self._decoders = fitted
        self.image_shape_ = images.shape[1:]
        self._fingerprint: dict[str, dict[str, int | str]] | None = fingerprint(trials, call.target)
        self._seen = Seen.of(trials).hashed(trials)
        return self

    def _fitted_on(self) -> FittedOn | None:
        recordings = self._fingerprint or {
            mouse: {"neurons": count} for mouse, count in self.n_neurons_.items()
        }
        return FittedOn(recordings, self.image_shape_)

    def _fit_mouse(
        self,
        mouse: str,
        responses: np.ndarray,
        images: np.ndarray,
        image_ids: np.ndarray,
        unit_ids: np.ndarray | None,
    ) -> _Mouse:
        centre, scale = _moments(mouse, responses, standardize=plain(self.standardize))
        inputs = coordinates(_scaled(responses, centre, scale))
        goal = coordinates(images.reshape(len(images), -1).astype(np.float64))
        rank = plain(self.rank)
        found = choose_alpha(
            inputs.scores, goal.scores, image_ids, plain(self.alpha), plain(self.n_folds), rank
        )
        # recorded responses have the mean `centre`; with gaps the scaled ones have another than 0
        mean_image, weights, axes = fit_map(inputs, goal, found.alpha, rank)
        errors = xr.DataArray(found.errors, dims=("alpha",), coords={"alpha": found.alphas})
        return _Mouse(centre, scale, mean_image, weights, axes, unit_ids, errors, found.alpha)

    @property
    def mice_(self) -> list[str]:
        """The mice of the fit."""
        return list(self._decoders)

    @property
    def n_neurons_(self) -> dict[str, int]:
        """Number of neurons per mouse."""
        return {mouse: one.n_neurons for mouse, one in self._decoders.items()}

    @property
    def alpha_(self) -> dict[str, float]:
        """The penalty of each mouse."""
        return {mouse: one.alpha for mouse, one in self._decoders.items()}

    @property
    def errors_(self) -> dict[str, xr.DataArray]:
        """By what the penalty of each mouse was chosen."""
        return {mouse: one.errors for mouse, one in self._decoders.items()}

    @explained
    def predict(self, responses: Any, mouse_ids: Any = None) -> xr.DataArray:
        """Reconstruct the images that responses were to.

        Parameters
        ----------
        responses : Trials, Responses, dict, ndarray, DataArray or DataFrame
            `Trials` bring theirs; a dict has (trials, neurons) per mouse, an array is of one mouse.
            In the units of those at `fit`, NaN where not recorded. Labelled dimensions and neurons
            are brought to the order of `fit`.
        mouse_ids : str, optional
            Whose an array is, where the decoder has several mice.

        Returns
        -------
        DataArray of dims (trial, channel, height, width)
            In the units of the stimuli at `fit`, not cut to their range; with the coordinates
            ``mouse_id`` and, where `Trials` came, ``image_id``. In the order of the trials, and of
            a dict mouse by mouse.

        Raises
        ------
        ValueError
            For a mouse the decoder does not know, other neurons, responses that are infinite, or a
            trial of which none was recorded.
        TypeError
            If `mouse_ids` came beside what tells it, or is no single id.
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        population = read_population(self._decoders, responses, mouse_ids)
        for mouse, own in population.by_mouse.items():
            _check_finite(mouse, own)
        parts = [self._decoders[mouse].decode(own) for mouse, own in population.by_mouse.items()]
        images = np.concatenate(parts)[population.order]
        labels = labels_of_answer(responses, population.by_mouse)
        return labelled_images(images, self.image_shape_, labels, "reconstructions")

    @explained
    def score(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
    ) -> float:
        """Pixel correlation of images and their reconstructions.

        Parameters
        ----------
        stimuli, behaviors, responses, mouse_ids
            As in `fit`.

        Returns
        -------
        float
            Correlation over the pixels of each trial, mean over trials, then over mice. Images
            without contrast are left out; a reconstruction without contrast counts 0.

        Raises
        ------
        ValueError
            If no image of a mouse has contrast, or as `predict` does.
        """
        check_is_fitted(self)
        call = read_score(self._decoders, stimuli, behaviors, responses, mouse_ids)
        warn_of_seen_images(self.__dict__.get("_seen"), call.trials)
        decoded = self.predict(call.target).values
        return mean_correlation(images_of(call.trials), decoded, call.trials.mouse_ids)

    def _content(self) -> dict[str, Any]:
        mice = {
            mouse: {
                **vars(one),
                "unit_ids": None if one.unit_ids is None else plain_labels({"": one.unit_ids})[""],
                "errors": one.errors.values,
                "alphas": one.errors.alpha.values,
            }
            for mouse, one in self._decoders.items()
        }
        parameters = {name: plain(value) for name, value in self.get_params(deep=False).items()}
        return {
            "parameters": parameters,
            "mice": mice,
            "image_shape": tuple(self.image_shape_),
            "trained_on": self._fingerprint,
        }

    @classmethod
    def _restore(cls, content: dict[str, Any], device: str) -> Self:
        decoder = cls._with(content["parameters"])
        decoder._decoders = {}
        for mouse, one in content["mice"].items():
            alphas = one.pop("alphas")
            errors = xr.DataArray(one.pop("errors"), dims=("alpha",), coords={"alpha": alphas})
            decoder._decoders[mouse] = _Mouse(**one, errors=errors)
        decoder.image_shape_ = tuple(content["image_shape"])
        decoder._fingerprint = content.get("trained_on")  # earlier versions did not keep it
        return decoder

    def __sklearn_is_fitted__(self) -> bool:
        return "_decoders" in self.__dict__

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but what is known of the recordings of this process."""
        return {name: v for name, v in super().__getstate__().items() if name != "_seen"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def _moments(
    mouse: str, responses: np.ndarray, *, standardize: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each neuron over what was recorded of it; 0 and 1 where nothing was."""
    _check_finite(mouse, responses)
    recorded = ~np.isnan(responses)
    count = recorded.sum(axis=0).clip(min=1)
    values = np.where(recorded, responses, 0).astype(np.float64)
    centre = values.sum(axis=0) / count
    deviation = np.sqrt(np.where(recorded, np.square(values - centre), 0).sum(axis=0) / count)
    varies = deviation > ROUNDING_FLOAT32 * np.abs(values).max(axis=0)
    if not varies.any():
        raise ValueError(
            f"mouse {mouse!r}: none of {len(varies)} neurons ever varies in {len(values)} training "
            "trials, so that nothing can be told from them: look at the responses, or leave this "
            "mouse out."
        )
    # of a neuron that never varied nothing is to come in, whatever it does later
    scale = np.where(varies, deviation if standardize else 1.0, np.inf)
    return centre, scale


def _scaled(responses: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Responses (trials, neurons) in units of each neuron; 0 where they were not recorded."""
    return np.where(np.isnan(responses), 0.0, (responses - centre) / scale)


def _check_finite(mouse: str, responses: np.ndarray) -> None:
    infinite = np.isinf(responses)
    if infinite.any():
        trials: Sequence[int] = np.flatnonzero(infinite.any(axis=1)).tolist()
        raise ValueError(
            f"mouse {mouse!r}: responses of {len(trials)} trials, the first number {trials[0]}, "
            "are infinite: leave them out, or set what was not recorded to NaN."
        )
