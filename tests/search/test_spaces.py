import subprocess
import sys
import textwrap

import numpy as np
import optuna
import pytest
from scipy.stats import loguniform, randint, uniform
from sklearn.model_selection import GroupKFold, ParameterSampler

import v1tlearn as v1
from tests.search.pretended import search_pretended
from v1tlearn.search import (
    CNN_SPACE,
    V1T_SPACE,
    IntegerUpTo,
    LogInteger,
    _distributions,
    scikit_learn_space,
)


def test_log_integers_are_as_likely_as_the_logarithm_of_their_bin():
    drawn = LogInteger(2, 9).rvs(size=40_000, random_state=0)
    edges = np.log(np.arange(1.5, 10))
    expected = np.diff(edges) / (edges[-1] - edges[0])
    counts = np.bincount(drawn, minlength=10)[2:]
    assert counts.sum() == len(drawn)
    np.testing.assert_allclose(counts / len(drawn), expected, atol=0.01)


def test_log_integers_draw_alike_from_each_kind_of_random_state():
    assert LogInteger(1, 9).rvs(random_state=3) == LogInteger(1, 9).rvs(random_state=3)
    for rng in (np.random.RandomState(0), np.random.default_rng(0)):
        assert isinstance(LogInteger(1, 9).rvs(random_state=rng), int)


@pytest.mark.parametrize("limits", [(0, 4), (5, 4)])
def test_log_integers_refuse_limits_that_have_no_logarithm_or_order(limits):
    with pytest.raises(ValueError, match="1 <= low <= high"):
        LogInteger(*limits)


@pytest.mark.parametrize(
    ("space", "estimator"),
    [
        (V1T_SPACE, v1.V1TRegressor()),
        (V1T_SPACE, v1.ViTRegressor()),
        (CNN_SPACE, v1.CNNRegressor()),
    ],
)
def test_ready_spaces_hold_the_published_values(space, estimator):
    published = estimator.get_params()
    for name, found in space.items():
        value = published[name]
        if isinstance(found, list):
            assert value in found
        elif isinstance(found, LogInteger):
            assert found.low <= value <= found.high
        elif isinstance(found, IntegerUpTo):
            assert found.low <= value <= published[found.parameter]
        else:
            low, high = found.support()
            assert low <= value <= high


def test_space_for_scikit_learn_has_all_pairs_of_size_and_stride_and_no_other():
    allowed = {(size, stride) for size in range(2, 17) for stride in range(1, size + 1)}
    assert len(allowed) == 135
    pairs = set()
    for space in scikit_learn_space(V1T_SPACE):
        assert space.keys() == V1T_SPACE.keys()
        (size,) = space["patch_size"]
        low, high = space["patch_stride"].support()
        pairs |= {(size, stride) for stride in range(low, high + 1)}
    assert pairs == allowed
    for params in ParameterSampler(scikit_learn_space(V1T_SPACE), 50, random_state=0):
        assert (params["patch_size"], params["patch_stride"]) in allowed
        v1.V1TRegressor(**params)._validate_params()


def test_space_without_limits_is_one_dict_for_scikit_learn():
    assert scikit_learn_space(CNN_SPACE) == [CNN_SPACE]


@pytest.mark.parametrize(
    ("limit", "match"),
    [({}, "not in the space"), ({"patch_size": LogInteger(2, 16)}, "cannot be enumerated")],
)
def test_space_for_scikit_learn_says_which_limit_is_missing(limit, match):
    with pytest.raises(ValueError, match=match):
        scikit_learn_space({"patch_stride": IntegerUpTo("patch_size"), **limit})


@pytest.mark.parametrize("sizes", [randint(2, 17), [2, 5, 16], None])
def test_hyperband_draws_strides_up_to_the_size_of_the_patch(sizes):
    estimator = v1.V1TRegressor(patch_size=6)
    space = {"patch_stride": IntegerUpTo("patch_size"), "patch_size": sizes}
    space = {name: found for name, found in space.items() if found is not None}
    parameters = _distributions.read_space(space, estimator)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [_distributions.suggest(study.ask(), parameters, estimator) for _ in range(300)]
    pairs = {(params.get("patch_size", 6), params["patch_stride"]) for params in drawn}
    assert all(1 <= stride <= size for size, stride in pairs)
    assert any(stride == size for size, stride in pairs)
    if sizes is None:
        assert pairs == {(6, stride) for stride in range(1, 7)}


