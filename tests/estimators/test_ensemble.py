"""Ensembles: which models are in them, how predictions are combined, how they live and travel."""

import copy
import json
import pickle
import tracemalloc

import joblib
import numpy as np
import pytest
import sklearn
import sklearn.linear_model
import torch
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

import v1tlearn as v1
from tests.descriptions import sealed
from tests.sweeps import quick
from v1tlearn.estimators.ensemble import EnsembleRegressor
from v1tlearn.estimators.mixing import learn_weights
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.metrics import single_trial_correlation
from v1tlearn.model_selection import split_by_image
from v1tlearn.preprocessing import TrialStandardizer
from v1tlearn.training import NonFiniteLossError

MODES = ["outputs", "rates", "learned", "learned_per_mouse"]
MODEL = "model.json"


@pytest.fixture(scope="module")
def make(small):
    """Make an unfitted ensemble of two out of three tiny models."""

    def make(combine="outputs", **params):
        own = {"n_candidates": 3, "n_members": 2, "random_state": 0, "combine": combine}
        own |= {k: params.pop(k) for k in list(params) if k in EnsembleRegressor.__annotations__}
        return EnsembleRegressor(small(**params), **own)

    return make


@pytest.fixture(scope="module")
def of_kind(make, small):
    """Make such an ensemble of models of a class derived from that of the tiny ones."""

    def of_kind(kind, combine="outputs", **params):
        return make(combine).set_params(estimator=kind(**{**small().get_params(), **params}))

    return of_kind


@pytest.fixture(scope="module")
def ensembles(make, trials):
    """One fitted ensemble per way of combining; not to be changed."""
    return {mode: make(mode).fit(trials) for mode in MODES}


@pytest.fixture(scope="module")
def ensemble(ensembles):
    return ensembles["learned_per_mouse"]


# ------------------------------------------------------------------------------- combination


def outputs_in_float64(member, trials, mouse):
    """What a member gives ahead of ELU + 1, from its weights, in standardised units."""
    module = copy.deepcopy(member.module_).double().eval()
    batch = mouse_data(member.fitted_, trials, mouse, torch.device("cpu")).batch(slice(None))
    batch = type(batch)(*(None if x is None else x.double() for x in batch))
    with torch.no_grad():
        return module({mouse: batch}, activate=False)[mouse].numpy()


def combined(ensemble, outputs, mouse):
    """What the ensemble should predict, before the response scale."""
    if ensemble.combine == "rates":
        return np.mean([np.where(z > 0, z + 1, np.exp(np.minimum(z, 0))) for z in outputs], axis=0)
    z = np.mean(outputs, axis=0)
    if ensemble.combine != "outputs":
        weights, intercept = ensemble.weights_[mouse], ensemble.intercepts_[mouse]
        z = sum(w * o for w, o in zip(weights, outputs, strict=True)) + intercept
    return np.where(z > 0, z + 1, np.exp(np.minimum(z, 0)))


@pytest.mark.parametrize("bias", [(0.0, 0.0), (-100.0, 0.5), (-100.0, 130.0)])
@pytest.mark.parametrize("mode", MODES)
def test_predictions_are_those_of_a_plain_combination(mode, bias, ensembles, test_trials):
    est = pickle.loads(pickle.dumps(ensembles[mode]))
    for member, shift in zip(est.estimators_, bias, strict=True):
        with torch.no_grad():
            for readout in member.module_.readouts:
                readout.bias += shift
    answer = est.predict(test_trials)
    for mouse in test_trials.mice:
        outputs = [outputs_in_float64(m, test_trials, mouse) for m in est.estimators_]
        scale = est.estimators_[0].statistics_[mouse]["response_scale"]
        expected = combined(est, outputs, mouse) * scale
        assert np.allclose(answer.get(mouse), expected, rtol=2e-5, atol=1e-6)


def test_outputs_and_rates_can_be_exchanged_after_fit(ensembles, trials, equal):
    est = pickle.loads(pickle.dumps(ensembles["learned"]))
    for mode in ("outputs", "rates"):
        est.set_params(combine=mode)
        assert equal(est.predict(trials), ensembles[mode].predict(trials))
    est.set_params(combine="learned_per_mouse")
    with pytest.raises(ValueError, match="weights that are learned in fit, which was called with"):
        est.predict(trials)
    with pytest.raises(ValueError, match="'combine' parameter"):
        est.set_params(combine="mean").predict(trials)


