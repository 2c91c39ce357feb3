"""Who is told of the epochs of a training: functions, and callbacks of scikit-learn."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

import v1tlearn as v1

# ------------------------------------------------------------------------------------- functions


def test_true_ends_a_training_without_an_error(small, trials, equal):
    told = []

    def on_epoch(record):
        told.append(record["epoch"])
        return record["epoch"] == 2

    model = small(max_epochs=5).fit(trials, on_epoch=on_epoch)
    assert told == [1, 2]
    assert (model.stop_reason_, model.n_iter_) == ("on_epoch", 2)
    assert equal(model.predict(trials), small(max_epochs=2).fit(trials).predict(trials))


@pytest.mark.parametrize("answer", [1, "yes", [0], np.True_])
def test_nothing_but_true_ends_it(small, trials, answer):
    assert small().fit(trials, on_epoch=lambda record: answer).n_iter_ == 2


def test_a_training_that_was_ended_goes_on(small, trials, tmp_path, equal):
    small(max_epochs=4).fit(
        trials, on_epoch=lambda record: record["epoch"] == 2, checkpoint_dir=tmp_path
    )
    model = small(max_epochs=4).fit(trials, checkpoint_dir=tmp_path)
    assert equal(model.predict(trials), small(max_epochs=4).fit(trials).predict(trials))


def test_minimodels_are_ended_too(small, trials):
    model = small(v1.MinimodelRegressor, max_epochs=5)
    assert model.fit(trials, on_epoch=lambda record: True).n_iter_ == 1


class Listener:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def begin(self, history, **labels):
        self.told.append(("begin", [record["epoch"] for record in history], labels))

    def __call__(self, record):
        self.told.append(record["epoch"])
        record.clear()  # its own copy

    def end(self, **labels):
        self.told.append(("end", labels))


def test_several_are_told_in_turn_of_beginning_epochs_and_end(small, trials, tmp_path):
    one, other, plain = Listener(), Listener(), []
    small(max_epochs=1).fit(trials, on_epoch=[one, plain.append, other], checkpoint_dir=tmp_path)
    small(max_epochs=2).fit(trials, on_epoch=(other,), checkpoint_dir=tmp_path)
    first = [("begin", [], {}), 1, ("end", {})]
    assert one.told == first
    assert other.told == [*first, ("begin", [1], {}), 2, ("end", {})]
    assert [record["epoch"] for record in plain] == [1]


def test_the_end_is_told_whatever_it_is(small, trials):
    listener = Listener()

    def fails(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small().fit(trials, on_epoch=[listener, fails])
    assert listener.told == [("begin", [], {}), 1, ("end", {})]


def test_of_candidates_the_number_is_told(small, trials):
    listener = Listener()
    v1.EnsembleRegressor(small(max_epochs=1), 2, 1, random_state=0).fit(trials, on_epoch=listener)
    labels = [{"candidate": c} for c in range(2)]
    assert listener.told == [e for c in labels for e in (("begin", [], c), 1, ("end", c))]


def test_they_find_numpy_as_the_caller_has_set_it(small, trials):
    found = []

    class Careful(Listener):
        def begin(self, history):
            found.append(np.geterr()["under"])

    with np.errstate(under="raise"):
        small(max_epochs=1).fit(trials, on_epoch=[Careful()])
    assert found == ["raise"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (3, "on_epoch is a int"),
        ([print, "log.csv"], r"on_epoch\[1\] is a str"),
        (v1.tracking.CSVLog, "on_epoch is the class CSVLog"),
    ],
)
def test_what_cannot_be_called_is_refused(small, trials, wrong, said):
    with pytest.raises(TypeError, match=said):
        small().fit(trials, on_epoch=wrong)


# ------------------------------------------------------------------- callbacks of scikit-learn

callback = pytest.importorskip(
    "sklearn.callback", reason="this scikit-learn, before 1.9, has no callbacks"
)


class Told:
    """Notes tasks, and the epochs of the estimator that each leaves."""

    def __init__(self, last=None):
        self.told, self.last, self.fitted = [], last, []

    def setup(self, estimator, context):
        self.told.append("setup")

    def teardown(self, estimator, context):
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.told.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.told.append(("end", context.task_name, context.task_id))
        assert len(X) == len(y)
        self.fitted.append(fitted_estimator)
        return context.task_name == "epoch" and context.task_id == self.last


def test_callbacks_are_told_of_fit_and_epochs_and_may_end_it(small, trials, equal):
    told = Told(last=1)
    model = small(max_epochs=4).set_callbacks(told).fit(trials)
    epochs = [(kind, "epoch", e) for e in (0, 1) for kind in ("begin", "end")]
    fit = [("begin", "fit", 0), *epochs, ("end", "fit", 0)]
    assert told.told == ["setup", *fit, "teardown"]
    assert (model.stop_reason_, model.n_iter_) == ("on_epoch", 2)
    for n, fitted in zip((1, 2, 2), told.fitted, strict=True):
        assert fitted.n_iter_ == n
        one = small(max_epochs=n).fit(trials)
        assert equal(fitted.predict(trials), one.predict(trials))
    model.partial_fit(trials)
    assert len(told.told) == 8


def test_callbacks_change_nothing(small, trials, equal):
    monitor = callback.ScoringMonitor(scoring="single_trial_correlation")
    model = small().set_callbacks(monitor, Told()).fit(trials)
    assert equal(model.predict(trials), small().fit(trials).predict(trials))
    scores = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert [row["task_id"] for row in scores] == [0, 1]
    again = pickle.loads(pickle.dumps(model.set_callbacks()))
    assert equal(again.predict(trials), model.predict(trials))


def test_they_are_torn_down_whatever_happens(small, trials):
    told = Told()
    with pytest.raises(ZeroDivisionError):
        small().set_callbacks(told).fit(trials, on_epoch=lambda record: 1 / 0)
    assert told.told[-1] == "teardown"
    assert "_callback_fit_ctx" not in vars(small())


def test_pipelines_searches_and_ensembles(small, trials):
    told = Told()
    make_pipeline(v1.TrialStandardizer(), small(max_epochs=1).set_callbacks(told)).fit(trials)
    assert told.told.count(("end", "epoch", 0)) == 1
    told = Told()
    ensemble = v1.EnsembleRegressor(small(max_epochs=1), 2, 1, random_state=0).set_callbacks(told)
    ensemble.fit(trials)
    assert told.told == ["setup", ("begin", "fit", 0), ("end", "fit", 0), "teardown"]
    assert told.fitted[0].members_ == ensemble.members_
    told = Told()
    model = small(max_epochs=1).set_callbacks(told)
    search = GridSearchCV(model, {"lr": [1e-3, 1e-2]}, cv=GroupKFold(2), refit=False)
    search.fit(trials, groups=trials.image_ids)
    assert told.told.count(("end", "epoch", 0)) == 4


def test_clones_and_copies_keep_them(small):
    told = Told()
    model = small().set_callbacks(told)
    assert clone(model)._skl_callbacks == [told]
    assert copy.copy(model)._skl_callbacks == [told]
