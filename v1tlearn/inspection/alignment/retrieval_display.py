"""Which images responses find: the seen one, and those that are most similar to the responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from v1tlearn._values import as_whole
from v1tlearn.inspection._drawing import axes_for
from v1tlearn.inspection.alignment._checks import pick_trials
from v1tlearn.inspection.alignment._pairs import pair_of, read_pairs, similarity
from v1tlearn.inspection.images import ImageDisplay
from v1tlearn.metrics import similarity_ranks
from v1tlearn.trials import Trials

_NAME = "RetrievalDisplay"
_RIGHT = "#009e73"  # frame of the image that was seen, where it is found


class RetrievalDisplay:
    """A row per trial: the image that was seen, and the best matches of its responses.

    `from_estimator` makes one of a fitted alignment.

    Parameters
    ----------
    seen : array of shape (n_trials, n_channels, height, width)
        Images that were seen.
    matches : array of shape (n_trials, k, n_channels, height, width)
        The images of the gallery that are most similar to the responses, the best first.
    similarities : array of shape (n_trials, k)
        Their cosines.
    right : array of bool of shape (n_trials, k)
        Which of them is the image that was seen; it gets a frame.
    ranks : array of int of shape (n_trials,)
        Rank of the image that was seen, from 1.
    n_images : int or array of int of shape (n_trials,)
        Images in the gallery.

    Attributes
    ----------
    axes_ : ndarray of shape (n_trials, 1 + k)
        After `plot`.
    ax_ : Axes
        The first of them.
    figure_ : Figure

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.inspection import RetrievalDisplay
    >>> images = np.random.default_rng(0).normal(size=(2, 1, 18, 32))
    >>> display = RetrievalDisplay(
    ...     images[:1], images[None], [[0.8, 0.1]], [[True, False]], [1], n_images=2)
    >>> display.found_
    1.0
    """

    def __init__(
        self, seen: Any, matches: Any, similarities: Any, right: Any, ranks: Any, *, n_images: Any
    ) -> None:
        self.seen, self.matches = np.asarray(seen), np.asarray(matches)
        self.similarities, self.right = np.asarray(similarities), np.asarray(right, dtype=bool)
        self.ranks = np.asarray(ranks)
        n, k = self.similarities.shape if self.similarities.ndim == 2 else (0, 0)
        shapes = (self.seen.shape, self.matches.shape, self.right.shape, self.ranks.shape)
        image = self.seen.shape[1:]
        if not n or not k or shapes != ((n, *image), (n, k, *image), (n, k), (n,)):
            raise ValueError(
                f"seen, matches, right and ranks have the shapes {shapes}, similarities "
                f"{self.similarities.shape}: expected (n, channels, height, width), (n, k, "
                "channels, height, width), (n, k), (n,) and (n, k)."
            )
        self.n_images = np.broadcast_to(n_images, (n,))

    @property
    def found_(self) -> float:
        """Share of the trials shown whose image is the best match."""
        return float((self.ranks == 1).mean())

    @classmethod
    def from_estimator(
        cls,
        aligner: Any,
        trials: Trials,
        *,
        n_trials: int = 4,
        shown: Sequence[int] | None = None,
        k: int = 5,
        ax: Any = None,
    ) -> Self:
        """Retrieve the images of trials among all those of their mouse, and draw.

        Parameters
        ----------
        aligner : DINAAligner
            Fitted.
        trials : Trials
            Their images are the gallery.
        n_trials : int, default=4
            How many are shown: the first ones of different images.
        shown : sequence of int, optional
            Places of the trials to show, instead.
        k : int, default=5
            Matches to show, at most as many as a mouse has images.
        ax
            Of `plot`.

        Returns
        -------
        RetrievalDisplay

        Raises
        ------
        TypeError, ValueError
            If this is no alignment, a mouse saw one image or images that are all the same, or an
            option is out of its range.
        NotFittedError
            Before `fit`.
        """
        k = as_whole(k, "k")
        pairs = read_pairs(aligner, trials)
        places = pick_trials(trials, n_trials, shown)
        smallest = min(len(own.image_ids) for own in pairs)
        if k > smallest:
            raise ValueError(f"k={k}, but a mouse saw {smallest} images: lower k.")
        rows = []
        for place in places:
            own, trial = pair_of(pairs, place)
            cosines = similarity(own.response_maps.values[[trial]], own.image_maps.values)
            best = np.argsort(-cosines[0], kind="stable")[:k]
            image = own.shown[trial]
            rank = similarity_ranks(cosines)[0, image]
            row = own.images[image], own.images[best], cosines[0, best], best == image, rank
            rows.append((*row, len(own.image_ids)))
        *columns, n_images = map(np.array, zip(*rows, strict=True))
        return cls(*columns, n_images=n_images).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the images.

        Titles tell the rank of the seen image, and the cosines of the matches.

        Parameters
        ----------
        ax : array of Axes, optional
            One per image, row by row. A new figure by default.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If axes are not as many as images.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n, k = self.similarities.shape
        height, width = self.seen.shape[2:]
        wide = 9.0 / (k + 1)
        size = (9.0, n * (wide * height / width + 0.3))
        axes, self.figure_ = axes_for(ax, n * (k + 1), _NAME, (n, k + 1), size)
        together = np.concatenate([self.seen[:, None], self.matches], axis=1)
        titles = [
            title
            for rank, total, cosines in zip(
                self.ranks, self.n_images, self.similarities, strict=True
            )
            for title in [f"seen: rank {rank} of {total}", *(f"{value:.2f}" for value in cosines)]
        ]
        whole = self.seen.dtype.kind in "iu"
        limits = (0, 255) if whole else None
        ImageDisplay(together.reshape(-1, *self.seen.shape[1:]), titles, limits=limits).plot(axes)
        self.axes_ = axes.reshape(n, k + 1)
        self.ax_ = self.axes_[0, 0]
        for axis in self.axes_[:, 0]:
            axis.spines[:].set_visible(False)
        for axis, right in zip(self.axes_[:, 1:].flat, self.right.flat, strict=True):
            if right:
                axis.spines[:].set(color=_RIGHT, linewidth=3)
                axis.title.set(color=_RIGHT, fontweight="bold")
            else:
                axis.spines[:].set_visible(False)
        return self