def most_held(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_ensemble_holds_one_sum_beside_what_a_member_predicts(small):
    rng = np.random.default_rng(0)
    images, responses = rng.integers(0, 256, (30, 1, 12, 16)), rng.exponential(size=(30, 1500))
    trials = v1.Trials.from_arrays(images.astype(np.uint8), None, responses.astype(np.float32))
    model = small(max_epochs=1, validation_fraction=0).fit(trials)
    ensemble = EnsembleRegressor.from_members([model, model], combine="outputs")
    many = trials[np.repeat(np.arange(30), 40)]
    wanted = model.predict(many)["mouse"]
    np.testing.assert_allclose(ensemble.predict(many)["mouse"], wanted, rtol=1e-5)
    held = [most_held(lambda est=est: est.predict(many)) for est in (model, ensemble)]
    # the sum is float64, twice the bytes, and the result is made of it; copies of the sum are more
    assert held[1] < held[0] + 4 * wanted.nbytes


# ------------------------------------------------------------------------------- learned weights


def poisson_problem(weights, intercepts):
    """Responses whose rates are a weighted sum of three members' outputs."""
    rng = np.random.default_rng(0)
    outputs = {m: rng.normal(size=(3, 32, 15)) for m in weights}
    responses = {}
    for m, z in outputs.items():
        z = np.tensordot(weights[m], z, 1) + intercepts[m]
        responses[m] = 2.0 * rng.poisson(np.where(z > 0, z + 1, np.exp(np.minimum(z, 0))))
        responses[m][::7, 0] = np.nan
    return outputs, {m: r / 2.0 for m, r in responses.items()}


def minimum(outputs, responses, mice):
    """Weights and intercept of least Poisson loss over some mice, by a general optimiser."""

    def loss(w):
        total = 0.0
        for m in mice:
            z = np.tensordot(w[:3], outputs[m], 1) + w[3]
            rate = np.where(z > 0, z + 1, np.exp(np.minimum(z, 0))) + 1e-7
            total += np.nansum(rate - responses[m] * np.log(rate))
        return total

    return minimize(loss, [1 / 3, 1 / 3, 1 / 3, 0.0], method="BFGS").x


@pytest.mark.slow
@pytest.mark.parametrize("per_mouse", [False, True])
def test_learned_weights_are_near_the_least_poisson_loss(per_mouse):
    weights = {"A": [0.7, 0.2, 0.0], "B": [0.1, 0.5, 0.3]}
    outputs, responses = poisson_problem(weights, {"A": 0.3, "B": -0.2})
    state = torch.get_rng_state()
    with torch.inference_mode():
        found, added = learn_weights(
            {m: np.moveaxis(z, 0, -1) for m, z in outputs.items()},
            responses,
            dict.fromkeys("AB", v1.nn.elu_plus_one),
            0,
            per_mouse=per_mouse,
            device=torch.device("cpu"),
        )
    assert torch.equal(state, torch.get_rng_state())
    for mouse in "AB":
        best = minimum(outputs, responses, mouse if per_mouse else "AB")
        assert np.allclose(found[mouse], best[:3], atol=0.04)
        assert added[mouse] == pytest.approx(best[3], abs=0.04)
    assert (added["A"] == added["B"]) == (not per_mouse)


def test_few_trials_leave_the_weights_near_the_mean(ensembles):
    for mode in ("learned", "learned_per_mouse"):
        est = ensembles[mode]
        for mouse in est.mice_:
            assert np.abs(est.weights_[mouse] - 1 / 2).max() < 0.45
            assert 0 < abs(est.intercepts_[mouse]) < 0.45
    assert np.array_equal(*ensembles["learned"].weights_.values())
    assert not np.array_equal(*ensembles["learned_per_mouse"].weights_.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the mice .* have no trial in the validation")
def test_weights_are_learned_on_validation_trials(make, trials, test_trials):
    one = test_trials.sel(mouse_id="A")[:6]
    est = make("learned").fit(trials, validation=one)
    assert np.array_equal(est.weights_["A"], est.weights_["B"])
    with pytest.raises(ValueError, match=r"mice \['B'\] have no validation trials"):
        make("learned_per_mouse").fit(trials, validation=one)
    other = make("learned").fit(trials, validation=one[::-1][:4])
    assert not np.array_equal(est.weights_["A"], other.weights_["A"])


# ------------------------------------------------------------------------------- members


def test_candidates_differ_only_in_their_seed(small, trials, test_trials, equal, make):
    est = make(n_members=3).fit(trials, validation=test_trials)
    assert len(set(est.seeds_)) == 3
    for member, number in zip(est.estimators_, est.members_, strict=True):
        alone = small(random_state=est.seeds_[number]).fit(trials, validation=test_trials)
        assert equal(member.predict(trials), alone.predict(trials))
        assert member.get_params() == alone.get_params()
        best = max(record["validation_correlation"] for record in member.history_)
        assert est.validation_scores_[number] == pytest.approx(best, abs=1e-6)
        assert est.validation_scores_[number] == alone.score(test_trials)


def test_all_candidates_have_one_validation_split(make, trials, equal):
    rows, held = split_by_image(trials.image_ids, 0.2, 0, trials.mouse_ids)
    first = make(validation_fraction=0.2).fit(trials)
    again = make().fit(trials[rows], validation=trials[held])
    assert first.validation_scores_.tolist() == again.validation_scores_.tolist()
    assert equal(first.predict(trials), again.predict(trials))


def test_members_are_the_best_candidates(ensemble):
    order = sorted(range(3), key=lambda i: -ensemble.validation_scores_[i])
    assert ensemble.members_.tolist() == order[:2]
    assert [m.seed_ for m in ensemble.estimators_] == [ensemble.seeds_[i] for i in order[:2]]


class OfOneSeed(v1.CNNRegressor):
    """Trains to the same model whatever the seed."""

    def _train(self, training, held_out, seed, **how):
        return super()._train(training, held_out, 7, **how)


def test_ties_go_to_the_first(of_kind, trials):
    est = of_kind(OfOneSeed, max_epochs=1).fit(trials)
    assert len(set(est.validation_scores_)) == 1
    assert est.members_.tolist() == [0, 1]


def test_more_candidates_keep_the_first_ones(make, trials, ensemble):
    est = make(n_candidates=4, max_epochs=0).fit(trials)
    assert est.seeds_[:3] == ensemble.seeds_


def test_without_validation_all_are_members(make, trials, small, equal):
    est = make(n_candidates=2, validation_fraction=0).fit(trials)
    assert np.isnan(est.validation_scores_).all()
    assert est.members_.tolist() == [0, 1]
    alone = small(random_state=est.seeds_[1], validation_fraction=0).fit(trials)
    assert equal(est.estimators_[1].predict(trials), alone.predict(trials))


def test_an_ensemble_of_one_is_its_member(make, trials):
    est = make(n_candidates=1, n_members=1).fit(trials)
    member = est.estimators_[0].predict(trials)
    for mouse in trials.mice:
        assert np.allclose(est.predict(trials).get(mouse), member.get(mouse), rtol=1e-5, atol=1e-6)


class FailsFor(v1.CNNRegressor):
    """Its loss is NaN for some seeds."""

    failing = ()

    def _train(self, training, held_out, seed, **how):
        if seed in self.failing:
            raise NonFiniteLossError("B", 1, 3)
        return super()._train(training, held_out, seed, **how)


def test_a_candidate_whose_loss_is_nan_is_left_out(of_kind, trials, ensemble):
    best = ensemble.members_[0]

    class Failing(FailsFor):
        failing = (ensemble.seeds_[best],)

    message = rf"candidate {best} \(random_state={ensemble.seeds_[best]}\) is left out.*'B'"
    with pytest.warns(UserWarning, match=message):
        est = of_kind(Failing).fit(trials)
    assert best not in est.members_
    assert np.flatnonzero(np.isnan(est.validation_scores_)).tolist() == [best]


@pytest.mark.filterwarnings("ignore:candidate")
def test_too_many_failures_are_an_error(of_kind, trials, ensemble, equal):
    class Failing(FailsFor):
        pass

    est = of_kind(Failing, "learned_per_mouse").fit(trials)
    Failing.failing = ensemble.seeds_[:2]
    with pytest.raises(FloatingPointError, match="1 of 3 candidates could be trained, 2 are"):
        est.fit(trials[::2])
    assert equal(est.predict(trials), ensemble.predict(trials))  # the earlier fit is whole


# ------------------------------------------------------------------------------- processes, seeds


@pytest.mark.parametrize("how", quick(["n_jobs", "parallel_config", "threads"], 0))
def test_processes_give_the_same_ensemble(how, make, trials, ensemble, equal):
    est = make("learned_per_mouse", n_jobs=2 if how == "n_jobs" else None)
    if how == "n_jobs":
        est.fit(trials)
    else:
        options = {"backend": "threading"} if how == "threads" else {}
        with joblib.parallel_config(n_jobs=2, **options):
            est.fit(trials)
    assert est.validation_scores_.tolist() == ensemble.validation_scores_.tolist()
    assert equal(est.predict(trials), ensemble.predict(trials))


def test_random_states(make, trials):
    legacy, generator = np.random.RandomState(0), np.random.default_rng(0)
    expected = [np.random.RandomState(0).randint(2**31), np.random.default_rng(0).integers(2**63)]
    for source, seed in zip((legacy, generator), expected, strict=True):
        assert make(random_state=source, max_epochs=0).fit(trials).seed_ == seed
    one, two = (make(random_state=None, max_epochs=0).fit(trials).seeds_ for _ in range(2))
    assert not set(one) & set(two)


def test_global_generators_are_left_as_found(make, trials):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    make("learned", max_epochs=1).fit(trials).predict(trials)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


# ------------------------------------------------------------------------------- call forms, errors


def test_arrays_in_arrays_out(make, arrays, trials, ensembles, equal):
    keywords = {"image_ids": arrays["image_ids"], "positions": arrays["positions"]}
    data = arrays["stimuli"], arrays["behaviors"], arrays["responses"]
    est = make().fit(*data, **keywords)
    answer = est.predict(arrays["stimuli"], arrays["behaviors"])
    expected = ensembles["outputs"].predict(trials)
    assert list(answer) == ["A", "B"]
    assert equal(answer, {m: expected.get(m) for m in "AB"})
    assert est.score(*data) == ensembles["outputs"].score(trials)
    rows = slice(None, None, 2)
    one = est.predict(arrays["stimuli"]["B"][rows], arrays["behaviors"]["B"][rows], "B")
    assert np.allclose(one, answer["B"][rows], rtol=1e-4)


def test_targets_beside_the_trials(make, trials, ensembles, equal):
    doubled = {m: 2 * trials.get("responses", m) for m in trials.mice}
    y = v1.Responses.from_arrays(doubled, like=trials)
    est = make().fit(trials, y)
    first, twice = ensembles["outputs"].predict(trials), est.predict(trials)
    assert all(np.allclose(twice.get(m), 2 * first.get(m), rtol=1e-4) for m in trials.mice)


def test_score_is_the_single_trial_correlation(ensemble, test_trials):
    expected = single_trial_correlation(test_trials.responses, ensemble.predict(test_trials))
    assert ensemble.score(test_trials) == expected
    weights = (np.arange(len(test_trials)) % 3 > 0).astype(float)
    kept = ensemble.score(test_trials[np.flatnonzero(weights)])
    assert ensemble.score(test_trials, sample_weight=weights) == pytest.approx(kept, abs=1e-6)


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({"n_members": 4}, ValueError, "n_members=4 cannot be chosen from n_candidates=3"),
        ({"n_members": 0}, ValueError, "'n_members' parameter"),
        ({"combine": "mean"}, ValueError, "'combine' parameter"),
        ({"validation_fraction": 1.0}, ValueError, "'validation_fraction' parameter"),
        ({"validation_fraction": 0}, ValueError, "leaves no trials to choose n_members=2 of"),
        (
            {"validation_fraction": 0, "n_members": 3, "combine": "learned"},
            ValueError,
            "leaves no trials to learn the weights of combine='learned'",
        ),
        ({"lr": -1.0}, ValueError, "'lr' parameter of CNNRegressor"),
    ],
)
def test_parameters_that_cannot_be(params, kind, message, make, trials):
    with pytest.raises(kind, match=message):
        make(**params).fit(trials)


