"""What a fit tells while it runs: the log, the bar, and who is meant."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import v1tlearn as v1
from v1tlearn.nn import fast
from v1tlearn.search import HyperbandSearch
from v1tlearn.training import NonFiniteLossError
from v1tlearn.training.memory import InsufficientMemoryError


@pytest.fixture
def told(caplog):
    """Messages of level INFO of what runs within."""
    caplog.set_level(logging.INFO, logger="v1tlearn")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "v1tlearn"]


def test_the_start_tells_what_is_trained_on_what(small, trials, test_trials, told):
    est = small(max_epochs=1, lr=1e-4).fit(trials, validation=test_trials)
    start = told()[0]
    n_trials = len(trials.sel(mouse_id="A"))
    n = sum(p.numel() for p in est.module_.parameters())
    for part in (
        "CNNRegressor: training begins: CNNRegressor(",
        "lr=0.0001",
        f"A (5 neurons, {n_trials} trials and 16 of validation)",
        f"B (7 neurons, {n_trials} trials and 16 of validation)",
        f"{n} parameters, seed 0, on cpu in float32",
        "batches of 16 trials per mouse, at most 1 epochs",
    ):
        assert part in start
    est.set_params(warm_start=True).fit(trials, validation=test_trials)
    assert "training goes on after epoch 1" in told()[3]


def choices(messages):
    return [message for message in messages if ": computes on " in message]


def test_the_log_says_once_per_fit_what_was_chosen(small, trials, told):
    small(max_epochs=3, device="cpu").fit(trials)
    (line,) = choices(told())
    variants = fast.kernel_variants()
    kernels = f"compiled kernels for {variants[0]}" if variants else "no compiled kernels"
    assert line == (
        f"CNNRegressor: computes on cpu (threads: {torch.get_num_threads()}, {kernels}) in "
        "float32; images on the device, responses on the device; 16 trials of each mouse at once, "
        "activations kept, core not compiled"
    )


def test_the_log_says_what_was_asked_for_in_place_of_auto(trials, told, tmp_path):
    sizes = {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2, "embed_dim": 8}
    trials.to_netcdf(tmp_path / "trials.nc")
    v1.ViTRegressor(
        **sizes, mlp_dim=8, max_epochs=1, batch_size=8, device="cpu", micro_batch_size=2,
        low_memory=True, precision="bfloat16", random_state=0,
    ).fit(v1.Trials.open(tmp_path / "trials.nc"))  # fmt: skip
    (line,) = choices(told())
    assert line.endswith(
        "in bfloat16; images read step by step, responses read step by step; 2 trials of each "
        "mouse at once, activations computed again, core not compiled"
    )


def test_epoch_by_epoch_choices_are_told_at_the_first(small, trials, told):
    est = small(max_epochs=1)
    for _ in range(3):
        est.partial_fit(trials)
    assert len(choices(told())) == 1
    est.set_params(warm_start=True).fit(trials)
    assert len(choices(told())) == 2


def test_the_end_tells_why_and_what_was_kept(small, trials, test_trials, told):
    est = small(max_epochs=2).fit(trials, validation=test_trials)
    scores = [record["validation_correlation"] for record in est.history_]
    best = scores.index(max(scores)) + 1
    assert (est.best_epoch_, est.stop_reason_) == (best, "max_epochs")
    end = told()[-1]
    assert re.match(r"CNNRegressor: training ended after epoch 2, in \d+\.\d s: max_epochs=2", end)
    assert end.endswith(f"kept: epoch {best}, validation correlation {max(scores):.4f}")


def test_without_validation_the_last_epoch_is_kept(small, trials, told):
    est = small(max_epochs=2, validation_fraction=0).fit(trials)
    assert (est.best_epoch_, est.stop_reason_) == (2, "max_epochs")
    assert f"{len(trials.sel(mouse_id='A'))} trials)" in told()[0]
    assert told()[-1].endswith("kept: epoch 2")


@pytest.mark.parametrize(("schedule", "max_lr_drops"), [("plateau", 1), ("rounds", 5)])
@pytest.mark.filterwarnings("ignore:mouse .* cannot follow their images")
def test_drops_of_the_learning_rate_and_the_end_by_the_schedule(
    small, trials, test_trials, told, schedule, max_lr_drops
):
    params = {"lr_patience": 1, "max_lr_drops": max_lr_drops, "lr_factor": 0.1, "lr": 1e-2}
    est = small(max_epochs=60, schedule=schedule, **params).fit(trials, validation=test_trials)
    assert est.stop_reason_ == "schedule"
    assert est.n_iter_ < 60
    changes = [m for m in told() if ": after epoch" in m]
    rates = [record["lr"] for record in est.history_]
    dropped = [epoch for epoch in range(1, len(rates)) if rates[epoch] < rates[epoch - 1]]
    assert dropped
    for epoch in dropped:
        (message,) = [m for m in changes if f"after epoch {epoch}:" in m]
        assert f"learning rate {rates[epoch - 1]:.3g} -> {rates[epoch]:.3g}" in message
    assert any("back to" in m for m in changes)
    reason = {"plateau": "at each of 2 learning rates", "rounds": "rounds of early stopping"}
    assert reason[schedule] in told()[-1]
    kept = "the initial weights" if est.best_epoch_ == 0 else f"epoch {est.best_epoch_}"
    assert f"kept: {kept}" in told()[-1]


class Enough(Exception):
    pass


def raiser(error):
    def on_epoch(record):
        if record["epoch"] == 2:
            raise error

    return on_epoch


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (Enough(), "on_epoch", "Enough was raised by on_epoch"),
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (InsufficientMemoryError("full"), "out of memory", "memory did not suffice"),
        (NonFiniteLossError("A", 3, 1), "non-finite loss", "the loss is not finite"),
    ],
)
def test_other_endings(small, trials, told, error, reason, words):
    est = small(max_epochs=5)
    with pytest.raises(type(error)):
        est.fit(trials, on_epoch=raiser(error))
    assert est.stop_reason_ == reason
    assert "training ended after epoch 2, in " in told()[-1]
    assert f"s: {words}; kept: epoch {est.best_epoch_}" in told()[-1]


def test_what_was_noted_outlives_the_process(small, trials, tmp_path):
    est = small().fit(trials)
    est.save(tmp_path / "model")
    loaded = v1.CNNRegressor.load(tmp_path / "model")
    assert (loaded.best_epoch_, loaded.stop_reason_) == (est.best_epoch_, est.stop_reason_)
    for name in ("best_epoch_", "stop_reason_"):
        assert not hasattr(v1.CNNRegressor(), name)


# The bar ----------------------------------------------------------------------------------------


def last_bar(text):
    return [line for line in re.split(r"[\r\n]", text) if "epoch" in line and "|" in line][-1]


def test_a_bar_that_stops_early_says_so(small, trials, test_trials, capsys):
    est = small(max_epochs=60, lr_patience=0, max_lr_drops=0, lr=1e-2, verbose=1)
    est.fit(trials, validation=test_trials)
    assert est.n_iter_ < 60
    bar = last_bar(capsys.readouterr().err)
    assert "100%" in bar
    assert f"{est.n_iter_}/{est.n_iter_}" in bar
    score = est.history_[est.best_epoch_ - 1]["validation_correlation"]
    assert f"stopped early, epoch {est.best_epoch_} kept, val. corr.={score:.4f}" in bar


def test_a_bar_that_is_ended_says_so(small, trials, capsys):
    est = small(max_epochs=5, verbose=1)
    with pytest.raises(Enough):
        est.fit(trials, on_epoch=raiser(Enough()))
    bar = last_bar(capsys.readouterr().err)
    assert "2/2" in bar
    assert f"ended by on_epoch, epoch {est.best_epoch_} kept" in bar


def test_a_complete_bar_says_what_was_kept(small, trials, capsys):
    est = small(max_epochs=2, verbose=1).fit(trials)
    bar = last_bar(capsys.readouterr().err)
    assert "2/2" in bar
    assert "early" not in bar
    assert f"epoch {est.best_epoch_} kept" in bar


# The log on the screen ----------------------------------------------------------------------------


def lines(capsys):
    """What was printed to standard error, without bars."""
    printed = re.split(r"[\r\n]+", capsys.readouterr().err)
    return [line for line in printed if re.match(r"\d\d:\d\d:\d\d ", line)]


def test_the_log_is_printed_on_request(small, trials, capsys):
    small(verbose=1).fit(trials)
    assert not lines(capsys)
    small(verbose=2).fit(trials)
    printed = lines(capsys)
    assert "CNNRegressor: training begins" in printed[0]
    assert "CNNRegressor: training ended after epoch 2" in printed[-1]
    logger = logging.getLogger("v1tlearn")
    assert (logger.handlers, logger.level) == ([], logging.NOTSET)


def test_nothing_is_printed_twice(small, trials, capsys):
    logger = logging.getLogger("v1tlearn")
    own = logging.StreamHandler(sys.stderr)
    own.setFormatter(logging.Formatter("00:00:00 own %(message)s"))
    logger.addHandler(own)
    try:
        small(verbose=2).fit(trials)
        printed = lines(capsys)
    finally:
        logger.removeHandler(own)
    assert sum("training begins" in line for line in printed) == 1
    assert all("own" in line for line in printed)


def test_a_log_file_does_not_keep_it_from_the_screen(small, trials, capsys, tmp_path):
    logger = logging.getLogger("v1tlearn")
    file = logging.FileHandler(tmp_path / "log.txt", encoding="utf-8")
    logger.addHandler(file)
    try:
        small(verbose=2).fit(trials)
    finally:
        logger.removeHandler(file)
        file.close()
    assert sum("training begins" in line for line in lines(capsys)) == 1
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").count("training begins") == 1


def test_an_error_leaves_the_logger_as_it_was(small, trials, capsys):
    with pytest.raises(Enough):
        small(verbose=2).fit(trials, on_epoch=raiser(Enough()))
    assert "Enough was raised by on_epoch" in lines(capsys)[-1]
    logger = logging.getLogger("v1tlearn")
    assert (logger.handlers, logger.level) == ([], logging.NOTSET)


@pytest.mark.parametrize("verbose", [-1, 1.5, "2"])
def test_a_wrong_verbose_is_refused(small, trials, verbose):
    for est in (
        small(verbose=verbose),
        v1.EnsembleRegressor(small(), verbose=verbose),
        HyperbandSearch(small(), verbose=verbose),
    ):
        with pytest.raises(ValueError, match="'verbose' parameter of"):
            est.fit(trials)


# Fits within others -------------------------------------------------------------------------------


def test_candidates_and_members_are_told_apart(small, trials, told, capsys):
    ensemble = v1.EnsembleRegressor(
        small(max_epochs=1, verbose=1), n_candidates=3, n_members=2, random_state=0, verbose=2
    ).fit(trials)
    for i, seed in enumerate(ensemble.seeds_, 1):
        name = f"EnsembleRegressor candidate {i}/3"
        full = f"{name} (CNNRegressor, seed {seed}): training"
        assert sum(m.startswith(full) for m in told()) == 2  # begins, ended
        score = ensemble.validation_scores_[i - 1]
        assert f"{name}: score {score:.4f}" in told()
    first, second = ensemble.members_ + 1
    assert re.search(rf"kept number {first} \(.*\), number {second} \(", told()[-1])
    printed = capsys.readouterr().err
    assert printed.count("candidate 2/3 (CNNRegressor, seed") == 3  # begin, choices, end
    assert re.search(r"EnsembleRegressor candidate 3/3: +100%", printed)
    moved = ensemble.transfer(trials)
    assert any("EnsembleRegressor member 2/2 (CNNRegressor, seed" in m for m in told())
    assert [member.verbose for member in moved.estimators_] == [1, 1]


def test_trials_of_a_search_are_told_apart(small, trials, told, capsys):
    HyperbandSearch(
        small(max_epochs=1, verbose=1), {"lr": [1e-3, 1e-2]}, n_trials=2, random_state=0
    ).fit(trials)
    for number in (0, 1):
        name = f"HyperbandSearch trial {number} of 2 (CNNRegressor, seed 0): training begins"
        assert sum(m.startswith(name) for m in told()) == 1
    assert any(m.startswith("HyperbandSearch refit (CNNRegressor, seed 0)") for m in told())
    assert re.search(r"HyperbandSearch trial 1 of 2: +100%", capsys.readouterr().err)


SCRIPT = """
import logging
import v1tlearn as v1

