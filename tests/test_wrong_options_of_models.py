"""Options of analyses of models that are of another kind than those that are taken."""

import re

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.fuzz.small_models import model, trials
from v1tlearn import decoding, inspection, model_selection


def _test():
    return trials("test")


def _surround(fields=None, properties=None, **options):
    ids = _test().neuron_ids("A")
    own = {n: ("neuron", np.full(4, 5.0)) for n in ("center_x", "center_y")}
    known = {"preferred_orientation": 0.0, "preferred_spatial_frequency": 0.1}
    known = {name: ("neuron", np.full(4, value)) for name, value in known.items()}
    return inspection.surround(
        model("blind"),
        {"A": xr.Dataset(own, {"neuron": ids})} if fields is None else fields,
        {"A": xr.Dataset(known, {"neuron": ids})} if properties is None else properties,
        **{"diameter": 6, **options},
    )


def _fields(**options):
    return inspection.receptive_fields(model("blind"), **{"n_images": 20, **options})


def _images(**options):
    return inspection.most_exciting_images(model("blind"), n_steps=1, n_starts=1, **options)


def _masking(**options):
    return inspection.attention_masking(model("attentive"), _test(), **options)


def _counted(**options):
    return inspection.neurons_for_performance(model("aligner"), _test(), **options)


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda: _fields(verbose="no"), ValueError, "verbose='no'"),
        (lambda: _fields(batch_size=True), ValueError, "batch_size=True: expected 'auto' or"),
        (lambda: _fields(method=["covariance"]), ValueError, "method=['covariance']"),
        (lambda: _fields(mice=3), TypeError, "mice=3: expected names"),
        (lambda: _fields(behaviors=3.0), TypeError, "behaviors is a float: expected a dict"),
        (lambda: inspection.readout_positions(model("blind"), degrees_per_pixel=(1, np.inf)),
         ValueError, "expected two positive numbers"),
        (lambda: inspection.readout_positions(model("blind"), degrees_per_pixel=0.5), ValueError,
         "expected two positive numbers"),
        (lambda: inspection.pooling_sizes(model("full"), degrees_per_pixel=(True, 1)), ValueError,
         "expected two positive numbers"),
        (lambda: inspection.gradient_saliency(model("aligner"), _test(), method="gradient",
                                              fill=None), ValueError, "fill=None"),
        (lambda: inspection.gradient_saliency(model("aligner"), _test(), noise=True), TypeError,
         "noise is True"),
        (lambda: inspection.alignment_map(model("aligner"), _test(), level=None), ValueError,
         "level=None"),
        (lambda: inspection.manipulation_curve(model("aligner"), _test(), values=[[1], [1, 2]]),
         ValueError, "values is a ragged list"),
        (lambda: inspection.manipulation_curve(model("aligner"), _test(), [1]), ValueError,
         "manipulation=[1]"),
        (lambda: _masking(rankings=2), TypeError, "rankings=2: expected names"),
        (lambda: _masking(thresholds="0.1"), TypeError, "thresholds has dtype"),
        (lambda: _masking(fractions=[True]), TypeError, "fractions holds truth values"),
        (lambda: _counted(counts=0.5), ValueError, "counts=0.5"),
        (lambda: _counted(scores={"own": {"A": ["1"] * 4, "B": ["1"] * 3}}), TypeError,
         "scores['own'], mouse 'A' has dtype"),
        (lambda: inspection.attention_rollout(model("v1t"), _test(), placement=np.arange(2)),
         ValueError, "placement=array([0, 1])"),
        (lambda: inspection.attention_pupil_correlation(model("v1t"), _test(), as_table="no"),
         TypeError, "as_table is 'no'"),
        (lambda: inspection.attention_pupil_correlation(model("v1t"), _test(), columns=3),
         TypeError, "columns=3"),
        (lambda: inspection.behavior_gain(model("cnn"), _test(), low="mean"), TypeError,
         "low is 'mean'"),
        (lambda: inspection.behavior_gain(model("cnn"), _test(), 3), TypeError, "column: 3 came"),
        (lambda: inspection.behavior_gain(model("ridge"), _test()), TypeError,
         "RidgeDecoder predicts a DataArray"),
        (lambda: inspection.behavior_ablation(model("cnn"), _test(), {"eye": 3}), TypeError,
         "variables, 'eye'=3"),
        (lambda: inspection.behavior_ablation(model("cnn"), _test(), metric=["feve"]), ValueError,
         "metric=['feve']"),
        (lambda: _images(verbose=0.5), ValueError, "verbose=0.5"),
        (lambda: _images(neurons={"A": [[1], [2]]}), ValueError, "neurons has the shape (2, 1)"),
        (lambda: _images(neurons={"A": [1, 2]}, weights={"A": ["1", "2"]}), TypeError,
         "weights has dtype"),
        (lambda: inspection.tuning_curves(model("blind"), np.full((1, 1, 12, 16), "7")), TypeError,
         "stimuli has dtype"),
        (lambda: inspection.tuning_curves(model("blind"), {}), ValueError,
         "stimuli came for the mice []"),
        (lambda: _surround(n_phases=2), ValueError, "n_phases=2: expected a whole number from 3"),
        (lambda: _surround(ring_width=True), TypeError, "ring_width is True"),
        (lambda: _surround(ring_width=-2), ValueError, "ring_width=-2"),
        (lambda: _surround(contrast=[0.5, 1]), TypeError, "contrast is [0.5, 1]"),
        (lambda: _surround(diameter=()), TypeError, "diameter is ()"),
        (lambda: _surround(inner_diameters="1"), TypeError, "inner_diameters has dtype"),
        (lambda: _surround(relative_orientations=90), ValueError, "relative_orientations=90"),
        (lambda: _surround(properties={"A": None}), TypeError, "properties is a NoneType"),
        (lambda: _surround(fields=[1]), TypeError, "fields is a list"),
        (lambda: _surround(properties={"A": xr.Dataset()}), TypeError, "expected a Dataset over"),
        (lambda: v1.compare_scores({"a": None, "b": None}, _test()), TypeError, "'a' is None"),
        (lambda: v1.decoding_table(model("ridge"), _test(), k=None), ValueError, "k=None"),
        (lambda: decoding.natural_image_prior(_test()[:0]), ValueError, "there are no trials"),
        (lambda: decoding.reconstruct_images(model("blind"), _test(), noise_std="1"), TypeError,
         "noise_std has dtype"),
        (lambda: v1.compare_scores([model("blind"), model("cnn")], _test(), metric=["feve"]),
         ValueError, "metric=['feve']"),
        (lambda: model_selection.leave_one_mouse_out(v1.LNRegressor(), _test(), freeze_core="no"),
         TypeError, "freeze_core is 'no'"),
        (lambda: model_selection.leave_one_mouse_out(v1.LNRegressor(), _test(), n_jobs=0),
         ValueError, "n_jobs=0"),
        (lambda: v1.save_predictions(model("ridge"), _test(), "x.nc"), TypeError,
         "RidgeDecoder predicts a DataArray"),
        (lambda: v1.save_predictions("model", _test(), "x.nc"), TypeError, "a str came"),
        (lambda: v1.save_predictions(model("blind"), _test(), "a\x00"), ValueError,
         "no path holds a null character"),
        (lambda: inspection.report(model("ridge"), _test()), TypeError, "a RidgeDecoder came"),
        (lambda: inspection.report(model("blind"), _test(), title=3), TypeError, "title=3"),
        (lambda: inspection.report(model("blind"), _test(), 3), TypeError, "path is a int"),
    ],
)  # fmt: skip
def test_they_are_refused_by_name(call, kind, said):
    with pytest.raises(kind, match=re.escape(said)):
        call()
