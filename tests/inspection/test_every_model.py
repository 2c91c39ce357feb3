"""Every analysis of every kind of model: results for every mouse, or why there are none."""

import re
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.mice import two_mice
from tests.sweeps import quick
from v1tlearn import inspection as look
from v1tlearn.preprocessing import CenterCrop, TrialStandardizer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*cannot follow their images"),  # so few steps
    pytest.mark.filterwarnings("ignore:the model computes these places from cortical positions"),
]

FIT = {"batch_size": 16, "max_epochs": 1, "random_state": 0, "device": "cpu"}
CNN = {**FIT, "n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
VIT = {**FIT, "patch_size": 4, "patch_stride": 4, "n_blocks": 2, "n_heads": 2, "embed_dim": 8}
VIT |= {"mlp_dim": 4}
MOVIE = {**FIT, "batch_size": 4, "window_frames": 8}
BACKBONE = {"model_type": "dinov2_with_registers", "hidden_size": 16, "num_hidden_layers": 2}
BACKBONE |= {"num_attention_heads": 2, "patch_size": 14, "image_size": 70}
BACKBONE |= {"num_register_tokens": 2, "initializer_range": 0.3}


class Own(v1.nn.Core):
    """A core of one's own, which says of its maps nothing but their size."""

    def __init__(self, input_shape, n_channels=3):
        super().__init__(input_shape)
        channels, height, width = input_shape
        self.output_shape = (n_channels, height - 4, width - 4)
        self.filters = torch.nn.Conv2d(channels, n_channels, 5)

    def forward(self, images, behaviors=None, sizes=None):
        return torch.nn.functional.elu(self.filters(images))


def in_color(trials):
    """Three channels, of which each holds something else."""
    out = {}
    for mouse in trials.mice:
        recording = trials.recordings[mouse].to_dataset()
        gray = recording["stimuli"].values.astype(np.float32)
        three = np.concatenate([gray, 255 - 0.5 * gray, gray[..., ::-1]], axis=1)
        known = [name for name in ("stimuli_mean", "stimuli_std", "channel") if name in recording]
        out[mouse] = recording.drop_vars(["stimuli", *known]).assign(
            stimuli=(("trial", "channel", "height", "width"), three)
        )
    return v1.Trials(out)


def bare(trials):
    """One mouse of one neuron, of which only images and responses are known."""
    kept = ["stimuli", "responses"]
    recording = trials.recordings["A"].to_dataset().isel(neuron=[0])[kept]
    return v1.Trials({"A": recording.drop_vars(["neuron", "behavior"], errors="ignore")})


def _recordings():
    images = v1.Trials(two_mice(n_neurons=[4, 3], n_trials=40, n_repeats=3))
    return {
        "images": images,
        "color": in_color(images),
        "bare": bare(images),
        "large": v1.Trials(
            two_mice(n_mice=1, n_neurons=[3], n_trials=24, n_repeats=3, image_shape=(28, 42))
        ),
        "movies": v1.Trials(
            v1.make_movie_recordings(
                2, [3, 2], 6, 2, 3, n_frames=(10, 14), image_shape=(12, 16), random_state=0
            )
        ),
        "plain movies": v1.Trials(
            v1.make_movie_recordings(
                1, 3, 5, 2, 3, n_frames=(44, 48), image_shape=(8, 8), behavior=False, random_state=0
            )
        ),
    }


def _vist():
    sizes = {"grid": 4, "n_layers": 2, "channels": 4, "kernels": ((1, 5),), "window_frames": 40}
    steps = {"batch_size": 3, "steps_per_epoch": 1, "max_epochs": 1, "warmup_epochs": 0}
    return v1.ViSTRegressor(**sizes, **steps, random_state=0, device="cpu")


def _pretrained(**options):
    return v1.PretrainedViTRegressor(BACKBONE, weights=None, block=1, **FIT, **options)


def _searched(trials):
    search = GridSearchCV(v1.LNRegressor(**CNN), {"lr": [0.01]}, cv=GroupKFold(2))
    return search.fit(trials, groups=trials.image_ids)


def _transferred(trials):
    first = v1.CNNRegressor(**CNN).fit(trials.sel(mouse_id="B"))
    return first.transfer(trials.sel(mouse_id="A"))


def _minimodel(trials):
    full = v1.FullModelRegressor(channels=(3, 4), kernels=(5, 3), **FIT).fit(trials)
    return v1.MinimodelRegressor(full_model=full, hidden_channels=3, hidden_kernel=3, **FIT).fit(
        trials
    )


def _pipeline():
    model = v1.V1TRegressor(**{**VIT, "patch_stride": 2}, standardize=False)
    return make_pipeline(TrialStandardizer(), CenterCrop(0.75), model)


MODELS = {  # by the recordings that they are fitted to: an estimator, or how one is fitted
    "LN": ("images", v1.LNRegressor(**CNN)),
    "CNN": ("images", v1.CNNRegressor(**CNN, shift="both")),
    "V1T": ("images", v1.V1TRegressor(**VIT, behavior_mode="b_mlp_per_mouse")),
    "full": ("images", v1.FullModelRegressor(channels=(3, 4), kernels=(5, 3), **FIT)),
    "mini": ("images", _minimodel),
    "pretrained": ("large", _pretrained()),
    "class token": ("large", _pretrained(tokens="cls")),
    "own core": ("images", v1.EncodingRegressor(Own, **FIT)),
    "own factorized": (
        "images",
        v1.EncodingRegressor(partial(Own, n_channels=2), readout="factorized", **FIT),
    ),
    "color": ("color", v1.CNNRegressor(**CNN)),
    "bare": ("bare", v1.CNNRegressor(**CNN)),
    "transferred": ("images", _transferred),
    "search": ("images", _searched),
    "pipeline": ("images", _pipeline()),
    "ensemble": ("images", v1.EnsembleRegressor(v1.LNRegressor(**CNN), n_members=2)),
    "frames": ("movies", v1.CNNRegressor(**CNN)),
    "movie CNN": (
        "movies",
        v1.MovieCNNRegressor(
            **MOVIE, n_layers=2, hidden_channels=3, input_kernel=5, hidden_kernel=3,
            input_time_kernel=3, hidden_time_kernel=2,
        ),
    ),
    "movie LN": ("movies", v1.MovieLNRegressor(**MOVIE, n_lags=4)),
    "Vi-ST": ("plain movies", _vist()),
}  # fmt: skip
SEE_TIME = ["movie CNN", "movie LN", "Vi-ST"]
OF_MOVIES = ["frames", *SEE_TIME]
NO_ATTENTION = [name for name in MODELS if name not in ("V1T", "pretrained", "class token",
                                                        "pipeline", "ensemble")]  # fmt: skip


def _curves(model, test):
    shape = test.get("stimuli", test.mice[0]).shape[-3:]
    options = {"spatial_frequency": [0.1, 0.2], "orientation": [0, 45, 90, 135]}
    if test.n_frames is None:
        return look.tuning_curves(model, look.gratings(shape, **options, phase=[0, 90, 180, 270]))
    rate = test.frame_rate(test.mice[0])
    drift = {"temporal_frequency": rate / 4, "n_frames": 8, "frame_rate": rate}
    return look.tuning_curves(model, look.gratings(shape, **options, **drift))


def _surround(model, test):
    fields = look.most_exciting_images(model, n_steps=2, n_starts=1)
    properties = look.tuning_properties(_curves(model, test))
    options = {"n_phases": 4, "inner_diameters": [1.0], "relative_orientations": [0, 90]}
    return look.surround(model, fields, properties, diameter=6, **options)


def _fields(model, test, **options):
    """By gradients at grey, where there is one."""
    if type(model).__name__ == "PretrainedViTRegressor":
        options["images"] = test
    return look.receptive_fields(model, method="gradient", **options)


def _smoothness(model, test):
    return {
        mouse: look.retinotopy_smoothness(own, n_neighbors=2, n_permutations=3)
        for mouse, own in look.readout_positions(model).items()
    }


def _gaussians(model, test):
    return {mouse: look.fit_gaussians(own, worst=0) for mouse, own in _fields(model, test).items()}


def _centers(model, test):
    return look.attention_center_of_mass(look.attention_rollout(model, test))


def _one(display):
    """A display of one mouse and one model."""
    return lambda model, test: display({"model": model}, test, mouse_id=test.mice[0])


ANALYSES = {
    "receptive_fields": _fields,
    "noise": lambda model, test: look.receptive_fields(model, n_images=8),
    "rms": lambda model, test: look.receptive_fields(
        model, method="gradient", images=test, average="rms"
    ),
    "grey": lambda model, test: look.receptive_fields(model, method="gradient"),
    "fields at behaviour": lambda model, test: _fields(
        model, test, behaviors={"running_speed": 1.0}
    ),
    "ReceptiveFieldDisplay": lambda model, test: look.ReceptiveFieldDisplay.from_fields(
        _fields(model, test)[test.mice[0]], n_fields=1
    ),
    "KernelDisplay": lambda model, test: look.KernelDisplay.from_kernels(
        _fields(model, test)[test.mice[0]], n_neurons=1, n_maps=2
    ),
    "fit_gaussians": _gaussians,
    "readout_positions": lambda model, test: look.readout_positions(model),
    "retinotopy_smoothness": _smoothness,
    "RetinotopyDisplay": lambda model, test: look.RetinotopyDisplay.from_estimator(
        model, mouse_id=test.mice[0]
    ),
    "pooling_sizes": lambda model, test: look.pooling_sizes(model),
    "attention_rollout": lambda model, test: look.attention_rollout(
        model, test, placement="centers"
    ),
    "attention_center_of_mass": _centers,
    "attention_pupil_correlation": lambda model, test: look.attention_pupil_correlation(
        model, test, n_permutations=3
    ),
    "AttentionRolloutDisplay": lambda model, test: look.AttentionRolloutDisplay.from_estimator(
        model, test, n_images=1
    ),
    "behavior_gain": lambda model, test: look.behavior_gain(model, test, "running_speed"),
    "behavior_ablation": lambda model, test: look.behavior_ablation(
        model, test, ["running_speed"], n_repeats=1
    ),
    "behavior_activations": lambda model, test: look.behavior_activations(model, test),
    "BehaviorActivationDisplay": lambda model, test: look.BehaviorActivationDisplay.from_estimator(
        model, test
    ),
    "performance_by_behavior": lambda model, test: look.performance_by_behavior(
        model, test, "running_speed", n_groups=2, n_shuffles=1
    ),
    "readout_shifts": lambda model, test: look.readout_shifts(model, test),
    "most_exciting_images": lambda model, test: look.most_exciting_images(
        model, n_steps=2, n_starts=1
    ),
    "tuning_curves": lambda model, test: look.tuning_curves(model, test),
    "gratings": _curves,
    "surround": _surround,
    "PredictionDisplay": _one(look.PredictionDisplay.from_estimator),
    "MoviePredictionDisplay": _one(look.MoviePredictionDisplay.from_estimator),
    "ScoreDisplay": lambda model, test: look.ScoreDisplay.from_estimator({"model": model}, test),
    "TrainingDisplay": lambda model, test: look.TrainingDisplay.from_estimator(model),
    "neuron_importance": lambda model, test: look.neuron_importance(model, test),
    "alignment_map": lambda model, test: look.alignment_map(model, test),
    "gradient_saliency": lambda model, test: look.gradient_saliency(model, test),
    "manipulation_curve": lambda model, test: look.manipulation_curve(model, test),
    "attention_masking": lambda model, test: look.attention_masking(model, test),
    "RetrievalDisplay": lambda model, test: look.RetrievalDisplay.from_estimator(model, test),
}
_SINGLE = {r"EnsembleRegressor came: expected one .* take the members": ["ensemble"]}
_ALIGNERS = {"expected a fitted DINAAligner": list(MODELS)}
_TIME = {"this model sees time|lags?": SEE_TIME}
_NO_PLACE = {"its ViSTReadout has no position": ["Vi-ST"], "lies nowhere": ["class token"]}
_NO_CORTEX = {"have no cortical position": ["bare", "frames", "movie CNN", "movie LN"]}
_ATTENTION = {"has no attention: expected a transformer": NO_ATTENTION} | _SINGLE
_NETWORKS = {"has no behaviour networks|are movies": [
    name for name in MODELS if name not in ("V1T", "pipeline", "ensemble")
]} | _SINGLE  # fmt: skip
_UNUSED = {
    "behaviors names .*running_speed": [
        "pretrained", "class token", "bare", "movie LN", "Vi-ST",
    ]
}  # fmt: skip
_NO_BEHAVIOR = {"has no behaviour": ["bare", "Vi-ST"]}

WHY_NOT = {  # what an analysis says of the models for which it has no meaning
    "receptive_fields": _SINGLE,
    "noise": _SINGLE,
    "rms": _SINGLE | {"images are movies|sees time": OF_MOVIES},
    "grey": _SINGLE | {"own contrast, of which grey has none": ["pretrained", "class token"]},
    "fields at behaviour": _SINGLE | _UNUSED,
    "ReceptiveFieldDisplay": _SINGLE | {"kernels in time": SEE_TIME},
    "KernelDisplay": _SINGLE
    | {"expected .*'lag'": [m for m in MODELS if m not in ("ensemble", *SEE_TIME)]},
    "fit_gaussians": _SINGLE | {"kernels in time": SEE_TIME},
    "readout_positions": _SINGLE | _NO_PLACE,
    "retinotopy_smoothness": _SINGLE | _NO_PLACE | _NO_CORTEX,
    "RetinotopyDisplay": _SINGLE | _NO_PLACE | _NO_CORTEX,
    "pooling_sizes": _SINGLE
    | {
        "expected a factorised readout": [
            m
            for m in MODELS
            if m not in ("full", "mini", "own factorized", "pretrained", "class token", "ensemble")
        ],
        "have one place along a side": ["class token"],
    },
    "attention_rollout": _ATTENTION,
    "attention_center_of_mass": _ATTENTION,
    "attention_pupil_correlation": _ATTENTION,
    "AttentionRolloutDisplay": _ATTENTION,
    "behavior_gain": _NO_BEHAVIOR,
    "behavior_ablation": {"uses no behaviour": ["bare", "movie LN", "Vi-ST"]},
    "behavior_activations": _NETWORKS,
    "BehaviorActivationDisplay": _NETWORKS,
    "performance_by_behavior": _NO_BEHAVIOR,
    "readout_shifts": _SINGLE | {"readouts do not move": ["bare", "mini"], "are movies": OF_MOVIES},
    "most_exciting_images": _SINGLE | {"sees time": SEE_TIME},
    "tuning_curves": {"stimuli are movies": ["frames"]},
    "gratings": {"stimuli are movies": ["frames"]},
    "surround": _SINGLE
    | {"sees time": SEE_TIME, "steps of this Pipeline": ["pipeline"], "are movies": ["frames"]},
    "MoviePredictionDisplay": {
        "are images, which have no time": [m for m in MODELS if m not in OF_MOVIES]
    },
    "neuron_importance": _ALIGNERS,
    "alignment_map": _ALIGNERS,
    "gradient_saliency": _ALIGNERS,
    "manipulation_curve": _ALIGNERS,
    "attention_masking": _ALIGNERS,
    "RetrievalDisplay": _ALIGNERS,
}


@pytest.fixture(scope="module")
def recordings():
    return _recordings()


@pytest.fixture(scope="module")
def known(recordings):
    """Fit models, each once; with the test trials of the mice that it knows."""
    made = {}

    def get(name):
        if name not in made:
            of, how = MODELS[name]
            train = recordings[of].sel(tier="train")
            model = how(train) if not hasattr(how, "fit") else how.fit(train)
            test = recordings[of].sel(tier="test")
            made[name] = model, test.sel(mouse_id="A") if name == "transferred" else test
        return made[name]

    return get


def _arrays(found):
    """All arrays of numbers of an answer."""
    if isinstance(found, dict):
        return [array for own in found.values() for array in _arrays(own)]
    if isinstance(found, xr.Dataset):
        return [values.values for values in found.data_vars.values()]
    return [found.values] if isinstance(found, xr.DataArray) else []


@pytest.mark.parametrize("name", quick(MODELS, 1))
@pytest.mark.parametrize("analysis", ANALYSES)
def test_a_result_for_every_mouse_or_a_reason(analysis, name, known, figures):
    model, test = known(name)
    reasons = [why for why, names in WHY_NOT.get(analysis, {}).items() if name in names]
    if reasons:
        with pytest.raises((TypeError, ValueError)) as caught:
            ANALYSES[analysis](model, test)
        assert re.search(reasons[0], str(caught.value)), str(caught.value)
        frames = caught.traceback
        assert str(frames[-1].path).startswith(str(next(iter(v1.__path__))))  # an error of ours
        return
    found = ANALYSES[analysis](model, test)
    if isinstance(found, dict):
        assert list(found) == test.mice
        for mouse, own in found.items():
            if "neuron" in own.sizes:
                assert own.sizes["neuron"] == test.n_neurons[mouse]
    if analysis != "fit_gaussians":  # NaN where there is no blob
        assert all(np.isfinite(values).any() for values in _arrays(found) if values.size)


@pytest.mark.parametrize("name", ["LN", "CNN", "V1T", "own core", "color"])
def test_gradients_are_slopes_of_what_is_predicted(name, recordings):
    """Of the change of predictions where the pixels of the stimuli change a little."""
    of, how = MODELS[name]
    train = recordings[of].sel(tier="train")
    model = clone(how).set_params(shift="none").fit(train)
    test = recordings[of].sel(tier="test")
    some = test[np.array([test.rows(mouse)[0][0] for mouse in test.mice])]
    stimuli = {mouse: some.get("stimuli", mouse).astype(np.float64) for mouse in some.mice}
    change = np.random.default_rng(0).normal(size=stimuli["A"].shape[1:])
    up, down = (
        look.tuning_curves(model, {mouse: own + step * change for mouse, own in stimuli.items()})
        for step in (1, -1)
    )
    fields = look.receptive_fields(model, method="gradient", images=some)
    for mouse, own in fields.items():
        std = model.statistics_[mouse]["image_std"]
        slopes = (own.values * change).sum((1, 2, 3)) / std
        changes = (up[mouse] - down[mouse]).values[:, 0] / 2
        np.testing.assert_allclose(changes, slopes, rtol=0.02, atol=0.02 * np.abs(slopes).max())


def test_a_pipeline_has_the_fields_of_its_last_step(known):
    model, test = known("pipeline")
    passed = model[:-1].transform(look.with_behavior(test, {"running_speed": 2.0}))
    for mouse in test.mice:
        place = test.behavior_names(mouse).index("running_speed")
        value = float(passed.get("behaviors", mouse)[0, place])
        options = {"method": "gradient", "mice": [mouse]}
        found = look.receptive_fields(model, behaviors={"running_speed": 2.0}, **options)[mouse]
        own = look.receptive_fields(model[-1], behaviors={"running_speed": value}, **options)[mouse]
        xr.testing.assert_allclose(found, own)
        resting = look.receptive_fields(model, **options)[mouse]
        assert not np.allclose(found, resting, rtol=1e-6, atol=0)
    places, expected = look.readout_positions(model), look.readout_positions(model[-1])
    xr.testing.assert_identical(places["A"], expected["A"])


def test_pooling_sizes_of_an_own_core_are_in_pixels(known):
    """Its maps lose two pixels at every edge, and its places are one pixel apart."""
    model, _ = known("own factorized")
    readout = model.module_.readout("A")
    rows, columns = readout.rows.clone(), readout.columns.clone()
    try:
        with torch.no_grad():
            for side, at in ((readout.rows, 4.0), (readout.columns, 6.0)):
                places = torch.arange(side.shape[-1])
                side[:] = torch.exp(-((places - at) ** 2) / 2 / 2.0**2)
        found = look.pooling_sizes(model)["A"]
    finally:
        with torch.no_grad():
            readout.rows.copy_(rows)
            readout.columns.copy_(columns)
    np.testing.assert_allclose(found["y"], 4.0, atol=0.3)
    np.testing.assert_allclose(found["x"], 6.0, atol=0.3)
