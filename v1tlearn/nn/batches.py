"""What a model sees of some trials of one mouse."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class MouseBatch(NamedTuple):
    """What a model sees of some trials of one mouse; all values standardised.

    Of movies, or of windows cut from them, all values have a time axis behind that of trials.

    Attributes
    ----------
    images : Tensor of shape (n_trials, [n_frames,] n_channels, height, width)
        Stimuli.
    behaviors : Tensor of shape (n_trials, [n_frames,] n_behaviors), optional
        The behaviour that enters the core.
    pupil : Tensor of shape (n_trials, [n_frames,] 2), optional
        Pupil centre, for the readout shifter and, unless the next entry is given, for the stimulus
        shifter.
    shifter_inputs : Tensor of shape (n_trials, k), optional
        What the stimulus shifter sees, where that is more than the pupil centre.
    labels : Tensor of int of shape (n_trials,), optional
        Which image each trial shows, for objectives that compare trials.
    """

    images: Tensor
    behaviors: Tensor | None = None
    pupil: Tensor | None = None
    shifter_inputs: Tensor | None = None
    labels: Tensor | None = None

    @property
    def n_frames(self) -> int | None:
        """Frames of each movie; None of images."""
        return self.images.shape[1] if self.images.dim() == 5 else None

    def by_frame(self) -> MouseBatch:
        """Frames of all movies on one axis, as if they were images.

        Returns
        -------
        MouseBatch
        """
        if self.n_frames is None:
            return self
        rest = (None if values is None else values.flatten(0, 1) for values in self[1:])
        return MouseBatch(self.images.flatten(0, 1), *rest)

    def by_movie(self, n_frames: int) -> MouseBatch:
        """Movies of as many frames each, whose frames lie on one axis.

        Parameters
        ----------
        n_frames : int

        Returns
        -------
        MouseBatch
        """
        shape = (-1, n_frames)
        rest = (None if values is None else values.unflatten(0, shape) for values in self[1:])
        return MouseBatch(self.images.unflatten(0, shape), *rest)
