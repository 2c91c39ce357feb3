"""Vi-ST on movies: what it learns, streams, keeps and refuses."""

import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn import nn

SMALL = {
    "grid": 4, "n_layers": 2, "channels": 6, "kernels": ((1, 5),), "window_frames": 40,
    "batch_size": 3, "steps_per_epoch": 2, "max_epochs": 2, "warmup_epochs": 1,
    "random_state": 0, "device": "cpu",
}  # fmt: skip


def vist(**changes):
    return v1.ViSTRegressor(**(SMALL | changes))


def movies(n_mice=1, **changes):
    options = {"n_frames": (44, 60), "image_shape": (8, 8), "behavior": False, "random_state": 0}
    return v1.make_movie_recordings(n_mice, 3, 6, 2, 2, **(options | changes))


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(movies())


@pytest.fixture(scope="module")
def train(trials):
    return trials.sel(tier="train")


@pytest.fixture(scope="module")
def test(trials):
    return trials.sel(tier="test")


@pytest.fixture(scope="module")
def fitted(train):
    return vist().fit(train)


def assert_alike(one, other, test):
    np.testing.assert_array_equal(one.predict(test)["A"], other.predict(test)["A"])


def part_of(trials, **changes):
    """The recording of the mouse with other variables."""
    return v1.Trials({"A": trials.recordings["A"].to_dataset().assign(**changes)})


def test_responses_that_are_not_scaled_are_to_be_of_a_size_around_1(train):
    responses = train.get("responses", "A")
    size = np.nanstd(responses, axis=(0, 1)).mean()
    options = {"max_epochs": 1, "steps_per_epoch": 1, "warmup_epochs": 0, "validation_fraction": 0}
    for unit, told in ((1e-4, True), (0.1, False), (10.0, False), (1e4, True)):
        dims = ("trial", "time", "neuron")
        trials = part_of(train, responses=(dims, (responses * unit / size).astype(np.float32)))
        model = vist(**options, scale_responses=False, loss="rmse")
        with (
            pytest.warns(UserWarning, match="'A': responses vary by some")
            if told
            else nullcontext()
        ):
            model.fit(trials)
        vist(**options, loss="rmse").fit(trials)


# --------------------------------------------------------------------------------- predictions


def whole(est, movie):
    """Prediction of a movie by the network at once."""
    model = est.module_
    scaled = torch.as_tensor(movie, dtype=torch.float32)
    known = est.statistics_["A"]
    scaled = (scaled - known["image_mean"]) / known["image_std"]
    with torch.no_grad():
        features = nn.frame_patches(scaled[None], est.grid)
        readout = model.readout("A")
        rates = model.head("A")(readout.network(features, readout.fields))
    return rates[0].numpy() * known["response_scale"]


@pytest.mark.parametrize("causal", [True, False, (True, False)])
@pytest.mark.parametrize("at_once", quick([40, 53], 1))
def test_whole_movies_are_predicted_in_parts_as_at_once(train, causal, at_once):
    est = vist(causal=causal, max_epochs=1, warmup_epochs=0, window_frames=at_once)
    long = v1.Trials(movies(n_frames=130))
    est.fit(long.sel(tier="train"), validation=None)
    test = long.sel(tier="test")[:2]
    found = est.predict(test)["A"].values
    for movie, prediction in zip(test.get("stimuli", "A"), found, strict=True):
        np.testing.assert_allclose(prediction, whole(est, movie), atol=1e-5)


@pytest.mark.parametrize(("causal", "differs"), [(True, False), (False, True)])
def test_predictions_of_a_causal_model_depend_on_no_later_frame(train, causal, differs):
    est = vist(causal=causal, max_epochs=1, warmup_epochs=0).fit(train)
    movie = np.random.default_rng(0).integers(0, 256, (1, 100, 1, 8, 8), dtype=np.uint8)
    changed = movie.copy()
    changed[:, 60:] = 0
    one, other = est.predict(movie), est.predict(changed)
    assert (one[:, 60:] != other[:, 60:]).any()
    assert (one[:, :60] != other[:, :60]).any() == differs


def test_memory_of_predictions_does_not_grow_with_the_movie(fitted):
    frames = []

    def count(network, given):
        frames.append(given[0].shape[1])

    hook = fitted.module_.readout("A").network.register_forward_pre_hook(count)
    try:
        for n_frames in (100, 400):
            fitted.predict(np.zeros((1, n_frames, 1, 8, 8), np.uint8))
            assert max(frames) == fitted.window_frames
    finally:
        hook.remove()
    assert sum(frames) == 500  # each frame once, without a context that is computed again


