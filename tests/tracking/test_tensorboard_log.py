"""Scalars that TensorBoard reads."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import v1tlearn as v1
from v1tlearn.tracking import CSVLog, TensorBoardLog


def scalars(folder):
    """Steps and values by tag, as TensorBoard shows them."""
    shown = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in shown.Scalars(tag)]
        for tag in shown.Tags()["scalars"]
    }


def curve(history, name):
    return [(r["epoch"], pytest.approx(r[name], rel=1e-6, nan_ok=True)) for r in history]


def test_every_entry_of_the_history_is_a_curve(small, trials, tmp_path):
    model = small().fit(
        trials, on_epoch=[TensorBoardLog(tmp_path / "run"), CSVLog(tmp_path / "log.csv")]
    )
    shown = scalars(tmp_path / "run")
    assert set(shown) == set(model.history_[0]) - {"epoch"}
    for name, points in shown.items():
        assert points == curve(model.history_, name)


def test_a_training_that_goes_on_is_shown_as_one(small, trials, tmp_path, cut):
    folder, states = tmp_path / "run", tmp_path / "states"
    with pytest.raises(cut.error):
        small(max_epochs=4).fit(
            trials, on_epoch=[cut(3), TensorBoardLog(folder)], checkpoint_dir=states
        )
    (first,) = folder.iterdir()
    with first.open("r+b") as file:  # a process that dies within a record
        file.truncate(first.stat().st_size - 7)
    model = small(max_epochs=4).fit(trials, on_epoch=TensorBoardLog(folder), checkpoint_dir=states)
    assert scalars(folder)["loss"] == curve(model.history_, "loss")
    with pytest.raises(FileExistsError, match="holds events of an earlier training"):
        small().fit(trials, on_epoch=TensorBoardLog(folder))


def test_candidates_are_runs_beside_each_other(small, trials, tmp_path):
    ensemble = v1.EnsembleRegressor(small(max_epochs=2), 2, 2, random_state=0)
    ensemble.fit(trials, on_epoch=TensorBoardLog(tmp_path))
    members = dict(zip(ensemble.members_, ensemble.estimators_, strict=True))
    for number, member in members.items():
        shown = scalars(tmp_path / f"candidate-{number:03d}")
        assert shown["loss"] == curve(member.history_, "loss")
