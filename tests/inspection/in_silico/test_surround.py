"""Rings around fields: none for a model that does not see so far, and what `predict` says else."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from v1tlearn.inspection import gratings, surround, tuning_curves

SHAPE = (12, 16)
IDS = [1, 2, 3]


@pytest.fixture
def given():
    fields = xr.Dataset(
        {"center_x": ("neuron", [4.0, 8, 9]), "center_y": ("neuron", [5.0, 6, 7])},
        {"neuron": IDS},
    )
    properties = xr.Dataset(
        {
            "preferred_orientation": ("neuron", [0.0, 40, 100]),
            "preferred_spatial_frequency": ("neuron", [0.1, 0.15, 0.2]),
            "preferred_diameter": ("neuron", [4.0, 5, 6]),
        },
        {"neuron": IDS},
    )
    return {"A": fields}, {"A": properties}


def strength(curves):
    angle = np.deg2rad(curves["phase"])
    cosine, sine = ((curves * f(angle)).mean("phase") for f in (np.cos, np.sin))
    return curves.mean("phase") + 2 * np.hypot(cosine, sine)


def test_responses_are_those_to_the_sum_of_centre_and_ring(fit, given):
    estimator = fit()
    found = surround(estimator, *given, inner_diameters=(1, 2), n_phases=4)["A"]
    assert found["both"].dims == ("neuron", "inner_diameter", "relative_orientation")
    common = {"spatial_frequency": 0.15, "phase": [0, 90, 180, 270], "x": 8, "y": 6}
    center = gratings(SHAPE, orientation=40, diameter=5, **common)
    ring = gratings(SHAPE, orientation=40 + 60, inner_diameter=10, **common)
    shown = {"center": center, "ring": ring, "both": center + (ring - 127.5)}
    for name, stimuli in shown.items():
        curves = tuning_curves(estimator, stimuli.astype(np.float32), {"A": [2]})["A"]
        one = found[name].sel(neuron=2)
        if name != "center":
            one = one.sel(inner_diameter=2, relative_orientation=60)
        np.testing.assert_allclose(one, strength(curves)[0], rtol=1e-4)
    both, alone = found["both"], found["center"]
    np.testing.assert_allclose(found["index"], (both - alone) / (both + alone))


def test_a_ring_beyond_what_a_neuron_sees_does_nothing(fit, given):
    estimator = fit(v1.LNRegressor, behavior_mode="none", shift="none")
    model = estimator.module_
    rows, columns = (side.numpy() for side in model.cropper.source_positions("A"))
    place = model.readout("A").mu()[:3].detach().numpy()  # -1 and 1 are ends of the map
    height, width = model.core.output_shape[1:]
    x = (place[:, 0] + 1) / 2 * (width - 1) + (len(columns) - width) / 2
    y = (place[:, 1] + 1) / 2 * (height - 1) + (len(rows) - height) / 2
    fields, properties = given
    fields["A"] = fields["A"].assign(center_x=("neuron", x), center_y=("neuron", y))
    found = surround(estimator, fields, properties, diameter=6, inner_diameters=(1, 4), n_phases=4)[
        "A"
    ]
    # Filters of 5 and then 3 pixels, read between cells: not 6 pixels from their centre.
    np.testing.assert_allclose(found["index"].sel(inner_diameter=4), 0, atol=1e-5)
    assert np.abs(found["index"].sel(inner_diameter=1)).max() > 1e-5


def test_what_is_missing_is_named(fit, given):
    fields, properties = given
    with pytest.raises(ValueError, match="preferred_diameter"):
        surround(fit(), fields, {"A": properties["A"].drop_vars("preferred_diameter")})
    with pytest.raises(ValueError, match="same ones, in one order"):
        surround(fit(), fields, {"A": properties["A"].isel(neuron=[0, 1])})
    with pytest.raises(ValueError, match="inner_diameters"):
        surround(fit(), fields, properties, inner_diameters=(0.5,))
    lost = properties["A"].assign(preferred_orientation=("neuron", [0.0, np.nan, 2.0]))
    with pytest.raises(ValueError, match="preferred_orientation of neuron 2"):
        surround(fit(), fields, {"A": lost})