def test_shorter_movies_end_in_nan(fitted, test):
    values = fitted.predict(test)["A"].values
    for value, n in zip(values, test.n_frames, strict=True):
        assert np.isfinite(value[:n]).all()
        assert np.isnan(value[n:]).all()


def test_score_is_the_mean_correlation_over_time_with_its_sign(fitted, test):
    found = fitted.score(test)
    expected = v1.metrics.correlation_over_time(test.responses["A"], fitted.predict(test)["A"])
    assert found == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------- what it learns

LEARNS = {
    "grid": 4, "n_layers": 1, "channels": 8, "kernels": ((1, 9),), "dropout": 0.0, "lr": 0.01,
    "start_lr": 0.01, "min_lr": 1e-3, "average_from": None, "steps_per_epoch": 15,
    "batch_size": 8, "max_epochs": 8, "warmup_epochs": 0, "loss": "rmse", "weight_decay": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def clear():
    """Movies whose responses have little noise."""
    return v1.Trials(
        v1.make_movie_recordings(
            1, 4, 40, 3, 2,
            n_frames=60, image_shape=(8, 8), behavior=False, noise=0.2, random_state=1,
        )
    )  # fmt: skip


def in_order(trials, order):
    """Movies whose frames come in another order, with responses as they were."""
    recording = trials.recordings["A"].to_dataset()
    stimuli = recording["stimuli"].isel(time=order).assign_coords(time=recording["time"])
    return v1.Trials({"A": recording.assign(stimuli=stimuli)})


@pytest.mark.slow
def test_learns_from_time_what_single_frames_do_not_tell(clear):
    train, test = clear.sel(tier="train"), clear.sel(tier="test")
    score = vist(**LEARNS).fit(train).score(test)
    framewise = vist(**LEARNS | {"extractor": "none", "kernels": ((1,),)}).fit(train).score(test)
    order = np.random.default_rng(0).permutation(60)
    shuffled = [in_order(part, order) for part in (train, test)]
    control = vist(**LEARNS).fit(shuffled[0]).score(shuffled[1])
    assert score > 0.3
    assert score > framewise + 0.1, f"{score:.3f}, frame by frame {framewise:.3f}"
    assert score > control + 0.1, f"{score:.3f}, shuffled in time {control:.3f}"


# ------------------------------------------------------------------------------ how it is trained


def test_rates_are_those_of_the_paper(train):
    est = vist(max_epochs=30, warmup_epochs=5, steps_per_epoch=1, batch_size=1).fit(train)
    found = [record["lr"] for record in est.history_]
    np.testing.assert_allclose(
        found[:7], [5e-5, 2e-4, 3.5e-4, 5e-4, 6.5e-4, 8e-4, 7.97e-4], rtol=1e-3
    )
    np.testing.assert_allclose(found[24:], 1e-4)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_loss_is_that_of_the_paper(scaled):
    trials = v1.Trials(movies(n_frames=60)).sel(tier="train")[:1]
    est = vist(
        extractor="none", dropout=0.0, start_lr=1e-12, window_frames=60, batch_size=1,
        steps_per_epoch=1, validation_fraction=0.0, scale_responses=scaled,
    )  # fmt: skip
    est.set_params(max_epochs=2).fit(trials)  # of weights that hardly move in the first epoch
    first = est.history_[0]["loss"]
    est.set_params(max_epochs=1, warmup_epochs=0, lr=1e-12, average_from=None).fit(trials)
    predicted = est.predict(trials)["A"].values.astype(np.float32)
    target = trials.responses["A"].values
    scale = target[0].std(0) if scaled else np.ones(3, np.float32)
    np.testing.assert_allclose(est.statistics_["A"]["response_scale"], scale, rtol=1e-4)
    pair = (torch.from_numpy((values / scale).astype(np.float32)) for values in (predicted, target))
    assert est.history_[0]["loss"] == pytest.approx(float(nn.vist_loss(*pair)), rel=1e-4)
    assert first == pytest.approx(est.history_[0]["loss"], rel=1e-4)


def test_windows_hold_no_end_of_a_movie_and_no_frame_that_was_not_recorded(train):
    recording = train.recordings["A"].to_dataset()
    responses = recording["responses"].copy(deep=True)
    responses[0, :12, 1] = np.nan
    est = vist(validation_fraction=0.0)
    start = v1.Trials({"A": recording.assign(responses=responses)})
    est.fit(start)  # the loss of a window that holds NaN is NaN, which is an error
    assert np.isfinite([record["loss"] for record in est.history_]).all()


def test_the_end_of_a_single_movie_is_set_aside():
    trials = v1.Trials(movies(n_frames=100)).sel(tier="train")[:1]
    est = vist(validation_fraction=0.2).fit(trials)
    alone = vist(validation_fraction=0.0).fit(trials)
    assert "validation_correlation" in est.history_[0]
    assert "validation_correlation" not in alone.history_[0]


def test_epochs_may_be_judged_by_absolute_correlations(train):
    est = vist(selection="absolute_correlation", max_epochs=4).fit(train)
    scores = [record["validation_absolute_correlation"] for record in est.history_]
    assert est.best_epoch_ == np.argmax(scores) + 1
    for record in est.history_:
        assert record["validation_absolute_correlation"] >= abs(record["validation_correlation"])


@pytest.mark.parametrize(
    "changes",
    quick(
        [
            {"loss": "rmse"},
            {"loss": "poisson"},
            {"condition": "per_cell"},
            {"condition": "video"},
            {"condition": "none"},
            {"extractor": "none"},
            {"kernels": ()},
            {"causal": (False, True)},
            {"scale_responses": False},
            {"average_from": 1},
        ],
        1,
        4,
        7,
    ),
)
def test_every_ablation_is_a_parameter(train, test, fitted, changes):
    est = vist(**changes).fit(train)
    assert np.isfinite(est.score(test))
    assert (est.predict(test)["A"].values != fitted.predict(test)["A"].values).any()


def test_a_model_trained_in_half_precision_predicts_as_in_single(train, test):
    half = vist(precision="bfloat16").fit(train)
    rough = np.asarray(half.predict(test)["A"])
    fine = np.asarray(half.set_params(precision="float32").predict(test)["A"])
    assert rough.dtype == np.float32
    there = np.isfinite(fine)
    difference = np.abs(rough - fine)[there].max()
    assert 0 < difference < 0.05 * np.abs(fine[there]).max()


def test_poisson_rates_are_not_negative(train, test):
    assert np.nanmin(vist(loss="poisson").fit(train).predict(test)["A"].values) >= 0


def test_mice_have_networks_of_their_own():
    trials = v1.Trials(movies(2))
    est = vist().fit(trials.sel(tier="train"))
    found = est.predict(trials.sel(tier="test"))
    assert found["A"].shape[2] == found["B"].shape[2] == 3


# ---------------------------------------------------------------------------------------- priors


def as_features(trials, function, **options):
    """Trials whose stimuli are features of frames."""
    recording = trials.recordings["A"].to_dataset()
    values = np.nan_to_num(recording["stimuli"].values)
    maps = np.stack([function(torch.as_tensor(v, dtype=torch.float32)).numpy() for v in values])
    maps = np.moveaxis(maps, 3, 2).reshape(*maps.shape[:2], maps.shape[3], 4, 4)
    recording = recording.drop_vars("stimuli")
    dims = ("trial", "time", "channel", "height", "width")
    return v1.Trials({"A": recording.assign(stimuli=(dims, maps.astype(np.float32)))})


def squares(frames):
    return nn.frame_patches(frames[None] / 255, 4)[0] ** 2


class Energy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))
        self.calls = 0

    def forward(self, frames):
        self.calls += len(frames)
        return self.weight * squares(frames)


