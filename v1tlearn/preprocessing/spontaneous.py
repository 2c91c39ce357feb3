"""`SpontaneousProjector`: responses without what the animal's activity without stimuli explains."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import svds
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from v1tlearn._by_name import ByName
from v1tlearn._documentation import DocumentationLinkMixin
from v1tlearn._equality import same_arrays
from v1tlearn._instead import refuse_no_trials
from v1tlearn._values import plain
from v1tlearn._warn import warn
from v1tlearn.datasets.spontaneous import SPONTANEOUS
from v1tlearn.trials import Trials
from v1tlearn.trials._reading import BLOCK
from v1tlearn.trials.replaced import with_responses

_EPSILON = np.finfo(np.float64).eps
_FLOOR = 1e-6  # added to standard deviations, as published
_SMALL = 100 * _FLOOR  # below it what is added tells
_ATTRS = {
    "long_name": "response without spontaneous components",
    "units": "standard deviations of spontaneous activity",
}


class SpontaneousProjector(  # type: ignore[call-arg]  # scikit-learn, which knows the keyword, has no types
    DocumentationLinkMixin, TransformerMixin, ByName, BaseEstimator, auto_wrap_output_keys=None
):
    """Take from responses the leading components of spontaneous activity (Stringer et al. 2019).

    With the mean m and the standard deviation s (of the population) of each neuron over the frames
    of spontaneous activity, a response r becomes z = (r − m) / (s + 1e-6). With the leading right
    singular vectors V (neurons, components) of the spontaneous activity in these units it becomes
    x = z − z V Vᵀ, and of this the mean over the training trials is subtracted.

    Parameters
    ----------
    n_components : int, default=32
        Components to take out, as published. 0 takes out none; then recordings without spontaneous
        activity are scaled by their training responses, as published.

    Attributes
    ----------
    mean_, scale_ : dict of str to ndarray of shape (n_neurons,)
        For each mouse m and s + 1e-6.
    components_ : dict of str to ndarray of shape (n_components, n_neurons)
        For each mouse Vᵀ, the strongest first.
    center_ : dict of str to ndarray of shape (n_neurons,)
        For each mouse the mean of x over the training trials.
    neurons_ : dict of str to ndarray of shape (n_neurons,)
        For each mouse the unit ids of its neurons.

    See Also
    --------
    v1tlearn.read_natimg2800 : Recordings with spontaneous activity.

    Notes
    -----
    The published analysis subtracts the mean over all images, those for testing among them, and
    counts responses that were not recorded as 0. Here the mean is that of the trials given to
    `fit`; what was not recorded stays so, and counts as the mean of spontaneous activity where the
    components of the trial are computed.

    In a Pipeline call ``fit(trials)`` without `y`, which would stay as it is. Many of the
    transformed responses are negative: they are for alignments, decoders and analyses, not for
    models of rates.

    References
    ----------
    Stringer et al. 2019, High-dimensional geometry of population responses in visual cortex, Nature
    571, 361-365.

    Examples
    --------
    >>> import numpy as np
    >>> import v1tlearn as v1
    >>> recordings = v1.make_coarse_recordings(1, 5, 20, 2, 2, (12, 16), random_state=0)
    >>> recording = recordings["A"].to_dataset()
    >>> frames = np.random.default_rng(0).gamma(1.0, 1.0, (50, 5))
    >>> recording["spontaneous"] = ("frame", "neuron"), frames.astype("float32")
    >>> trials = v1.Trials({"A": recording})
    >>> train = trials.sel(tier="train")
    >>> projector = v1.preprocessing.SpontaneousProjector(n_components=2).fit(train)
    >>> bool(abs(projector.transform(train).responses["A"].mean()) < 1e-5)
    True
    """

    def __init__(self, n_components: int = 32) -> None:
        self.n_components = n_components

    def fit(self, X: Trials, y: None = None) -> SpontaneousProjector:
        """Learn scales and components of each mouse from its spontaneous activity.

        Parameters
        ----------
        X : Trials
            Training trials, whose recordings have `spontaneous` (frame, neuron).
        y : None
            Not used; present so that it works in a Pipeline.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If `X` is no `Trials`.
        ValueError
            If a mouse has no spontaneous activity or too few dimensions of it, there are no
            responses, or `y` is given, which would not be transformed.

        Warns
        -----
        UserWarning
            If neurons did not vary in spontaneous activity, their responses are divided by 1e-6; or
            if they varied so little that 1e-6 tells.
        """
        n_components = plain(self.n_components)
        if not isinstance(n_components, Integral) or isinstance(n_components, bool):
            raise TypeError(f"n_components={self.n_components!r}: expected a whole number.")
        if n_components < 0:
            raise ValueError(f"n_components={self.n_components!r}: expected 0 or more.")
        _check_trials(X, "fit")
        if y is not None:
            raise ValueError(
                "SpontaneousProjector transforms the responses of trials, and y would stay as it "
                "is: call fit(trials) without y."
            )
        learned = {mouse: _learn(X, mouse, int(n_components)) for mouse in X.mice}
        self.mean_ = {mouse: one.mean for mouse, one in learned.items()}
        self.scale_ = {mouse: one.scale for mouse, one in learned.items()}
        self.components_ = {mouse: one.components for mouse, one in learned.items()}
        self.center_ = {mouse: one.center for mouse, one in learned.items()}
        self.neurons_ = {mouse: X.neuron_ids(mouse) for mouse in learned}
        return self

    def transform(self, X: Trials) -> Trials:
        """Transform the responses of trials, every presentation of an image on its own.

        Parameters
        ----------
        X : Trials
            Of the mice and neurons given to `fit`.

        Returns
        -------
        Trials
            With the same stimuli and labels, without spontaneous activity and statistics of the
            recorded responses. True rates of simulated recordings are transformed like responses.

        Raises
        ------
        TypeError
            If `X` is no `Trials`.
        ValueError
            If a mouse was not in `fit`, or has other neurons.
        """
        check_is_fitted(self)
        _check_trials(X, "transform")
        responses, expected = {}, {}
        for mouse in X.mice:
            if mouse not in self.neurons_:
                raise ValueError(
                    f"unknown mouse {mouse!r}: this SpontaneousProjector was fitted on the mice "
                    f"{list(self.neurons_)}. Fit it on training trials of this one, too."
                )
            if not same_arrays(X.neuron_ids(mouse), self.neurons_[mouse]):
                raise ValueError(
                    f"mouse {mouse!r} has {len(X.neuron_ids(mouse))} neurons that are not those of "
                    f"fit ({len(self.neurons_[mouse])}) in their order: select neurons before fit, "
                    "or after transform."
                )
            learned = _Learned(
                self.mean_[mouse], self.scale_[mouse], self.components_[mouse], self.center_[mouse]
            )
            responses[mouse] = _transformed(X, "responses", mouse, learned)
            if X.has("expected_responses", mouse):
                expected[mouse] = _transformed(X, "expected_responses", mouse, learned)
        return with_responses(X, responses, expected, _ATTRS)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


@dataclass(frozen=True)
class _Learned:
    """What is known of one mouse; all float64."""

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    center: np.ndarray | float

    def apply(self, responses: np.ndarray) -> np.ndarray:
        """Project responses (..., neurons); NaN where not recorded."""
        z = (responses - self.mean) / self.scale
        recorded = ~np.isnan(z)
        z -= np.where(recorded, z, 0.0) @ self.components.T @ self.components
        return z - self.center


def _learn(trials: Trials, mouse: str, n_components: int) -> _Learned:
    if not trials.has("responses", mouse):
        raise ValueError(f"mouse {mouse!r} has no responses to transform.")
    spontaneous = _spontaneous(trials, mouse)
    if spontaneous is None and n_components:
        raise ValueError(
            f"mouse {mouse!r} has no spontaneous activity, of which n_components={n_components} "
            "are asked for: recordings have it as the variable 'spontaneous' (frame, neuron). "
            "n_components=0 scales by the training responses instead."
        )
    of_training = spontaneous is None
    if spontaneous is None:
        spontaneous = _float64(trials, mouse)
        spontaneous = spontaneous.reshape(-1, spontaneous.shape[-1])
    if never := int(np.isnan(spontaneous).all(axis=0).sum()):
        raise ValueError(f"mouse {mouse!r}: {never} neurons were never recorded: leave them out.")
    mean, sd = np.nanmean(spontaneous, axis=0), np.nanstd(spontaneous, axis=0)
    if silent := int((sd == 0).sum()):
        source = "the training trials" if of_training else "spontaneous activity"
        warn(
            f"mouse {mouse!r}: {silent} of {len(sd)} neurons did not vary in {source}: their "
            "responses are divided by 1e-6, as published, and outweigh the others. Leave them out, "
            "trials.sel(neuron=...)."
        )
    if small := int(((sd > 0) & (sd < _SMALL)).sum()):
        warn(
            f"mouse {mouse!r}: {small} of {len(sd)} neurons have standard deviations below "
            f"{_SMALL:g}, to which 1e-6 is added, as published: they count less than others. Give "
            "responses in a larger unit, or leave these neurons out, trials.sel(neuron=...)."
        )
    scale = sd + _FLOOR
    components = np.empty((0, len(sd)))
    if n_components:
        components = _leading((spontaneous - mean) / scale, mouse, n_components)
    learned = _Learned(mean, scale, components, 0.0)
    total, count = np.zeros(len(sd)), np.zeros(len(sd))
    for block in trials.blocks(mouse):
        values = learned.apply(_float64(block, mouse)).reshape(-1, len(sd))
        total += np.nansum(values, axis=0)
        count += (~np.isnan(values)).sum(axis=0)
    if (count == 0).any():
        raise ValueError(
            f"mouse {mouse!r}: {int((count == 0).sum())} neurons were never recorded in these "
            "trials: leave them out."
        )
    return _Learned(mean, scale, components, total / count)


def _leading(z: np.ndarray, mouse: str, n_components: int) -> np.ndarray:
    """Leading right singular vectors, in rows, of a matrix (frames, neurons)."""
    least = min(z.shape)
    if n_components < least:
        start = np.random.default_rng(0).standard_normal(least)  # the same every time
        strength, vectors = svds(z, n_components, v0=start, return_singular_vectors="vh")[1:]
        strength, vectors = strength[::-1], vectors[::-1]
    else:
        strength, vectors = scipy.linalg.svd(z, full_matrices=False)[1:]
    if n_components <= least and strength[-1] > strength[0] * max(z.shape) * _EPSILON:
        return vectors
    raise ValueError(
        f"mouse {mouse!r}: spontaneous activity of {z.shape[0]} frames and {z.shape[1]} neurons "
        f"has fewer than n_components={n_components} dimensions: ask for fewer."
    )


def _spontaneous(trials: Trials, mouse: str) -> np.ndarray | None:
    """Spontaneous activity of the neurons of a view, (frames, neurons), float64."""
    recording = trials[trials.rows(mouse)[0][:1]].recordings[mouse]  # reads no other trial
    if SPONTANEOUS not in recording:
        return None
    values = recording.variables[SPONTANEOUS].values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"mouse {mouse!r}: {SPONTANEOUS} holds NaN or infinite values.")
    return values


def _transformed(trials: Trials, name: str, mouse: str, learned: _Learned) -> np.ndarray:
    parts = [
        learned.apply(_float64(block, mouse, name)).astype(np.float32)
        for block in trials.blocks(mouse, BLOCK)
    ]
    return np.concatenate(parts)


def _float64(trials: Trials, mouse: str, name: str = "responses") -> np.ndarray:
    values = trials.get(name, mouse)
    assert values is not None  # has been looked for
    values = values.astype(np.float64)
    if np.isinf(values).any():
        raise ValueError(f"mouse {mouse!r}: {name} hold infinite values: leave these trials out.")
    return values


def _check_trials(X: Any, method: str) -> None:
    if not isinstance(X, Trials):
        refuse_no_trials(X, f"{method}({{}})")
        raise TypeError(
            f"SpontaneousProjector.{method} was given a {type(X).__name__}: expected Trials, whose "
            "recordings hold spontaneous activity."
        )
