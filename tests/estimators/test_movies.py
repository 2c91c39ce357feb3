"""Frame-wise models of movies: each frame with its responses, and time in what is predicted."""

import gc
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.estimators import prediction

SMALL = {"hidden_channels": 4, "n_layers": 2, "max_epochs": 2, "batch_size": 32, "device": "cpu"}
SMALL |= {"random_state": 0, "input_kernel": 5, "hidden_kernel": 3}


def cnn(**changes):
    return v1.CNNRegressor(**(SMALL | changes))


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_movie_recordings(2, [3, 4], 8, 2, 3, n_frames=(10, 16), random_state=0)
    )


@pytest.fixture(scope="module")
def fitted(trials):
    return cnn().fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))


def images_of(trials):
    """The frames of movies as images, by loops."""
    mice = {}
    for mouse in trials.mice:
        view = trials[trials.rows(mouse)[0]]
        found = {"stimuli": [], "behaviors": [], "responses": []}
        ids, tiers = [], []
        for trial, count in enumerate(view.n_frames):
            for frame in range(count):
                for name, frames in found.items():
                    frames.append(view.get(name, mouse)[trial, frame])
                ids.append(view.image_ids[trial])
                tiers.append(view.tiers[trial])
        mice[mouse] = xr.Dataset(
            {
                "stimuli": (("trial", "channel", "height", "width"), np.stack(found["stimuli"])),
                "behaviors": (("trial", "behavior"), np.stack(found["behaviors"])),
                "responses": (("trial", "neuron"), np.stack(found["responses"])),
            },
            {
                "image_id": ("trial", ids),
                "tier": ("trial", tiers),
                "behavior": trials.behavior_names(mouse),
                "neuron": trials.neuron_ids(mouse),
            },
        )
    return v1.Trials(mice)


def assert_same_predictions(of_movies, of_images, n_frames):
    for mouse in of_movies.mice:
        counts = n_frames[of_movies.rows(mouse)[0]]
        values = of_movies.get(mouse)
        flat = np.concatenate([v[:count] for v, count in zip(values, counts, strict=True)])
        np.testing.assert_allclose(flat, of_images.get(mouse), rtol=1e-5, atol=1e-6)
        for value, count in zip(values, counts, strict=True):
            assert np.isnan(value[count:]).all()


@pytest.mark.parametrize(
    "model",
    quick([
        cnn(),
        cnn(behavior_mode="none"),
        v1.LNRegressor(max_epochs=2, batch_size=32, random_state=0, device="cpu"),
        v1.V1TRegressor(
            n_blocks=1, n_heads=1, embed_dim=8, mlp_dim=8, patch_stride=4, max_epochs=1,
            batch_size=32, random_state=0, device="cpu",
        ),
    ], 0),
    ids=["cnn", "cnn without behaviour", "ln", "v1t"],
)  # fmt: skip
def test_movies_are_fitted_as_their_frames_are(trials, model):
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    one = model.fit(train).predict(test)
    other = model.fit(images_of(train)).predict(images_of(test))
    assert one["A"].dims == ("trial", "time", "neuron")
    assert_same_predictions(one, other, test.n_frames)


def test_the_score_is_the_correlation_over_all_frames(trials, fitted, monkeypatch):
    test = trials.sel(tier="test")
    wanted = v1.metrics.single_trial_correlation(test.responses, fitted.predict(test))
    assert fitted.score(test) == pytest.approx(wanted)
    assert fitted.score(test) == pytest.approx(fitted.score(images_of(test)), rel=1e-6)
    monkeypatch.setattr(prediction, "_HELD_BYTES", 0)  # as where predictions are large
    monkeypatch.setattr(prediction, "_PART_BYTES", 1)
    assert fitted.score(test) == pytest.approx(wanted)


def test_a_model_of_images_predicts_movies(trials):
    model = cnn().fit(images_of(trials.sel(tier="train")))
    test = trials.sel(tier="test")
    assert_same_predictions(model.predict(test), model.predict(images_of(test)), test.n_frames)


