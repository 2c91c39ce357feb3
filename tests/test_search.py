import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy.stats import loguniform, randint, uniform
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GroupKFold,
    ParameterSampler,
    RandomizedSearchCV,
)

import v1tlearn as v1
from v1tlearn.search import (
    CNN_SPACE,
    V1T_SPACE,
    HyperbandSearch,
    IntegerUpTo,
    LogInteger,
    scikit_learn_space,
)

optuna = pytest.importorskip("optuna")

from v1tlearn.search import _optuna  # noqa: E402


@pytest.fixture(scope="module")
def recordings():
    return v1.make_v1_recordings(
        n_mice=2,
        n_neurons=5,
        n_trials=36,
        n_test_images=4,
        n_repeats=3,
        image_shape=(16, 24),
        random_state=0,
    )


@pytest.fixture(scope="module")
def trials(recordings):
    return v1.Trials(recordings).sel(tier="train")


def small_cnn(**params):
    params = {"input_kernel": 5, "hidden_kernel": 3, "max_epochs": 4, "device": "cpu"} | params
    return v1.CNNRegressor(n_layers=2, hidden_channels=2, **params)


class Recorded(v1.CNNRegressor):
    """Keeps what every training came to, apart from what the search keeps."""

    seen: ClassVar[list] = []

    def fit(self, *args, on_epoch=None, **kwargs):
        mine = []
        self.seen.append((self.get_params(), mine))

        def both(record):
            mine.append(record["validation_correlation"])
            if on_epoch is not None:
                on_epoch(record)

        return super().fit(*args, on_epoch=both, **kwargs)


class Pretended(v1.CNNRegressor):
    """Trains nothing: the score is a function of the parameters, and grows with the epochs."""

    def value(self):
        return self.lr

    def fit(self, *args, on_epoch=None, **kwargs):
        for epoch in range(1, self.max_epochs + 1):
            score = self.value() * epoch / self.max_epochs
            on_epoch({"epoch": epoch, "validation_correlation": score})
        return self


def search_pretended(estimator=None, space=None, **params):
    params = {"min_epochs": 1, "random_state": 0, "refit": False, "n_trials": 8} | params
    estimator = Pretended(max_epochs=9) if estimator is None else estimator
    return HyperbandSearch(
        estimator, {"lr": uniform(0.1, 0.9)} if space is None else space, **params
    )


# ------------------------------------------------------------------------------------------ spaces


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
    parameters = _optuna.read_space(space, estimator)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [_optuna._suggest(study.ask(), parameters, estimator) for _ in range(300)]
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


# ------------------------------------------------------------------------------------------ search


@pytest.fixture(scope="module")
def searched(trials):
    """A real search, and what its trainings came to."""
    Recorded.seen = []
    estimator = Recorded(**small_cnn(max_epochs=9).get_params())
    space = {"lr": loguniform(1e-4, 1e-1), "input_kernel": [3, 5, 17], "hidden_channels": [2, 3]}
    search = HyperbandSearch(estimator, space, n_trials=12, min_epochs=1, random_state=1)
    return search.fit(trials), list(Recorded.seen)


def test_best_trial_is_the_maximum_of_what_full_trainings_reached(searched):
    search, seen = searched
    tried = seen[:-1]  # the last training is that of best_estimator_
    full = [(max(scores), params) for params, scores in tried if len(scores) == 9]
    best_score, best_params = max(full, key=lambda found: found[0])
    assert search.best_score_ == best_score
    assert search.best_params_.items() <= best_params.items()
    assert search.best_params_.keys() == search.space.keys()


def test_pruned_trials_stop_early_and_results_tell_how_far_they_came(searched):
    search, seen = searched
    table = search.results_
    assert table["trial"].tolist() == list(range(12))
    assert table["epochs"].tolist() == [len(scores) for _, scores in seen[:-1]]
    states = table.groupby("state")["epochs"]
    assert (states.get_group("complete") == 9).all()
    assert (states.get_group("pruned") < 9).all()
    assert set(states.get_group("pruned")) <= {1, 3}  # the rungs for 1 to 9 epochs, a third each
    trained = table[table["state"] != "failed"]
    assert trained["score"].tolist() == [max(s) for _, s in seen[:-1] if s]
    assert (table["seconds"] > 0).all()


