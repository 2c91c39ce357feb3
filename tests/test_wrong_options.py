"""Options of functions that are of another kind than those that are taken."""

import re

import numpy as np
import pytest
import torch
import xarray as xr

import v1tlearn as v1
from v1tlearn import inspection, metrics, model_selection, preprocessing
from v1tlearn.decoding import natural_image_prior

IMAGES = np.random.default_rng(0).random((3, 1, 8, 8))
TRACE = np.random.default_rng(0).random((20, 2))
FIELDS = xr.DataArray(IMAGES, dims=("neuron", "channel", "height", "width"))
AVERAGES = FIELDS.rename(channel="lag")
PLACES = xr.Dataset({"x": ("neuron", np.arange(9.0)), "y": ("neuron", np.arange(9.0))})
ANGLES = np.arange(0, 180, 45)
CURVES = xr.DataArray(
    np.ones((2, 4)), dims=("neuron", "orientation"), coords={"orientation": ANGLES}
)
RECORDING = {"A": xr.Dataset({"stimuli": (("trial", "channel", "height", "width"), IMAGES)})}


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda: inspection.gratings((8, 8), contrast="high"), TypeError, "contrast has dtype"),
        (lambda: inspection.gratings((8, 8), spatial_frequency=None), TypeError, "y is None"),
        (lambda: inspection.gratings(8), ValueError, "image_shape=8: expected (channels"),
        (lambda: inspection.gratings((8.5, 8)), ValueError, "image_shape=(8.5, 8): expected"),
        (lambda: preprocessing.spatial_frequencies(8), ValueError, "size is 8: expected two"),
        (lambda: preprocessing.low_pass(IMAGES, 3, kind=["x"]), ValueError, "kind=['x']"),
        (lambda: preprocessing.silhouettes(IMAGES[..., :0]), ValueError, "have no pixels"),
        (lambda: v1.CenterCrop().fit_transform(torch.ones(3, 1, 8, 8).to_sparse()), TypeError,
         "stimuli is a sparse tensor"),
        (lambda: v1.TrialStandardizer(stimuli="no").fit(IMAGES), TypeError, "stimuli is 'no'"),
        (lambda: v1.receptive_fields_from_outlines(3, (8, 8)), TypeError, "outlines are a int"),
        (lambda: v1.receptive_fields_from_outlines([], (8, 8), 4), ValueError, "grid is 4"),
        (lambda: v1.bin_spikes([0.5], [0, 1], outside=[]), ValueError, "outside=[]"),
        (lambda: v1.bin_spikes(np.array(0.5), [0, 1]), TypeError, "expected times of spikes"),
        (lambda: v1.bin_spikes([[0.5], np.ndarray], [0, 1]), TypeError, "spike_times[1]"),
        (lambda: v1.bin_spikes([[0.5], torch.tensor(0.5)], [0, 1]), TypeError, "spike_times[1]"),
        (lambda: metrics.sd_kl(TRACE, TRACE, bandwidth="wide"), TypeError, "bandwidth is 'wide'"),
        (lambda: metrics.spike_durations(["a"]), TypeError, "trace has dtype"),
        (lambda: metrics.ssim(IMAGES, IMAGES, clip=None), TypeError, "clip is None"),
        (lambda: metrics.fev(np.ndarray), TypeError, "y_true is the class ndarray"),
        (lambda: metrics.fev(torch.ones(4, 2).to_sparse()), TypeError, "is a sparse tensor"),
        (lambda: model_selection.tier_split(["train"], test=3), TypeError, "test is 3"),
        (lambda: model_selection.split_by_image(list("abc"), "half"), TypeError, "'half'"),
        (lambda: model_selection.split_by_image(list("abc"), 0.5, mouse_ids=3), ValueError,
         "mouse_ids has the shape ()"),
        (lambda: inspection.fit_gaussians(FIELDS, worst="few"), TypeError, "worst is 'few'"),
        (lambda: inspection.fit_gaussians(FIELDS, worst=False), TypeError, "worst is False"),
        (lambda: inspection.fit_gaussians(FIELDS, n_jobs=0), ValueError, "n_jobs=0"),
        (lambda: inspection.fit_gaussians(FIELDS * 1j), TypeError, "fields has dtype complex"),
        (lambda: inspection.fit_gaussians(FIELDS.astype(str)), TypeError, "fields has dtype"),
        (lambda: inspection.fit_gaussians(FIELDS[:0]), ValueError, "fields are empty"),
        (lambda: inspection.space_time_components(AVERAGES.astype(str)), TypeError,
         "averages has dtype"),
        (lambda: inspection.space_time_components(AVERAGES[:, :0]), ValueError, "'lag': 0"),
        (lambda: inspection.retinotopy_smoothness(PLACES, "cortex"), TypeError,
         "position has dtype"),
        (lambda: inspection.retinotopy_smoothness(PLACES.astype(str), np.ones((9, 2))), TypeError,
         "places: x has dtype"),
        (lambda: inspection.attention_center_of_mass(FIELDS.to_dataset(name="maps")), TypeError,
         "maps is a Dataset"),
        (lambda: inspection.attention_center_of_mass(
            FIELDS.assign_coords(width=[*"abcdefgh"])), TypeError, "width of the maps has dtype"),
        (lambda: inspection.tuning_properties(CURVES, onset=np.nan), ValueError, "onset is nan"),
        (lambda: inspection.tuning_properties(CURVES, onset="0"), TypeError, "onset is '0'"),
        (lambda: inspection.tuning_properties(CURVES * 1j), TypeError, "curves has dtype complex"),
        (lambda: inspection.tuning_properties(CURVES, blank=["0", "1"]), TypeError,
         "blank has dtype"),
        (lambda: inspection.cutoff_of({}), TypeError, "curve is a dict"),
        (lambda: inspection.cutoff_of(xr.Dataset(), share="half"), TypeError, "share is 'half'"),
        (lambda: inspection.cutoff_of(PLACES), ValueError, "curve: estimate has nothing"),
        (lambda: natural_image_prior(image_shape=8), ValueError, "image_shape=8"),
        (lambda: natural_image_prior(image_shape=(1, 8, 8), std="1"), TypeError, "std is '1'"),
        (lambda: natural_image_prior(image_shape=(1, 8, 8), mean=True), TypeError,
         "mean is True"),
        (lambda: v1.make_movie_recordings(cells=3), TypeError, "cells=3"),
        (lambda: v1.make_movie_recordings(scene=["noise"]), ValueError, "scene=['noise']"),
        (lambda: v1.with_receptive_fields(RECORDING, {"A": FIELDS}, grid=4), ValueError,
         "grid is 4"),
        (lambda: v1.with_receptive_fields(RECORDING, [FIELDS]), TypeError, "fields is a list"),
        (lambda: v1.validate_recordings(RECORDING, check_values="no"), TypeError,
         "check_values is 'no'"),
        (lambda: v1.write_sensorium(RECORDING, "x", zip="no"), TypeError, "zip is 'no'"),
    ],
)  # fmt: skip
def test_they_are_refused_by_name(call, kind, said):
    with pytest.raises(kind, match=re.escape(said)):
        call()