def test_only_models_of_this_package(make, trials):
    for estimator, name in [
        (sklearn.linear_model.Ridge(), "a Ridge: expected an instance of V1TRegressor"),
        (v1.CNNRegressor, "the class CNNRegressor: expected an instance"),
        (make_pipeline(v1.CNNRegressor()), "a Pipeline: .* goes around the ensemble"),
        (make(), "ensembles of ensembles are not supported"),
    ]:
        with pytest.raises(TypeError, match=name):
            EnsembleRegressor(estimator).fit(trials)


def test_what_does_not_fit_is_refused(make, ensemble, trials, arrays):
    with pytest.raises(TypeError, match="validation is a dict: expected Trials"):
        make().fit(trials, validation=arrays)
    with pytest.raises(ValueError, match="unknown mouse 'C'"):
        ensemble.predict({"C": arrays["stimuli"]["A"]})
    with pytest.raises(sklearn.exceptions.NotFittedError):
        make().predict(trials)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        make().save("anywhere")


def test_trials_of_other_tiers_are_told_once(make, test_trials):
    with pytest.warns(UserWarning, match="tiers") as caught:
        make(max_epochs=0).fit(test_trials)
    assert [w.filename for w in caught] == [__file__]


def test_what_candidates_warn_of_is_told_at_the_line_of_the_caller(make, arrays):
    responses = {mouse: values - 5 for mouse, values in arrays["responses"].items()}
    with pytest.warns(UserWarning, match="responses are negative") as caught:
        make(max_epochs=1).fit(arrays["stimuli"], arrays["behaviors"], responses)
    assert {w.filename for w in caught} == {__file__}