trials = v1.Trials(v1.make_v1_recordings(
    n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3, image_shape=(12, 16),
    random_state=0)).sel(tier="train")
model = v1.CNNRegressor(
    n_layers=2, hidden_channels=4, input_kernel=5, hidden_kernel=3, max_epochs=2, device="cpu",
    random_state=0, verbose=2)
model.fit(trials)
logging.basicConfig(level=logging.INFO, format="configured %(message)s")
model.fit(trials)
logging.getLogger().handlers.clear()
v1.EnsembleRegressor(
    model.set_params(verbose=0), n_candidates=2, n_members=1, n_jobs=2, random_state=0, verbose=2
).fit(trials)
"""


@pytest.mark.slow
def test_the_log_of_a_script_and_of_its_processes():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert done.stdout == ""
    printed = [line for line in re.split(r"[\r\n]+", done.stderr) if "training" in line]
    assert [re.sub(r"^[\d:]{8} ", "", line).split(": ")[0] for line in printed[:4]] == [
        "CNNRegressor",
        "CNNRegressor",
        "configured CNNRegressor",
        "configured CNNRegressor",
    ]
    for i in (1, 2):
        name = rf"\d\d:\d\d:\d\d \[LokyProcess-\d+\] EnsembleRegressor candidate {i}/2 \("
        assert sum(bool(re.search(name, line)) for line in printed) == 2