def test_parameters_that_do_not_fit_the_images_fail_with_their_reason(searched):
    search, _ = searched
    table = search.results_
    assert (table["param_input_kernel"] == 17).any()
    for row in table.itertuples():
        assert (row.state == "failed") == (row.param_input_kernel == 17)
        assert ("17 x 17" in row.reason) == (row.state == "failed")


def test_best_estimator_is_the_model_of_the_best_trial(searched):
    search, _ = searched
    reached = max(r["validation_correlation"] for r in search.best_estimator_.history_)
    assert reached == search.best_score_
    assert search.best_params_.items() <= search.best_estimator_.get_params().items()


def test_predict_and_score_are_those_of_the_best_estimator(searched, trials):
    search, _ = searched
    few = trials[:6]
    expected = search.best_estimator_.predict(few)
    for mouse in few.mice:
        np.testing.assert_array_equal(search.predict(few)[mouse], expected[mouse])
    assert search.score(trials) == search.best_estimator_.score(trials)


def test_score_is_that_of_the_validation_set_that_is_given(trials):
    train, held_out = v1.model_selection.image_train_test_split(trials, 0.3, random_state=0)
    search = HyperbandSearch(small_cnn(), {"lr": [1e-3, 1e-2]}, n_trials=2, min_epochs=1)
    search.fit(train, validation=held_out)
    assert search.best_score_ == pytest.approx(search.best_estimator_.score(held_out), rel=1e-5)


def test_searches_with_one_seed_are_the_same_and_with_another_differ(trials):
    space = {"lr": loguniform(1e-4, 1e-1), "laplace": CNN_SPACE["laplace"]}

    def table(seed):
        search = HyperbandSearch(
            small_cnn(), space, n_trials=4, min_epochs=1, random_state=seed, refit=False
        )
        return search.fit(trials).results_.drop(columns="seconds")

    first, again, other = table(0), table(0), table(1)
    pd.testing.assert_frame_equal(first, again)
    assert first["param_lr"].tolist() != other["param_lr"].tolist()


def test_sampler_learns_where_good_parameters_are(trials):
    table = search_pretended(n_trials=80, min_epochs=9).fit(trials).results_
    assert table["score"][50:].mean() > table["score"][:10].mean() + 0.2


def test_trials_are_scored_by_their_best_epoch(trials):
    class Falling(Pretended):
        def fit(self, *args, on_epoch=None, **kwargs):
            for epoch, score in enumerate([np.nan, 0.2, self.lr, 0.1, np.nan], start=1):
                on_epoch({"epoch": epoch, "validation_correlation": score})
            return self

    search = search_pretended(Falling(max_epochs=5), min_epochs=5, n_trials=3).fit(trials)
    np.testing.assert_array_equal(
        search.results_["score"], search.results_["param_lr"].clip(lower=0.2)
    )


def test_call_with_arrays_is_that_with_trials(recordings, trials):
    arrays = {name: {} for name in ("stimuli", "behaviors", "responses")}
    for mouse in trials.mice:
        one = trials.sel(mouse_id=mouse)
        for name, values in arrays.items():
            values[mouse] = one.get(name, mouse)
    positions = {
        mouse: recordings[mouse]["position"].values
        for mouse in trials.mice
        if "position" in recordings[mouse]
    }
    names = trials.behavior_names(trials.mice[0])
    ids = {m: trials.sel(mouse_id=m).image_ids for m in trials.mice}
    params = {"n_trials": 2, "min_epochs": 1, "random_state": 0, "refit": False}
    estimator = small_cnn(max_epochs=2, position_network=False)
    one = HyperbandSearch(estimator, {"lr": loguniform(1e-3, 1e-1)}, **params).fit(
        *arrays.values(), image_ids=ids, positions=positions or None, behavior_names=names
    )
    other = clone(one).fit(trials)
    assert one.best_score_ == pytest.approx(other.best_score_, rel=1e-4)