# ------------------------------------------------------------------------------- transfer


def test_transfer(ensemble, trials, equal):
    before = ensemble.predict(trials)
    animal = trials.sel(mouse_id="B")
    rows, held = split_by_image(animal.image_ids, 0.1, 0, animal.mouse_ids)
    new = ensemble.transfer(animal, max_epochs=1)
    assert new is not ensemble
    assert new.mice_ == ["B"]
    assert (new.estimator.max_epochs, ensemble.estimator.max_epochs) == (1, 2)
    assert equal(ensemble.predict(trials), before)
    assert new.members_.tolist() == np.argsort(-new.validation_scores_).tolist()
    assert list(new.weights_) == ["B"]
    for member, number in zip(new.estimators_, new.members_, strict=True):
        assert member.core_frozen_
        alone = ensemble.estimators_[number].transfer(
            animal[rows],
            validation=animal[held],
            max_epochs=1,
            random_state=new.seeds_[number],
        )
        assert equal(member.predict(animal), alone.predict(animal))


def test_transfer_takes_the_parameters_of_fit(ensemble, trials):
    animal = trials.sel(mouse_id="A")
    new = ensemble.transfer(
        animal, False, max_epochs=1, random_state=5, validation_fraction=0.3, lr=1e-4
    )
    assert (new.random_state, new.validation_fraction, new.seed_) == (5, 0.3, 5)
    assert new.estimator.lr == new.estimators_[0].lr == 1e-4
    assert not new.estimators_[0].core_frozen_
    assert np.isfinite(new.score(animal))
    with pytest.raises(ValueError, match="no parameter 'n_floors'"):
        ensemble.transfer(animal, n_floors=1)
    with pytest.raises(TypeError, match="trials is a list: expected Trials"):
        ensemble.transfer([animal])


