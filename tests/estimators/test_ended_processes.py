"""Processes of one training that end: the others say which and why, and any number goes on."""

import pytest

from tests.estimators.test_several_processes import TRIALS, assert_weights
from tests.processes import alone, interrupted, torchrun, unwatched

ENDING = (
    TRIALS
    + """
    import signal
    from pathlib import Path
    from v1tlearn.training import LostProcessError

    folder, trials, until, which = Path(sys.argv[1]), make_trials(), int(sys.argv[2]), sys.argv[3]
    rank = os.environ.get("RANK", "0")
    (folder / f"pid-{rank}").write_text(str(os.getpid()))

    def kill(record):
        if record["epoch"] == until and which != "none":
            os.kill(int((folder / f"pid-{which}").read_text()), signal.SIGKILL)

    est = make_cnn(max_epochs=4)
    try:
        est.fit(trials, checkpoint_dir=folder / "states", on_epoch=kill)
    except LostProcessError as error:
        tell(lost=str(error))
        raise
    tell(**outcome(est, trials))
"""
)


@pytest.mark.slow
def test_a_fit_goes_on_with_any_number_of_processes(tmp_path):
    for n, until, which in [(3, 1, 2), (1, 2, 0)]:
        torchrun(ENDING, n, tmp_path, until, which, check=False)
        kept = sorted(path.name for path in (tmp_path / "states").glob("epoch-*"))
        assert kept[-1] == f"epoch-{until:06}"
    two = torchrun(ENDING, 2, tmp_path, 0, "none")
    assert len(two[0]["history"]) == 4
    other = tmp_path / "other"
    other.mkdir()
    one = alone(ENDING, other, 0, "none")  # from the beginning
    for told in two:
        assert_weights(told["weights"], one["weights"])


@pytest.mark.slow
def test_the_others_say_which_process_was_killed(tmp_path):
    told = unwatched(ENDING, 2, tmp_path, 2, 1)
    assert "process 1 was killed, or does not answer" in told[0]["lost"]
    assert "the same command goes on from there" in told[0]["lost"]
    assert "history" not in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("error", ["MemoryError", "ValueError", "OSError"])
def test_the_others_say_which_error_ended_a_process(error, tmp_path):
    script = """
    from v1tlearn.training import LostProcessError, PoissonObjective

    if os.environ["RANK"] == "1":  # as where its disk, or its memory, is full
        def loss(self, *args):
            raise KIND("of this one alone")

        PoissonObjective.loss = loss
    try:
        make_cnn(validation_fraction=0).fit(make_trials())
    except LostProcessError as error:
        tell(lost=str(error))
        raise
    """
    told = unwatched(TRIALS + script.replace("KIND", error), 2, tmp_path)
    # of memory, this package has an error with remedies
    assert "process 1 ended by " in told[0]["lost"]
    named = "InsufficientMemoryError" if error == "MemoryError" else f"{error}: of this one alone"
    assert named in told[0]["lost"]


@pytest.mark.slow
def test_other_parameters_in_one_of_them_are_refused(tmp_path):
    script = """
    from pathlib import Path

    def refused(estimator=None, trials=None, checkpoint_dir=None, **parameters):
        try:
            (estimator or make_cnn(**parameters)).fit(
                trials or make_trials(), checkpoint_dir=checkpoint_dir)
        except ValueError as error:
            return str(error)

    def behaved(step):
        trials = make_trials()
        recordings = {mouse: trials.recordings[mouse].to_dataset() for mouse in trials.mice}
        recordings["B"].behaviors.values = recordings["B"].behaviors.values[::step]
        return v1.Trials(recordings)

    def numbered(step):
        trials = make_trials()
        return v1.Trials({
            mouse: trials.recordings[mouse].to_dataset().assign_coords(
                neuron=("neuron", np.arange(4)[::step])) for mouse in trials.mice})

    def turned(step):
        trials = make_trials()
        recordings = {mouse: trials.recordings[mouse].to_dataset() for mouse in trials.mice}
        recordings["B"].responses.values = recordings["B"].responses.values[:, ::step]
        return v1.Trials(recordings)

    rank = int(os.environ["RANK"])
    as_one, states = make_cnn(max_epochs=1, warm_start=True), Path(sys.argv[1]) / "states"
    if not rank:  # a fit of this one alone
        os.environ["V1TLEARN_DISTRIBUTED"] = "0"
        as_one.fit(make_trials())
        del os.environ["V1TLEARN_DISTRIBUTED"]
    seeds = [np.random.RandomState(rank), np.random.default_rng(rank)]
    tell(
        rate=refused(lr=0.01 * (1 + rank)),
        model=refused(hidden_channels=3 + rank // 2),
        epochs=refused(max_epochs=1 + rank),
        number=refused(trials=make_trials()[: 20 + rank], validation_fraction=0),
        behavior=refused(
            v1.V1TRegressor(patch_size=4, n_blocks=1), behaved(-1 if rank else 1)),
        neurons=refused(trials=numbered(-1 if rank else 1)),
        order=refused(trials=turned(-1 if rank else 1)),
        go_on=refused(as_one),
        states=refused(checkpoint_dir=None if rank else states),
        search=refused(v1.search.HyperbandSearch(make_cnn(), {"lr": [0.01, 0.1]})),
        seeds=[make_cnn(max_epochs=1, random_state=seed).fit(make_trials()).seed_
               for seed in seeds],
        after=make_cnn(max_epochs=1).fit(make_trials()).history_[0]["loss"])
    """
    told = torchrun(TRIALS + script, 3, tmp_path)
    assert all(process == told[0] for process in told)
    assert "lr is 0.01 in process 0 and 0.02 in process 1" in told[0]["rate"]
    assert "hidden_channels is 3 in process 0 and 4 in process 2" in told[0]["model"]
    assert "max_epochs is 1 in one and 3 in another" in told[0]["epochs"]
    assert "the number of training trials of mouse " in told[0]["number"]
    assert "the size of the behaviors of trial 0 of the training" in told[0]["behavior"]
    labels = "the hash of the labels of the training trials of mouse 'A' is "
    assert labels in told[0]["neurons"]
    assert "the size of the responses of trial 0 of the training" in told[0]["order"]
    assert "to go on from is of 1 epochs in process 0 and none in process 1" in told[0]["go_on"]
    assert "checkpoint_dir is given in process 0 and none in process 1" in told[0]["states"]
    assert "3 processes train together here" in told[0]["search"]


@pytest.mark.slow
def test_an_interruption_of_the_launcher_ends_all_with_a_whole_state(tmp_path):
    script = """
    from pathlib import Path

    folder = Path(sys.argv[1])

    def on_epoch(record):
        (folder / "epoch").touch()

    est = make_cnn(max_epochs=EPOCHS)
    try:
        est.fit(make_trials(), checkpoint_dir=folder / "states", on_epoch=on_epoch)
    finally:
        tell(stop_reason=est.stop_reason_, epochs=len(est.history_))
    """
    script, epoch = TRIALS + script, tmp_path / "epoch"
    told = interrupted(script.replace("EPOCHS", "100_000"), 2, tmp_path, epoch)
    assert [process["stop_reason"] for process in told] == ["interrupted"] * 2
    kept = alone(script.replace("EPOCHS", "1"), tmp_path)  # which has more already
    assert kept["epochs"] == told[0]["epochs"] >= 1
