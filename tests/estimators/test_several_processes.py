"""Scripts that fit, started by torchrun: what one process comes to, written once."""

import json

import numpy as np
import pytest

import v1tlearn as v1
from tests.processes import alone, torchrun

TRIALS = """
    import numpy as np
    from v1tlearn.training import join

    def make_trials(seed=0):
        return v1.Trials(v1.make_v1_recordings(
            n_mice=2, n_neurons=4, n_trials=30, n_test_images=2, n_repeats=2,
            image_shape=(12, 16), random_state=seed)).sel(tier="train")

    def make_cnn(**parameters):
        return v1.CNNRegressor(**{
            "n_layers": 2, "hidden_channels": 3, "input_kernel": 3, "hidden_kernel": 3,
            "bias": False, "batch_size": 8, "max_epochs": 2, "random_state": 0,
            "validation_fraction": 0.3} | parameters)

    def outcome(est, trials):
        history = [{k: v for k, v in h.items() if k != "seconds"} for h in est.history_]
        return {
            "history": history,
            "seconds": [h["seconds"] for h in est.history_],
            "stop_reason": est.stop_reason_,
            "seed": est.seed_,
            "weights": {k: v.double().flatten().tolist()
                        for k, v in est.module_.state_dict().items()},
            "predicted": est.predict(trials[:3])[est.mice_[0]].values.tolist(),
        }
"""

QUICK = (
    TRIALS
    + """
    from pathlib import Path
    folder, trials = Path(sys.argv[1]), make_trials()
    rank = int(os.environ.get("RANK", "0"))

    # an ordinary script
    from v1tlearn.tracking import CSVLog, RunFolder

    epochs, est = [], make_cnn()
    with RunFolder(folder / "run", est, trials) as run:
        on_epoch = [run, epochs.append, CSVLog(run.path / "epochs.csv")]
        est.fit(trials, on_epoch=on_epoch, checkpoint_dir=folder / "states")
        est.save(folder / "model")
    tell(fitted=outcome(est, trials), size=join().size, epochs=len(epochs))
    try:
        with RunFolder(folder / "run", make_cnn(lr=0.1), trials):
            tell(entered=True)
    except FileExistsError as error:
        tell(other=str(error))

    # on_epoch is called in process 0; what it raises is raised in all of them
    class Enough(Exception):
        pass

    def enough(record):
        raise Enough("seen enough")

    class Closing:
        def __call__(self, record):
            pass

        def end(self):
            raise OSError("no space left")

    est = make_cnn(random_state=None)
    try:
        est.fit(trials, on_epoch=enough)
    except Enough as error:
        tell(enough=str(error), ended=outcome(est, trials))

    # what differs is refused in all of them, and they go on
    try:
        make_cnn().fit(make_trials(rank))
    except ValueError as error:
        tell(refused=str(error))
    est = make_cnn(max_epochs=1)
    try:
        est.fit(trials, on_epoch=Closing())
    except OSError as error:
        tell(again=outcome(est, trials), closing=str(error))

    # by oneself
    os.environ["V1TLEARN_DISTRIBUTED"] = "0"
    est = make_cnn(max_epochs=1, random_state=rank).fit(make_trials(rank))
    est.save(folder / f"own-{rank}")
    tell(own=est.seed_, alone=join().size)
"""
)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return torchrun(QUICK, 2, folder), folder


@pytest.fixture(scope="module")
def trials():
    recordings = v1.make_v1_recordings(
        n_mice=2,
        n_neurons=4,
        n_trials=30,
        n_test_images=2,
        n_repeats=2,
        image_shape=(12, 16),
        random_state=0,
    )
    return v1.Trials(recordings).sel(tier="train")


@pytest.fixture(scope="module")
def one(trials):
    """The same fit in this process."""
    return v1.CNNRegressor(
        n_layers=2,
        hidden_channels=3,
        input_kernel=3,
        hidden_kernel=3,
        bias=False,
        batch_size=8,
        max_epochs=2,
        random_state=0,
        validation_fraction=0.3,
    ).fit(trials)


def assert_weights(told, expected):
    for name, values in expected.items():
        np.testing.assert_allclose(told[name], values, rtol=1e-4, atol=2e-5, err_msg=name)


def assert_like(told, est):
    """Compare a model that processes told of with one of this process, but for float noise."""
    state = est.module_.state_dict()
    weights = {name: values.double().flatten().numpy() for name, values in state.items()}
    assert_weights(told["weights"], weights)
    for one, other in zip(told["history"], est.history_, strict=True):
        other = {name: value for name, value in other.items() if name != "seconds"}
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_two_processes_come_to_what_one_does(quick, one):
    told, _ = quick
    assert [process["size"] for process in told] == [2, 2]
    assert told[0]["fitted"] == told[1]["fitted"]
    assert_like(told[0]["fitted"], one)