# ------------------------------------------------------------------------------- scikit-learn


def test_parameters_are_nested_and_cloned(make):
    est = make("rates", n_jobs=3)
    assert est.get_params()["estimator__lr"] == est.estimator.lr
    est.set_params(estimator__lr=0.5)
    copied = clone(est)
    assert copied.estimator is not est.estimator
    assert (copied.estimator.lr, copied.combine, copied.n_jobs) == (0.5, "rates", 3)
    model = v1.V1TRegressor()
    plain = EnsembleRegressor(model)
    assert plain.estimator is model
    assert (plain.n_candidates, plain.n_members, plain.combine) == (10, 5, "outputs")
    assert "EnsembleRegressor" in est._repr_html_()


def test_a_fitted_model_as_template_stays_as_it_is(fitted, trials, equal):
    before = fitted.predict(trials)
    est = EnsembleRegressor(fitted, 2, 1, random_state=3).fit(trials)
    assert est.estimator is fitted
    assert equal(fitted.predict(trials), before)


@pytest.mark.slow
def test_search_over_trials(make, trials):
    search = GridSearchCV(
        make(max_epochs=1),
        [{"estimator__lr": [1e-3]}, {"estimator__lr": [2e-3], "combine": ["rates"]}],
        cv=GroupKFold(2),
        error_score="raise",
    ).fit(trials, groups=trials.image_ids)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.estimators_[0].lr == search.best_params_["estimator__lr"]


