"""Models that see time in scikit-learn's tools; stopped, continued, and moved to other animals."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

import v1tlearn as v1

TRAINING = {"window_frames": 6, "max_epochs": 2, "random_state": 0, "device": "cpu"}
MODELS = {
    "ln": v1.MovieLNRegressor(**TRAINING, n_lags=4),
    "cnn": v1.MovieCNNRegressor(
        **TRAINING, n_layers=2, hidden_channels=3, input_kernel=3, hidden_kernel=3,
        input_time_kernel=3, hidden_time_kernel=2,
    ),
    "vist": v1.ViSTRegressor(
        **TRAINING, grid=4, n_layers=1, channels=4, kernels=((1, 3),), condition="none",
        loss="rmse", batch_size=3, steps_per_epoch=2, warmup_epochs=1,
    ),
}  # fmt: skip
each = pytest.mark.parametrize("name", MODELS)
STEPS = (v1.TrialStandardizer(), v1.CenterCrop(0.5), v1.ResizeStimuli((8, 8)), v1.Grayscale())


@pytest.fixture(scope="module")
def trials():
    """Two mice that saw movies of three colours."""
    tree = v1.make_movie_recordings(
        2, [3, 2], 8, 2, 2, n_frames=(10, 16), image_shape=(16, 20), random_state=0
    )
    mice = {}
    for mouse, one in tree.items():
        dataset = one.to_dataset()
        colours = [dataset["stimuli"].isel(channel=0) // k for k in (1, 2, 3)]
        stimuli = np.stack([c.values for c in colours], axis=2)
        dims = dataset["stimuli"].dims
        mice[mouse] = dataset.drop_dims("channel").assign(stimuli=(dims, stimuli))
    return v1.Trials(mice)


@pytest.fixture(scope="module")
def parts(trials):
    return trials.sel(tier="train"), trials.sel(tier="validation"), trials.sel(tier="test")


def assert_alike(one, other):
    for mouse in one.mice:
        np.testing.assert_array_equal(one.get(mouse), other.get(mouse))


def same_weights(one, other):
    pairs = zip(one.module_.state_dict().items(), other.module_.state_dict().items(), strict=True)
    return all(name == also and torch.equal(a, b) for (name, a), (also, b) in pairs)


def by_hand(trials, steps):
    """Movies as fitted steps make them, frame by frame, as arrays."""
    for step in steps:
        trials = step.transform(trials)
    mice = {}
    for mouse, one in trials.recordings.items():
        view = trials.sel(mouse_id=mouse)
        movies = np.asarray(view.stimuli)
        filled = np.zeros((len(movies), one.sizes["time"], *movies[0].shape[1:]), np.float32)
        for place, movie in enumerate(movies):
            filled[place, : len(movie)] = movie
        dims = ("trial", "time", "channel", "height", "width")
        dataset = one.to_dataset().drop_dims(["channel", "height", "width"], errors="ignore")
        dataset = dataset.assign(stimuli=(dims, filled))
        if "behaviors" in dataset:
            dataset["behaviors"] = dataset["behaviors"].copy(data=view.get("behaviors", mouse))
        mice[mouse] = dataset
    return v1.Trials(mice)


@each
def test_steps_of_a_pipeline_are_those_done_by_hand(parts, name):
    train, _, test = parts
    model = clone(MODELS[name]).set_params(standardize=False, validation_fraction=0)
    pipeline = make_pipeline(*map(clone, STEPS), model).fit(train)
    steps = [step for _, step in pipeline.steps[:-1]]
    alone = clone(model).fit(by_hand(train, steps))
    found, wanted = pipeline.predict(test), alone.predict(by_hand(test, steps))
    assert pipeline[-1].image_shape_ == (1, 8, 8)
    for mouse in test.mice:
        np.testing.assert_allclose(found.get(mouse), wanted.get(mouse), rtol=1e-5, atol=1e-6)


@each
def test_a_search_goes_over_a_pipeline(parts, name):
    train, _, test = parts
    model = clone(MODELS[name]).set_params(standardize=False, max_epochs=1)
    if name == "vist":
        model.set_params(warmup_epochs=0)
    steps = [("gray", v1.Grayscale()), ("size", v1.ResizeStimuli((8, 8))), ("model", model)]
    search = GridSearchCV(
        Pipeline(steps),
        {"model__lr": [0.001, 0.01], "model__window_frames": [4]},
        cv=GroupKFold(2),
        error_score="raise",
    ).fit(train, groups=train.image_ids)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_[-1].window_frames == 4
    assert search.predict(test)["A"].dims == ("trial", "time", "neuron")


@each
def test_parameters_say_all_of_a_model(parts, name):
    train, validation, test = parts
    train, validation, test = (v1.Grayscale().fit_transform(p) for p in (train, validation, test))
    small = v1.ResizeStimuli((8, 8))
    train, validation, test = (small.fit_transform(part) for part in (train, validation, test))
    model = MODELS[name]
    one = clone(model).fit(train, validation=validation)
    other = type(model)().set_params(**one.get_params()).fit(train, validation=validation)
    assert_alike(one.predict(test), other.predict(test))
    assert not hasattr(clone(one), "module_")


class Stop(Exception):
    """Ends a training from outside."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ln", "cnn"])
def test_a_training_that_was_stopped_goes_on_to_the_same_model(parts, name, tmp_path):
    train, validation, _ = parts

    def stop(record):
        if record["epoch"] == 2:
            raise Stop

    def make():
        return clone(MODELS[name]).set_params(max_epochs=4)

    with pytest.raises(Stop):
        make().fit(train, validation=validation, on_epoch=stop, checkpoint_dir=tmp_path)
    resumed = make().fit(train, validation=validation, checkpoint_dir=tmp_path)
    whole = make().fit(train, validation=validation)
    assert same_weights(resumed, whole)
    losses = [[record["loss"] for record in model.history_] for model in (resumed, whole)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", ["ln", "cnn"])
def test_epochs_one_by_one(parts, name):
    train, _, _ = parts
    one = clone(MODELS[name]).partial_fit(train).partial_fit(train)
    other = clone(MODELS[name]).set_params(validation_fraction=0, schedule="constant").fit(train)
    assert [r["loss"] for r in one.history_] == [r["loss"] for r in other.history_]
    assert same_weights(one, other)


@pytest.mark.parametrize("name", ["ln", "cnn"])
@pytest.mark.parametrize("freeze_core", [True, False])
def test_a_core_goes_on_in_other_animals(parts, name, freeze_core, tmp_path):
    one, two = (parts[0].sel(mouse_id=mouse) for mouse in "AB")
    model = clone(MODELS[name]).fit(one)
    moved = model.transfer(two, freeze_core=freeze_core, max_epochs=1)
    core, was = (dict(m.module_.core.named_parameters()) for m in (moved, model))
    kept = all(torch.equal(core[key], was[key]) for key in was)
    assert kept == (freeze_core or not was)  # the kernels of an LN model are its readout
    moved.save(tmp_path / "model")
    test = parts[2].sel(mouse_id="B")
    assert_alike(v1.load(tmp_path / "model").predict(test), moved.predict(test))
