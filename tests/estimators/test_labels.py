"""Masks and labels of the arrays that models are fitted to: used, or refused, never ignored."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.model_selection import GroupKFold, KFold, permutation_test_score

import v1tlearn as v1
from v1tlearn import metrics
from v1tlearn.metrics import scorers
from v1tlearn.trials import Responses, Trials

DIMS = {
    "stimuli": ("trial", "channel", "height", "width"),
    "behaviors": ("trial", "behavior"),
    "responses": ("trial", "neuron"),
}
NAMES = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]


@pytest.fixture(scope="module")
def one(arrays):
    """Arrays of mouse A."""
    return {name: arrays[name]["A"] for name in DIMS}


@pytest.fixture(scope="module")
def labelled(one):
    units = {"neuron": [f"u{k}" for k in range(one["responses"].shape[1])]}
    coords = {"behaviors": {"behavior": NAMES}, "responses": units}
    return {
        name: xr.DataArray(array, dims=DIMS[name], coords=coords.get(name, {}))
        for name, array in one.items()
    }


@pytest.fixture(scope="module")
def plain(one, small):
    return small().fit(**one)


@pytest.fixture(scope="module")
def fitted(labelled, small):
    return small().fit(**labelled)


def test_dimensions_go_by_their_names(one, labelled, plain, fitted, small, equal):
    turned = {name: array.transpose(*array.dims[::-1]) for name, array in labelled.items()}
    model = small().fit(**turned)
    expected = plain.predict(one["stimuli"], one["behaviors"])
    assert equal(model.predict(turned["stimuli"], turned["behaviors"]), expected)
    assert equal(fitted.predict(one["stimuli"], one["behaviors"]), expected)
    assert model.score(**turned) == plain.score(**one)
    flat = turned | {"mouse_ids": ["A"] * len(one["stimuli"])}
    assert equal(small().fit(**flat).predict(one["stimuli"], one["behaviors"]), expected)


def test_columns_of_behavior_in_another_order_are_refused(labelled, fitted):
    moved = labelled["behaviors"][:, [4, 0, 1, 2, 3]]
    for behaviors in (moved, moved.to_pandas()):
        with pytest.raises(ValueError, match=r"columns of behaviors are \['pupil_y'"):
            fitted.predict(labelled["stimuli"], behaviors)


def test_neurons_in_another_order_are_refused_by_score(labelled, fitted):
    stimuli, behaviors, responses = labelled.values()
    for moved in (responses[:, [1, 0, 2, 3, 4]], responses[:, [1, 0, 2, 3, 4]].to_pandas()):
        with pytest.raises(ValueError, match="same unit ids in another order"):
            fitted.score(stimuli, behaviors, moved)
    with pytest.raises(ValueError, match="other unit ids"):
        fitted.score(stimuli, behaviors, responses.assign_coords(neuron=list("abcde")))


def test_masked_responses_are_left_out(one, small, equal):
    gaps = np.random.default_rng(0).random(one["responses"].shape) < 0.2
    masked = np.ma.masked_array(np.where(gaps, 1e9, one["responses"]), gaps)
    nan = np.where(gaps, np.nan, one["responses"]).astype(np.float32)
    expected = small().fit(**{**one, "responses": nan})
    model = small().fit(**{**one, "responses": masked.astype(np.float32)})
    inputs = one["stimuli"], one["behaviors"]
    assert equal(model.predict(*inputs), expected.predict(*inputs))
    assert model.score(*inputs, masked) == pytest.approx(expected.score(*inputs, nan))


@pytest.mark.parametrize("method", ["fit", "partial_fit", "predict", "score"])
@pytest.mark.parametrize("name", ["stimuli", "behaviors"])
def test_masked_inputs_are_refused(one, plain, small, method, name):
    mask = np.zeros(one[name].shape, dtype=bool)
    mask[3] = True
    arrays = {**one, name: np.ma.masked_array(one[name], mask)}
    if method == "predict":
        del arrays["responses"]
    model = small() if "fit" in method else plain
    with pytest.raises(ValueError, match=f"{name}: .* are masked or missing.*trial 3"):
        getattr(model, method)(**arrays)


def test_masked_weights_are_refused(one, plain):
    weights = np.ma.masked_array(np.ones(len(one["stimuli"])), np.arange(len(one["stimuli"])) == 2)
    with pytest.raises(ValueError, match=r"sample_weight: 1 of .*trial 2"):
        plain.score(**one, sample_weight=weights)


@pytest.mark.parametrize(
    "flip",
    [lambda a: a[:, :, ::-1], lambda a: a[..., ::-1], lambda a: a[::-1]],
    ids=["rows", "columns", "trials"],
)
def test_flipped_arrays(one, small, equal, flip):
    flipped = {**one, "stimuli": flip(one["stimuli"])}
    copied = {**one, "stimuli": flip(one["stimuli"]).copy()}
    inputs = copied["stimuli"], one["behaviors"]
    expected = small(max_epochs=1).fit(**copied).predict(*inputs)
    assert equal(
        small(max_epochs=1).fit(**flipped).predict(flipped["stimuli"], inputs[1]), expected
    )


@pytest.mark.parametrize("stream", [False, True])
def test_flipped_views_of_recordings(recordings, small, equal, stream):
    tier = recordings["A"].to_dataset()["tier"] == "train"
    recording = recordings["A"].to_dataset().isel(trial=np.flatnonzero(tier))
    flipped = recording.isel(height=slice(None, None, -1), neuron=slice(None, None, -1))
    copied = flipped.copy(deep=True)
    for name in ("stimuli", "position"):
        copied[name] = copied[name].copy(data=np.ascontiguousarray(flipped[name].values))
    one, other = (
        small(max_epochs=1, low_memory=stream).fit(Trials(r)).predict(Trials(r))
        for r in (flipped, copied)
    )
    assert equal(one.get("mouse"), other.get("mouse"))


# ------------------------------------------------------------------------------------------- y


@pytest.fixture(scope="module")
def trials_of_a(trials):
    return trials.sel(mouse_id="A")


def forms_of_y(responses):
    matrix, labelled = responses.get("A"), responses["A"]
    gaps = np.zeros(matrix.shape, dtype=bool)
    return {
        "Responses": responses,
        "vectors": list(matrix),
        "objects": np.asarray(responses),
        "series": pd.Series(list(matrix), np.arange(len(matrix))[::-1]),
        "matrix": matrix,
        "masked": np.ma.masked_array(matrix, gaps),
        "array": labelled,
        "turned": labelled.T,
        "moved": labelled[:, [3, 1, 0, 2, 4]],
        "frame": pd.DataFrame(matrix, columns=labelled["neuron"].values).iloc[:, ::-1],
    }


def test_all_forms_of_y_are_one(trials_of_a, small, equal):
    expected = small(max_epochs=1).fit(trials_of_a)
    predictions = expected.predict(trials_of_a)
    for name, y in forms_of_y(trials_of_a.responses).items():
        if name in ("Responses", "array", "frame", "masked"):
            model = small(max_epochs=1).fit(trials_of_a, y)
            assert equal(model.predict(trials_of_a).get("A"), predictions.get("A")), name
        assert expected.score(trials_of_a, y) == pytest.approx(expected.score(trials_of_a)), name


def test_masked_y_is_not_recorded(trials_of_a, small):
    model = small(max_epochs=1).fit(trials_of_a)
    matrix = trials_of_a.responses.get("A")
    gaps = np.random.default_rng(0).random(matrix.shape) < 0.3
    masked = np.ma.masked_array(np.where(gaps, -1e9, matrix), gaps)
    nan = np.where(gaps, np.nan, matrix)
    expected = metrics.single_trial_correlation(nan, model.predict(trials_of_a).get("A"))
    for y in (masked, list(masked)):
        assert model.score(trials_of_a, y) == pytest.approx(expected)
    values = Responses.from_arrays({"A": masked}, like=trials_of_a).get("A")
    np.testing.assert_array_equal(values, nan)
    rows = trials_of_a.rows("A")[1]
    sources = {"A": np.ma.masked_all((rows.max() + 1, matrix.shape[1]))}
    assert np.isnan(Responses(trials_of_a, sources, rows).get("A")).all()


def test_labelled_y_that_is_permuted_stays_so(trials_of_a, small):
    model = small(max_epochs=1).fit(trials_of_a)
    order = np.random.default_rng(0).permutation(len(trials_of_a))
    expected = model.score(trials_of_a, trials_of_a.responses[order])
    y = trials_of_a.responses["A"][order]
    assert model.score(trials_of_a, y) == pytest.approx(expected)
    assert model.score(trials_of_a, y.to_pandas()) == pytest.approx(expected)


def test_y_of_other_neurons_is_refused(trials_of_a, small):
    model = small(max_epochs=1).fit(trials_of_a)
    other = trials_of_a.responses["A"].assign_coords(neuron=np.arange(5) + 70)
    with pytest.raises(ValueError, match="other neurons"):
        model.score(trials_of_a, other)
    moved = trials_of_a.sel(neuron=trials_of_a.neuron_ids("A")[::-1]).responses
    for scored in (model.score, lambda X, y: scorers["feve"](model, X, y)):
        with pytest.raises(ValueError, match="unit ids differ"):
            scored(trials_of_a, moved)


def test_values_like_trials_go_by_their_labels(trials_of_a):
    responses = trials_of_a.responses["A"]
    rng = np.random.default_rng(0)
    trial, neuron = (rng.permutation(n) for n in responses.shape)
    moved = responses.isel(trial=trial, neuron=neuron).T
    got = Responses.from_arrays({"A": moved}, like=trials_of_a)
    np.testing.assert_array_equal(got.get("A"), responses.values)
    other = responses.assign_coords(trial_id=("trial", responses["trial_id"].values + 1))
    with pytest.raises(ValueError, match="values are of other trials"):
        Responses.from_arrays({"A": other}, like=trials_of_a)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*show images that the model was trained on")
@pytest.mark.filterwarnings("ignore:no image is repeated")
@pytest.mark.parametrize("name", ["single_trial_correlation", "average_correlation"])
def test_permutation_tests(trials, small, name):
    score, permuted, p = permutation_test_score(
        small(max_epochs=1),
        trials,
        trials.responses,
        scoring=scorers[name],
        groups=trials.mouse_ids,
        cv=list(KFold(2, shuffle=True, random_state=0).split(trials)),
        n_permutations=2,
        random_state=0,
    )
    assert np.isfinite([score, *permuted]).all()
    assert 0 < p <= 1


@pytest.mark.filterwarnings("ignore:.*show images that the model was trained on")
@pytest.mark.filterwarnings("ignore:no image is repeated")
def test_a_permuted_target_is_scored_as_it_is_fitted(trials_of_a, small):
    order = np.random.default_rng(0).permutation(len(trials_of_a))
    y = trials_of_a.responses[order]
    model = small(max_epochs=1).fit(trials_of_a, y)
    predictions = model.predict(trials_of_a).get("A")
    for name, images in (("single_trial_correlation", {}), ("average_correlation", 1)):
        images = {"image_ids": trials_of_a.image_ids} if images else {}
        expected = getattr(metrics, name)(y.get("A"), predictions, **images)
        assert scorers[name](model, trials_of_a, y) == pytest.approx(expected)


def test_a_target_permuted_across_mice_is_refused(trials, small):
    order = np.random.default_rng(0).permutation(len(trials))
    model = small(max_epochs=1).fit(trials)
    with pytest.raises(ValueError, match="permuted or split differently"):
        scorers["single_trial_correlation"](model, trials, trials.responses[order])
    with pytest.raises(ValueError, match="permuted or split differently"):
        permutation_test_score(
            small(max_epochs=1),
            trials,
            trials.responses,
            groups=None,
            cv=GroupKFold(2).split(trials, groups=trials.image_ids),
            n_permutations=1,
            random_state=0,
        )


# ---------------------------------------------------------------------------------- of channels


@pytest.fixture
def coloured(recordings):
    """Recordings of images in two channels, with names."""

    def make(names=("green", "uv")):
        out = {}
        for mouse, child in recordings.children.items():
            one = child.to_dataset()
            both = xr.concat([one["stimuli"], 255 - one["stimuli"]], "channel")
            both = both.transpose(*one["stimuli"].dims).assign_coords(channel=list(names))
            out[mouse] = one.drop_dims("channel").assign(stimuli=both)
        return out

    return make


def test_channels_in_another_order_are_refused(coloured, small, tmp_path):
    made = coloured()
    train = Trials(made).sel(tier="train")
    est = small(max_epochs=1).fit(train)
    turned = Trials({m: one.isel(channel=[1, 0]) for m, one in made.items()})
    est.save(tmp_path / "model")
    for model in (est, v1.load(tmp_path / "model")):
        with pytest.raises(ValueError, match=r"channels of the stimuli are \['uv', 'green'\]"):
            model.predict(turned)
    mixed = Trials({"A": made["A"], "B": made["B"].isel(channel=[1, 0])}).sel(tier="train")
    with pytest.raises(ValueError, match="the channels of the stimuli differ between mice"):
        small(max_epochs=1).fit(mixed)


def test_channels_without_names_go_by_place(coloured, small):
    made = coloured()
    est = small(max_epochs=1).fit(Trials(made).sel(tier="train"))
    bare = Trials({m: one.drop_vars("channel") for m, one in made.items()})
    expected = est.predict(Trials(made))["A"].values
    np.testing.assert_array_equal(est.predict(bare)["A"].values, expected)
    assert bare.channel_names("A") is None
    gray = v1.Grayscale().fit_transform(Trials(made))
    assert gray.channel_names("A") is None
