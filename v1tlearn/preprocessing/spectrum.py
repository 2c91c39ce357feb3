"""Images with part of their spatial frequencies, or with other phases: what is coarse, what fine.

Plain functions of arrays. Frequencies are in cycles per image height.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from scipy import fft

from v1tlearn._values import as_sides, plain
from v1tlearn.preprocessing.stimuli import check_images, float_dtype
from v1tlearn.training import draw_seed

_BLOCK = 256  # images whose spectra are there at once
_KINDS = ("ideal", "gaussian")


def spatial_frequencies(size: tuple[int, int]) -> np.ndarray:
    """Frequency of each coefficient of the real Fourier transform of an image.

    Parameters
    ----------
    size : (int, int)
        Height and width, in pixels.

    Returns
    -------
    ndarray of shape (height, width // 2 + 1)
        In cycles per image height, whatever the orientation: a grating of frequency f has
        height / f pixels per cycle in all directions.
    """
    size = as_sides(size, "size")
    rows, columns = fft.fftfreq(size[0])[:, None], fft.rfftfreq(size[1])
    return np.hypot(rows, columns) * size[0]


def low_pass(images: Any, cutoff: float, *, kind: str = "ideal") -> np.ndarray:
    """Keep what is coarse: the frequencies up to a cut-off.

    Parameters
    ----------
    images : array (n, channels, height, width)
    cutoff : float
        Above 0, in cycles per image height.
    kind : {"ideal", "gaussian"}, default="ideal"
        "ideal" keeps frequencies up to the cut-off, itself included, and nothing above.
        "gaussian" multiplies amplitudes by ``2 ** -(frequency / cutoff) ** 2``, which is a half at
        the cut-off: a blur by a Gaussian, without the ringing of the ideal filter.

    Returns
    -------
    ndarray (n, channels, height, width)
        float32, or float64 where they were. Means stay; values may leave the range of grey levels,
        and are not clipped, which would add what was filtered out. Images wrap around at their
        edges, as the Fourier transform takes them.

    Raises
    ------
    ValueError
        If these are no images, values are not finite, or the cut-off or kind is none.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import low_pass
    >>> grating = np.cos(2 * np.pi * 6 * np.arange(32) / 32) + np.zeros((1, 1, 32, 1))
    >>> bool(np.allclose(low_pass(grating, 6), grating)), bool(np.allclose(low_pass(grating, 5), 0))
    (True, True)
    """
    images = check_images(images, "low_pass")
    gain = _gain(images, cutoff, kind, "low_pass")
    return _each_spectrum(images, lambda spectra: spectra * gain)


def high_pass(images: Any, cutoff: float, *, kind: str = "ideal") -> np.ndarray:
    """Keep what is fine: the frequencies above a cut-off, and the mean.

    With `low_pass` of the same cut-off it adds up to the images and their means.

    Parameters
    ----------
    images : array (n, channels, height, width)
    cutoff : float
        Above 0, in cycles per image height.
    kind : {"ideal", "gaussian"}, default="ideal"
        As in `low_pass`, of which this keeps the rest.

    Returns
    -------
    ndarray (n, channels, height, width)
        float32, or float64 where they were; not clipped.

    Raises
    ------
    ValueError
        If these are no images, values are not finite, or the cut-off or kind is none.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import high_pass
    >>> grating = np.cos(2 * np.pi * 6 * np.arange(32) / 32) + np.zeros((1, 1, 32, 1))
    >>> bool(np.allclose(high_pass(100 + grating, 6), 100))
    True
    """
    images = check_images(images, "high_pass")
    gain = 1 - _gain(images, cutoff, kind, "high_pass")
    gain[0, 0] = 1
    return _each_spectrum(images, lambda spectra: spectra * gain)


def scramble_phases(images: Any, share: float = 1.0, *, random_state: Any = None) -> np.ndarray:
    """Turn phases at random: the power at every frequency stays, shapes go.

    Parameters
    ----------
    images : array (n, channels, height, width)
    share : float, default=1.0
        From 0 to 1: phases are turned by this share of angles that are uniform over the circle.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the angles, of which each image has its own, the same for its channels.

    Returns
    -------
    ndarray (n, channels, height, width)
        float32, or float64 where they were; not clipped. Amplitudes and means are those of the
        images, up to rounding.

    Raises
    ------
    ValueError
        If these are no images, values are not finite, or the share is out of its range.

    Notes
    -----
    Angles are the phases of an image of white noise, so that the result is real; the frequencies
    that have no phase but 0 and 180 degrees, the mean among them, are left as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import scramble_phases
    >>> images = np.random.default_rng(0).normal(size=(2, 1, 8, 12))
    >>> power = lambda x: np.abs(np.fft.fft2(x)) ** 2
    >>> bool(np.allclose(power(scramble_phases(images, random_state=0)), power(images)))
    True
    """
    images = check_images(images, "scramble_phases")
    share = plain(share, "scramble_phases: share")
    if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= share <= 1:
        raise ValueError(f"scramble_phases: share={share!r}: expected a number from 0 to 1.")
    rng = np.random.default_rng(draw_seed(plain(random_state)))
    height, width = images.shape[2:]
    real = np.ix_(*([0] if side % 2 else [0, side // 2] for side in (height, width)))

    def turned(spectra: np.ndarray) -> np.ndarray:
        """Spectra with the same amplitudes."""
        noise = rng.normal(size=(len(spectra), 1, height, width))
        angles = float(share) * np.angle(fft.rfft2(noise))
        angles[(..., *real)] = 0
        return spectra * np.exp(1j * angles)

    return _each_spectrum(images, turned)


def _gain(images: np.ndarray, cutoff: Any, kind: str, who: str) -> np.ndarray:
    """What a low-pass multiplies amplitudes with."""
    cutoff = plain(cutoff, f"{who}: cutoff")
    if not isinstance(cutoff, Real) or isinstance(cutoff, bool) or not float(cutoff) > 0:
        raise ValueError(
            f"{who}: cutoff={cutoff!r}: expected a number above 0, in cycles per image height."
        )
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"{who}: kind={kind!r}: expected one of {_KINDS}.")
    frequencies = spatial_frequencies(images.shape[2:])
    if kind == "gaussian":
        return np.exp2(-((frequencies / cutoff) ** 2))
    # 3 of 5 cycles may come out as 3.0000000000000004
    return (frequencies <= cutoff * (1 + 1e-12)).astype(float)


def _each_spectrum(images: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Images whose spectra were changed, some at a time, in float64."""
    out = np.empty(images.shape, float_dtype(images.dtype))
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].astype(np.float64)
        out[start : start + _BLOCK] = fft.irfft2(change(fft.rfft2(block)), s=images.shape[2:])
    return out