def test_a_callable_and_the_features_it_gave_make_one_model(trials):
    features = as_features(trials, squares)
    by_call = vist(prior=squares).fit(trials.sel(tier="train"))
    by_array = vist(prior="features").fit(features.sel(tier="train"))
    np.testing.assert_allclose(
        by_call.predict(trials.sel(tier="test"))["A"],
        by_array.predict(features.sel(tier="test"))["A"],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("cache", [None, "memory", "device"])
def test_features_that_are_kept_make_the_same_model(train, test, cache):
    assert_alike(
        vist(prior=squares, feature_cache=cache).fit(train), vist(prior=squares).fit(train), test
    )


def test_features_are_kept_in_a_folder(train, test, tmp_path):
    est = vist(prior=Energy(), feature_cache=str(tmp_path)).fit(train)
    stored = list(tmp_path.rglob("*.features"))
    assert stored
    again = vist(prior=Energy(), feature_cache=str(tmp_path)).fit(train)
    assert list(tmp_path.rglob("*.features")) == stored
    assert_alike(est, again, test)
    other = Energy()
    other.weight.data.fill_(2.0)
    vist(prior=other, feature_cache=str(tmp_path)).fit(train)
    assert len(list(tmp_path.rglob("*.features"))) == 2


def test_a_folder_keeps_no_features_of_functions(train, tmp_path):
    with pytest.raises(ValueError, match="not of functions: give prior as a torch module"):
        vist(prior=squares, feature_cache=str(tmp_path)).fit(train)


def test_features_of_other_frames_are_refused(train):
    with pytest.raises(ValueError, match=r"for \d+ frames: expected \(\d+, patches, k\)"):
        vist(prior=lambda frames: squares(frames)[: max(1, len(frames) - 1)]).fit(train)
    with pytest.raises(ValueError, match=r"shape \(1, 3, 4\).*square grid"):
        vist(prior=lambda frames: torch.zeros(len(frames), 3, 4)).fit(train)
    with pytest.raises(TypeError, match="prior gave a ndarray"):
        vist(prior=lambda frames: frames.numpy()).fit(train)


def test_a_backbone_gives_features(train, test, tmp_path):
    backbone = {"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 2,
                "num_attention_heads": 2, "patch_size": 14, "image_size": 56}  # fmt: skip
    est = vist(prior="pretrained", backbone=backbone, weights=None, block=1, image_size=(56, 56))
    est.fit(train)
    assert est.module_.core.output_shape == (8, 4, 4)
    assert np.isfinite(est.score(test))
    est.save(tmp_path / "model")
    assert_alike(v1.load(tmp_path / "model", device="cpu"), est, test)


# ----------------------------------------------------------------------------- how it is kept


def test_a_saved_or_pickled_model_predicts_alike(fitted, test, tmp_path):
    fitted.save(tmp_path / "model")
    assert_alike(v1.load(tmp_path / "model", device="cpu"), fitted, test)
    assert_alike(pickle.loads(pickle.dumps(fitted)), fitted, test)


def test_a_copy_fits_to_the_same_model(fitted, train, test):
    assert_alike(clone(fitted).fit(train), fitted, test)


def test_four_arguments_are_read_as_trials_are(train, test):
    recording = train.recordings["A"].to_dataset()
    est = vist(condition="none").fit(train)
    n = int(train.n_frames.min())
    values = recording["stimuli"].values[:, :n], recording["responses"].values[:, :n]
    arrays = vist(condition="none", validation_fraction=0.0).fit(values[0], None, values[1])
    assert arrays.predict(values[0]).shape == values[1].shape
    assert est.n_neurons_ == {"A": 3}


def test_a_training_that_was_stopped_goes_on_to_the_same_model(train, test, tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record["epoch"] == 2:
            raise Stop

    options = {"max_epochs": 4, "average_from": 2, "average_lr": 1e-3}
    with pytest.raises(Stop):
        vist(**options).fit(train, on_epoch=stop, checkpoint_dir=tmp_path)
    resumed = vist(**options).fit(train, checkpoint_dir=tmp_path)
    assert_alike(resumed, vist(**options).fit(train), test)


def test_a_grid_search_chooses_among_kernels(train):
    search = GridSearchCV(
        vist(max_epochs=1, warmup_epochs=0, validation_fraction=0.0),
        {"kernels": [((1, 3),), ((1, 5),)]},
        cv=GroupKFold(2),
        error_score="raise",
    )
    search.fit(train, groups=train.image_ids)
    assert search.best_params_["kernels"] in [((1, 3),), ((1, 5),)]


def test_data_that_stay_off_the_device_make_the_same_model(fitted, train, test):
    assert_alike(vist(low_memory=True).fit(train), fitted, test)


def test_a_fit_goes_on_but_not_with_another_non_linearity(train, test):
    est = vist(warm_start=True, lr=1e-3).fit(train)
    est.set_params(lr=5e-4, steps_per_epoch=1).fit(train)
    assert len(est.history_) == 4
    with pytest.raises(ValueError, match="loss was 'vist' at fit and is 'poisson'"):
        est.set_params(loss="poisson").fit(train)


def test_one_more_epoch_can_be_trained(train, test):
    est = vist().fit(train)
    before = est.predict(test)["A"].values
    est.partial_fit(train)
    assert len(est.history_) == 3
    assert (est.predict(test)["A"].values != before).any()


def test_the_preset_is_the_published_model():
    est = v1.ViSTRegressor.from_preset("vist2024")
    assert est.backbone == "facebook/dinov2-large"
    network = nn.ViSTReadout(
        (1024, 16, 16), 90, receptive_field=np.ones((90, 16, 16)), n_layers=est.n_layers,
        channels=est.channels, kernels=est.kernels, causal=est.causal, condition=est.condition,
    )  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == 1_702_952
    assert network.context_frames == (182, 0)


# ------------------------------------------------------------------------------------ bad input


def test_windows_longer_than_any_movie_are_refused(train):
    with pytest.raises(
        ValueError,
        match=r"mouse 'A': window_frames is 128.*has \d+ frames.*window_frames=\d+ or less",
    ):
        vist(window_frames=128).fit(train)


def test_windows_too_short_for_the_alignment_are_refused(train):
    with pytest.raises(ValueError, match=r"window_frames=30.*from 40 on, or loss='rmse'"):
        vist(window_frames=30).fit(train)


def test_movies_without_any_response_are_refused(train):
    responses = train.recordings["A"]["responses"].copy(deep=True)
    responses[1] = np.nan
    with pytest.raises(ValueError, match=r"mouse 'A': no frame of movie 1 of \d+ has responses"):
        vist(validation_fraction=0.0).fit(part_of(train, responses=responses))


def test_recordings_without_receptive_fields_are_refused(train):
    recording = train.recordings["A"].to_dataset().drop_vars("receptive_field")
    with pytest.raises(ValueError, match="mouse 'A': the recording has no receptive_field"):
        vist().fit(v1.Trials({"A": recording}))


def test_receptive_fields_that_are_empty_are_refused(train):
    fields = train.recordings["A"]["receptive_field"].copy(deep=True)
    fields[1] = 0
    with pytest.raises(
        ValueError, match="mouse 'A': receptive_field is zero, NaN or infinite for 1 of 3"
    ):
        vist().fit(part_of(train, receptive_field=fields))


def test_receptive_fields_are_those_of_the_neurons_that_are_selected(trials, train, test):
    chosen = {"A": trials.neuron_ids("A")[[2, 0]]}
    est = vist(max_epochs=1, warmup_epochs=0).fit(train.sel(neuron=chosen))
    fields = train.recordings["A"]["receptive_field"].sel(neuron=est.neurons_["A"]["neuron"]).values
    expected = fields / np.abs(fields).max((1, 2), keepdims=True)
    np.testing.assert_allclose(est.statistics_["A"]["receptive_field"], expected, rtol=1e-5)
    assert est.predict(test.sel(neuron=chosen))["A"].shape[2] == 2


def test_receptive_fields_of_other_cells_are_refused(fitted, test):
    fields = test.recordings["A"]["receptive_field"]
    swapped = part_of(test, receptive_field=fields.copy(data=fields.values[[1, 0, 2]]))
    with pytest.raises(
        ValueError, match=r"receptive_field of 2 of 3 neurons.*another one than at fit"
    ):
        fitted.predict(swapped)


def test_movies_of_another_frame_rate_are_refused(fitted):
    other = v1.Trials(movies(frame_rate=60.0)).sel(tier="test")
    with pytest.raises(
        ValueError, match=r"mouse 'A': movies have 60 frames per second.*movies of 30"
    ):
        fitted.predict(other)


def test_responses_of_another_number_of_frames_are_refused():
    stimuli, responses = np.zeros((4, 50, 1, 8, 8), np.uint8), np.ones((4, 25, 3), np.float32)
    with pytest.raises(ValueError, match=r"50.*25|25.*50"):
        vist(condition="none").fit(stimuli, None, responses)


def test_images_are_refused():
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    responses = np.random.default_rng(1).gamma(1, 1, (20, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="stimuli are images, but this model sees time"):
        vist(condition="none").fit(images, None, responses)


def test_frames_that_do_not_divide_into_patches_are_refused(train):
    with pytest.raises(ValueError, match="8 x 8 pixels do not divide into 3 x 3 patches"):
        vist(grid=3).fit(train)


def test_a_backbone_without_use_is_warned_of(train):
    with pytest.warns(UserWarning, match="the backbone has no effect with prior='patches'"):
        vist(backbone="facebook/dinov2-large").fit(train)