def test_seed_of_the_estimator_is_kept(trials):
    search = HyperbandSearch(
        small_cnn(random_state=7, max_epochs=1), {"lr": [1e-2]}, n_trials=1, min_epochs=1
    ).fit(trials)
    assert search.best_estimator_.random_state == 7


def test_timeout_ends_the_search_after_the_trial_that_runs(trials):
    search = search_pretended(n_trials=None, timeout=1e-9)
    with pytest.raises(ValueError, match="in time"):
        search.fit(trials)
    table = search.set_params(timeout=0.3).fit(trials).results_
    assert len(table) >= 1


def test_loss_that_is_not_finite_fails_the_trial_only(trials):
    estimator = small_cnn(max_epochs=2)
    space = {"lr": [1e-3, 1e30]}
    table = (
        HyperbandSearch(estimator, space, n_trials=6, min_epochs=2, random_state=1, refit=False)
        .fit(trials)
        .results_
    )
    failed = table["state"] == "failed"
    assert (failed == (table["param_lr"] == 1e30)).all()
    assert failed.any()
    assert table.loc[failed, "reason"].str.startswith("NonFiniteLossError").all()


@pytest.mark.parametrize("min_epochs", [1, 2])
def test_score_that_is_never_a_number_fails_the_trial(trials, min_epochs):
    class Blind(Pretended):
        def value(self):
            return np.nan if self.n_layers == 2 else 0.5

    space = {"n_layers": [2, 3]}
    table = search_pretended(Blind(max_epochs=2), space, min_epochs=min_epochs).fit(trials).results_
    failed = table["state"] == "failed"
    assert (failed == (table["param_n_layers"] == 2)).all()
    assert set(table.loc[failed, "reason"]) == {"the validation correlation was never a number"}


def test_search_in_which_every_trial_fails_says_why(trials):
    search = HyperbandSearch(
        small_cnn(), {"input_kernel": [31, 33]}, n_trials=2, min_epochs=1, random_state=0
    )
    with pytest.raises(ValueError, match=r"none of 2 trials.* does not fit into images of 16 x 24"):
        search.fit(trials)


def test_errors_of_programs_are_not_taken_for_impossible_parameters(trials):
    class Broken(Pretended):
        def fit(self, *args, **kwargs):
            raise KeyError("not the parameters' fault")

    with pytest.raises(KeyError):
        search_pretended(Broken(max_epochs=2)).fit(trials)


def test_optuna_is_quiet_and_its_log_as_before(trials, capfd, caplog):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with caplog.at_level(logging.INFO, logger="v1tlearn"):
        search_pretended(n_trials=2).fit(trials)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert sum("trial" in record.message for record in caplog.records) >= 1


def test_progress_bar_counts_trials(trials, capfd):
    search_pretended(n_trials=3, verbose=1).fit(trials)
    assert "3/3" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"estimator": RandomizedSearchCV(v1.CNNRegressor(), {})}, TypeError, "expected V1T"),
        ({"min_epochs": 10}, ValueError, "min_epochs is 10.*at most 9 epochs"),
        ({"n_trials": None}, ValueError, "would never end"),
        ({"n_trials": 0}, ValueError, "n_trials"),
        ({"reduction_factor": 1}, ValueError, "reduction_factor"),
        ({"validation_fraction": 0}, ValueError, "validation_fraction"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
    ],
)
def test_wrong_parameters_are_refused(trials, params, error, match):
    with pytest.raises(error, match=match):
        search_pretended().set_params(**params).fit(trials)