def test_every_kind_of_distribution_reaches_the_estimator(trials):
    space = {
        "lr": loguniform(1e-3, 1e-1),
        "laplace": uniform(1, 2),
        "n_layers": randint(2, 4),
        "hidden_channels": LogInteger(2, 8),
        "depth_separable": [True, False],
        "betas": [(0.9, 0.99), (0.8, 0.9)],
        "core_lr": np.array([1e-3, 2e-3]),
        "input_kernel": [7],
        "hidden_kernel": IntegerUpTo("input_kernel", low=6),
    }
    table = search_pretended(space=space, n_trials=15).fit(trials).results_
    for params in table.filter(like="param_").to_dict("records"):
        params = {name.removeprefix("param_"): value for name, value in params.items()}
        assert 1e-3 <= params["lr"] <= 1e-1
        assert 1 <= params["laplace"] <= 3
        assert params["n_layers"] in (2, 3)
        assert 2 <= params["hidden_channels"] <= 8
        assert params["depth_separable"] in (True, False)
        assert params["betas"] in [(0.9, 0.99), (0.8, 0.9)]
        assert params["core_lr"] in (1e-3, 2e-3)
        assert params["hidden_kernel"] in (6, 7)
    assert table["param_betas"].nunique() == 2


@pytest.mark.parametrize(
    ("space", "error", "match"),
    [
        ({"patch_size": [8]}, ValueError, r"no parameters \['patch_size'\]"),
        ({"max_epochs": [3]}, ValueError, "cannot be searched over"),
        ({"lr": 3}, TypeError, "lr: 3 is nothing to search over"),
        ({"lr": []}, TypeError, "nothing to search over"),
        ({}, ValueError, "space is empty"),
        ({"n_layers": IntegerUpTo("lr")}, ValueError, "expected a parameter of integers"),
    ],
)
def test_space_that_cannot_be_searched_is_refused(trials, space, error, match):
    with pytest.raises(error, match=match):
        search_pretended(space=space).fit(trials)


@pytest.mark.slow
def test_spaces_need_no_optuna_and_the_search_says_how_to_get_it():
    code = """
        import sys
        sys.modules["optuna"] = None
        import v1tlearn as v1
        from v1tlearn.search import V1T_SPACE, HyperbandSearch, scikit_learn_space
        assert len(scikit_learn_space(V1T_SPACE)) == 15
        try:
            HyperbandSearch(v1.V1TRegressor(), n_trials=1).fit(None)
        except ImportError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'pip install "optuna>=5"' in done.stdout


def test_searches_of_scikit_learn_say_how_they_take_a_space_with_limits(trials):
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV, RandomizedSearchCV

    options = {"cv": GroupKFold(2), "random_state": 0}
    for search in (
        HalvingRandomSearchCV(v1.V1TRegressor(), V1T_SPACE, **options),
        RandomizedSearchCV(v1.V1TRegressor(), V1T_SPACE, n_iter=1, **options),
    ):
        with pytest.raises(TypeError, match=r"up to 'patch_size' .*scikit_learn_space\(space\)"):
            search.fit(trials, groups=trials.image_ids)


@pytest.mark.filterwarnings("ignore:.*cannot follow their images")  # five neurons, two epochs
def test_halving_search_of_scikit_learn_takes_epochs_as_its_resource(trials):
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV

    space = {name: V1T_SPACE[name] for name in ("patch_size", "patch_stride", "lr")}
    space["patch_size"] = [4, 8]
    space["patch_stride"] = IntegerUpTo("patch_size", low=3)
    search = HalvingRandomSearchCV(
        v1.V1TRegressor(
            n_blocks=1,
            n_heads=1,
            embed_dim=8,
            mlp_dim=8,
            validation_fraction=0,
            device="cpu",
            random_state=0,
        ),
        scikit_learn_space(space),
        resource="max_epochs",
        n_candidates=2,
        min_resources=1,
        max_resources=2,
        factor=2,
        cv=GroupKFold(2),
        random_state=0,
    ).fit(trials, groups=trials.image_ids)
    assert search.n_resources_ == [1, 2]
    assert search.n_candidates_ == [2, 1]
    assert search.best_estimator_.n_iter_ == 2
    params = search.cv_results_
    assert (params["param_patch_stride"] <= params["param_patch_size"]).all()
