import logging
import pickle
import time
from typing import ClassVar

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import RandomizedSearchCV

import v1tlearn as v1
from tests.search.pretended import Pretended, search_pretended, small_cnn
from v1tlearn.search import (
    CNN_SPACE,
    V1T_SPACE,
    HyperbandSearch,
    _distributions,
)


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


@pytest.fixture(scope="module")
def searched(trials):
    """A real search, and what its trainings came to."""
    Recorded.seen = []
    estimator = Recorded(**small_cnn(max_epochs=9).get_params())
    space = {"lr": loguniform(1e-4, 1e-1), "input_kernel": [3, 5, 17], "hidden_channels": [2, 3]}
    search = HyperbandSearch(estimator, space, n_trials=12, min_epochs=1, random_state=1)
    return search.fit(trials), list(Recorded.seen)


@pytest.mark.slow
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
    space = {"lr": [1e-3, 1e-2]}
    search = HyperbandSearch(small_cnn(), space, n_trials=2, min_epochs=1, random_state=0)
    search.fit(train, validation=held_out)
    # a correlation, whatever its size, is computed to the seventh digit of 1 in float32
    assert search.best_score_ == pytest.approx(search.best_estimator_.score(held_out), abs=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
def test_timeout_ends_the_search_after_the_trial_that_runs(trials):
    class TakesAllTheTime(Pretended):
        def fit(self, *args, **kwargs):
            time.sleep(3)
            return super().fit(*args, **kwargs)

    search = search_pretended(TakesAllTheTime(max_epochs=2), n_trials=None, timeout=3)
    assert len(search.fit(trials).results_) == 1


def test_timeout_that_leaves_no_time_for_a_trial(trials):
    with pytest.raises(ValueError, match="in time"):
        search_pretended(n_trials=None, timeout=1e-9).fit(trials)


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


@pytest.mark.parametrize(
    ("max_epochs", "reduction_factor", "expected"),
    [(1, 3, 1), (2, 3, 1), (9, 3, 3), (9, 2, 4), (89, 3, 29), (100, 3, 30), (400, 3, 30)],
)
def test_comparisons_begin_in_the_first_third_and_by_epoch_30(
    trials, max_epochs, reduction_factor, expected
):
    search = search_pretended(
        Pretended(max_epochs=max_epochs),
        n_trials=8,
        min_epochs=None,
        reduction_factor=reduction_factor,
    ).fit(trials)
    assert search.min_epochs is None
    assert search.min_epochs_ == expected
    ended = search.results_.query("state == 'pruned'")["epochs"]
    assert len(ended) or max_epochs == 1
    assert (ended >= expected).all()


def test_each_model_has_its_space():
    for estimator, space in [
        (v1.V1TRegressor(), V1T_SPACE),
        (v1.ViTRegressor(), V1T_SPACE),
        (v1.CNNRegressor(), CNN_SPACE),
        (v1.LNRegressor(), CNN_SPACE),
    ]:
        assert HyperbandSearch(estimator)._space() is space
        parameters = _distributions.read_space(space, estimator)
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


@pytest.mark.slow
def test_fanova_is_the_share_of_the_variance_of_a_sum(trials):
    space = {"lr": uniform(0.1, 0.9), "laplace": uniform(0.1, 0.9)}
    search = search_pretended(Additive(max_epochs=1), space, n_trials=10, random_state=3)
    search.fit(trials)
    rng = np.random.default_rng(0)  # a uniform sample in place of the sampler's
    distributions = {
        n: p.distribution for n, p in _distributions.read_space(space, Additive()).items()
    }
    search.study_ = optuna.create_study(direction="maximize")
    for lr, laplace in rng.uniform(0.1, 1, (150, 2)):
        params = {"lr": lr, "laplace": laplace}
        value = 2 * lr + laplace
        search.study_.add_trial(
            optuna.create_trial(params=params, distributions=distributions, value=value)
        )
    assert search.importances()["lr"] == pytest.approx(4 / 5, abs=0.05)


@pytest.mark.slow
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
