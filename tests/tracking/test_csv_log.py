"""A table of epochs that is whole after every one of them."""

import math
import multiprocessing
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import v1tlearn as v1
from tests.exact_csv import read_csv
from v1tlearn.tracking import CSVLog


def test_the_table_is_the_history(small, trials, tmp_path):
    model = small().fit(trials, on_epoch=CSVLog(tmp_path / "log.csv"))
    table = read_csv(tmp_path / "log.csv")
    assert list(table.columns) == list(model.history_[0])
    assert table.to_dict("records") == model.history_


def test_a_training_that_goes_on_goes_on_with_the_file(small, trials, tmp_path, cut):
    path, states = tmp_path / "log.csv", tmp_path / "states"
    whole = small(max_epochs=4).fit(trials)
    with pytest.raises(cut.error):  # after the state of epoch 2 is written, before its line is
        small(max_epochs=4).fit(trials, on_epoch=[cut(2), CSVLog(path)], checkpoint_dir=states)
    assert read_csv(path)["epoch"].tolist() == [1]
    with path.open("a") as file:
        file.write("2,0.3")  # half a line
    model = small(max_epochs=4).fit(trials, on_epoch=CSVLog(path), checkpoint_dir=states)
    table = read_csv(path)
    assert table["loss"].tolist() == [record["loss"] for record in whole.history_]
    assert table.to_dict("records") == model.history_


def test_warm_starts_add_to_it(small, trials, tmp_path):
    model, log = small(max_epochs=1, warm_start=True), CSVLog(tmp_path / "log.csv")
    model.fit(trials, on_epoch=log).fit(trials, on_epoch=log)
    assert read_csv(log.path).to_dict("records") == model.history_


def test_epochs_that_are_trained_again_replace_those_of_before(tmp_path):
    """As where the newest state was damaged, and a fit goes on from the one before."""
    log = CSVLog(tmp_path / "log.csv")
    for epoch in (1, 2, 3):
        log({"epoch": epoch, "loss": 1 / epoch})
    again = CSVLog(tmp_path / "log.csv")
    again.begin([{"epoch": 1, "loss": 1.0}])
    again({"epoch": 2, "loss": 0.5})
    assert read_csv(log.path)["epoch"].tolist() == [1, 2]
    untold = CSVLog(tmp_path / "log.csv")  # nobody says that it begins
    untold({"epoch": 2, "loss": 0.4})
    assert read_csv(log.path)["loss"].tolist() == [1.0, 0.4]


@pytest.mark.parametrize("mouse", ["Maus Ä", "鼠", 'a, "b"', "two\nlines", "٣", "a\rb", "c\r\nd"])
def test_it_goes_on_whatever_mice_are_called(mouse, tmp_path):
    first, second = ({"epoch": n, f"validation_loss_{mouse}": 1 / n} for n in (1, 2))
    CSVLog(tmp_path / "log.csv")(first)
    log = CSVLog(tmp_path / "log.csv")
    log.begin([first])
    log(second)
    assert read_csv(log.path).to_dict("records") == [first, second]


def test_another_training_is_not_mixed_in(small, trials, tmp_path):
    log = CSVLog(tmp_path / "log.csv")
    small(max_epochs=1).fit(trials, on_epoch=log)
    before = log.path.read_bytes()
    with pytest.raises(FileExistsError, match=r"holds epochs up to 1 .* begins anew: choose"):
        small(max_epochs=1).fit(trials, on_epoch=log)
    with pytest.raises(FileExistsError, match="begins anew"):
        CSVLog(log.path)({"epoch": 1, "loss": 0.0})
    with pytest.raises(FileExistsError, match="has other losses"):
        log.begin([{"epoch": 1, "loss": 123.0}])
    assert log.path.read_bytes() == before
    model = small(max_epochs=2).fit(trials, on_epoch=CSVLog(log.path, replace=True))
    assert read_csv(log.path).to_dict("records") == model.history_


@pytest.mark.parametrize("replace", ["no", 0, None])
def test_only_true_replaces_the_log_of_another_training(tmp_path, replace):
    with pytest.raises(TypeError, match=r"replace is .*, expected True or False"):
        CSVLog(tmp_path / "log.csv", replace=replace)


@pytest.mark.parametrize(
    "text",
    [
        *("a,b\n1,2\n", "epoch,loss\none,2\n", "\x89HDF\r\n\x1a\n", "epoch,loss\n1,0\xdc5\n"),
        *("epoch,loss\n1,=1+1\n", "epoch,epoch\n1,2\n", "epoch,loss\n1,0.50\n"),
    ],
)
def test_what_is_no_log_is_left_alone(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode())
    with pytest.raises(FileExistsError, match="no log of epochs"):
        CSVLog(path)({"epoch": 1, "loss": 0.0})
    assert path.read_bytes() == text.encode()


def test_columns_that_come_later_and_what_is_not_finite(tmp_path):
    log = CSVLog(tmp_path / "log.csv")
    log.begin([])
    log({"epoch": 1, "loss": math.nan})
    log({"epoch": 2, "loss": 0.1 + 0.2, "penalty": math.inf})
    assert log.path.read_text() == "epoch,loss,penalty\n1,nan,\n2,0.30000000000000004,inf\n"


def test_there_has_to_be_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none"):
        CSVLog(tmp_path / "none" / "log.csv").begin([])
    with pytest.raises(TypeError, match="path is a int"):
        CSVLog(3)


def test_candidates_share_a_table(small, trials, tmp_path, cut):
    log, states = CSVLog(tmp_path / "log.csv"), tmp_path / "states"

    def ensemble():
        return v1.EnsembleRegressor(small(max_epochs=2), 3, 2, random_state=0)

    class CutLater:
        def __call__(self, record):
            if (record["candidate"], record["epoch"]) == (1, 1):
                raise cut.error

    with pytest.raises(cut.error):
        ensemble().fit(trials, on_epoch=[log, CutLater()], checkpoint_dir=states)
    ensemble().fit(trials, on_epoch=pickle.loads(pickle.dumps(log)), checkpoint_dir=states)
    table = read_csv(log.path)
    assert table.columns[0] == "candidate"
    told = sorted(zip(table["candidate"], table["epoch"], strict=True))
    assert told == [(c, e) for c in range(3) for e in (1, 2)]


def _write(path, candidate):
    log = CSVLog(path)
    log.begin([], candidate=candidate)
    for epoch in range(1, 31):
        log({"epoch": epoch, "loss": 1 / epoch, "candidate": candidate})


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs locks of files"
)
@settings(max_examples=60)
@given(order=st.permutations([0] * 4 + [1] * 4))
def test_two_processes_that_train_the_same_note_each_epoch_once(order, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.csv"
    logs, epochs = [CSVLog(path) for _ in range(2)], [0, 0]
    for log in logs:
        log.begin([])
    for which in order:  # whichever comes next
        epochs[which] += 1
        logs[which]({"epoch": epochs[which], "loss": 1 / epochs[which], "seconds": 0.5 + which})
    table = read_csv(path)
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert table["loss"].tolist() == [1, 1 / 2, 1 / 3, 1 / 4]


def test_processes_that_write_at_a_time_lose_no_line(tmp_path):
    path = tmp_path / "log.csv"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, c)) for c in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    table = read_csv(path)
    told = sorted(zip(table["candidate"], table["epoch"], strict=True))
    assert told == [(c, e) for c in range(3) for e in range(1, 31)]
