"""Unit ids of the neurons: what fitted models know of them, and how they are held to them."""

import json
import pickle

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1

LABELS = ("neuron", "area", "layer", "animal_id", "session", "scan")


@pytest.fixture(scope="module")
def model(small, trials):
    return small().fit(trials)


@pytest.fixture(scope="module")
def arrays_model(small, trials):
    """Fitted to arrays, which bring no ids."""
    stimuli, behaviors, responses = (
        {m: np.asarray(trials.get(name, m)) for m in trials.mice}
        for name in ("stimuli", "behaviors", "responses")
    )
    return small().fit(stimuli, behaviors, responses)


def renamed(recordings, mouse="B", **change):
    """The recordings with other labels of the neurons of one mouse, as training trials."""
    parts = {m: node.to_dataset() for m, node in recordings.children.items()}
    parts[mouse] = parts[mouse].assign_coords(change)
    return v1.Trials(parts).sel(tier="train")


def same(found, expected):
    assert set(found) == set(expected)
    for mouse, labels in expected.items():
        assert set(found[mouse]) == set(labels)
        for name, values in labels.items():
            assert found[mouse][name].tolist() == values.tolist()
            assert found[mouse][name].dtype.kind == values.dtype.kind


def test_labels_are_those_of_the_trials(model, trials):
    assert list(model.neurons_) == ["A", "B"]
    for mouse, labels in model.neurons_.items():
        responses = trials.sel(mouse_id=mouse).responses[mouse]
        assert set(labels) == set(LABELS)
        for name in LABELS:
            assert labels[name].tolist() == responses[name].values.tolist()
    assert model.neurons_["B"]["neuron"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_labels_outlive_the_process(model, tmp_path):
    model.save(tmp_path / "model")
    for again in (
        v1.CNNRegressor.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(model)),
    ):
        same(again.neurons_, model.neurons_)


@pytest.mark.parametrize(
    "ids",
    [
        np.array(["u1", "u22", "ü3", "4", "5", "6", "7"]),
        np.array(["u1", "22", "3", "4", "5", "6", "7"], dtype=object),
        np.arange(7, dtype=np.uint16),
        np.arange(7, dtype=np.uint64) + np.uint64(2**63),
        np.arange(7, dtype=">i4"),
        np.datetime64("2022-01-01") + np.arange(7).astype("timedelta64[D]"),
    ],
)
def test_ids_of_any_kind(ids, recordings, small, tmp_path):
    labels = {"neuron": ids, "area": ("neuron", np.array([*"abcdef", None], dtype=object))}
    trials = renamed(recordings, **labels)
    model = small(max_epochs=0).fit(trials)
    model.save(tmp_path / "model")
    again = v1.CNNRegressor.load(tmp_path / "model")
    assert [str(unit) for unit in again.neurons_["B"]["neuron"]] == [
        str(unit) for unit in trials.responses["B"]["neuron"].values
    ]
    assert again.predict(trials)["B"].shape == (len(trials.rows("B")[0]), 7)


def test_models_of_an_earlier_format_are_to_be_fitted_anew(model, tmp_path):
    model.save(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 1}))
    with pytest.raises(ValueError, match="format 1, this version reads 2: fit the model anew"):
        v1.load(tmp_path / "model")


def test_transfer_learns_those_of_the_new_animals(model, recordings):
    trials = renamed(recordings, neuron=np.arange(107, 100, -1)).sel(mouse_id="B")
    new = model.transfer(trials, max_epochs=1)
    assert list(new.neurons_) == ["B"]
    assert new.neurons_["B"]["neuron"].tolist() == [107, 106, 105, 104, 103, 102, 101]


def test_ensembles_have_those_of_their_members(model, small, trials, recordings, tmp_path):
    ensemble = v1.EnsembleRegressor(small(max_epochs=1), 2, 2, random_state=0).fit(trials)
    same(ensemble.neurons_, model.neurons_)
    ensemble.save(tmp_path / "ensemble")
    same(v1.EnsembleRegressor.load(tmp_path / "ensemble").neurons_, model.neurons_)
    other = small().fit(renamed(recordings, neuron=np.arange(7)))
    with pytest.raises(ValueError, match=r"mouse 'B': .*estimators\[1\].*other unit ids"):
        v1.EnsembleRegressor.from_members([model, other])
    with pytest.raises(ValueError, match=r"mouse 'B': .*other unit ids"):
        ensemble.predict(renamed(recordings, neuron=np.arange(7)))


def calls(model, trials, good):
    """Every way in which trials meet a fitted model, and responses meet trials."""
    warm = pickle.loads(pickle.dumps(model)).set_params(warm_start=True)
    return {
        "predict": lambda: model.predict(trials),
        "score": lambda: model.score(trials),
        "partial_fit": lambda: warm.partial_fit(trials),
        "warm start": lambda: warm.fit(trials),
        "validation": lambda: pickle.loads(pickle.dumps(model)).fit(good, validation=trials),
        "y of fit": lambda: pickle.loads(pickle.dumps(model)).fit(good, trials.responses),
        "y of score": lambda: model.score(good, trials.responses),
    }


