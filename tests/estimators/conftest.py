"""Small simulated mice, and models that fit them in a tenth of a second."""

import shutil

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.mice import two_mice

SMALL = {
    v1.CNNRegressor: {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3},
    v1.LNRegressor: {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3},
    v1.FullModelRegressor: {"channels": (3, 4), "kernels": (5, 3)}
    | {"space_init": 0.3, "channel_init": 0.3},  # or so few steps leave neurons constant
    v1.MinimodelRegressor: {"hidden_channels": 4, "hidden_kernel": 3, "space_init": 0.3}
    | {"full_model": v1.FullModelRegressor(channels=(3, 4), kernels=(5, 3), max_epochs=1)},
    v1.ViTRegressor: {"patch_size": 4, "patch_stride": 4, "n_blocks": 2, "n_heads": 2}
    | {"embed_dim": 8, "mlp_dim": 8},
    v1.V1TRegressor: {"patch_size": 4, "patch_stride": 4, "n_blocks": 2, "n_heads": 2}
    | {"embed_dim": 8, "mlp_dim": 8},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """In this process and in those of joblib, which have more where there are more cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def recordings():
    return two_mice()


@pytest.fixture(scope="session")
def trials(recordings):
    """The training tier of both mice."""
    return v1.Trials(recordings).sel(tier="train")


@pytest.fixture(scope="session")
def test_trials(recordings):
    return v1.Trials(recordings).sel(tier="test")


@pytest.fixture(scope="session")
def views():
    """Mice of 5 neurons that saw images which a backbone can read, 28 x 42 pixels."""
    return v1.Trials(two_mice(n_neurons=5, n_trials=40, n_repeats=3, image_shape=(28, 42)))


@pytest.fixture(scope="session")
def saved_backbone(tmp_path_factory):
    """A small backbone in a folder; not to be changed."""
    from tests.backbones import DINOV2, random_backbone

    path = tmp_path_factory.mktemp("backbone") / "dinov2"
    random_backbone(DINOV2).save_pretrained(path)
    return path


@pytest.fixture
def folder(saved_backbone, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(saved_backbone, tmp_path / "backbone")


@pytest.fixture(scope="session")
def small():
    """Make an unfitted model of a class, tiny and seeded, with some parameters replaced."""

    def make(kind=v1.CNNRegressor, **params):
        common = {"batch_size": 16, "max_epochs": 2, "random_state": 0, "device": "cpu"}
        common |= {"lr": 2e-3}  # so few trials and pixels need care
        return kind(**{**common, **SMALL[kind], **params})

    return make


@pytest.fixture(scope="session")
def arrays(trials):
    """Plain dicts per mouse: stimuli, behaviors, responses, image_ids, positions."""
    mice = trials.mice
    names = ("stimuli", "behaviors", "responses")
    out = {name: {m: trials.get(name, m) for m in mice} for name in names}
    out["image_ids"] = {m: trials.image_ids[trials.rows(m)[0]] for m in mice}
    out["positions"] = {m: trials.positions(m) for m in mice}
    return out


@pytest.fixture(scope="session")
def equal():
    """Whether two sets of predictions are equal to the last bit."""

    def compare(first, second):
        if isinstance(first, dict):
            assert first.keys() == second.keys()
            return all(np.array_equal(first[key], second[key]) for key in first)
        first, second = ([np.asarray(v) for v in np.asarray(p)] for p in (first, second))
        return len(first) == len(second) and all(map(np.array_equal, first, second))

    return compare


@pytest.fixture(scope="session")
def fitted(small, trials):
    """A CNN fitted to both mice; not to be changed."""
    return small().fit(trials)
