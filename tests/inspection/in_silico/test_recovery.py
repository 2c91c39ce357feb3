"""What experiments on models find is what made the responses: on simulated cells that are known.

The cells are asked directly, too: what no experiment finds in them, no model can be blamed for.
"""

import logging
import warnings

import numpy as np
import pytest
import xarray as xr
from scipy.stats import rankdata

import v1tlearn as v1
from v1tlearn.datasets.simulate.cells import Evoked, draw_cells
from v1tlearn.datasets.simulate.dead_leaves import dead_leaves
from v1tlearn.inspection import (
    gratings,
    most_exciting_images,
    tuning_curves,
    tuning_properties,
)

SHAPE = (18, 32)
N_CELLS = 40
GREY = 127.5
STIMULI = {
    "orientation": np.arange(0, 180, 15),
    "spatial_frequency": np.geomspace(0.06, 0.35, 7),
    "phase": np.arange(0, 360, 45),
}
RELIABLE = 0.85  # correlation of model and truth from which on a cell counts as one that is known
MEASURED = "%s: median errors %.2f degrees, %.2f octaves; simple cells told with area %.2f"
log = logging.getLogger(__name__)  # pytest --log-cli-level=INFO shows what was measured
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells():
    """Cells, what images evoke in them, and 3,000 images with noisy responses."""
    rng = np.random.default_rng(0)
    made = draw_cells(rng, N_CELLS, SHAPE, 1, 0.5)
    images = dead_leaves(rng, 3000, SHAPE, 1)
    evoked = Evoked(made, dead_leaves(rng, 200, SHAPE, 1), None)
    rates = evoked(images, None)
    noise = 0.3 * rates.std(0) * rng.normal(size=rates.shape)
    return made, evoked, images, np.maximum(rates + noise, 0).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(cells):
    """A model of the cells, one that was not trained, and one of shuffled responses."""
    _, _, images, responses = cells
    sizes = {"n_layers": 3, "hidden_channels": 16, "input_kernel": 9, "hidden_kernel": 5}
    settings = {"batch_size": 64, "random_state": 0, "device": "cpu", "laplace": 0.5}
    settings |= {"readout_l1": 0.001, "init_sigma": 0.2, **sizes}
    shuffled = np.random.default_rng(1).permutation(len(images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is not trained, or cannot be
        return {
            "trained": v1.CNNRegressor(max_epochs=20, **settings).fit(images, None, responses),
            "untrained": v1.CNNRegressor(max_epochs=0, **settings).fit(images, None, responses),
            "shuffled": v1.CNNRegressor(max_epochs=20, **settings).fit(
                images, None, responses[shuffled]
            ),
        }


def correlations(estimator, evoked):
    """Correlation of each cell's prediction with its true rate, over images never seen."""
    images = dead_leaves(np.random.default_rng(9), 1000, SHAPE, 1)
    truth, predicted = evoked(images, None), estimator.predict(images)
    with np.errstate(invalid="ignore"):
        pairs = [np.corrcoef(truth[:, i], predicted[:, i])[0, 1] for i in range(N_CELLS)]
    return np.nan_to_num(pairs)


def errors(properties, cells):
    """Degrees of orientation, octaves of spatial frequency, and how F1/F0 tells simple cells."""
    turned = properties["preferred_orientation"].values - np.rad2deg(cells.orientation)
    degrees = np.abs((turned + 90) % 180 - 90)
    found = properties["preferred_spatial_frequency"].values
    octaves = np.abs(np.log2(found / cells.frequency))
    ranks = rankdata(np.nan_to_num(properties["modulation_ratio"].values))
    simple = ~cells.is_complex
    n = simple.sum()
    area = (ranks[simple].sum() - n * (n + 1) / 2) / (n * (len(ranks) - n))
    return np.median(degrees), np.median(octaves), area


def of_model(estimator):
    stimuli = gratings(SHAPE, **STIMULI)
    mouse = estimator.mice_[0]
    blank = tuning_curves(estimator, np.full((1, 1, *SHAPE), GREY))[mouse]
    return tuning_properties(tuning_curves(estimator, stimuli)[mouse], blank=blank)


def of_truth(evoked):
    stimuli = gratings(SHAPE, **STIMULI)
    values = evoked(stimuli.values.reshape(-1, 1, *SHAPE), None).T
    dims = stimuli.dims[:3]
    curves = xr.DataArray(
        values.reshape(N_CELLS, *stimuli.shape[:3]),
        dims=("neuron", *dims),
        coords={dim: stimuli[dim] for dim in dims},
    )
    return tuning_properties(curves, blank=evoked(np.full((1, 1, *SHAPE), GREY), None)[0])


def test_tuning_is_that_of_the_cells(cells, fitted):
    made, evoked, *_ = cells
    truth = errors(of_truth(evoked), made)
    log.info(MEASURED, "true cells", *truth)
    # Cells divide by what surrounds them, which moves the best frequency: so far from the filter's.
    assert truth[0] < 2
    assert truth[1] < 0.25
    assert truth[2] > 0.95
    found = {name: errors(of_model(estimator), made) for name, estimator in fitted.items()}
    for name, values in found.items():
        log.info(MEASURED, name, *values)
    trained = found.pop("trained")
    assert trained[0] < 7.5  # half a step between the orientations that were shown
    assert trained[1] < truth[1] + 0.2
    assert trained[2] > 0.9
    for control in found.values():
        assert control[0] > 20  # by chance 45, of 40 cells alike more or less
        assert control[1] > trained[1]
        assert control[2] < 0.8


def test_most_exciting_images_drive_true_cells_more_than_any_of_many_images(cells, fitted):
    _, evoked, *_ = cells
    images = dead_leaves(np.random.default_rng(5), 5000, SHAPE, 1)
    best = evoked(images, None).max(0)
    known = correlations(fitted["trained"], evoked) > RELIABLE
    assert known.sum() > 15
    shares = {}
    for name, estimator in fitted.items():
        # of the contrast of the images that they are compared with
        found = most_exciting_images(estimator, limits=(0, 255), norm=float(np.prod(SHAPE) ** 0.5))
        shown = next(iter(found.values()))["image"].values
        ratio = np.diagonal(evoked(shown, None)) / best
        shares[name] = (ratio[known] > 1).mean()
        log.info(
            "%s: %.2f of %d cells, median %.2f", name, shares[name], known.sum(), np.median(ratio)
        )
    assert shares["trained"] > 0.85
    assert shares["untrained"] < 0.1
    assert shares["shuffled"] < 0.1