def test_each_model_has_its_space():
    for estimator, space in [
        (v1.V1TRegressor(), V1T_SPACE),
        (v1.ViTRegressor(), V1T_SPACE),
        (v1.CNNRegressor(), CNN_SPACE),
        (v1.LNRegressor(), CNN_SPACE),
    ]:
        assert HyperbandSearch(estimator)._space() is space
        parameters = _optuna.read_space(space, estimator)
        assert parameters.keys() == space.keys()


def test_search_is_an_estimator_as_scikit_learn_wants_it(searched, trials):
    search, _ = searched
    with pytest.raises(NotFittedError):
        clone(search).predict(trials)
    assert clone(search).get_params()["n_trials"] == 12
    copy = pickle.loads(pickle.dumps(search))
    assert copy.best_params_ == search.best_params_
    assert len(copy.study_.trials) == 12
    without = search_pretended(n_trials=1).fit(trials)
    with pytest.raises(AttributeError, match="refit=False"):
        without.predict(trials)


# ------------------------------------------------------------------------------------- importances


class Additive(Pretended):
    def value(self):
        return 2 * self.lr + self.laplace


def test_parameter_that_alone_matters_is_all_the_importance(trials):
    space = {"lr": uniform(0.1, 0.9), "laplace": uniform(0, 1), "n_layers": [2, 3, 4]}
    search = search_pretended(space=space, n_trials=60, min_epochs=9).fit(trials)
    for method in ("fanova", "ped_anova"):
        found = search.importances(method)
        assert found.index[0] == "lr"
        assert set(found.index) == set(space)
        assert found.sum() == pytest.approx(1)
        assert found.is_monotonic_decreasing
    assert search.importances()["lr"] > 0.95


def test_fanova_is_the_share_of_the_variance_of_a_sum(trials):
    space = {"lr": uniform(0.1, 0.9), "laplace": uniform(0.1, 0.9)}
    search = search_pretended(Additive(max_epochs=1), space, n_trials=10, random_state=3)
    search.fit(trials)
    rng = np.random.default_rng(0)  # a uniform sample in place of the sampler's
    distributions = {n: p.distribution for n, p in _optuna.read_space(space, Additive()).items()}
    search.study_ = optuna.create_study(direction="maximize")
    for lr, laplace in rng.uniform(0.1, 1, (150, 2)):
        params = {"lr": lr, "laplace": laplace}
        value = 2 * lr + laplace
        search.study_.add_trial(
            optuna.create_trial(params=params, distributions=distributions, value=value)
        )
    assert search.importances()["lr"] == pytest.approx(4 / 5, abs=0.05)


def test_parameters_with_a_limit_have_an_importance(trials):
    class Strided(v1.V1TRegressor):
        def fit(self, *args, on_epoch=None, **kwargs):
            on_epoch({"epoch": 1, "validation_correlation": -self.patch_stride / 16})
            return self

    space = {name: V1T_SPACE[name] for name in ("patch_size", "patch_stride", "lr")}
    search = search_pretended(Strided(max_epochs=1), space, n_trials=60).fit(trials)
    assert search.importances().index[0] == "patch_stride"
    assert (search.results_["param_patch_stride"] <= search.results_["param_patch_size"]).all()


def test_importances_need_trials_that_differ(trials):
    with pytest.raises(ValueError, match=r"2 of 2 trials .* too few"):
        search_pretended(n_trials=2, min_epochs=9).fit(trials).importances()
    search = search_pretended(space={"n_layers": [2, 3]}, n_trials=5, min_epochs=9).fit(trials)
    with pytest.raises(ValueError, match="no parameter explains"):
        search.importances()
    with pytest.raises(ValueError, match="fanova"):
        search.importances("anova")
    with pytest.raises(NotFittedError):
        clone(search).importances()


# ---------------------------------------------------------------------- studies that go on


