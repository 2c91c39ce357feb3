"""Simulated cells of mouse V1: simple and complex Gabor cells with divisive normalisation.

From images to the rate each image would evoke; gain, eye movements and noise come from elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

_FIELD_OF_VIEW = 630.0  # micrometres along a side
_BANK_ORIENTATIONS = 4
_BANK_FREQUENCIES = (0.06, 0.12)  # cycles per 1/36 of the image height
_SURROUND = 0.45  # grey around the images, as a share of white
BLOCK_BYTES = 64 * 2**20


@dataclass
class Cells:
    """Parameters of the cells of one mouse; every array has one entry (or row) per neuron.

    `pixel` is 1/36 of the image height, in pixels (or 1/64 of the width, if that is less): sizes
    and frequencies scale with the image, as if all images filled the same screen.
    """

    image_shape: tuple[int, int]
    pixel: float
    position: np.ndarray  # (n, 3) micrometres
    x: np.ndarray  # receptive field centre, pixels from the centre of the first pixel
    y: np.ndarray
    is_complex: np.ndarray
    complexity: np.ndarray  # weight of the energy against the rectified linear drive, 0 to 1
    orientation: np.ndarray  # radians, of the grating's wave vector
    frequency: np.ndarray  # cycles per pixel
    phase: np.ndarray  # radians
    width: np.ndarray  # s.d. of the envelope along the wave vector, pixels
    length: np.ndarray  # and across it
    channel_weights: np.ndarray  # (n, channels), Euclidean norm 1
    threshold: np.ndarray  # in s.d. of the drive
    exponent: np.ndarray
    semi_saturation: np.ndarray  # relative to the mean normalisation pool
    pool_size: np.ndarray  # s.d. of the normalisation pool, pixels
    pool_tuning: np.ndarray  # 0: all orientations alike, towards 1: like orientations only

    def __len__(self) -> int:
        return len(self.x)


def draw_cells(
    rng: np.random.Generator,
    n_neurons: int,
    image_shape: tuple[int, int],
    n_channels: int,
    complex_fraction: float,
) -> Cells:
    """Draw the cells of one mouse, all from continuous distributions.

    Receptive fields follow the cortical position (a plane turned by up to 30 degrees, as the
    recording window lies in V1) with a scatter of 2.5 pixels at 36 x 64. One such pixel is
    about 2 degrees of visual angle: frequencies around 0.035 cycles per degree, envelopes of 4 to
    13 degrees s.d., as in mouse V1 (Niell & Stryker, 2008, J. Neurosci. 28, 7520-7536).

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; advanced.
    n_neurons : int
        Number of neurons.
    image_shape : tuple of int
        Height and width in pixels.
    n_channels : int
        Colour channels.
    complex_fraction : float
        Expected share of complex cells, 0 to 1.

    Returns
    -------
    Cells
    """
    height, width = image_shape
    pixel = min(height / 36.0, width / 64.0)
    n = n_neurons

    place = rng.uniform(-0.5, 0.5, (n, 2))
    corner = rng.uniform([-800.0, -100.0], [-200.0, 500.0])
    depth = rng.choice([200.0, 230.0, 260.0], n)
    position = np.column_stack([corner + _FIELD_OF_VIEW * (place + 0.5), depth])
    turn = rng.uniform(-math.pi / 6, math.pi / 6)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    span = np.array([0.62 * width, 0.62 * height])
    centre = np.array([width - 1.0, height - 1.0]) / 2.0 + span * (place @ rotation.T)
    centre += rng.normal(0.0, 2.5 * pixel, (n, 2))
    centre = np.clip(centre, 0.0, [width - 1.0, height - 1.0])

    is_complex = rng.random(n) < complex_fraction
    mixture = rng.beta(1.2, 8.0, n)
    frequency = np.clip(0.07 * np.exp(0.4 * rng.standard_normal(n)), 0.03, 0.16)
    frequency = np.minimum(frequency / pixel, 0.35)
    envelope = np.clip(rng.uniform(0.20, 0.42, n) / frequency, 1.8 * pixel, 6.5 * pixel)
    envelope = np.maximum(envelope, 0.6)
    weights = 1.0 + 0.6 * rng.standard_normal((n, n_channels))
    return Cells(
        image_shape=(height, width),
        pixel=pixel,
        position=np.round(position).astype(np.float32),
        x=centre[:, 0].astype(np.float32),
        y=centre[:, 1].astype(np.float32),
        is_complex=is_complex,
        complexity=np.where(is_complex, 1.0 - mixture, mixture),
        orientation=rng.uniform(0.0, math.pi, n),
        frequency=frequency,
        phase=rng.uniform(0.0, 2 * math.pi, n),
        width=envelope,
        length=envelope * rng.uniform(0.7, 1.6, n),
        channel_weights=weights / np.linalg.norm(weights, axis=1, keepdims=True),
        threshold=rng.uniform(0.0, 0.6, n),
        exponent=rng.uniform(1.0, 2.0, n),
        semi_saturation=rng.uniform(0.3, 0.9, n),
        pool_size=envelope * rng.uniform(1.2, 2.2, n),
        pool_tuning=rng.uniform(0.0, 0.8, n),
    )


class Evoked:
    """What images evoke in cells: the normalised drive, scaled to mean 1 over pilot images.

    Each cell divides its rectified drive by the local energy of the image around its receptive
    field, both raised to a power: drive^n / (half^n + pool^n) (Carandini & Heeger, 2012, Nat. Rev.
    Neurosci. 13, 51-62).

    Scales (s.d. of each linear drive, mean of each pool, mean of the normalised drive) are taken
    once from `pilot`, so that an image evokes the same rate whatever else is shown with it.

    Parameters
    ----------
    cells : Cells
        The cells of one mouse.
    pilot : ndarray of shape (images, channels, height, width), uint8
        Grey levels.
    pilot_shift : ndarray of shape (images, 2) or None
        Shift of the receptive fields with each pilot image, in pixels.
    block_bytes : int
        About how much is computed at once; the answer is the same.
    """

    def __init__(
        self,
        cells: Cells,
        pilot: np.ndarray,
        pilot_shift: np.ndarray | None,
        block_bytes: int = BLOCK_BYTES,
    ):
        self.cells, self.block_bytes = cells, block_bytes
        even, odd, pool = np.empty((3, len(pilot), len(cells)), np.float32)
        for row, cell, *drives in self._drives(pilot, pilot_shift):
            even[row, cell], odd[row, cell], pool[row, cell] = drives
        self._drive_scale = np.sqrt(0.5 * ((even**2).mean(axis=0) + (odd**2).mean(axis=0)))
        self._pool_scale = pool.mean(axis=0)
        self._scale = np.ones(len(cells), np.float32)
        every = slice(None)
        # A cell that no pilot image drives would divide by zero: it stays near silence instead.
        self._scale = np.maximum(self._normalise(every, even, odd, pool).mean(axis=0), 1e-3)
        self.pilot = self._normalise(every, even, odd, pool)

    def __call__(self, images: np.ndarray, shift: np.ndarray | None) -> np.ndarray:
        """Response (images, neurons), float32, of every cell to every image."""
        response = np.empty((len(images), len(self.cells)), np.float32)
        for row, cell, *drives in self._drives(images, shift):
            response[row, cell] = self._normalise(cell, *drives)
        return response

    def _normalise(self, cell, even, odd, pool):
        """Divisive normalisation of some cells' drives; all arrays (images, cells)."""
        names = ("complexity", "threshold", "exponent", "semi_saturation")
        share, threshold, power, half = (
            getattr(self.cells, name)[cell].astype(np.float32) for name in names
        )
        even, odd = even / self._drive_scale[cell], odd / self._drive_scale[cell]
        drive = (1.0 - share) * np.maximum(even, 0.0) + share * np.sqrt(even**2 + odd**2)
        drive = np.maximum(drive - threshold, 0.0)
        suppression = half**power + (pool / self._pool_scale[cell]) ** power
        return drive**power / suppression / self._scale[cell]

    def _drives(self, images, shift):
        """Yield (rows, cells, even, odd, pool): both linear drives and the normalisation pool.

        Cells are the outer loop, because their fields are the largest arrays at high resolution.
        """
        n_images, n_cells = len(images), len(self.cells)
        bank = _Bank(self.cells.image_shape, self.cells.pixel)
        step = max(1, self.block_bytes // (16 * (images[0].size + bank.size)))
        cell_step = max(1, self.block_bytes // (2 * images[0].size + bank.size))
        for first in range(0, n_cells, cell_step):
            cell = slice(first, first + cell_step)
            even, odd = gabors(self.cells, cell)  # each (cells, channels * pixels)
            weights = bank.pool_weights(self.cells, cell)
            for start in range(0, n_images, step):
                row = slice(start, start + step)
                block = images[row].astype(np.float32) / 255.0 - _SURROUND
                if shift is not None:
                    block = shift_images(block, shift[row])
                flat = block.reshape(len(block), -1)
                pool = np.sqrt(bank.energy(block.mean(axis=1)) @ weights.T)
                yield row, cell, flat @ even.T, flat @ odd.T, pool


def gabors(cells: Cells, cell: slice) -> list[np.ndarray]:
    """Even and odd Gabor fields of some cells, without response to uniform light; norm 1.

    Parameters
    ----------
    cells : Cells
        The cells of one mouse.
    cell : slice
        Which of them.

    Returns
    -------
    list of two ndarrays of shape (cells, channels * pixels), float32
    """
    height, width = cells.image_shape
    y = np.arange(height, dtype=np.float32)[None, :, None] - cells.y[cell, None, None]
    x = np.arange(width, dtype=np.float32)[None, None, :] - cells.x[cell, None, None]
    names = ("orientation", "frequency", "phase", "width", "length")
    angle, frequency, phase, sd_along, sd_across = (
        getattr(cells, name)[cell].astype(np.float32)[:, None, None] for name in names
    )
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    envelope = np.exp(-0.5 * ((along / sd_along) ** 2 + (across / sd_across) ** 2))
    total = envelope.sum(axis=(1, 2), keepdims=True)
    weights = cells.channel_weights[cell].astype(np.float32)
    fields = []
    for quadrature in (0.0, math.pi / 2):
        wave = np.cos(2 * math.pi * frequency * along + phase + quadrature)
        wave -= (envelope * wave).sum(axis=(1, 2), keepdims=True) / total
        field = envelope * wave
        field /= np.sqrt((field**2).sum(axis=(1, 2), keepdims=True))
        # (cells, channels, height, width) -> (cells, channels * pixels)
        field = weights[:, :, None, None] * field[:, None]
        fields.append(field.reshape(len(field), -1))
    return fields


class _Bank:
    """Local energy of an image in a few orientations and frequencies: the normalisation pool.

    Filters are one-sided log-Gabors, so the modulus of their output is the energy of both
    quadrature phases. They are cut off where their output, sampled at 18 x 32 places of the image,
    would alias; nothing finer is ever computed.
    """

    def __init__(self, image_shape, pixel):
        height, width = image_shape
        margin = math.ceil(8 * pixel)  # zeros beyond the screen's edge, against wrapping around
        # Lengths are multiples of the sampling step, so that samples fall on whole pixels.
        self.step = max(1, math.floor(2 * pixel))
        self._padded = tuple(
            self.step * fft.next_fast_len(math.ceil((n + margin) / self.step)) for n in image_shape
        )
        self._coarse = tuple(n // self.step for n in self._padded)
        self.grid = (math.ceil(height / self.step), math.ceil(width / self.step))
        self.frequencies = np.minimum(np.array(_BANK_FREQUENCIES) / pixel, 0.35)
        self.orientations = np.arange(_BANK_ORIENTATIONS) * math.pi / _BANK_ORIENTATIONS
        self.size = len(self.frequencies) * _BANK_ORIENTATIONS * math.prod(self.grid)
        fy, fx = (fft.fftfreq(n) * n / m for n, m in zip(self._coarse, self._padded, strict=True))
        fy, fx = fy[:, None], fx[None, :]
        radius = np.hypot(fy, fx)
        radius[0, 0] = 1.0
        direction = np.arctan2(fy, fx)
        filters = []
        for orientation in self.orientations:
            away = np.abs(np.angle(np.exp(1j * (direction - orientation))))
            for frequency in self.frequencies:
                radial = np.exp(-0.5 * (np.log(radius / frequency) / math.log(1.8)) ** 2)
                filters.append(radial * np.exp(-0.5 * (away / 0.45) ** 2))
        self._filters = np.array(filters, np.float32)
        self._filters[:, 0, 0] = 0.0

    def energy(self, images):
        """(B, height, width) -> (B, filters * grid), energy at every sampled place."""
        spectrum = fft.fft2(images, s=self._padded).astype(np.complex64)
        rows, columns = (
            np.rint(fft.fftfreq(n) * n).astype(int) for n in self._coarse
        )  # the low frequencies, negative ones counted from the end
        low = spectrum[:, rows[:, None], columns[None, :]] / self.step**2
        output = fft.ifft2(low[:, None] * self._filters)  # (B, filters, coarse height, width)
        output = output[:, :, : self.grid[0], : self.grid[1]]
        return (output.real**2 + output.imag**2).reshape(len(images), -1)

    def pool_weights(self, cells, cell):
        """(cells, filters * grid): a Gaussian around the receptive field, broadly tuned."""
        y, x = (self.step * np.arange(n, dtype=np.float32) for n in self.grid)
        size = cells.pool_size[cell].astype(np.float32)[:, None]
        down = np.exp(-0.5 * ((y - cells.y[cell, None]) / size) ** 2)
        right = np.exp(-0.5 * ((x - cells.x[cell, None]) / size) ** 2)
        space = down[:, :, None] * right[:, None, :]
        space /= space.sum(axis=(1, 2), keepdims=True)
        away = self.orientations - cells.orientation[cell, None]
        tuning = 1.0 + cells.pool_tuning[cell, None] * np.cos(2 * away)
        octaves = np.log2(self.frequencies / cells.frequency[cell, None])
        scale = np.exp(-0.5 * octaves**2)
        scale /= scale.sum(axis=1, keepdims=True)
        filters = (tuning[:, :, None] * scale[:, None, :]).reshape(len(tuning), -1)
        weights = filters.astype(np.float32)[:, :, None, None] * space[:, None]
        return weights.reshape(len(weights), -1)


def shift_images(images: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What receptive fields see that moved by `shift`: bilinear, 0 beyond the screen.

    Parameters
    ----------
    images : ndarray of shape (images, channels, height, width), float32
        Images around 0, the grey of the screen's surround.
    shift : ndarray of shape (images, 2)
        Movement of the fields along x (right) and y (down), in pixels.

    Returns
    -------
    ndarray of shape (images, channels, height, width), float32
        Entry (row, column) is the image at (row + y, column + x).
    """
    height, width = images.shape[2:]
    whole = np.floor(shift).astype(int)
    part = (shift - whole).astype(np.float32)
    reach = int(np.abs(whole).max()) + 1
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    image = np.arange(len(images))[:, None, None]
    row = reach + whole[:, 1, None] + np.arange(height + 1)
    column = reach + whole[:, 0, None] + np.arange(width + 1)
    # Advanced indices around a slice put the channels last: (images, height + 1, width + 1, c).
    seen = padded[image, :, row[:, :, None], column[:, None, :]]
    x, y = part[:, 0, None, None, None], part[:, 1, None, None, None]
    seen = (1 - y) * seen[:, :-1] + y * seen[:, 1:]
    seen = (1 - x) * seen[:, :, :-1] + x * seen[:, :, 1:]
    return np.ascontiguousarray(seen.transpose(0, 3, 1, 2))
