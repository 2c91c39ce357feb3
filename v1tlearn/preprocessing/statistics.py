"""Mean and standard deviation of the stimuli and behaviour of one mouse, in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from v1tlearn._rounding import rounding_of
from v1tlearn.trials import Trials
from v1tlearn.trials._places import in_trials
from v1tlearn.trials.folding import fold_time

PUPIL_POSITION = ("pupil_x", "pupil_y")  # z-scored; other behaviour keeps its zero

_CHUNK = 2**14  # pixels that become float64 at once: they stay in the cache


@dataclass(frozen=True)
class TrialStatistics:
    """Statistics of one mouse over trials; standard deviations are of the population (ddof 0).

    They are 0 of what varies by rounding only.

    Attributes
    ----------
    stimuli_mean, stimuli_std : float
        Over all pixels, channels and trials, in grey levels.
    behaviors_mean, behaviors_std : array (columns,) or None
        In the units of the behaviour; None for a mouse without it. NaN where a column holds NaN
        or Inf.
    """

    stimuli_mean: float
    stimuli_std: float
    behaviors_mean: np.ndarray | None = None
    behaviors_std: np.ndarray | None = None

    def scaling(self, names: list[str] | None) -> dict[str, float | np.ndarray]:
        """What to subtract and divide by, as the published systems do.

        Images and pupil position are z-scored; other behaviour is divided by its standard
        deviation only (Sensorium 2022; V1T 2023). What does not vary is divided by its size, so
        that no unit makes it large; by 1 where it is 0.

        Parameters
        ----------
        names : list of str or None
            Names of the behaviour columns.

        Returns
        -------
        dict
            ``image_mean``, ``image_std`` (floats) and, with behaviour, ``behavior_shift``,
            ``behavior_scale`` (arrays, one value per column).
        """
        out: dict[str, float | np.ndarray] = {
            "image_mean": self.stimuli_mean,
            "image_std": self.stimuli_std or abs(self.stimuli_mean) or 1.0,
        }
        mean, std = self.behaviors_mean, self.behaviors_std
        if mean is not None and std is not None:
            assert names is not None  # of these columns
            z_scored = np.isin(names, PUPIL_POSITION)
            out["behavior_shift"] = np.where(z_scored, mean, 0.0)
            size = np.where(mean == 0, 1.0, np.abs(mean))
            out["behavior_scale"] = np.where(std == 0, size, std)
        return out


def trial_statistics(trials: Trials, mouse: str) -> TrialStatistics:
    """Statistics of a mouse's trials, with the preprocessing recorded on them.

    Of movies they are over all frames that there are.

    Data are read in blocks. Sums of uint8 stimuli are exact; others are accumulated in float64.

    Parameters
    ----------
    trials : Trials
        Training trials.
    mouse : str
        Mouse id.

    Returns
    -------
    TrialStatistics

    Raises
    ------
    ValueError
        If the mouse has no trial, or stimuli hold NaN or Inf.
    """
    if len(trials.rows(mouse)[0]) == 0:
        raise ValueError(f"mouse {mouse!r} has no trials to learn statistics from.")
    trials = fold_time(trials, None)
    blocks = (block.get("stimuli", mouse) for block in trials.blocks(mouse))
    rows = trials.rows(mouse)[1]
    stimuli = stimuli_moments(
        blocks, f"mouse {mouse!r}", lambda places: in_trials(rows[places], trials, mouse)
    )
    behaviors = trials.get("behaviors", mouse)
    return TrialStatistics(
        *stimuli, *((None, None) if behaviors is None else behavior_moments(behaviors))
    )


def stimuli_moments(
    blocks: Iterable[np.ndarray], whose: str, named: Callable[[np.ndarray], str] | None = None
) -> tuple[float, float]:
    """Mean and population standard deviation of all pixels of several blocks of images.

    Parameters
    ----------
    blocks : iterable of arrays (trials, channels, height, width)
        Images, all of one dtype.
    whose : str
        Begins the error.
    named : callable, optional
        Tells in the error which images the places (n,) of some of one block are, counted from the
        first image of all.

    Returns
    -------
    mean, std : float
        In grey levels.

    Raises
    ------
    ValueError
        If images hold NaN or Inf.
    """
    count, mean, squares = 0, 0.0, 0.0
    origin: float | None = None  # a pixel
    rounding = 0.0
    seen = 0  # images
    n_levels, total, power = 0, 0, 0  # of uint8 images: whole numbers, so that sums are exact
    for block in blocks:
        if block.dtype == np.uint8:
            levels = block.reshape(-1)
            for start in range(0, levels.size, _CHUNK):
                some = levels[start : start + _CHUNK].astype(np.float64)
                total += int(some.sum())
                power += int(np.dot(some, some))
            n_levels += levels.size
            seen += len(block)
            continue
        values = np.asarray(block, dtype=np.float64)
        origin = float(values.flat[0]) if origin is None else origin
        rounding = rounding_of(block.dtype)
        values = values - origin  # a constant becomes exactly 0
        n, block_mean = values.size, float(values.mean())
        if not math.isfinite(block_mean):
            lost = ~np.isfinite(block).reshape(len(block), -1).all(axis=1)
            where = f" in {named(seen + np.flatnonzero(lost))}" if named and lost.any() else ""
            raise ValueError(
                f"{whose}: stimuli hold NaN or infinite values{where}: leave these trials out."
            )
        values -= block_mean
        delta = block_mean - mean
        squares += float(np.vdot(values, values)) + delta * delta * count * n / (count + n)
        mean += delta * n / (count + n)
        count += n
        seen += len(block)
    if not math.isfinite(squares):
        raise ValueError(f"{whose}: stimuli hold values whose squares are too large for float64.")
    if origin is not None:
        mean, std = origin + mean, math.sqrt(squares / count)
        return mean, 0.0 if std <= rounding * abs(mean) else std
    return total / n_levels, math.sqrt(n_levels * power - total**2) / n_levels


def behavior_moments(behaviors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each column.

    Parameters
    ----------
    behaviors : array (trials, columns)
        Behaviour in any units.

    Returns
    -------
    mean, std : array (columns,)
        float64; NaN where a column holds NaN or Inf, or squares are too large. The standard
        deviation of a column that varies by rounding only is 0.
    """
    rounding = rounding_of(np.asarray(behaviors).dtype)
    values = np.asarray(behaviors, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        relative = values - values[:1]  # a constant becomes exactly 0
        std = relative.std(axis=0)
        mean = np.where(np.isfinite(std), values[0] + relative.mean(axis=0), np.nan)
        std = np.where(std <= rounding * np.abs(mean), 0.0, std)
        return mean, np.where(np.isfinite(std), std, np.nan)
