"""Parameters and values that are not known: known ones are guessed, nothing else changes."""

import inspect
import pickle

import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn.search import HyperbandSearch

MODELS = [v1.CNNRegressor, v1.LNRegressor, v1.V1TRegressor, v1.ViTRegressor]
MODELS += [v1.FullModelRegressor]


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        (v1.CNNRegressor, "hidden_chanels", "hidden_channels"),
        (v1.CNNRegressor, "HiddenKernel", "hidden_kernel"),
        (v1.CNNRegressor, "batchsize", "batch_size"),
        (v1.CNNRegressor, "behaviour_mode", "behavior_mode"),
        (v1.CNNRegressor, "epochs", "max_epochs"),
        (v1.CNNRegressor, "n_epochs", "max_epochs"),
        (v1.CNNRegressor, "max_iter", "max_epochs"),
        (v1.CNNRegressor, "learning_rate", "lr"),
        (v1.CNNRegressor, "learning_rate_init", "lr"),
        (v1.CNNRegressor, "seed", "random_state"),
        (v1.CNNRegressor, "random_seed", "random_state"),
        (v1.CNNRegressor, "kernel_size", "input_kernel or hidden_kernel"),
        (v1.CNNRegressor, "n_hidden", "hidden_channels"),
        (v1.CNNRegressor, "early_stopping", "lr_patience or max_lr_drops"),
        (v1.CNNRegressor, "validation_split", "validation_fraction"),
        (v1.CNNRegressor, "gpu", "device"),
        (v1.CNNRegressor, "alpha", "readout_l1"),
        (v1.CNNRegressor, "momentum", "batch_norm_momentum"),
        (v1.V1TRegressor, "dropout", "mlp_dropout or attention_dropout"),
        (v1.V1TRegressor, "n_layers", "n_blocks"),
        (v1.V1TRegressor, "num_heads", "n_heads"),
        (v1.V1TRegressor, "emb_dim", "embed_dim"),
        (v1.V1TRegressor, "stride", "patch_stride"),
        (v1.EnsembleRegressor, "n_estimators", "n_candidates or n_members"),
        (v1.EnsembleRegressor, "models", "estimator"),
        (v1.TrialStandardizer, "stimulus", "stimuli"),
        (v1.CenterCrop, "crop_scale", "scale"),
        (v1.ResizeStimuli, "size", "image_size"),
        (HyperbandSearch, "n_iter", "n_trials"),
    ],
)
def test_misspelt_parameters(kind, name, meant):
    message = f"{kind.__name__} has no parameter '{name}': did you mean {meant}\\?"
    with pytest.raises(TypeError, match=message):
        kind(**{name: 1})


@pytest.mark.parametrize(
    ("kind", "name", "owners"),
    [
        (v1.CNNRegressor, "patch_size", "V1TRegressor and ViTRegressor"),
        (
            v1.V1TRegressor,
            "hidden_kernel",
            "CNNRegressor, DINAAligner, LNRegressor, MinimodelRegressor and MovieCNNRegressor",
        ),
        (v1.CNNRegressor, "n_jobs", "EnsembleRegressor"),
    ],
)
def test_parameters_of_another_model(kind, name, owners):
    with pytest.raises(TypeError, match=f"{name} is a parameter of {owners}\\.") as error:
        kind(**{name: 1})
    assert "did you mean" not in str(error.value)  # batch_size is no patch_size


