"""Models in the layout of the published Vi-ST code, as estimators: published numbers, refusals."""

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.nn.movies.published_vist import load, relative_error, under

MODELS = ("model_causal", "model_symmetric", "model_one_item")


def renamed(weights, *, prefix="", causal=False):
    """Names of a saved state: with a prefix, and the wrapper of causal branches."""
    out = {}
    for name, value in weights.items():
        if causal and ".embed." in name:
            stem, _, kind = name.rpartition(".")
            name = f"{stem}.conv.{kind}"
        out[prefix + name] = value
    return out


def as_movies(x):
    """Features (B, T, g g, D) as movies (B, T, D, g, g)."""
    grid = int(x.shape[2] ** 0.5)
    return np.moveaxis(x.astype(np.float32), 3, 2).reshape(*x.shape[:2], -1, grid, grid)


def opened(arrays, item=0, **changes):
    rf = arrays["rf"][item]
    return v1.load_vist(under(arrays, "w/"), rf, causal=bool(arrays["causal"]), **changes)


@pytest.mark.parametrize("name", MODELS)
def test_predictions_agree_with_the_published_network(name):
    arrays = load(name)
    movies = as_movies(arrays["x"])
    for item, expected in enumerate(arrays["eval/y"]):
        est = opened(arrays, item)
        found = est.predict(movies[item : item + 1])[0]
        assert relative_error(found, expected.T) < 1e-4


@pytest.mark.parametrize("prefix", ["", "net."])
def test_names_tell_of_the_prefix_and_of_causality(prefix):
    arrays = load("model_causal")
    weights = renamed(under(arrays, "w/"), prefix=prefix, causal=True)
    est = v1.load_vist(weights, arrays["rf"][0])
    assert est.causal is True
    movies = as_movies(arrays["x"][:1])
    np.testing.assert_array_equal(est.predict(movies), opened(arrays).predict(movies))
    assert opened(load("model_symmetric")).causal is False


def test_sizes_are_read_from_the_arrays():
    arrays = load("model_causal")
    est = opened(arrays)
    assert est.n_layers == arrays["layers"]
    assert est.kernels == tuple(
        tuple(k for k in block if k) for block in arrays["kernels"].tolist()
    )
    assert est.image_shape_ == (8, 10, 10)
    assert est.n_neurons_ == {"mouse": 4}


def test_a_checkpoint_of_torch_is_opened(tmp_path):
    arrays = load("model_causal")
    weights = renamed(under(arrays, "w/"), prefix="net.", causal=True)
    state = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "last.ckpt")
    est = v1.load_vist(tmp_path / "last.ckpt", arrays["rf"][0])
    movies = as_movies(arrays["x"][:1])
    np.testing.assert_array_equal(est.predict(movies), opened(arrays).predict(movies))


def test_an_opened_model_is_saved_and_found_again(tmp_path):
    arrays = load("model_causal")
    est, movies = opened(arrays), as_movies(arrays["x"][:1])
    est.save(tmp_path / "model")
    again = v1.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(again.predict(movies), est.predict(movies))


def test_finer_receptive_fields_are_averaged_over_patches():
    arrays = load("model_causal")
    finer = arrays["rf"][0].repeat(3, 1).repeat(3, 2)
    movies = as_movies(arrays["x"][:1])
    found = v1.load_vist(under(arrays, "w/"), finer, causal=True).predict(movies)
    np.testing.assert_allclose(found, opened(arrays).predict(movies), atol=1e-5)


def test_receptive_fields_that_are_missing_or_of_other_cells_are_refused():
    arrays = load("model_causal")
    weights, fields = under(arrays, "w/"), arrays["rf"][0]
    with pytest.raises(ValueError, match=r"maps of its 4 neurons"):
        v1.load_vist(weights)
    with pytest.raises(ValueError, match=r"shape \(3, 10, 10\).*the 4 neurons of the model"):
        v1.load_vist(weights, fields[:3])
    spoilt = fields.copy()
    spoilt[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 values not finite"):
        v1.load_vist(weights, spoilt)


def test_arrays_that_are_missing_or_too_many_are_refused():
    arrays = load("model_causal")
    weights = under(arrays, "w/")
    with pytest.raises(ValueError, match=r"no array 'msb_1.mapping.bias'"):
        v1.load_vist(
            {k: v for k, v in weights.items() if k != "msb_1.mapping.bias"}, arrays["rf"][0]
        )
    with pytest.raises(ValueError, match="no place for"):
        v1.load_vist({**weights, "head.weight": np.ones(3, np.float32)}, arrays["rf"][0])


def test_movies_of_another_grid_are_refused():
    arrays = load("model_causal")
    with pytest.raises(ValueError, match=r"\(8, 9, 9\).*\(8, 10, 10\)"):
        opened(arrays).predict(as_movies(arrays["x"][:1, :, :81]))