def test_study_goes_on_where_it_stopped_as_if_it_had_not(trials, tmp_path):
    path = tmp_path / "study.db"
    estimator = Pretended(max_epochs=3)
    first = search_pretended(estimator, storage=path, n_trials=5).fit(trials).results_
    second = search_pretended(estimator, storage=path, n_trials=13).fit(trials)
    at_once = search_pretended(estimator, study_name="Pretended", n_trials=13).fit(trials)
    pd.testing.assert_frame_equal(second.results_[:5], first)
    assert len(second.results_) == 13
    same = ["state", "epochs", "score", "param_lr"]
    pd.testing.assert_frame_equal(second.results_[same], at_once.results_[same])
    again = search_pretended(estimator, storage=f"sqlite:///{path}", n_trials=13).fit(trials)
    pd.testing.assert_frame_equal(again.results_, second.results_)
    assert again.best_params_ == second.best_params_


def test_study_keeps_its_seed(trials, tmp_path):
    params = {"storage": tmp_path / "study.db", "random_state": None}
    first = search_pretended(n_trials=1, **params).fit(trials)
    assert search_pretended(n_trials=2, **params).fit(trials).seed_ == first.seed_


def test_study_of_another_search_is_not_mixed_with_this_one(trials, tmp_path):
    path = tmp_path / "study.db"
    search = search_pretended(storage=path, n_trials=1).fit(trials)
    for params, named in [
        ({"space": {"lr": uniform(0.1, 0.5)}}, "space"),
        ({"random_state": 1}, "random_state"),
        ({"estimator__n_layers": 3}, "parameters"),
        ({"validation_fraction": 0.2}, "validation_fraction"),
    ]:
        with pytest.raises(ValueError, match=rf"'Pretended' was begun with .*{named}"):
            clone(search).set_params(**params).fit(trials)
    with pytest.raises(ValueError, match="trials and neurons"):
        clone(search).fit(trials[:40])
    table = clone(search).set_params(study_name="other", random_state=1).fit(trials).results_
    assert len(table) == 1
    moved = clone(search).set_params(estimator__device="cpu", n_trials=2)
    assert len(moved.fit(trials).results_) == 2


def test_trial_that_the_user_breaks_off_is_run_again(trials, tmp_path):
    class Impatient(Pretended):
        calls: ClassVar[list] = []

        def fit(self, *args, **kwargs):
            self.calls.append(self.lr)
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().fit(*args, **kwargs)

    search = search_pretended(Impatient(max_epochs=2), storage=tmp_path / "study.db", n_trials=3)
    with pytest.raises(KeyboardInterrupt):
        search.fit(trials)
    table = search.fit(trials).results_
    assert table["state"].tolist().count("interrupted") == 1
    assert len(table) == 4
    assert Impatient.calls[2] == Impatient.calls[1]


def test_trial_that_another_process_gave_up_is_left_to_it(trials, tmp_path, caplog):
    path = tmp_path / "study.db"

    class Suspended(Pretended):
        calls: ClassVar[list] = []

        def fit(self, *args, **kwargs):
            self.calls.append(self.lr)
            if len(self.calls) == 1:
                study = optuna.load_study(study_name="Suspended", storage=f"sqlite:///{path}")
                study.tell(0, state=optuna.trial.TrialState.FAIL)
            return super().fit(*args, **kwargs)

    table = search_pretended(Suspended(max_epochs=2), storage=path, n_trials=2).fit(trials).results_
    assert "took a trial for dead" in caplog.text
    assert table["state"][0] == "interrupted"
    assert set(table["state"][1:]) <= {"complete", "pruned"}
    assert len(table) == 3


SCRIPT = """
    import os, signal, sys, time
    from scipy.stats import uniform
    import v1tlearn as v1
    from v1tlearn.search import HyperbandSearch

    calls = []

    class Pretended(v1.CNNRegressor):
        def fit(self, *args, on_epoch=None, **kwargs):
            for epoch in range(1, 4):
                on_epoch({{"epoch": epoch, "validation_correlation": self.lr * epoch}})
                {during}
            return self

    trials = v1.Trials(v1.make_v1_recordings(
        n_mice=1, n_neurons=3, n_trials=12, n_test_images=2, n_repeats=2, image_shape=(16, 24),
        random_state=0)).sel(tier="train")
    search = HyperbandSearch(
        Pretended(max_epochs=3), {{"lr": uniform(0.1, 0.9)}}, n_trials={n_trials}, min_epochs=1,
        storage=sys.argv[1], random_state=0, refit=False)
    table = search.fit(trials).results_
    print(table.to_json(orient="records"))
"""