@pytest.mark.slow
def test_one_of_them_writes_and_tells(quick, trials):
    told, folder = quick
    assert [process["epochs"] for process in told] == [2, 0]
    assert sorted(path.name for path in (folder / "states").iterdir()) == [
        "epoch-000001",
        "epoch-000002",
    ]
    run = json.loads((folder / "run" / "run.json").read_text())
    assert (run["status"], run["stop_reason"], len(run["attempts"])) == (
        "finished",
        "max_epochs",
        1,
    )
    losses = [record["loss"] for record in told[0]["fitted"]["history"]]
    assert [record["loss"] for record in run["history"]] == losses
    assert len((folder / "run" / "epochs.csv").read_text().splitlines()) == 3
    assert all("holds another run" in process["other"] for process in told)
    assert not any("entered" in process for process in told)
    loaded = v1.CNNRegressor.load(folder / "model")
    predicted = loaded.predict(trials[:3])[loaded.mice_[0]].values
    np.testing.assert_allclose(predicted, told[0]["fitted"]["predicted"], rtol=1e-5)


@pytest.mark.slow
def test_what_on_epoch_raises_ends_all_of_them(quick):
    told, _ = quick
    assert [process["enough"] for process in told] == ["seen enough"] * 2
    assert told[0]["ended"] == told[1]["ended"]  # random_state=None is drawn once
    assert told[0]["ended"]["stop_reason"] == "on_epoch"
    assert [process["closing"] for process in told] == ["no space left"] * 2


@pytest.mark.slow
def test_other_trials_in_one_of_them_are_refused(quick):
    told, _ = quick
    assert told[0]["refused"] == told[1]["refused"]
    assert "the hash of the labels of the training trials of mouse" in told[0]["refused"]
    assert told[0]["again"] == told[1]["again"]  # and they still find each other


@pytest.mark.slow
def test_by_a_switch_every_process_is_alone(quick):
    told, folder = quick
    assert [process["alone"] for process in told] == [1, 1]
    for rank in range(2):
        assert v1.CNNRegressor.load(folder / f"own-{rank}").seed_ == told[rank]["own"] == rank


FITS = (
    TRIALS
    + """
    def told(est, trials):
        before = join().seconds
        out = outcome(est.fit(trials), trials)
        out["talked"] = join().seconds - before
        return out

    transformer = {
        "patch_size": 4, "n_blocks": 2, "n_heads": 2, "embed_dim": 6, "mlp_dim": 5,
        "batch_size": 8, "max_epochs": 3, "random_state": 0, "validation_fraction": 0.3,
        "patch_dropout": 0.0,
        "attention_dropout": 0.0, "mlp_dropout": 0.0}
    dropping = transformer | {
        "patch_dropout": 0.1, "mlp_dropout": 0.3, "attention_dropout": 0.2, "drop_path": 0.2}
    images = {
        "CNN": make_cnn(max_epochs=3),
        "CNN, mouse by mouse": make_cnn(max_epochs=3, core_pass="per_mouse"),
        "full model": v1.FullModelRegressor(
            channels=(3, 5), kernels=(5, 3), batch_size=8, max_epochs=3, random_state=0,
            validation_fraction=0.3),
        "V1T": v1.V1TRegressor(**transformer),
        "V1T, averaged": v1.V1TRegressor(**transformer, ema_decay=0.9, clip_norm=1.0),
        "V1T with dropout": v1.V1TRegressor(**dropping),
        "V1T with dropout, in parts": v1.V1TRegressor(
            **dropping, micro_batch_size=3),
        "V1T with dropout, mouse by mouse": v1.V1TRegressor(**dropping, core_pass="per_mouse"),
        "ViT with dropout": v1.ViTRegressor(**dropping),
    }
    trials = make_trials()
    tell(size=join().size, **{kind: told(est, trials) for kind, est in images.items()})
    recordings = v1.make_movie_recordings(2, 4, 8, 2, 3, random_state=0)
    movies = v1.Trials(recordings).sel(tier="train")
    tell(movies=told(
        v1.MovieCNNRegressor(
            n_layers=2, hidden_channels=3, window_frames=20, batch_size=4, max_epochs=2,
            random_state=0, validation_fraction=0.3),
        movies,
    ))
"""
)
ALIKE = [
    "CNN",
    "CNN, mouse by mouse",
    "full model",
    "V1T",
    "V1T, averaged",
    "V1T with dropout",
    "V1T with dropout, in parts",
    "V1T with dropout, mouse by mouse",
    "ViT with dropout",
    "movies",
]


