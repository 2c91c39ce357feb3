"""The factorised readout through every estimator."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.inspection import receptive_fields
from v1tlearn.metrics import single_trial_correlation

MODELS = [v1.V1TRegressor, v1.ViTRegressor, v1.CNNRegressor, v1.LNRegressor]
MODELS += [v1.FullModelRegressor]


@pytest.fixture(scope="module")
def fitted(small, trials):
    return small(v1.CNNRegressor, readout="factorized", rank=2).fit(trials)


@pytest.mark.parametrize("kind", quick(MODELS, 0, 2))
def test_every_model_takes_it(kind, small, trials):
    options = {"channel_hoyer": 0.1, "space_weight_decay": 0.1}
    options |= {"space_init": 0.3, "channel_init": 0.3}  # or so few steps leave neurons constant
    est = small(kind, readout="factorized", **options).fit(trials)
    for readout in est.module_.readouts:
        assert isinstance(readout, v1.nn.FactorizedReadout)
        assert (readout.rows >= 0).all()
        assert (readout.columns >= 0).all()
        assert (readout.channels < 0).any()
    assert est.history_[-1]["loss"] < est.history_[0]["loss"]
    shifters = [est.module_.shifter(mouse) is not None for mouse in est.mice_]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "readout='gaussian' has no use for space_init")
        other = small(kind, readout="gaussian").fit(trials)
    assert shifters == [other.module_.shifter(m) is not None for m in est.mice_]


def test_cores_of_users_take_it(trials):
    class Identity(v1.nn.Core):
        def __init__(self, input_shape):
            super().__init__(input_shape)
            self.output_shape = tuple(input_shape)

        def forward(self, images, behaviors=None, sizes=None):
            return images

    est = v1.EncodingRegressor(
        Identity, readout="factorized", rank=3, behavior_mode="none", max_epochs=1, random_state=0
    ).fit(trials)
    assert est.module_.readout("A").rows.shape == (5, 3, est.module_.core.output_shape[1])


def test_it_is_saved_loaded_cloned_and_transferred(fitted, trials, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = v1.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(trials)["B"], fitted.predict(trials)["B"])
    assert (clone(loaded).readout, clone(loaded).rank) == ("factorized", 2)
    moved = loaded.transfer(trials.sel(mouse_id="A"), max_epochs=1)
    assert moved.module_.readout("A").rows.shape[1] == 2
    other = loaded.transfer(trials.sel(mouse_id="A"), readout="gaussian", rank=1, max_epochs=1)
    assert isinstance(other.module_.readout("A"), v1.nn.GaussianReadout)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot follow their images")
def test_it_is_searched_over_and_combined(small, trials):
    grid = {"readout": ["gaussian", "factorized"]}
    search = GridSearchCV(small(max_epochs=1), grid, cv=GroupKFold(2))
    search.fit(trials, groups=trials.image_ids)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    est = small(max_epochs=1, readout="factorized")
    ensemble = v1.EnsembleRegressor(est, n_candidates=2, n_members=2, random_state=0).fit(trials)
    assert np.isfinite(ensemble.score(trials))


def test_it_has_receptive_fields(fitted, trials):
    assert receptive_fields(fitted, 20)["A"].sizes["neuron"] == trials.n_neurons["A"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot follow their images")
def test_penalties_and_decays_reach_the_training(small, trials):
    def size(part, **options):
        options = {"readout": "factorized", "optimizer": "adamw", "max_epochs": 3, **options}
        options |= {"penalty_scale": "absolute"}
        est = small(v1.CNNRegressor, **options).fit(trials)
        return float(getattr(est.module_.readout("A"), part).detach().abs().sum())

    assert size("channels", channel_l1=1e4) < 0.5 * size("channels")
    assert size("rows", space_l2=1e6) < 0.5 * size("rows")
    assert size("rows", space_weight_decay=200.0) < 0.5 * size("rows")
    assert size("channels", channel_weight_decay=200.0) < 0.5 * size("channels")


def test_a_mouse_without_positions_needs_none(small, arrays):
    positions = {m: np.full((n, 3), np.nan) for m, n in (("A", 5), ("B", 7))}
    data = arrays["stimuli"], arrays["behaviors"], arrays["responses"]
    small(readout="factorized", max_epochs=1).fit(*data)
    with pytest.raises(ValueError, match="NaN"):
        small(max_epochs=1).fit(*data, positions=positions)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"readout": "factorised"}, "'readout' parameter of"),
        ({"rank": 0}, "'rank' parameter of"),
        ({"channel_hoyer": -1.0}, "'channel_hoyer' parameter of"),
        ({"space_weight_decay": "a"}, "'space_weight_decay' parameter of"),
    ],
)
def test_wrong_parameters_are_named(params, message, small, trials):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(trials)


class Polarities(v1.nn.Core):
    """Light and dark parts of the image, the image, and its contrast."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.output_shape = (4, *input_shape[1:])

    def forward(self, images, behaviors=None, sizes=None):
        return torch.cat([images.relu(), (-images).relu(), images, images.square()], 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_separable_receptive_fields(seed):
    """Every neuron that is separable is found, whatever signs its weights begin with."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(600, 1, 10, 14)).astype(np.float32)
    rows, columns = np.zeros((6, 10)), np.zeros((6, 14))
    for n in range(6):
        rows[n, n + 1 : n + 4], columns[n, 2 * n : 2 * n + 3] = (1, 2, 1), (1, 2, 1)
    drive = np.einsum("ny,nx,bcyx->bn", rows, columns, images) / 6
    rates = np.where(drive > 0, drive + 1, np.exp(np.minimum(drive, 0)))
    est = v1.EncodingRegressor(
        Polarities,
        readout="factorized",
        lr=0.01,
        batch_size=50,
        max_epochs=40,
        random_state=seed,
        device="cpu",
    ).fit(images[:500], None, rates[:500])
    found = single_trial_correlation(
        rates[500:], est.predict(images[500:]), multioutput="raw_values"
    )
    assert found.min() > 0.9


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"readout": "factorized", "readout_l1": 5.0, "position_network": False}
            | {"readout_bias": "mean"},
            "'factorized' has no use for position_network=False, readout_l1=5.0:",
        ),
        ({"rank": 2, "space_hoyer": 0.1}, "'gaussian' has no use for rank=2, space_hoyer=0.1:"),
    ],
)
def test_parameters_of_the_other_readout_are_named(params, said, small, trials):
    with pytest.warns(UserWarning, match=said) as caught:
        small(max_epochs=1, **params).fit(trials)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_what_presets_set_for_the_other_readout_is_no_choice_of_the_caller(trials):
    est = v1.CNNRegressor.from_preset(
        "v1t2023",
        readout="factorized",
        n_layers=1,
        hidden_channels=2,
        max_epochs=1,
        space_init=0.3,
        channel_init=0.3,
        device="cpu",
        random_state=0,
    )
    assert est.beyond_map == "zeros"
    est.fit(trials)  # warnings are errors