def test_in_a_pipeline(make, trials, test_trials):
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = Pipeline(
            [
                ("standardize", TrialStandardizer()),
                ("model", make(standardize=False).set_fit_request(validation=True)),
            ],
            transform_input=["validation"],
        ).fit(trials, validation=test_trials)
    inside = make().fit(trials, validation=test_trials)
    assert pipe.score(test_trials) == pytest.approx(inside.score(test_trials), abs=1e-5)
    assert pipe[-1].validation_scores_ == pytest.approx(inside.validation_scores_, abs=1e-5)


# ------------------------------------------------------------------------------- persistence


@pytest.fixture
def saved(ensemble, tmp_path):
    ensemble.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("mode", quick(MODES, 3))
def test_a_saved_ensemble_predicts_the_same(mode, ensembles, trials, equal, tmp_path):
    est = ensembles[mode]
    est.save(tmp_path)
    loaded = EnsembleRegressor.load(tmp_path, device="cpu")
    assert equal(loaded.predict(trials), est.predict(trials))
    assert loaded.score(trials) == est.score(trials)
    shown = {k: v for k, v in est.get_params().items() if k != "estimator"}
    assert {k: v for k, v in loaded.get_params().items() if k != "estimator"} == shown
    fitted = {k for k in vars(est) if k.endswith("_")}
    assert {k for k in vars(loaded) if k.endswith("_")} == fitted
    for name in fitted - {"estimators_"}:
        np.testing.assert_equal(getattr(loaded, name), getattr(est, name))
    assert clone(loaded).fit(trials).seeds_ == est.seeds_


def test_a_pickled_ensemble_predicts_the_same(ensemble, trials, equal, tmp_path):
    joblib.dump(ensemble, tmp_path / "model.joblib")
    for again in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(ensemble))):
        assert equal(again.predict(trials), ensemble.predict(trials))


def test_loading_chooses_the_device(saved):
    loaded = EnsembleRegressor.load(saved)
    assert {loaded.estimator.device, *(m.device for m in loaded.estimators_)} == {"auto"}


def test_generators_are_saved_as_seeds(make, trials, tmp_path):
    est = make(max_epochs=0).set_params(
        random_state=np.random.default_rng(1), estimator__random_state=np.random.RandomState(1)
    )
    est.fit(trials).save(tmp_path)
    loaded = EnsembleRegressor.load(tmp_path)
    assert (loaded.random_state, loaded.estimator.random_state) == (est.seed_, None)


def test_saving_again_replaces(make, saved, fitted, trials, equal):
    est = make("rates", random_state=9, max_epochs=1).fit(trials)
    (saved / "figure.png").write_bytes(b"figure")
    (saved / "notes").mkdir()
    est.save(saved)
    assert equal(EnsembleRegressor.load(saved).predict(trials), est.predict(trials))
    names = sorted(f.name[:8] for f in saved.iterdir())
    assert names == ["figure.p", "model.js", "notes", "tensors-"]
    fitted.save(saved)  # a single model takes the place of an ensemble, and the other way round
    assert equal(v1.CNNRegressor.load(saved).predict(trials), fitted.predict(trials))
    est.save(saved)
    assert equal(EnsembleRegressor.load(saved).predict(trials), est.predict(trials))
    assert len(list(saved.glob("*.safetensors"))) == 1


@pytest.mark.parametrize("name", ["notes.txt", MODEL])
def test_what_is_no_model_is_not_overwritten(name, ensemble, tmp_path):
    (tmp_path / name).write_text('{"my": "notes"}')
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(FileExistsError, match="is no saved model: choose another path"):
            ensemble.save(path)
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_a_member_that_cannot_be_saved_leaves_the_earlier_ensemble(
    make, saved, ensemble, trials, equal
):
    """That a full disk does, too, shows test_full_disk."""
    est = make(max_epochs=0).fit(trials)
    names = {f.name for f in saved.iterdir()}
    est.estimators_[1].optimizer = object()
    with pytest.raises(TypeError, match="optimizer"):
        est.save(saved)
    assert {f.name for f in saved.iterdir()} == names
    assert equal(EnsembleRegressor.load(saved).predict(trials), ensemble.predict(trials))