WAYS = ["predict", "score", "partial_fit", "warm start", "validation", "y of fit", "y of score"]


@pytest.mark.parametrize("way", WAYS)
def test_other_neurons_are_refused(way, model, trials, recordings):
    other = renamed(recordings, neuron=[1, 2, 3, 4, 5, 6, 8])
    with pytest.raises(ValueError, match=r"mouse 'B'.*unit ids.*place 6.*8 (came for|and) 7"):
        calls(model, other, trials)[way]()


@pytest.mark.parametrize("way", WAYS)
def test_another_order_is_refused(way, model, trials, recordings):
    other = renamed(recordings, neuron=[1, 2, 4, 3, 5, 6, 7])
    with pytest.raises(ValueError, match=r"mouse 'B'.*unit ids.*place 2.*4 (came for|and) 3"):
        calls(model, other, trials)[way]()


def test_other_neurons_leave_a_fit_as_it_was(model, recordings, equal, trials):
    est = pickle.loads(pickle.dumps(model)).set_params(warm_start=True)
    with pytest.raises(ValueError, match="unit ids"):
        est.fit(renamed(recordings, neuron=np.arange(7)))
    assert equal(est.predict(trials), model.predict(trials))


def test_without_ids_neurons_go_by_their_place(model, arrays_model, trials, recordings, equal):
    parts = {m: node.to_dataset() for m, node in recordings.children.items()}
    bare = v1.Trials({m: ds.drop_vars("neuron") for m, ds in parts.items()}).sel(tier="train")
    assert equal(model.predict(bare), model.predict(trials))
    assert arrays_model.neurons_ == {"A": {}, "B": {}}
    assert equal(arrays_model.predict(trials), arrays_model.predict(bare))
    stimuli = {m: trials.get("stimuli", m) for m in trials.mice}
    behaviors = {m: trials.get("behaviors", m) for m in trials.mice}
    answer = model.predict(stimuli, behaviors)
    assert equal(answer, {m: model.predict(trials).get(m) for m in trials.mice})


def test_trials_of_images_alone_may_name_the_neurons(model, recordings):
    parts = {m: node.to_dataset().drop_vars("responses") for m, node in recordings.children.items()}
    assert model.predict(v1.Trials(parts).sel(tier="test"))["B"].sizes["neuron"] == 7
    parts["B"] = parts["B"].assign_coords(neuron=np.arange(7))
    with pytest.raises(ValueError, match=r"mouse 'B'.*unit ids"):
        model.predict(v1.Trials(parts).sel(tier="test"))


def test_numbers_and_text_of_one_id_are_the_same(model, recordings, trials, equal):
    text = renamed(recordings, neuron=[str(unit) for unit in range(1, 8)])
    assert equal(model.predict(text), model.predict(trials))


def test_predictions_align_with_receptive_fields(model, trials):
    fields = v1.inspection.receptive_fields(model, 20)["B"]
    predicted = model.predict(trials)["B"].mean("trial")
    product = fields * predicted
    assert product.sizes["neuron"] == 7
    xr.testing.assert_equal(product["neuron"], predicted["neuron"])


@pytest.mark.parametrize("kind", ["model", "ensemble"])
@pytest.mark.parametrize("lacking", ["responses", "ids"])
def test_predictions_name_neurons_that_the_trials_do_not(kind, lacking, model, small, trials):
    estimator = model
    if kind == "ensemble":
        estimator = v1.EnsembleRegressor(small(max_epochs=1), 2, 2, random_state=0).fit(trials)
    recordings = {m: node.to_dataset() for m, node in trials.recordings.children.items()}
    if lacking == "ids":
        unnamed = {m: recording.drop_vars("neuron") for m, recording in recordings.items()}
    else:
        unnamed = {
            m: recording.drop_dims("neuron", errors="ignore") for m, recording in recordings.items()
        }
    predictions = estimator.predict(v1.Trials(unnamed))
    for mouse in trials.mice:
        ids = estimator.neurons_[mouse]["neuron"].tolist()
        assert predictions.neuron_ids(mouse).tolist() == ids
        assert predictions[mouse]["neuron"].values.tolist() == ids
    means = predictions.mean("trial")
    assert means["neuron"].values.tolist() == [
        unit for m in trials.mice for unit in estimator.neurons_[m]["neuron"].tolist()
    ]
    score = v1.metrics.single_trial_correlation(trials.responses, predictions)
    assert score == v1.metrics.single_trial_correlation(trials.responses, estimator.predict(trials))
    some = predictions.sel(neuron={"B": [3, 1]})
    np.testing.assert_array_equal(some.get("B"), predictions.get("B")[:, [2, 0]])