def test_frames_that_were_not_recorded_do_not_count(trials):
    """The mask reaches the loss: what stands under it does not change the model."""
    train = trials.sel(tier="train")
    models = []
    for fill in (np.nan, 0.0):
        mice = {m: one.to_dataset() for m, one in train.recordings.items()}
        responses = mice["A"]["responses"].copy()
        responses[:, 4:6] = fill
        mice["A"] = mice["A"].assign(responses=responses)
        models.append(cnn(validation_fraction=0).fit(v1.Trials(mice)))
    without = {m: one.to_dataset() for m, one in train.recordings.items()}
    masked = without["A"]["responses"].copy()
    masked[:, 4:6] = np.nan
    masked = v1.Trials(without | {"A": without["A"].assign(responses=masked)})
    by_hand = cnn(validation_fraction=0).fit(images_of(masked))
    test = trials.sel(tier="test")
    assert_same_predictions(
        models[0].predict(test), by_hand.predict(images_of(test)), test.n_frames
    )
    assert (models[0].predict(test).get("A") != models[1].predict(test).get("A")).any()


def test_all_repeats_of_a_movie_fall_on_one_side_of_the_validation_split(trials, recwarn):
    test = trials.sel(tier="test", mouse_id="A")
    seen = []
    model = cnn(validation_fraction=0.5, max_epochs=1)
    with pytest.warns(UserWarning, match="fit was given trials of the tiers"):
        model.fit(test, on_epoch=lambda record: seen.append(record))
    assert not [w for w in recwarn if "validation trials show images" in str(w.message)]
    # of two movies each side got one: the model knows the movie that it was trained on
    assert len(model._seen.images) == 1


def test_no_other_movie_is_told_to_be_seen(trials, fitted, recwarn):
    fitted.score(trials.sel(tier="train"))  # the trials of the training themselves
    fitted.score(trials.sel(tier="test"))
    assert not recwarn.list
    train = trials.sel(tier="train")
    copied = v1.Trials({m: one.to_dataset().copy(deep=True) for m, one in train.recordings.items()})
    with pytest.warns(UserWarning, match="show images that the model was trained on"):
        fitted.score(copied)


def test_low_memory_gives_the_same_model(trials, tmp_path):
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    train.to_netcdf(tmp_path / "movies.nc")
    stored = v1.Trials.open(tmp_path / "movies.nc")
    one = cnn(low_memory=False).fit(train).predict(test)
    other = cnn(low_memory=True).fit(stored).predict(test)
    for mouse in test.mice:
        np.testing.assert_array_equal(one.get(mouse), other.get(mouse))


def test_the_four_argument_form(trials):
    train = trials.sel(tier="train", mouse_id="A")
    stimuli, behaviors = list(np.asarray(train.stimuli)), list(np.asarray(train.behaviors))
    responses = list(np.asarray(train.responses))
    given = [{"A": v} for v in (stimuli, behaviors, responses)]
    model = cnn().fit(*given, image_ids={"A": train.image_ids})
    same = cnn().fit(train)
    found = model.predict({"A": stimuli}, {"A": behaviors})
    np.testing.assert_array_equal(found["A"], same.predict(train).get("A"))
    assert model.score(*given) == pytest.approx(same.score(train))


def test_plain_arrays_of_one_mouse_come_back_as_an_array(trials):
    one = trials.sel(mouse_id="A", tier="train")[:3]
    n = one.n_frames.min()
    stimuli = one.get("stimuli", "A")[:, :n]
    model = cnn(max_epochs=0, validation_fraction=0)
    model.fit(stimuli, None, one.get("responses", "A")[:, :n])
    assert model.predict(stimuli).shape == (3, n, 3)


def test_searches_and_pipelines_take_movies(trials):
    train = trials.sel(tier="train")
    search = GridSearchCV(
        make_pipeline(v1.TrialStandardizer(), cnn(standardize=False, max_epochs=1)),
        {"cnnregressor__hidden_channels": [2, 3]},
        cv=GroupKFold(2),
        error_score="raise",
    )
    search.fit(train, groups=train.image_ids)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_ensembles_transfer_and_files(trials, tmp_path):
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    one = train.sel(mouse_id="A")
    ensemble = v1.EnsembleRegressor(cnn(), n_candidates=2, n_members=1, random_state=0)
    assert ensemble.fit(one).predict(test.sel(mouse_id="A"))["A"].dims[1] == "time"
    model = cnn().fit(one)
    moved = model.transfer(train.sel(mouse_id="B"), max_epochs=1)
    moved.save(tmp_path / "model")
    again = v1.load(tmp_path / "model")
    own = test.sel(mouse_id="B")
    np.testing.assert_array_equal(again.predict(own).get("B"), moved.predict(own).get("B"))