def test_a_first_save_that_was_killed_does_not_bar_the_next(ensemble, tmp_path):
    (tmp_path / "tensors-0123.safetensors").write_bytes(b"")
    (tmp_path / f".{MODEL}-0123").write_text("{")
    with pytest.raises(ValueError, match="holds no saved model"):
        EnsembleRegressor.load(tmp_path)
    ensemble.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_models_of_other_classes(saved, fitted, tmp_path):
    with pytest.raises(ValueError, match=r"EnsembleRegressor: load it with EnsembleRegressor\."):
        v1.CNNRegressor.load(saved)
    fitted.save(tmp_path / "cnn")
    with pytest.raises(ValueError, match=r"holds a CNNRegressor: load it with CNNRegressor\.load"):
        EnsembleRegressor.load(tmp_path / "cnn")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "damaged or incomplete"),
        ("other json", "damaged or incomplete"),
        ("no content", "damaged or incomplete"),
        ("unknown parameter", "does not know as a parameter: update v1tlearn"),
        ("unknown class", "unknown class PerceptronRegressor"),
        ("later format", "format 99, this version reads 2: update v1tlearn"),
        ("no tensors", "damaged or incomplete"),
        ("torn tensors", "damaged or incomplete"),
    ],
)
def test_damaged_files_say_so(damage, message, saved):
    text = (saved / MODEL).read_text()
    content = json.loads(text)
    tensors = saved / content["tensors"]
    if damage == "truncated":
        (saved / MODEL).write_text(text[:500])
    elif damage == "other json":
        (saved / MODEL).write_text("[1, 2]")
    elif damage == "no content":
        del content["content"]
        (saved / MODEL).write_text(json.dumps(content))
    elif damage == "unknown parameter":
        (saved / MODEL).write_text(sealed(text.replace('"combine"', '"mixture"')))
    elif damage == "unknown class":
        (saved / MODEL).write_text(sealed(text.replace('"CNNRegressor"', '"PerceptronRegressor"')))
    elif damage == "later format":
        (saved / MODEL).write_text(json.dumps({**content, "format": 99}))
    elif damage == "no tensors":
        tensors.unlink()
    else:
        tensors.write_bytes(tensors.read_bytes()[:300])
    with pytest.raises(ValueError, match=message) as caught:
        EnsembleRegressor.load(saved)
    assert str(saved) in str(caught.value)


# ------------------------------------------------------------------------------- ready members


def test_an_ensemble_of_fitted_models(ensembles, test_trials, equal, tmp_path):
    fitted = ensembles["outputs"]
    est = EnsembleRegressor.from_members(fitted.estimators_)
    assert equal(est.predict(test_trials), fitted.predict(test_trials))
    assert est.seeds_ == [member.seed_ for member in fitted.estimators_]
    rates = EnsembleRegressor.from_members(fitted.estimators_, combine="rates")
    assert equal(rates.predict(test_trials), ensembles["rates"].predict(test_trials))
    est.save(tmp_path / "ensemble")
    again = EnsembleRegressor.load(tmp_path / "ensemble")
    assert equal(again.predict(test_trials), est.predict(test_trials))


def test_members_that_do_not_go_together(ensembles, small, trials):
    first = ensembles["outputs"].estimators_[0]
    cases = [
        ([], ValueError, "at least one"),
        ([first, small()], sklearn.exceptions.NotFittedError, "not fitted"),
        ([sklearn.linear_model.LinearRegression()], TypeError, "LinearRegression"),
        ([first, small().fit(trials.sel(mouse_id="A"))], ValueError, r"estimators\[1\] is a CNN"),
        ([first, small(shift="none").fit(trials)], ValueError, "uses the behaviour"),
        ([first, small().fit(trials[::2])], ValueError, "scales responses otherwise"),
    ]
    for members, error, message in cases:
        with pytest.raises(error, match=message):
            EnsembleRegressor.from_members(members)
    arrays = [{m: trials.get(name, m) for m in trials.mice} for name in ("stimuli", "behaviors")]
    tiny = {m: 1e-10 * trials.get("responses", m) for m in trials.mice}
    of_tiny = [
        small().fit(*arrays, {m: unit * values for m, values in tiny.items()}) for unit in (1, 2)
    ]
    with pytest.raises(ValueError, match="scales responses otherwise"):
        EnsembleRegressor.from_members(of_tiny)
    with pytest.raises(ValueError, match="needs trials to learn"):
        EnsembleRegressor.from_members([first], combine="learned")


def test_transfer_warns_of_tiers_once(ensemble, recordings):
    test = v1.Trials(recordings).sel(tier="test")
    with pytest.warns(UserWarning, match=r"tiers \['test'\]") as found:
        ensemble.transfer(test, max_epochs=1)
    assert len(found) == 1