def test_parameters_of_the_model_inside_an_ensemble():
    ensemble = v1.EnsembleRegressor(v1.CNNRegressor())
    message = r"EnsembleRegressor\(CNNRegressor\(lr=...\)\), or set estimator__lr"
    with pytest.raises(TypeError, match=message):
        v1.EnsembleRegressor(v1.CNNRegressor(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        ensemble.set_params(lr=0.1)
    assert ensemble.set_params(estimator__lr=0.1).estimator.lr == 0.1


@pytest.mark.parametrize("kind", MODELS)
def test_all_parameters_are_listed(kind):
    with pytest.raises(TypeError, match="The parameters are ") as error:
        kind(nonsense=1)
    listed = str(error.value).partition("The parameters are ")[2].rstrip(".").split(", ")
    assert listed == sorted(kind().get_params(deep=False))


def test_parameters_by_position(trials):
    with pytest.raises(TypeError, match="CNNRegressor takes no parameter by position, but 1 came"):
        v1.CNNRegressor(64)
    message = "only estimator, n_candidates and n_members by position, but 4 came: name them"
    with pytest.raises(TypeError, match=message):
        v1.EnsembleRegressor(v1.CNNRegressor(), 3, 2, "rates")
    with pytest.raises(TypeError, match=r"data go to fit: CNNRegressor\(\)\.fit\(trials\)"):
        v1.CNNRegressor(trials)
    with pytest.raises(TypeError, match=r"a preset: write CNNRegressor\.from_preset\('v1t2023'\)"):
        v1.CNNRegressor("v1t2023")
    with pytest.raises(TypeError, match="estimator"):
        v1.EnsembleRegressor()


def test_a_class_without_parameters():
    for call in (lambda: v1.Grayscale(True), lambda: v1.Grayscale(nonsense=1)):
        with pytest.raises(TypeError, match=r"Grayscale .* It has no parameters"):
            call()
    assert not inspect.signature(v1.Grayscale).parameters


@pytest.mark.parametrize("name", ["epochs", "cnnregressor__epochs"])
def test_set_params_guesses_wherever_it_is_called(name, trials):
    est = v1.CNNRegressor()
    est = make_pipeline(v1.TrialStandardizer(), est) if "__" in name else est
    message = "CNNRegressor has no parameter 'epochs': did you mean max_epochs\\?"
    with pytest.raises(ValueError, match=message):
        est.set_params(**{name: 3})
    with pytest.raises(ValueError, match=message):
        GridSearchCV(est, {name: [3]}, error_score="raise").fit(trials)


def test_parameters_with_the_prefix_of_a_pipeline():
    with pytest.raises(ValueError, match="'cnnregressor__lr': did you mean lr\\?"):
        v1.CNNRegressor().set_params(cnnregressor__lr=3)


def test_parameters_to_search_over(trials):
    search = HyperbandSearch(v1.CNNRegressor(), {"hidden_chanels": [2, 3]}, n_trials=1)
    with pytest.raises(ValueError, match=r"\['hidden_chanels'\].*did you mean hidden_channels"):
        search.fit(trials)


def test_parameters_of_a_transfer(fitted, trials):
    with pytest.raises(ValueError, match="no parameter 'epochs': did you mean max_epochs"):
        fitted.transfer(trials, epochs=3)
    with pytest.raises(ValueError, match="no argument 'freeze': did you mean freeze_core"):
        fitted.transfer(trials, freeze=True)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (v1.V1TRegressor, "V1T2023", "Did you mean 'v1t2023'?"),
        (v1.CNNRegressor, "sensorium", "Did you mean 'sensorium2022'?"),
        (v1.V1TRegressor, "sensorium2022", "a preset of CNNRegressor and LNRegressor."),
        (v1.V1TRegressor, "nonsense", "expected one of ['v1t2023']."),
    ],
)
def test_presets(kind, name, said):
    with pytest.raises(ValueError, match=f"has no preset '{name}'") as error:
        kind.from_preset(name)
    assert str(error.value).endswith(said)


def test_overrides_of_a_preset():
    with pytest.raises(TypeError, match="no parameter 'epochs': did you mean max_epochs"):
        v1.V1TRegressor.from_preset("v1t2023", epochs=3)


@pytest.mark.parametrize(
    ("kind", "params", "said"),
    [
        (v1.CNNRegressor, {"behavior_mode": "channel"}, "Did you mean 'channels'?"),
        (v1.CNNRegressor, {"behavior_mode": "behaviour"}, "Did you mean 'channels'?"),
        (v1.V1TRegressor, {"behavior_mode": "b-mlp"}, "Did you mean 'b_mlp'?"),
        (v1.CNNRegressor, {"behavior_mode": "b_mlp"}, "'b_mlp' is for V1TRegressor."),
        (v1.CNNRegressor, {"behavior_mode": None}, "Did you mean 'none'?"),
        (v1.CNNRegressor, {"shift": False}, "Did you mean 'none'?"),
        (v1.CNNRegressor, {"optimizer": "Adam"}, "Did you mean 'adam'?"),
        (v1.CNNRegressor, {"optimizer": "sgd"}, "Got 'sgd' instead."),
        (v1.CNNRegressor, {"precision": "16-mixed"}, "Did you mean 'bfloat16'?"),
        (v1.CNNRegressor, {"behavior_columns": "pupil_x"}, "behavior_columns=['pupil_x']."),
        (v1.CNNRegressor, {"lr": "1e-3"}, "without quotation marks: lr=1e-3."),
        (v1.CNNRegressor, {"max_epochs": 10.0}, "Give a whole number: max_epochs=10."),
        (v1.CNNRegressor, {"max_epochs": 10.5}, "Got 10.5 instead."),
    ],
)
def test_values(kind, params, said, trials, small):
    (name,) = params
    message = f"The '{name}' parameter of {kind.__name__} must be .* Got "
    with pytest.raises(ValueError, match=message) as error:
        small(kind, **params).fit(trials)
    assert str(error.value).endswith(said)


def test_values_of_an_ensemble(small, trials):
    with pytest.raises(ValueError, match="Did you mean 'outputs'"):
        v1.EnsembleRegressor(small(), combine="output").fit(trials)


@pytest.mark.parametrize("kind", [*MODELS, v1.EnsembleRegressor, v1.TrialStandardizer])
def test_the_signature_stays_that_of_the_constructor(kind):
    whole, inner = inspect.signature(kind), inspect.signature(kind.__init__)
    assert list(whole.parameters) == list(inner.parameters)[1:]
    assert all(p.kind != p.VAR_KEYWORD for p in whole.parameters.values())


def test_estimators_are_copied_as_ever():
    est = v1.V1TRegressor(lr=0.5)
    for same in (clone(est), pickle.loads(pickle.dumps(est)), v1.V1TRegressor(**est.get_params())):
        assert same.get_params() == est.get_params()


def test_a_subclass_may_take_what_it_likes():
    class Own(v1.CNNRegressor):
        def __init__(self, first=1, **others):
            self.first = first
            super().__init__(**others)

    assert Own(5, lr=0.5).first == 5
    with pytest.raises(TypeError, match="'nonsense'"):
        Own(nonsense=1)