@pytest.mark.slow
def test_prediction_of_a_long_movie_is_streamed(tmp_path):
    """In parts from a file, in memory that does not grow with its length but for what comes out."""
    rng = np.random.default_rng(0)
    stimuli = rng.integers(0, 256, (1, 3000, 1, 36, 64)).astype("u1")
    responses = rng.random((1, 40, 2)).astype("f4")
    model = cnn(max_epochs=0, validation_fraction=0, behavior_mode="none")
    model.fit({"A": stimuli[:, :40]}, None, {"A": responses})
    found, most = {}, {}
    for length in (1500, 3000):
        v1.Trials.from_arrays({"A": stimuli[:, :length]}).to_netcdf(tmp_path / f"{length}.nc")
        stored = v1.Trials.open(tmp_path / f"{length}.nc")
        tracemalloc.start()
        found[length] = model.predict(stored).get("A")
        most[length] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most[3000] < 1.2 * most[1500] < stimuli.nbytes
    whole = model.predict({"A": stimuli})["A"]
    np.testing.assert_array_equal(found[3000], whole)
    np.testing.assert_allclose(found[1500], whole[:, :1500], rtol=1e-4, atol=1e-5)
    part = model.predict({"A": stimuli[:, 1000:1010]})["A"]
    np.testing.assert_allclose(part, whole[:, 1000:1010], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_parts_of_a_long_movie_take_memory_that_does_not_grow_with_it(tmp_path):
    """Neither frames nor predictions nor labels: one movie is thirteen times as long."""
    rng = np.random.default_rng(0)
    model = v1.MovieCNNRegressor(
        n_layers=1, hidden_channels=2, input_kernel=5, window_frames=20,
        max_epochs=0, validation_fraction=0, behavior_mode="none", device="cpu",
    )  # fmt: skip
    few = rng.integers(0, 256, (1, 40, 1, 36, 64)).astype("u1")
    model.fit({"A": few}, None, {"A": rng.random((1, 40, 2)).astype("f4")})
    most = []
    for length in (150, 2000):
        given = rng.integers(0, 256, (1, length, 1, 36, 64)).astype("u1")
        v1.Trials.from_arrays({"A": given}, frame_rate=30.0).to_netcdf(tmp_path / f"{length}.nc")
        stored = v1.Trials.open(tmp_path / f"{length}.nc")
        next(model.predict_parts(stored, frames_at_once=50))
        tracemalloc.start()
        count = 0
        for part in model.predict_parts(stored, frames_at_once=50):
            count += len(part)
            gc.collect()  # what nobody holds, Python keeps for a while
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == length
    assert most[1] < 1.1 * most[0] < given.nbytes / 4


def test_targets_of_other_frames_are_refused(trials):
    train = trials.sel(tier="train")
    with pytest.raises(ValueError, match=r"the trials have up to .* frames, y has no time axis"):
        cnn().fit(train, train.responses.mean("time"))
    shorter = np.asarray(train.responses)
    shorter[3] = shorter[3][:-1]
    with pytest.raises(ValueError, match=r"for its trial 3, a movie of .* frames"):
        cnn().fit(train, shorter)


def test_one_movie_alone_leaves_nothing_to_validate_by(trials):
    with pytest.raises(ValueError, match="split_in_time"):
        cnn().fit(trials.sel(tier="train", mouse_id="A")[:1])


def test_what_knows_images_alone_refuses_movies(trials, tmp_path):
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    with pytest.raises(ValueError, match=r"trials of the mice .* are movies, of up to"):
        v1.DINAAligner(max_epochs=1).fit(train)
    with pytest.raises(ValueError, match="movies, of which one picture tells little"):
        v1.inspection.ImageDisplay.from_trials(train)
    with pytest.raises(ValueError, match="mouse 'A', stimuli: are movies"):
        v1.write_sensorium(train.recordings, tmp_path / "sensorium")
    with pytest.raises(ValueError, match="responses have a time axis, but categories"):
        v1.metrics.fecv(test.responses, categories=np.asarray(test.image_ids) % 2)
