"""All forms of the arguments, and what is wrong with them."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from v1tlearn.metrics import average_correlation, fev, single_trial_correlation
from v1tlearn.trials import Responses, Trials

NEURONS = {"B": 3, "A": 5}
N = 20


def matrices(seed):
    rng = np.random.default_rng(seed)
    return {mouse: rng.standard_normal((N, n)).astype(np.float32) for mouse, n in NEURONS.items()}


IDS = {mouse: np.random.default_rng(n).integers(0, 6, N) for mouse, n in NEURONS.items()}
TRUE, PRED = matrices(0), matrices(1)


def interleaved(by_mouse):
    """Per-mouse arrays as a list of trials, B and A in turn."""
    return [by_mouse[mouse][trial] for trial in range(N) for mouse in NEURONS]


def objects(vectors):
    out = np.empty(len(vectors), dtype=object)
    out[:] = vectors
    return out


def padded(vectors):
    out = np.full((len(vectors), 7), np.nan)
    for row, vector in zip(out, vectors, strict=True):
        row[: len(vector)] = vector
    return out


def make_trials():
    recordings = {
        mouse: xr.Dataset(
            {
                "stimuli": (("trial", "channel", "height", "width"), np.zeros((N, 1, 2, 2), "u1")),
                "responses": (("trial", "neuron"), TRUE[mouse]),
            },
            {"image_id": ("trial", IDS[mouse])},
        )
        for mouse in NEURONS
    }
    return Trials(recordings)


MICE = np.array(list(NEURONS) * N)
TRIALS = make_trials()
ORDER = np.arange(2 * N).reshape(2, N).T.ravel()  # the interleaved order
FORMS = {
    "object": (objects(interleaved(TRUE)), objects(interleaved(PRED))),
    "list": (interleaved(TRUE), interleaved(PRED)),
    "padded": (padded(interleaved(TRUE)), padded(interleaved(PRED))),
    "responses": (
        TRIALS[ORDER].responses,
        Responses.from_arrays(PRED, like=TRIALS)[ORDER],
    ),
}
FLAT_IDS = np.array(interleaved({m: IDS[m][:, None] for m in NEURONS})).ravel()


@pytest.fixture(params=[single_trial_correlation, average_correlation])
def expected(request):
    per_mouse = [
        request.param(TRUE[m], PRED[m], image_ids=IDS[m], multioutput="raw_values") for m in NEURONS
    ]
    return request.param, np.concatenate(per_mouse)


@pytest.mark.parametrize("true", FORMS)
@pytest.mark.parametrize("pred", FORMS)
def test_flat_forms_mix(expected, true, pred):
    metric, values = expected
    labels = {"image_ids": FLAT_IDS, "mouse_ids": MICE}
    got = metric(FORMS[true][0], FORMS[pred][1], multioutput="raw_values", **labels)
    np.testing.assert_allclose(got, values)


def test_responses_bring_their_labels(expected):
    metric, values = expected
    true, pred = FORMS["responses"]
    np.testing.assert_allclose(metric(true, pred, multioutput="raw_values"), values)
    for other in ("object", "padded"):
        got = metric(true, FORMS[other][1], multioutput="raw_values")
        np.testing.assert_allclose(got, values)
        got = metric(FORMS[other][0], pred, multioutput="raw_values")
        np.testing.assert_allclose(got, values)
    assert metric(TRIALS[ORDER], pred) == pytest.approx(metric(true, pred))


def test_dicts_per_mouse(expected):
    metric, values = expected
    backwards = {mouse: PRED[mouse] for mouse in reversed(NEURONS)}
    for ids in (IDS, np.concatenate(list(IDS.values()))):
        got = metric(TRUE, backwards, image_ids=ids, multioutput="raw_values")
        np.testing.assert_allclose(got, values)


def test_dict_of_predictions_against_responses(expected):
    metric, values = expected
    got = metric(FORMS["responses"][0], PRED, multioutput="raw_values")
    np.testing.assert_allclose(got, values)


@pytest.mark.parametrize("mouse_ids", [None, ["x", "y"]])
def test_lists_per_mouse(expected, mouse_ids):
    metric, values = expected
    true, pred, ids = (list(d.values()) for d in (TRUE, PRED, IDS))
    got = metric(true, pred, image_ids=ids, mouse_ids=mouse_ids, multioutput="raw_values")
    np.testing.assert_allclose(got, values)


def test_without_mouse_ids_equally_long_vectors_are_one_mouse(expected):
    metric, values = expected
    got = metric(*FORMS["object"], image_ids=FLAT_IDS, multioutput="raw_values")
    np.testing.assert_allclose(got, values)


def labelled(mouse, values, images=None):
    ids = IDS[mouse] if images is None else images
    return xr.DataArray(
        values[mouse], dims=("trial", "neuron"), coords={"image_id": ("trial", ids)}
    )


def test_data_arrays_bring_image_ids():
    for mouse in NEURONS:
        expected = average_correlation(TRUE[mouse], PRED[mouse], image_ids=IDS[mouse])
        of_trials = TRIALS.responses[mouse]
        assert average_correlation(of_trials, PRED[mouse]) == expected
        assert average_correlation(TRUE[mouse], labelled(mouse, PRED)) == expected
        assert average_correlation(of_trials, labelled(mouse, PRED)) == expected


def test_data_arrays_per_mouse_bring_image_ids(expected):
    metric, values = expected
    true = {mouse: labelled(mouse, TRUE) for mouse in NEURONS}
    for first, second in ((true, PRED), (list(true.values()), list(PRED.values()))):
        np.testing.assert_allclose(metric(first, second, multioutput="raw_values"), values)
    partly = true | {"A": TRUE["A"]}
    with pytest.raises(ValueError, match="image_ids is missing"):
        average_correlation(partly, PRED)


def test_explicit_image_ids_come_before_those_of_data_arrays():
    other = IDS["A"] // 2
    got = average_correlation(labelled("A", TRUE), PRED["A"], image_ids=other)
    assert got == average_correlation(TRUE["A"], PRED["A"], image_ids=other)


def test_data_arrays_of_other_trials_are_refused():
    true, pred = labelled("A", TRUE), labelled("A", PRED, IDS["A"][::-1])
    with pytest.raises(ValueError, match="carry different image ids"):
        single_trial_correlation(true, pred)


@pytest.mark.parametrize("turned", ["true", "pred", "both"])
def test_dimensions_go_by_their_names(expected, turned):
    metric, values = expected
    true, pred = ({m: labelled(m, v) for m in NEURONS} for v in (TRUE, PRED))
    if turned != "pred":
        true["A"] = true["A"].T
    if turned != "true":
        pred["A"] = pred["A"].T
    for convert in (dict, lambda of: list(of.values())):
        got = metric(convert(true), convert(pred), multioutput="raw_values")
        np.testing.assert_array_equal(got, values)
    got = metric(true["A"], pred["A"], multioutput="raw_values")
    np.testing.assert_array_equal(got, values[NEURONS["B"] :])


@pytest.mark.parametrize("form", [dict, list, xr.DataArray])
def test_square_matrices_are_turned_by_name_with_their_labels(form):
    coords = {"image_id": ("trial", IDS["A"][:5]), "neuron": list("abcde")}
    true, pred = (
        xr.DataArray(v["A"][:5], dims=("trial", "neuron"), coords=coords) for v in (TRUE, PRED)
    )
    wanted = average_correlation(true, pred, multioutput="raw_values")
    true, pred = true.T, pred
    if form is dict:
        true, pred = {"mouse": true}, {"mouse": pred}
    elif form is list:
        true, pred = [true], [pred]
    got = average_correlation(true, pred, multioutput="raw_values")
    np.testing.assert_array_equal(got, wanted)
    assert got["neuron"].values.tolist() == list("abcde")


def test_dimensions_of_other_names_go_by_their_place():
    true = xr.DataArray(TRUE["A"], dims=("presentation", "cell"))
    assert single_trial_correlation(true, PRED["A"]) == single_trial_correlation(
        TRUE["A"], PRED["A"]
    )
    for dims in (("neuron", "time"), ("trial", "behavior")):
        with pytest.raises(ValueError, match=rf"y_true has the dimensions .*{dims[1]}.*transpose"):
            single_trial_correlation(
                true.rename(dict(zip(true.dims, dims, strict=True))), PRED["A"]
            )


# What labels say: the value is that of the arrays in one order.


def named(values, mouse="A", **coords):
    """One mouse with unit ids and numbers of its trials."""
    own = {"trial": np.arange(N) + 100, "neuron": [f"u{k}" for k in range(NEURONS[mouse])]}
    return xr.DataArray(values[mouse], dims=("trial", "neuron"), coords=own | coords)


FRAMES = {"array": lambda array: array, "frame": lambda array: array.to_pandas()}
IN_FORM = {
    "one": lambda array: array,
    "dict": lambda array: {"A": array},
    "list": lambda array: [array],
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("form", IN_FORM)
@pytest.mark.parametrize("metric", [single_trial_correlation, average_correlation])
def test_neurons_and_trials_are_aligned_by_their_labels(metric, form, kind):
    rng = np.random.default_rng(0)
    true, pred = named(TRUE), named(PRED)
    moved = pred.isel(trial=rng.permutation(N), neuron=rng.permutation(NEURONS["A"]))
    options, images = {"multioutput": "raw_values"}, {}
    if metric is average_correlation:
        images = {"image_ids": IDS["A"]}
    want = metric(TRUE["A"], PRED["A"], **options, **images)
    given = {name: IN_FORM[form](ids) for name, ids in images.items()}
    one, two = (IN_FORM[form](FRAMES[kind](array)) for array in (true, moved))
    got = metric(one, two, **options, **given)
    np.testing.assert_allclose(got, want)
    assert got["neuron"].values.tolist() == true["neuron"].values.tolist()


@pytest.mark.parametrize("kind", FRAMES)
def test_other_neurons_and_trials_are_refused(kind):
    convert = FRAMES[kind]
    true, pred = named(TRUE), named(PRED)
    others = {
        "neuron": pred.assign_coords(neuron=["u0", "u1", "x2", "u3", "u4"]),
        "trial": pred.assign_coords(trial=np.arange(N) + 101),
    }
    with pytest.raises(ValueError, match=r"different neurons: number 2 is unit u2 .* x2"):
        single_trial_correlation(convert(true), convert(others["neuron"]))
    with pytest.raises(ValueError, match=r"different trials: number 0 is trial 100 .* 101"):
        single_trial_correlation(convert(true), convert(others["trial"]))


@pytest.mark.parametrize("kind", FRAMES)
def test_neurons_of_one_side_alone_are_named(kind):
    convert = FRAMES[kind]
    true, pred = named(TRUE), named(PRED)
    for one, two, alone in ((true, pred[:, [0, 2, 3]], "y_true"), (true[:, 1:], pred, "y_pred")):
        with pytest.raises(ValueError, match=rf"the units u[01].* are in {alone} alone"):
            single_trial_correlation(convert(one), convert(two))


def test_rows_that_pandas_only_counts_are_no_labels_unless_they_are_all_there():
    true, pred = pd.DataFrame(TRUE["A"]), pd.DataFrame(PRED["A"])
    want = single_trial_correlation(TRUE["A"], PRED["A"])
    moved = np.random.default_rng(0).permutation(N)
    assert single_trial_correlation(true, pred.iloc[moved]) == pytest.approx(want)
    assert single_trial_correlation(true, pred[[4, 2, 0, 1, 3]]) == pytest.approx(want)
    late = true.set_axis(np.arange(N) + 50).set_axis(list("abcde"), axis=1)
    assert single_trial_correlation(late, pred) == want


def test_weights_and_image_ids_with_an_index_go_by_it():
    true, moved = named(TRUE).to_pandas(), np.random.default_rng(0).permutation(N)
    weights = np.arange(N) / N
    series = pd.Series(weights, true.index).iloc[moved]
    assert single_trial_correlation(true, PRED["A"], sample_weight=series) == (
        single_trial_correlation(TRUE["A"], PRED["A"], sample_weight=weights)
    )
    mice = pd.Series(np.where(np.arange(N) < 9, "x", "y"), true.index)
    assert single_trial_correlation(true, PRED["A"], mouse_ids=mice.iloc[moved]) == (
        single_trial_correlation(TRUE["A"], PRED["A"], mouse_ids=mice.to_numpy())
    )
    ids = pd.Series(IDS["A"], true.index).iloc[moved]
    assert average_correlation(true, PRED["A"], image_ids=ids) == (
        average_correlation(TRUE["A"], PRED["A"], image_ids=IDS["A"])
    )


def test_ragged_lists_are_told_as_such():
    ragged = [[[1.0, 2.0], [3.0]]]
    with pytest.raises(ValueError, match="y_true is a ragged list"):
        single_trial_correlation(ragged, ragged)


# Masks: what is masked was not recorded, whatever lies below the mask.

GAPS = {mouse: np.random.default_rng(n).random((N, n)) < 0.3 for mouse, n in NEURONS.items()}
MASKED = {m: np.ma.masked_array(np.where(GAPS[m], 1e20, v), GAPS[m]) for m, v in TRUE.items()}
MASKED_FORMS = {
    "dict": (MASKED, PRED),
    "list": (list(MASKED.values()), list(PRED.values())),
    "vectors": (interleaved(MASKED), interleaved(PRED)),
    "objects": (objects(interleaved(MASKED)), objects(interleaved(PRED))),
    "table": (
        {m: pd.DataFrame(v).astype("Float64").mask(GAPS[m]) for m, v in TRUE.items()},
        {m: pd.DataFrame(v) for m, v in PRED.items()},
    ),
}


@pytest.mark.parametrize("form", MASKED_FORMS)
def test_masked_responses_are_not_recorded(form):
    nan = {m: np.where(GAPS[m], np.nan, v) for m, v in TRUE.items()}
    for metric, ids in ((single_trial_correlation, False), (fev, True)):
        flat = {"mouse_ids": MICE} if form in ("vectors", "objects") else {}
        images = FLAT_IDS if flat else [*IDS.values()] if form == "list" else IDS
        flat |= {"image_ids": images} if ids else {}
        arguments = MASKED_FORMS[form][: 1 if ids else 2]
        want = metric(*(nan, PRED)[: len(arguments)], **({"image_ids": IDS} if ids else {}))
        assert metric(*arguments, **flat) == pytest.approx(want)


def test_masked_labels_and_weights_are_refused():
    some = np.arange(N) % 10 == 3
    for name, values in {"image_ids": IDS["A"], "sample_weight": np.ones(N)}.items():
        metric = average_correlation if name == "image_ids" else single_trial_correlation
        with pytest.raises(ValueError, match=f"{name}: 2 of 20 .*trials 3, 13"):
            metric(TRUE["A"], PRED["A"], **{name: np.ma.masked_array(values, some)})
    mice = [*["A"] * 10, None, *["B"] * 9]
    with pytest.raises(ValueError, match=r"mouse_ids: 1 of 20 ids are missing.*trial 10"):
        single_trial_correlation(TRUE["A"], PRED["A"], mouse_ids=mice)
    with pytest.raises(ValueError, match="y_true: 1 of 1 ids are missing"):
        single_trial_correlation({None: TRUE["A"]}, {None: PRED["A"]})


def with_trial_ids(form, values, trial_ids):
    """Both mice, which saw the same images; mouse A with these trial ids."""
    coords = {"image_id": ("trial", IDS["A"])}
    recordings = {
        mouse: xr.Dataset(
            {
                "stimuli": (("trial", "channel", "height", "width"), np.zeros((N, 1, 2, 2), "u1")),
                "responses": (("trial", "neuron"), values[mouse]),
            },
            coords | ({"trial_id": ("trial", trial_ids)} if mouse == "A" else {}),
        )
        for mouse in NEURONS
    }
    responses = Trials(recordings).responses
    by_mouse = {mouse: responses[mouse] for mouse in NEURONS}
    return {
        "responses": responses,
        "dict": by_mouse,
        "list": list(by_mouse.values()),
        "one": by_mouse["A"],
    }[form]


FORMS_WITH_TRIAL_IDS = [
    *[(form, form) for form in ("responses", "dict", "list", "one")],
    ("responses", "dict"),
    ("dict", "responses"),
]


@pytest.mark.parametrize(("true", "pred"), FORMS_WITH_TRIAL_IDS)
def test_trials_of_the_same_images_are_told_apart_by_their_ids(true, pred):
    ids = np.arange(N) + 100
    first = with_trial_ids(true, TRUE, ids)
    values = single_trial_correlation(first, with_trial_ids(pred, PRED, ids))
    text = with_trial_ids(pred, PRED, ids.astype(str))
    assert single_trial_correlation(first, text) == values  # numbers equal their text
    mouse = "mouse" if true == "one" else "1" if true == "list" else "A"
    with pytest.raises(ValueError, match=f"mouse '{mouse}': .* carry different trial ids"):
        single_trial_correlation(first, with_trial_ids(pred, PRED, ids[::-1]))


def test_trial_ids_of_one_argument_alone_say_nothing():
    plain = {mouse: labelled(mouse, PRED, IDS["A"]) for mouse in NEURONS}
    with_ids = with_trial_ids("dict", TRUE, np.arange(N))
    assert single_trial_correlation(with_ids, plain) == single_trial_correlation(TRUE, PRED)


def test_responses_against_data_arrays_of_other_images_are_refused():
    other = {mouse: labelled(mouse, PRED, IDS[mouse][::-1]) for mouse in NEURONS}
    with pytest.raises(ValueError, match=r"mouse 'B': .* carry different image ids"):
        single_trial_correlation(TRIALS.responses, other)


def test_labelled_arrays_and_integers():
    true = xr.DataArray(np.arange(12).reshape(4, 3), dims=("trial", "neuron"))
    pred = np.arange(12).reshape(4, 3) * 2
    assert single_trial_correlation(true, pred) == pytest.approx(1)


def test_padding_is_not_a_neuron():
    got = fev(padded(interleaved(TRUE)), image_ids=FLAT_IDS, mouse_ids=MICE)
    assert got == pytest.approx(fev(TRUE, image_ids=IDS))
    one = np.full((N, 4), np.nan)
    one[:, :3] = TRUE["B"]
    values = fev(one, image_ids=IDS["B"], multioutput="raw_values")
    assert np.isnan(values[3])  # one mouse has no padding: a neuron that was not recorded
    assert len(values) == 4


def test_an_unrecorded_last_neuron_in_padded_arrays_is_kept():
    true, pred = padded(interleaved(TRUE)), padded(interleaved(PRED))
    true[MICE == "B", 2] = np.nan
    got = single_trial_correlation(true, pred, mouse_ids=MICE, multioutput="raw_values")
    assert len(got) == 8
    np.testing.assert_array_equal(np.isnan(got), np.arange(8) == 2)


def test_image_ids_come_before_those_of_responses():
    ids = np.roll(FLAT_IDS, 2)
    got = average_correlation(*FORMS["responses"], image_ids=ids)
    want = average_correlation(*FORMS["object"], image_ids=ids, mouse_ids=MICE)
    assert got == pytest.approx(want)
    assert got != pytest.approx(average_correlation(*FORMS["responses"]))


class UnlabelledResponses(Responses):
    """Responses whose image ids would have to be computed from the images."""

    @property
    def image_ids(self):
        raise AssertionError("read although not needed")


def test_image_ids_are_read_only_where_needed():
    one = TRIALS.sel(mouse_id="A")
    both = [UnlabelledResponses.from_arrays({"A": TRUE["A"]}, like=one) for _ in range(2)]
    assert single_trial_correlation(*both) == pytest.approx(1)
    assert average_correlation(*both, image_ids=one.image_ids) == pytest.approx(1)
    with pytest.raises(AssertionError):
        average_correlation(*both)


class TestErrors:
    def test_responses_in_another_order(self):
        true, pred = FORMS["responses"]
        shuffled = np.random.default_rng(0).permutation(2 * N)
        with pytest.raises(ValueError, match="y_pred holds trials of other mice, or in another"):
            single_trial_correlation(true, pred[shuffled])
        one = TRIALS.sel(mouse_id="A")
        with pytest.raises(ValueError, match="different image ids"):
            single_trial_correlation(one.responses, one[np.arange(N)[::-1]].responses)

    def test_equal_labels_from_other_recordings_are_fine(self):
        view = TRIALS[ORDER][7:]
        copy = Trials(view.recordings)
        order = np.concatenate([copy.rows(m)[0] for m in NEURONS])
        mouse_major = view[np.concatenate([view.rows(m)[0] for m in NEURONS])]
        got = single_trial_correlation(mouse_major.responses, copy[order].responses)
        assert got == pytest.approx(1)

    def test_image_ids_are_missing(self):
        with pytest.raises(ValueError, match="image_ids is missing"):
            average_correlation(TRUE, PRED)

    def test_numbers_of_trials(self):
        with pytest.raises(ValueError, match="y_true has 20 trials, y_pred has 19"):
            single_trial_correlation(TRUE["A"], PRED["A"][1:])
        with pytest.raises(ValueError, match=r"image_ids has shape \(3,\)"):
            average_correlation(TRUE["A"], PRED["A"], image_ids=[1, 2, 3])
        with pytest.raises(ValueError, match=r"mouse_ids has shape \(3,\)"):
            single_trial_correlation(TRUE["A"], PRED["A"], mouse_ids=[1, 2, 3])
        with pytest.raises(ValueError, match="no trials"):
            single_trial_correlation(np.empty((0, 3)), np.empty((0, 3)))

    def test_numbers_of_neurons(self):
        with pytest.raises(ValueError, match=r"mouse 'A': y_pred has shape \(20, 4\)"):
            single_trial_correlation({"A": TRUE["A"]}, {"A": PRED["A"][:, :4]})
        wrong = objects(interleaved(PRED))
        wrong[3] = wrong[3][:4]
        with pytest.raises(ValueError, match="mouse 'A': trials of y_pred have 4 to 5 neurons"):
            single_trial_correlation(FORMS["object"][0], wrong, mouse_ids=MICE)

    def test_dicts_of_other_mice(self):
        with pytest.raises(ValueError, match="y_pred holds trials of other mice, or in another"):
            single_trial_correlation(TRUE, {"A": PRED["A"], "C": PRED["B"]})
        with pytest.raises(ValueError, match="mouse 'A': image_ids has no entry"):
            average_correlation(TRUE, PRED, image_ids={"B": IDS["B"]})
        with pytest.raises(ValueError, match=r"mouse 'A': image_ids has shape \(4,\)"):
            average_correlation(TRUE, PRED, image_ids={"B": IDS["B"], "A": [1, 2, 3, 4]})

    def test_keys_of_the_same_text(self):
        twice = {1: TRUE["A"], "1": TRUE["A"]}
        with pytest.raises(ValueError, match="y_true: two are called '1'"):
            single_trial_correlation(twice, twice)
        with pytest.raises(ValueError, match="image_ids: two are called '1'"):
            fev({1: TRUE["A"]}, image_ids={1: IDS["A"], "1": IDS["A"]})

    def test_lists_of_recordings(self):
        true, pred = list(TRUE.values()), list(PRED.values())
        with pytest.raises(ValueError, match="y_pred is a list of 1 recordings"):
            single_trial_correlation(true, pred[:1])
        with pytest.raises(ValueError, match="y_true is not a list"):
            single_trial_correlation(FORMS["responses"][0], pred)
        with pytest.raises(ValueError, match="one different id per recording"):
            single_trial_correlation(true, pred, mouse_ids=["A", "A"])

    def test_other_mouse_ids_than_those_of_the_responses(self):
        with pytest.raises(ValueError, match="y_true holds trials of other mice, or in another"):
            single_trial_correlation(*FORMS["responses"], mouse_ids=np.roll(MICE, 1))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (np.zeros(20), r"shape \(20,\).*reshape to \(-1, 1\)"),
            (np.zeros((20, 1, 5)), r"shape \(20, 1, 5\)"),
            (objects([np.zeros((2, 2))] * 20), r"y_pred\[0\] has shape \(2, 2\)"),
            ({"mouse": np.zeros(20)}, r"mouse 'mouse': y_pred has shape \(20,\)"),
        ],
    )
    def test_shapes(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            single_trial_correlation(TRUE["A"], wrong)

    def test_types(self):
        with pytest.raises(TypeError, match="mouse 'mouse': y_pred has dtype"):
            single_trial_correlation(TRUE["A"], PRED["A"].astype(str))
        with pytest.raises(TypeError, match="y_pred is a Trials"):
            single_trial_correlation(TRIALS.responses, TRIALS)

    def test_nan_as_image_id(self):
        ids = IDS["A"].astype(float)
        ids[3] = np.nan
        for of_mouse in (ids, {"mouse": ids}):
            with pytest.raises(ValueError, match=r"image_ids: 1 of 20 ids are missing.*trial 3"):
                average_correlation({"mouse": TRUE["A"]}, PRED["A"], image_ids=of_mouse)