@pytest.fixture(scope="module")
def fits_alone(tmp_path_factory):
    return alone(FITS, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module", params=[2, 4])
def fits(request, tmp_path_factory):
    return torchrun(FITS, request.param, tmp_path_factory.mktemp("several"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALIKE)
def test_several_processes_come_to_what_one_does(kind, fits, fits_alone):
    assert [process["size"] for process in fits] == [len(fits)] * len(fits)
    one = fits_alone[kind]
    for process in fits:
        own = process[kind]
        assert own["talked"] > 0 == one["talked"]
        assert all(own[name] == fits[0][kind][name] for name in own if name != "talked")
        for first, second in zip(own["history"], one["history"], strict=True):
            assert first == pytest.approx(second, rel=1e-4, abs=1e-4)
        assert_weights(own["weights"], one["weights"])


@pytest.mark.slow
def test_dropout_is_that_of_the_batch_in_parts_too(fits_alone):
    whole, parts = (fits_alone[f"V1T with dropout{how}"] for how in ("", ", in parts"))
    assert_weights(parts["weights"], whole["weights"])
    without = fits_alone["V1T"]["history"][-1]["loss"]
    assert whole["history"][-1]["loss"] != pytest.approx(without, rel=1e-4)


WHOLE = (
    TRIALS
    + """
    def course(est):  # maps are scaled, so that the last biases move by rounding alone
        names = [name for name in est.history_[0] if name != "seconds"]
        return {name: [record[name] for record in est.history_] for name in names}

    def weights(est):  # but biases ahead of batch normalisation, which have no effect
        return {k: v.double().flatten().tolist() for k, v in est.module_.state_dict().items()
                if not k.endswith("convolution.bias")}

    trials = v1.Trials(v1.make_v1_recordings(
        n_mice=2, n_neurons=6, n_trials=30, n_test_images=2, n_repeats=2,
        image_shape=(16, 24), random_state=0)).sel(tier="train")
    common = {"max_epochs": 2, "random_state": 0, "validation_fraction": 0.3}
    aligned = v1.DINAAligner(
        map_size=(4, 6), map_channels=2, batch_size=10, loss_weights=(1.0, 0.5, 0.5), **common)
    dina = aligned.fit(trials)
    recorded = make_cnn(loss_scale="per_recorded").fit(trials)
    full = v1.FullModelRegressor(channels=(3, 4), kernels=(5, 3), **common)
    minimodels = v1.MinimodelRegressor(
        full_model=full, hidden_channels=3, hidden_kernel=3, **common).fit(trials)
    movies = v1.Trials(v1.make_movie_recordings(
        n_neurons=5, n_movies=8, n_test_movies=2, n_repeats=3, n_frames=60,
        image_shape=(16, 16), random_state=0)).sel(tier="train")
    vist = v1.ViSTRegressor(
        grid=8, n_layers=2, channels=8, kernels=((1, 5), (1, 3)), window_frames=40,
        batch_size=4, steps_per_epoch=2, warmup_epochs=1, **common).fit(movies)
    tell(dina=course(dina), minimodels=weights(minimodels), vist=weights(vist),
         recorded=weights(recorded), talked=join().seconds)
"""
)


@pytest.mark.slow
def test_losses_that_are_no_sums_over_trials(tmp_path):
    told, one = torchrun(WHOLE, 2, tmp_path), alone(WHOLE, tmp_path)
    kinds = ("dina", "minimodels", "vist", "recorded")
    assert all(told[0][kind] == told[1][kind] for kind in kinds)
    for kind in kinds:
        assert_weights(told[0][kind], one[kind])


@pytest.mark.slow
def test_searches_and_ensembles_are_those_of_one_process(tmp_path):
    """Workers of joblib fit alone; candidates are trained by all processes, one by one."""
    script = """
    from joblib import Parallel, delayed
    from sklearn.model_selection import GridSearchCV, KFold

    search = GridSearchCV(
        make_cnn(max_epochs=1, input_kernel=3), {"hidden_channels": [2, 3]}, cv=KFold(2), n_jobs=2)
    search.fit(make_trials())
    tell(scores=search.cv_results_["mean_test_score"].tolist())
    from pathlib import Path
    from v1tlearn.tracking import TensorBoardLog

    folder = Path(sys.argv[1]) / sys.argv[2]
    ensemble = v1.EnsembleRegressor(
        make_cnn(max_epochs=1), 2, 1, n_jobs=2, validation_fraction=0.3, random_state=0)
    ensemble.fit(
        make_trials(), on_epoch=TensorBoardLog(folder / "log"), checkpoint_dir=folder / "states")
    tell(candidates=ensemble.validation_scores_.tolist(),
         logs=len(list(folder.glob("log/candidate-*/*"))))
    """
    told = torchrun(TRIALS + script, 2, tmp_path, "two")
    one = alone(TRIALS + script, tmp_path, "one")
    for process in told:
        assert process["scores"] == one["scores"]
        assert process["candidates"] == pytest.approx(one["candidates"], rel=1e-4, abs=1e-4)
        assert process["logs"] == one["logs"] == 2


@pytest.mark.slow
def test_tasks_of_srun_without_torchrun_are_told(tmp_path):
    script = """
    from v1tlearn.training import join
    os.environ |= {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        size = [join().size, join().size]
    tell(size=size, told=[str(warning.message) for warning in told])
    """
    told = alone(script, tmp_path)
    assert told["size"] == [1, 1]
    assert len(told["told"]) == 1
    assert "srun started this script 2 times" in told["told"][0]
    silent = script.replace('"SLURM_PROCID"', '"V1TLEARN_DISTRIBUTED": "0", "SLURM_PROCID"')
    assert alone(silent, tmp_path)["told"] == []
