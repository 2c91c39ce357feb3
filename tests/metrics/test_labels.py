"""What the values of single mice and neurons are called, and that names do not change numbers."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.exceptions import UndefinedMetricWarning

from v1tlearn import metrics
from v1tlearn.trials import Responses, Trials

N_IMAGES, N_REPEATS = 8, 4
UNITS = {"B": [12, 40, 7], "A": [3, 5, 8, 2, 1]}
IDS = np.repeat(np.arange(N_IMAGES), N_REPEATS)
WITH_PREDICTIONS = {
    name: getattr(metrics, name)
    for name in (
        "single_trial_correlation",
        "average_correlation",
        "feve",
        "fraction_oracle",
        "normalized_correlation",
    )
}
OF_RESPONSES = {name: getattr(metrics, name) for name in ("fev", "oracle_correlation")}
METRICS = WITH_PREDICTIONS | OF_RESPONSES


def draw(seed):
    rng = np.random.default_rng(seed)
    out = {}
    for mouse, units in UNITS.items():
        signal = np.random.default_rng(len(units)).standard_normal((N_IMAGES, len(units)))[IDS]
        out[mouse] = signal + 0.5 * rng.standard_normal(signal.shape)
    return out


TRUE, PRED = draw(0), draw(1)


def make_trials(**labels):
    """Recordings of both mice, with labels of their neurons, each a dict per mouse."""
    images = np.zeros((len(IDS), 1, 2, 2), "u1")
    recordings = {}
    for mouse in UNITS:
        coords = {"image_id": ("trial", IDS)}
        coords |= {name: ("neuron", of[mouse]) for name, of in labels.items() if mouse in of}
        recordings[mouse] = xr.Dataset(
            {
                "stimuli": (("trial", "channel", "height", "width"), images),
                "responses": (("trial", "neuron"), TRUE[mouse]),
            },
            coords,
        )
    return Trials(recordings)


AREAS = {"B": ["V1", "LM", "V1"], "A": ["V1", "LM", "LM", "V1", "AL"]}
TRIALS = make_trials(neuron=UNITS, area=AREAS, layer={"A": ["L4"] * 5})
PREDICTED = Responses.from_arrays(PRED, like=TRIALS)


def score(name, true, pred, **options):
    return METRICS[name](true, *([pred] if name in WITH_PREDICTIONS else []), **options)


@pytest.mark.parametrize("name", METRICS)
def test_values_per_neuron_bear_mouse_and_unit(name):
    values = score(name, TRIALS.responses, PREDICTED, multioutput="raw_values")
    assert isinstance(values, xr.DataArray)
    assert (values.name, values.dims, values.dtype) == (name, ("unit",), np.float64)
    assert list(values.indexes["unit"].names) == ["mouse", "neuron"]
    assert values["unit"].values.tolist() == [(m, unit) for m in UNITS for unit in UNITS[m]]
    for mouse, units in UNITS.items():
        of_mouse = values.sel(mouse=mouse)
        assert of_mouse.dims == ("neuron",)
        np.testing.assert_array_equal(of_mouse["neuron"], units)
        alone = score(name, TRUE[mouse], PRED[mouse], image_ids=IDS, multioutput="raw_values")
        np.testing.assert_array_equal(of_mouse, alone)
    assert values.sel(mouse="A", neuron=8) == values[5]


@pytest.mark.parametrize("name", METRICS)
def test_values_per_mouse(name):
    per_mouse = score(name, TRIALS.responses, PREDICTED, multioutput="mice")
    assert (per_mouse.name, per_mouse.dims, per_mouse.dtype) == (name, ("mouse",), np.float64)
    assert per_mouse["mouse"].values.tolist() == list(UNITS)
    for mouse in UNITS:
        assert per_mouse.sel(mouse=mouse) == score(name, TRUE[mouse], PRED[mouse], image_ids=IDS)
    mean = score(name, TRIALS.responses, PREDICTED)
    assert type(mean) is float
    assert per_mouse.mean() == mean


def test_metadata_of_neurons_come_along():
    values = metrics.fev(TRIALS.responses, multioutput="raw_values")
    assert values["area"].values.tolist() == AREAS["B"] + AREAS["A"]
    by_area = values.groupby("area").mean()
    expected = values.values[[k == "LM" for k in values["area"].values]].mean()
    assert by_area.sel(area="LM") == pytest.approx(expected)
    layers = pd.Series(values["layer"].values)
    assert layers.isna().tolist() == [True] * 3 + [False] * 5  # mouse B tells none
    assert values.sel(mouse="A")["layer"].values.tolist() == ["L4"] * 5
    frame = values.to_dataframe()
    assert {"area", "layer", "fev"} <= set(frame.columns)


def test_whichever_argument_has_labels_gives_them():
    options = {"image_ids": IDS, "multioutput": "raw_values"}
    labelled, plain = {m: TRIALS.responses[m] for m in UNITS}, TRUE
    ids = {"image_ids": dict.fromkeys(UNITS, IDS), "multioutput": "raw_values"}
    for true, pred in ((labelled, plain), (plain, labelled)):
        values = metrics.average_correlation(true, pred, **ids)
        assert values["neuron"].values.tolist() == UNITS["B"] + UNITS["A"]
        assert values["area"].values.tolist() == AREAS["B"] + AREAS["A"]
        one = metrics.average_correlation(true["A"], pred["A"], **options)
        assert one["neuron"].values.tolist() == UNITS["A"]
    against_arrays = metrics.feve(TRIALS.responses, np.asarray(PREDICTED), multioutput="raw_values")
    assert against_arrays["neuron"].values.tolist() == UNITS["B"] + UNITS["A"]


def test_a_dimension_may_be_called_otherwise():
    cells = xr.DataArray(TRUE["A"], dims=("presentation", "cell"), coords={"cell": list("abcde")})
    values = metrics.single_trial_correlation(cells, PRED["A"], multioutput="raw_values")
    assert values.sel(neuron="c") == values[2]


def test_arrays_get_numbers_and_the_name_of_a_single_mouse():
    values = metrics.single_trial_correlation(TRUE["A"], PRED["A"], multioutput="raw_values")
    only = Trials.from_arrays(np.zeros((2, 1, 2, 2))).mice  # what one unnamed recording is called
    assert values["unit"].values.tolist() == [(*only, k) for k in range(5)]
    assert metrics.single_trial_correlation(TRUE["A"], PRED["A"], multioutput="mice").sel(
        mouse=only
    ).values == [metrics.single_trial_correlation(TRUE["A"], PRED["A"])]
    of_dict = metrics.single_trial_correlation(TRUE, PRED, multioutput="raw_values")
    assert of_dict["unit"].values.tolist() == [(m, k) for m in UNITS for k in range(len(UNITS[m]))]


def test_padded_arrays_of_several_mice_have_no_units():
    dense = np.full((2 * len(IDS), 5), np.nan)
    dense[: len(IDS), :3], dense[len(IDS) :] = TRUE["B"], TRUE["A"]
    columns = xr.DataArray(dense, dims=("trial", "neuron"), coords={"neuron": np.arange(5) + 10})
    values = metrics.single_trial_correlation(
        columns, dense, mouse_ids=np.repeat(list(UNITS), len(IDS)), multioutput="raw_values"
    )
    assert values["neuron"].values.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


def test_numbers_and_names_of_units_mix():
    trials = make_trials(neuron={"B": list("xyz"), "A": UNITS["A"]})
    values = metrics.fev(trials.responses, multioutput="raw_values")
    assert values["neuron"].values.tolist() == ["x", "y", "z", *UNITS["A"]]
    assert values.sel(mouse="A", neuron=8) == values[5]


def test_values_of_two_models_align_by_name():
    one = metrics.feve(TRIALS.responses, PREDICTED, multioutput="raw_values")
    only_a = TRIALS.sel(mouse_id="A")
    other = metrics.fev(only_a.responses, multioutput="raw_values")
    difference = one - other
    assert difference.sizes == {"unit": 5}
    np.testing.assert_allclose(difference, one.values[3:] - other.values)


@pytest.mark.parametrize("form", ["responses", "dict", "one"])
@pytest.mark.parametrize("multioutput", ["uniform_average", "mice", "raw_values"])
def test_other_units_are_refused(form, multioutput):
    other = {"B": UNITS["B"], "A": [3, 5, 9, 2, 1]}
    others = Responses.from_arrays(PRED, like=make_trials(neuron=other))
    true = TRIALS.responses
    if form == "dict":
        true, others = ({m: r[m] for m in UNITS} for r in (true, others))
    elif form == "one":
        true, others = {"A": true["A"]}, {"A": others["A"]}
    with pytest.raises(ValueError, match=r"mouse 'A'.*different neurons: number 2 is unit 8"):
        metrics.single_trial_correlation(true, others, multioutput=multioutput)


@pytest.mark.parametrize("form", ["responses", "dict", "mixed"])
def test_units_in_another_order_are_aligned(form):
    order = [3, 0, 4, 1, 2]
    swapped = make_trials(neuron={"B": UNITS["B"], "A": [UNITS["A"][k] for k in order]})
    others = Responses.from_arrays(PRED | {"A": PRED["A"][:, order]}, like=swapped)
    true = TRIALS.responses
    expected = metrics.single_trial_correlation(true, PREDICTED, multioutput="raw_values")
    if form != "responses":
        others = {m: others[m] for m in UNITS}
    if form == "dict":
        true = {m: true[m] for m in UNITS}
    values = metrics.single_trial_correlation(true, others, multioutput="raw_values")
    xr.testing.assert_allclose(values, expected)


@pytest.mark.parametrize("convert", [float, str])
def test_units_in_another_order_may_be_other_numbers(convert):
    order = [2, 0, 1]
    true = xr.DataArray(TRUE["B"], dims=("trial", "neuron"), coords={"neuron": UNITS["B"]})
    ids = [convert(UNITS["B"][k]) for k in order]
    pred = xr.DataArray(PRED["B"][:, order], dims=("trial", "neuron"), coords={"neuron": ids})
    expected = metrics.single_trial_correlation(TRUE["B"], PRED["B"], multioutput="raw_values")
    values = metrics.single_trial_correlation(true, pred, multioutput="raw_values")
    np.testing.assert_allclose(values, expected)


@pytest.mark.parametrize("form", [dict, Responses])
def test_numbers_of_units_equal_their_text(form):
    text = make_trials(neuron={mouse: list(map(str, units)) for mouse, units in UNITS.items()})
    others = Responses.from_arrays(PRED, like=text)
    true = TRIALS.responses
    expected = metrics.single_trial_correlation(true, PREDICTED, multioutput="raw_values")
    if form is dict:
        true, others = ({m: r[m] for m in UNITS} for r in (true, others))
    values = metrics.single_trial_correlation(true, others, multioutput="raw_values")
    xr.testing.assert_identical(values, expected)


def test_the_first_unit_that_differs_is_named():
    numbers = xr.DataArray(TRUE["B"], dims=("trial", "neuron"), coords={"neuron": UNITS["B"]})
    text = numbers.assign_coords(neuron=["12", "41", "7"])
    with pytest.raises(ValueError, match="number 1 is unit 40 in y_true and 41 in y_pred"):
        metrics.single_trial_correlation(numbers, text)


def test_a_mouse_without_a_value_warns_in_the_mean_and_per_mouse():
    silent = TRUE | {"B": np.zeros_like(TRUE["B"])}
    ids = dict.fromkeys(UNITS, IDS)
    with pytest.warns(UndefinedMetricWarning, match=r"\['B'\].*are left out of the mean"):
        mean = metrics.fev(silent, image_ids=ids)
    with pytest.warns(UndefinedMetricWarning, match=r"\['B'\].*are NaN"):
        per_mouse = metrics.fev(silent, image_ids=ids, multioutput="mice")
    np.testing.assert_array_equal(per_mouse.isnull(), [True, False])
    assert per_mouse.mean() == mean


def test_functions_of_numpy_take_the_values():
    values = metrics.fev(TRIALS.responses, multioutput="raw_values")
    plain = np.asarray(values)
    for function in (np.mean, np.nanmedian, np.max, np.argsort, np.sort, np.isnan, np.sqrt):
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(function(values), function(plain))
    np.testing.assert_array_equal(np.concatenate([values, values]), np.tile(plain, 2))
    assert f"{values[0]:.3f}" == f"{plain[0]:.3f}"


@pytest.mark.parametrize("name", WITH_PREDICTIONS)
def test_predictions_that_are_missing_are_asked_for(name):
    with pytest.raises(ValueError, match=f"y_pred is missing: {name} compares"):
        WITH_PREDICTIONS[name](TRIALS.responses, None)


def test_an_unknown_multioutput_is_refused():
    with pytest.raises(ValueError, match="multioutput is 'neurons', expected one of"):
        metrics.fev(TRIALS.responses, multioutput="neurons")


# --------------------------------------------------------------- labels of arrays of several mice

MICE = np.repeat(["A", "B"], 20)
NOISY = np.random.default_rng(5).standard_normal((40, 5))
GUESS = NOISY + np.random.default_rng(6).standard_normal((40, 5))
NAMES = ["n0", "n1", "n2", "n3", "n4"]
PERMUTED = [2, 0, 1, 4, 3]


def as_frame(values, names=NAMES):
    return pd.DataFrame(values, columns=names)


def as_xarray(values, names=NAMES):
    return xr.DataArray(values, dims=("trial", "neuron"), coords={"neuron": names})


@pytest.mark.parametrize("make", [as_frame, as_xarray])
@pytest.mark.parametrize("padding", [0, 2])
def test_columns_of_several_mice_are_aligned(make, padding):
    true, pred = NOISY.copy(), GUESS.copy()
    for values in (true, pred):
        values[20:, 5 - padding :] = np.nan
    expected = metrics.single_trial_correlation(true, pred, mouse_ids=MICE)
    for order in (PERMUTED, [4, 3, 2, 1, 0]):
        permuted = make(pred[:, order], [NAMES[k] for k in order])
        got = metrics.single_trial_correlation(make(true), permuted, mouse_ids=MICE)
        assert got == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match=r"mouse 'A': y_true and y_pred hold different neurons"):
        metrics.single_trial_correlation(make(true), make(pred, list("vwxyz")), mouse_ids=MICE)


@pytest.mark.parametrize("name", ["image_ids", "sample_weight"])
@pytest.mark.parametrize("kind", [dict, list])
def test_labels_of_trials_order_what_comes_per_mouse(name, kind):
    images = pd.Series(np.repeat(np.arange(10), 2))
    keyword = images if name == "image_ids" else images + 1.0
    metric = metrics.fev if name == "image_ids" else metrics.single_trial_correlation
    of = {"A": NOISY[:20], "B": NOISY[20:]}
    given = [of] if name == "image_ids" else [of, {"A": GUESS[:20], "B": GUESS[20:]}]
    expected = metric(*given, **{name: {m: keyword.to_numpy() for m in of}})
    given[0] = {mouse: pd.DataFrame(values) for mouse, values in of.items()}
    order = np.random.default_rng(1).permutation(20)
    per_mouse = dict.fromkeys(of, keyword.iloc[order])
    values = per_mouse if kind is dict else list(per_mouse.values())
    assert metric(*given, **{name: values}) == pytest.approx(expected, abs=1e-12)
    other = {mouse: keyword.set_axis(np.arange(20) + 100) for mouse in of}
    named = {mouse: frame.set_axis(np.arange(20) + 50) for mouse, frame in given[0].items()}
    with pytest.raises(ValueError, match=rf"mouse 'A': y_true and {name} are of different trials"):
        metric(named, *given[1:], **{name: other})


def test_ids_of_images_of_several_mice_stay_apart():
    images = {
        "A": np.repeat(np.arange(2**53, 2**53 + 10), 2),
        "B": np.repeat(np.arange(2**63, 2**63 + 10, dtype=np.uint64), 2),
    }
    plain = np.repeat(np.arange(10), 2)
    of = {"A": NOISY[:20], "B": NOISY[20:]}
    got = metrics.fev(of, image_ids=images)
    assert got == metrics.fev(of, image_ids={"A": plain, "B": plain})
