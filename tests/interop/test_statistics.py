"""Statistics of a loaded model: from a dict, from recordings, or none."""

import numpy as np
import pytest
import torch
import xarray as xr

import v1tlearn as v1
from v1tlearn.interop import load_sensorium, load_v1t

FIVE = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Mice A and B as files of the Sensorium layout give them, statistics included."""
    recordings = v1.make_v1_recordings(
        n_mice=2,
        n_neurons=[5, 4],
        n_trials=24,
        n_test_images=2,
        n_repeats=2,
        image_shape=(20, 28),
        random_state=0,
    )
    folder = tmp_path_factory.mktemp("sensorium")
    kinds = {"stimuli": ("image",), "behaviors": ("behavior", "pupil"), "responses": ("response",)}
    complete = {}
    for mouse, pairs in by_hand(recordings).items():
        complete[mouse] = recordings[mouse].to_dataset()
        for variable, parts in kinds.items():
            for i, statistic in enumerate(("mean", "std")):
                values = np.concatenate([np.ravel(pairs[part][i]) for part in parts])
                dims = {"stimuli": (), "behaviors": ("behavior",), "responses": ("neuron",)}[
                    variable
                ]
                value = values if dims else values[0]
                complete[mouse][f"{variable}_{statistic}"] = (dims, np.float32(value))
    v1.write_sensorium(xr.DataTree.from_dict(complete), folder)
    return v1.read_sensorium(folder).load()


@pytest.fixture(scope="module")
def run(published, tree, tmp_path_factory):
    """A run whose neurons are those of the recordings."""
    args = published.arguments()
    arrays = published.arrays(args)
    for mouse in "AB":
        grid = tree[mouse]["position"].values[:, :2].astype(np.float64)
        grid -= grid.mean(0)
        arrays[f"readouts.{mouse}.source_grid"] = torch.from_numpy(
            grid / np.abs(grid).max()
        ).float()
    folder = published.write(tmp_path_factory.mktemp("runs") / "run", args, arrays)
    return folder, args, arrays


def datasets(tree):
    return {name: node.to_dataset() for name, node in tree.children.items()}


def without_statistics(tree):
    kept = {}
    for name, ds in datasets(tree).items():
        stored = [
            f"{v}_{s}" for v in ("stimuli", "behaviors", "responses") for s in ("mean", "std")
        ]
        kept[name] = ds.drop_vars(stored)
    return kept


def by_hand(tree):
    """Statistics of the training tier."""
    out = {}
    for mouse, ds in datasets(tree).items():
        train = ds.isel(trial=np.flatnonzero(ds["tier"].values == "train"))
        moments = {
            name: (train[name].values.astype(np.float64).mean(0), train[name].values.std(0))
            for name in ("behaviors", "responses")
        }
        images = train["stimuli"].values.astype(np.float64)
        out[mouse] = {
            "image": (images.mean(), images.std()),
            "behavior": tuple(value[:3] for value in moments["behaviors"]),
            "pupil": tuple(value[3:] for value in moments["behaviors"]),
            "response": moments["responses"],
        }
    return out


def expected(published, tree, run, statistics):
    """Predictions in data units, from the standardised ones and statistics by hand."""
    _, args, arrays = run
    out = {}
    for mouse, known in statistics.items():
        images = (tree[mouse]["stimuli"].values - known["image"][0]) / known["image"][1]
        behaviors = tree[mouse]["behaviors"].values.copy()
        behaviors[:, :3] /= known["behavior"][1]
        behaviors[:, 3:] = (behaviors[:, 3:] - known["pupil"][0]) / known["pupil"][1]
        std = known["response"][1]
        scale = np.where(std > 0.01 * std.mean(), std, 0.01 * std.mean())
        out[mouse] = published.prediction(args, arrays, mouse, images, behaviors) * scale
    return out


def assert_predicts(est, tree, reference, tolerance=1e-4):
    predictions = est.predict(v1.Trials(tree))
    for mouse, values in reference.items():
        found = np.asarray(predictions[mouse])
        assert np.abs(found - values).max() <= tolerance * np.abs(values).max()


FORMS = {
    "DataTree": lambda tree: tree,
    "dict of Datasets": datasets,
    "dict of nodes": lambda tree: {mouse: tree[mouse] for mouse in "BA"},
    "node and Dataset": lambda tree: {"A": tree["A"], "B": tree["B"].to_dataset()},
    "Trials": v1.Trials,
    "Trials of all tiers but test": lambda tree: v1.Trials(tree).sel(tier=["train", "validation"]),
    "no statistics in the recordings": without_statistics,
    "dict": by_hand,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_data_units(form, published, tree, run):
    est = load_v1t(run[0], form(tree))
    assert est.standardize
    assert_predicts(est, tree, expected(published, tree, run, by_hand(tree)))


def test_stored_statistics_come_before_computed_ones(published, tree, run):
    changed = {m: ds.copy() for m, ds in datasets(tree).items()}
    changed["A"]["stimuli_mean"] = changed["A"]["stimuli_mean"] + 3
    changed["A"]["responses_std"] = changed["A"]["responses_std"] * 2
    statistics = by_hand(tree)
    mean, std = statistics["A"]["image"]
    statistics["A"]["image"] = (mean + 3, std)
    statistics["A"]["response"] = (0, statistics["A"]["response"][1] * 2)
    est = load_v1t(run[0], changed)
    assert_predicts(est, tree, expected(published, tree, run, statistics))


def test_recordings_bring_positions_names_and_more_mice(tree, run):
    both = datasets(tree)
    est = load_v1t(run[0], {**both, "C": both["A"]})
    assert est.mice_ == ["A", "B"]
    for mouse in "AB":
        np.testing.assert_array_equal(est.positions_[mouse], tree[mouse]["position"].values)
        assert est.behavior_names_[mouse] == FIVE
        labels = est.neurons_[mouse]
        for name in ("neuron", "area", "layer", "animal_id", "session", "scan"):
            assert labels[name].tolist() == tree[mouse][name].values.tolist()


def test_without_recordings_neurons_have_no_ids(run):
    est = load_v1t(run[0])
    assert est.neurons_ == {"A": {}, "B": {}}


def published_run(published, tree, names, tmp_path, **changed):
    """A run whose mice, called `names`, have the neurons of A and B."""
    shapes = dict(zip(names, ([5], [4]), strict=True))
    args = published.arguments(mouse_ids=names, output_shapes=shapes, **changed)
    arrays = published.arrays(args)
    for mouse, name in zip("AB", names, strict=True):
        grid = tree[mouse]["position"].values[:, :2].astype(np.float64)
        grid -= grid.mean(0)
        arrays[f"readouts.{name}.source_grid"] = torch.from_numpy(grid / np.abs(grid).max()).float()
    return published.write(tmp_path / "run", args, arrays)


S_KEYS, F_KEYS = ("21067-10-18", "22846-10-16"), ("25311-10-26", "25340-3-19")
PUBLISHED = {
    "letters, by key": (["A", "B"], S_KEYS, {}),
    "numbers, by key": ([2, 3], S_KEYS, {}),
    "numbers as text, by letter": (["2", "3"], "AB", {}),
    "keys, by letter": (list(S_KEYS), "AB", {}),
    "keys, by number": (list(S_KEYS), "23", {}),
    "competition": (["S0", "S1"], ("26872-17-20", "27204-5-13"), {}),
    "Franke, by key": ([f"static{key}" for key in F_KEYS], F_KEYS, {"ds_name": "franke2022"}),
    "Franke, by letter": ([f"static{key}" for key in F_KEYS], "FG", {"ds_name": "franke2022"}),
    "letters of Franke": (["F", "G"], F_KEYS, {"ds_name": "franke2022"}),
    "one of each": (["A", "B"], ("A", S_KEYS[1]), {}),
}


@pytest.mark.parametrize(("names", "called", "changed"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_mice_are_found_by_their_other_names(
    names, called, changed, published, tree, tmp_path
):
    folder = published_run(published, tree, names, tmp_path, **changed)
    known = dict(zip("AB", called, strict=True))
    recordings = {known[mouse]: ds for mouse, ds in datasets(tree).items()}
    by_name = {known[mouse]: pairs for mouse, pairs in by_hand(tree).items()}
    backwards = dict(reversed(recordings.items()))
    for given in (recordings, backwards, v1.Trials(recordings), by_name):
        est = load_v1t(folder, given)
        assert est.mice_ == [str(name) for name in names]
        for mouse, name in zip("AB", est.mice_, strict=True):
            found = est.statistics_[name]["response_scale"]
            np.testing.assert_allclose(found, by_hand(tree)[mouse]["response"][1], rtol=1e-5)
    swapped = dict(zip(called, reversed(list(recordings.values())), strict=True))
    with pytest.raises(ValueError, match=r"has \d neurons, the model"):
        load_v1t(folder, swapped)


UNKNOWN = {
    "another mouse": (["A", "B"], (S_KEYS[0], "1-2-3"), {}),
    "numbers of another data set": ([2, 3], S_KEYS, {"ds_name": "franke2022"}),
    "a number that none has": ([2, 7], S_KEYS, {}),
}


@pytest.mark.parametrize(("names", "called", "changed"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_other_mice_stay_unknown(names, called, changed, published, tree, tmp_path):
    folder = published_run(published, tree, names, tmp_path, **changed)
    recordings = dict(zip(called, datasets(tree).values(), strict=True))
    with pytest.raises(ValueError, match="are missing"):
        load_v1t(folder, recordings)


def test_two_recordings_of_one_mouse_are_not_chosen_from(published, tree, tmp_path):
    folder = published_run(published, tree, [2, 3], tmp_path)
    both = datasets(tree)
    with pytest.raises(ValueError, match=r"\['2'\] are missing"):
        load_v1t(folder, {**both, S_KEYS[0]: both["A"]})


@pytest.mark.filterwarnings("error")
def test_statistics_may_be_tensors(tree, run):
    plain = by_hand(tree)
    tensors = {
        mouse: {
            kind: tuple(torch.tensor(np.asarray(v), requires_grad=True) for v in pair)
            for kind, pair in pairs.items()
        }
        for mouse, pairs in plain.items()
    }
    stacked = {
        mouse: {kind: torch.stack(pair) for kind, pair in pairs.items()}
        for mouse, pairs in tensors.items()
    }
    expected = load_v1t(run[0], plain).statistics_
    for given in (tensors, stacked):
        found = load_v1t(run[0], given).statistics_
        for mouse in "AB":
            for name, value in expected[mouse].items():
                np.testing.assert_array_equal(found[mouse][name], value)


def test_half_precision_statistics(tree, run):
    half = {m: {"image": torch.tensor([110, 60]).bfloat16()} for m in "AB"}
    found = load_v1t(run[0], half).statistics_["A"]
    assert (found["image_mean"], found["image_std"]) == (110, 60)


def test_statistics_of_more_mice_are_left_out(published, tree, run):
    statistics = by_hand(tree)
    est = load_v1t(run[0], {**statistics, "C": {"image": (0, 1)}})
    assert est.mice_ == ["A", "B"]
    assert_predicts(est, tree, expected(published, tree, run, statistics))


def test_integer_keys_of_statistics(published, tmp_path):
    args = published.arguments(mouse_ids=[2, 3], output_shapes={2: [5], 3: [4]})
    arrays = published.arrays(args)
    folder = published.write(tmp_path / "run", args, arrays)
    statistics = {2: {"response": (np.zeros(5), np.full(5, 3.0))}, 3: {}}
    est = load_v1t(folder, statistics)
    images, behaviors = published.inputs(args)
    for mouse, scale in (("2", 3), ("3", 1)):
        reference = scale * published.prediction(args, arrays, mouse, images, behaviors)
        found = est.predict({mouse: images}, {mouse: behaviors})[mouse]
        assert np.abs(found - reference).max() <= 1e-4 * np.abs(reference).max()
    assert not est.standardize  # inputs are taken as they come


@pytest.mark.parametrize("given", ["image", "behavior", "pupil"])
def test_statistics_of_single_inputs(given, published, tree, run):
    _, args, arrays = run
    statistics = {m: {given: pairs[given]} for m, pairs in by_hand(tree).items()}
    est = load_v1t(run[0], statistics)
    assert est.standardize
    images, behaviors = published.inputs(args)
    mean, std = statistics["A"][given]
    raw_images, raw = images, behaviors.copy()
    if given == "image":
        raw_images = images * std + mean
    elif given == "behavior":
        raw[:, :3] *= std
    else:
        raw[:, 3:] = raw[:, 3:] * std + mean
    found = est.predict({"A": raw_images}, {"A": raw})["A"]
    reference = published.prediction(args, arrays, "A", images, behaviors)
    assert np.abs(found - reference).max() <= 1e-3 * np.abs(reference).max()


def test_columns_in_another_order_find_their_place(published, tree, run):
    order = ["pupil_y", "running_speed", "pupil_x", "pupil_dilation", "pupil_dilation_derivative"]
    shuffled = {m: ds.sel(behavior=order) for m, ds in datasets(tree).items()}
    est = load_v1t(run[0], shuffled)
    assert est.core_columns_ == FIVE
    assert est.behavior_columns == FIVE
    assert_predicts(est, shuffled, expected(published, tree, run, by_hand(tree)))


def test_grey_models_of_colour_recordings(published, tree, tmp_path):
    """A run with gray_scale takes recordings that went through Grayscale."""
    colour = {
        mouse: ds.drop_vars("stimuli").assign(
            stimuli=xr.concat([ds["stimuli"] * 0.5, ds["stimuli"] * 0.25], "channel")
        )
        for mouse, ds in datasets(tree).items()
    }
    args = published.arguments(gray_scale=True, ds_name="franke2022")
    arrays = published.arrays(args)
    for mouse in "AB":
        grid = tree[mouse]["position"].values[:, :2].astype(np.float64)
        grid -= grid.mean(0)
        arrays[f"readouts.{mouse}.source_grid"] = torch.from_numpy(
            grid / np.abs(grid).max()
        ).float()
    folder = published.write(tmp_path / "run", args, arrays)
    with pytest.raises(ValueError, match=r"shape \(2, 20, 28\).*Grayscale"):
        load_v1t(folder, colour)
    grey = v1.Grayscale().fit_transform(v1.Trials(colour))
    est = load_v1t(folder, grey)
    assert est.image_shape_ == (1, 20, 28)
    train = grey.sel(tier="train")
    images = train.get("stimuli", "A").astype(np.float64)
    assert est.statistics_["A"]["image_mean"] == pytest.approx(images.mean())
    assert np.isfinite(np.asarray(est.predict(grey)["A"])).all()


@pytest.mark.parametrize("called", ["AB", S_KEYS])
def test_sensorium_models_take_shape_and_columns_from_recordings(called, tree):
    tree = {name: tree[mouse].to_dataset() for mouse, name in zip("AB", called, strict=True)}
    rng = np.random.default_rng(0)
    state = {"core.features.layer0.conv.weight": rng.standard_normal((4, 4, 5, 5)) * 0.1}
    for name in ("weight", "bias", "running_mean", "running_var"):
        state[f"core.features.layer0.norm.{name}"] = np.ones(4)
    for mouse, n in zip(S_KEYS, (5, 4), strict=True):
        state[f"readout.{mouse}.sigma"] = np.zeros((1, n, 1, 1))
        state[f"readout.{mouse}._features"] = rng.standard_normal((1, 4, 1, n))
        state[f"readout.{mouse}.bias"] = np.zeros(n)
        state[f"readout.{mouse}._mu"] = np.zeros((1, n, 1, 2))
    est = load_sensorium(state, tree)
    assert est.image_shape_ == (1, 20, 28)
    assert est.core_columns_ == FIVE[:3]
    assert est.positions_[S_KEYS[0]] is None  # free positions stay free
    named = dict(zip(S_KEYS, tree.values(), strict=True))
    assert np.isfinite(est.score(v1.Trials(named).sel(tier="test")))
    with pytest.raises(ValueError, match="shape"):
        load_sensorium(state, tree, image_shape=(1, 36, 64))


# ------------------------------------------------------------------------------------ errors


def swapped(tree):
    out = datasets(tree)
    return {**out, "A": out["A"].isel(neuron=[1, 0, 2, 3, 4])}


ERRORS = {
    "missing mouse": (lambda t: {"A": by_hand(t)["A"]}, r"\['B'\] are missing"),
    "missing recording": (lambda t: {"A": datasets(t)["A"]}, r"\['B'\] are missing.*names="),
    "other mice": (lambda t: {"A": by_hand(t)["A"], "G": {}}, r"\['B'\] are missing"),
    "unknown kind": (lambda t: {**by_hand(t), "A": {"images": (0, 1)}}, "mouse 'A'.*images"),
    "no dict": (lambda t: {**by_hand(t), "A": 5}, "mouse 'A': statistics are int"),
    "no pair": (lambda t: {**by_hand(t), "A": {"image": 5}}, r"'image' must be \(mean, std\)"),
    "number of NumPy": (lambda t: {**by_hand(t), "A": {"image": np.array(5)}}, "must be"),
    "tensor": (lambda t: {**by_hand(t), "A": {"image": torch.tensor(5.0)}}, "must be"),
    "text": (lambda t: {**by_hand(t), "A": {"image": "ab"}}, "must be"),
    "masked": (
        lambda t: {**by_hand(t), "A": {"image": np.ma.masked_equal([[5.0], [2.0]], 2)}},
        "mouse 'A'.*masked or missing",
    ),
    "texts": (lambda t: {**by_hand(t), "A": {"image": ("a", "b")}}, "mouse 'A'.*are no numbers"),
    "triple": (lambda t: {**by_hand(t), "A": {"image": (1, 2, 3)}}, "must be"),
    "colour means": (
        lambda t: {**by_hand(t), "A": {"image": ([1, 2], [1, 2])}},
        "expected 1 of each",
    ),
    "other neurons": (
        lambda t: {**by_hand(t), "A": {"response": (np.zeros(4), np.ones(4))}},
        "mouse 'A'.*expected 5 of each",
    ),
    "other columns": (
        lambda t: {**by_hand(t), "A": {"behavior": (np.zeros(5), np.ones(5))}},
        "mouse 'A'.*'behavior' have 5 values",
    ),
    "NaN": (lambda t: {**by_hand(t), "A": {"image": (np.nan, 1)}}, "mouse 'A'.*NaN"),
    "negative": (lambda t: {**by_hand(t), "A": {"image": (0, -1)}}, "negative"),
    "silent": (
        lambda t: {**by_hand(t), "A": {"response": (np.zeros(5), np.zeros(5))}},
        "mouse 'A': the standard deviations of all responses are 0",
    ),
    "fewer neurons": (
        lambda t: {**datasets(t), "A": datasets(t)["A"].isel(neuron=slice(0, 3))},
        "mouse 'A': the recording has 3 neurons, the model 5",
    ),
    "neurons in another order": (swapped, "mouse 'A': the neurons of the recording lie elsewhere"),
    "fewer columns": (
        lambda t: {**datasets(t), "A": datasets(t)["A"].isel(behavior=slice(0, 3))},
        "mouse 'A': the model uses the behaviour columns.*pupil_x",
    ),
    "other size": (
        lambda t: {
            **datasets(t),
            "A": datasets(t)["A"].isel(height=slice(0, 16)),
        },
        "mouse 'A': stimuli of the recording have the shape",
    ),
    "no training tier": (
        lambda t: v1.Trials(without_statistics(t)).sel(tier="test"),
        "no trial of the tier 'train'",
    ),
}


@pytest.mark.parametrize(("given", "match"), ERRORS.values(), ids=ERRORS.keys())
def test_statistics_that_do_not_fit(given, match, tree, run):
    with pytest.raises(ValueError, match=match):
        load_v1t(run[0], given(tree))


def test_statistics_of_another_type(run):
    with pytest.raises(TypeError, match="statistics is a list"):
        load_v1t(run[0], [1, 2])


def test_all_behaviour_moves_the_crop_in_published_order(published, tree, tmp_path):
    args = published.arguments(shift_mode=4, center_crop=0.75)
    arrays = published.arrays(args)
    for mouse in "AB":
        grid = tree[mouse]["position"].values[:, :2].astype(np.float64)
        grid -= grid.mean(0)
        arrays[f"readouts.{mouse}.source_grid"] = torch.from_numpy(
            grid / np.abs(grid).max()
        ).float()
    folder = published.write(tmp_path / "run", args, arrays)
    load_v1t(folder, tree)
    shuffled = {m: ds.isel(behavior=[1, 0, 2, 3, 4]) for m, ds in datasets(tree).items()}
    with pytest.raises(ValueError, match="in the order"):
        load_v1t(folder, shuffled)