def script(path, n_trials, during):
    code = textwrap.dedent(SCRIPT).format(n_trials=n_trials, during=during)
    return [sys.executable, "-c", code, str(path)]


def test_trial_of_a_killed_process_is_run_again(tmp_path, monkeypatch):
    path = tmp_path / "study.db"
    kill = "calls.append(epoch) or len(calls) < 5 or os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.run(script(path, 6, kill), env=os.environ, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    study = optuna.load_study(study_name="Pretended", storage=f"sqlite:///{path}")
    states = [trial.state.name for trial in study.trials]
    assert states[-1] == "RUNNING"
    assert "RUNNING" not in states[:-1]
    left, n_before = study.trials[-1].params, len(states)

    monkeypatch.setattr(_optuna, "_HEARTBEAT", 1)
    monkeypatch.setattr(_optuna, "_GRACE", 1)
    trials = v1.Trials(
        v1.make_v1_recordings(
            n_mice=1,
            n_neurons=3,
            n_trials=12,
            n_test_images=2,
            n_repeats=2,
            image_shape=(16, 24),
            random_state=0,
        )
    ).sel(tier="train")
    table = search_pretended(Pretended(max_epochs=3), storage=path, n_trials=6).fit(trials).results_
    states = table["state"].value_counts()
    assert states["interrupted"] == 1
    assert states.drop("interrupted").sum() == 6
    broken = table.index[table["state"] == "interrupted"][0]
    assert broken == n_before - 1
    assert table["param_lr"][broken] == left["lr"]
    assert (table["param_lr"][broken + 1 :] == left["lr"]).sum() == 1


def test_trial_that_died_before_its_first_sign_of_life_is_given_up(trials, tmp_path, monkeypatch):
    search = search_pretended(storage=tmp_path / "study.db", n_trials=1).fit(trials)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.load_study(study_name="Pretended", storage=url).ask()  # and dies
    monkeypatch.setattr(_optuna, "_GRACE", 1)
    table = clone(search).set_params(n_trials=2).fit(trials).results_
    assert table["state"].tolist()[0] == "complete"
    assert table["state"].tolist()[1] == "interrupted"
    assert len(table) == 3


@pytest.mark.slow
def test_processes_share_a_study(tmp_path):
    path = tmp_path / "study.db"
    one = script(path, 1, "pass")
    subprocess.run(one, env=os.environ, timeout=120, check=True, capture_output=True)
    both = [
        subprocess.Popen(script(path, 12, "time.sleep(0.1)"), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    tables = [pd.read_json(answer.strip().splitlines()[-1]) for answer in answers]
    for table in tables:
        finished = table["state"].isin(["complete", "pruned"]).sum()
        assert finished >= 12
        assert len(table) <= 13  # both may begin the last one
        assert table["param_lr"].is_unique


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_search_runs_trials_in_several_processes(trials, tmp_path, stored):
    search = HyperbandSearch(
        small_cnn(max_epochs=3),
        {"lr": loguniform(1e-4, 1e-1)},
        n_trials=6,
        min_epochs=1,
        n_jobs=2,
        random_state=0,
        storage=tmp_path / "study.db" if stored else None,
    ).fit(trials)
    assert len(search.results_) in (6, 7)
    complete = search.results_[search.results_["state"] == "complete"]
    assert search.best_score_ == complete["score"].max()
    assert len(search.study_.trials) == len(search.results_)
    assert search.score(trials) == search.best_estimator_.score(trials)


# ------------------------------------------------------------------------------- without Optuna


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
        timeout=120,
        check=True,
    )
    assert 'pip install "v1tlearn[search]"' in done.stdout


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
