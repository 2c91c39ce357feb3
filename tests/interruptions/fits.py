"""Trainings that are ended at random moments, go on, and come to what they would have come to."""

import hashlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from scipy.stats import loguniform

import v1tlearn as v1
from tests.interruptions.processes import Outcome, ended_after, in_child, seconds_of
from tests.interruptions.writer import small
from tests.interruptions.writers import an_hour_passes

_ATTENTION = {"patch_size": 4, "patch_stride": 4, "n_blocks": 2, "n_heads": 2, "embed_dim": 8,
              "mlp_dim": 8, "batch_size": 8, "device": "cpu", "random_state": 0}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """A training that keeps its states in a folder.

    Attributes
    ----------
    call : callable
        Trains in a folder to the end, and gives a hash of what came of it.
    look : callable
        What is in the folder that a later process must not lose.
    """

    call: Callable[[Path], str]
    look: Callable[[Path], dict] = lambda folder: {}


def make_fits(epochs: int) -> dict[str, Fit]:
    """All of them."""
    images = v1.Trials(
        v1.make_v1_recordings(2, 6, 48, image_shape=(12, 16), n_test_images=2, n_repeats=2,
                              random_state=0)
    ).sel(tier="train")  # fmt: skip
    movies = v1.Trials(v1.make_movie_recordings(1, 5, 10, 2, 2, 40, (12, 16), random_state=0)).sel(
        tier="train"
    )
    cnn = partial(small, max_epochs=epochs)

    def fitted(make, trials):
        return Fit(lambda folder: digest(make().fit(trials, checkpoint_dir=folder)))

    return {
        "V1TRegressor": fitted(lambda: v1.V1TRegressor(**_ATTENTION, max_epochs=epochs), images),
        "CNNRegressor": fitted(cnn, images),
        "MovieCNNRegressor": fitted(lambda: v1.MovieCNNRegressor(
            hidden_channels=4, n_layers=2, input_kernel=3, hidden_kernel=3, batch_size=2,
            max_epochs=epochs, device="cpu", random_state=0), movies),
        "EnsembleRegressor": fitted(lambda: v1.EnsembleRegressor(
            cnn(max_epochs=max(1, epochs // 3)), 3, 2, random_state=0), images),
        "HyperbandSearch": Fit(partial(search, images, epochs), trials_over),
    }  # fmt: skip


def search(trials: Any, epochs: int, folder: Path) -> str:
    """Search, and say whether scores of trials and the best model are those of single fits."""
    with suppress(
        sqlite3.OperationalError
    ):  # a trial of a killed process is taken for dead at once
        an_hour_passes(folder / "study.db")
    estimator = small(max_epochs=max(2, epochs // 4), validation_fraction=0.2)
    found = v1.search.HyperbandSearch(
        estimator, {"lr": loguniform(1e-3, 1e-2)}, n_trials=6, min_epochs=1,
        validation_fraction=0.2, random_state=0,
    ).fit(trials, checkpoint_dir=folder)  # fmt: skip
    table = found.results_[found.results_["state"] == "complete"]
    assert found.results_["state"].isin(["complete", "pruned"]).sum() == 6
    for row in table.itertuples():
        own = estimator.set_params(lr=row.param_lr).fit(trials)
        best = max(record["validation_correlation"] for record in own.history_)
        assert row.score == best, f"{row} is scored otherwise than alone: {best}"
    best = estimator.set_params(**found.best_params_).fit(trials)
    assert digest(best) == digest(found.best_estimator_)
    return "six trials and a model as of fits of their own"


def trials_over(folder: Path) -> dict[int, tuple[str, float]]:
    """State and score of the trials of a study that are over."""
    if not (folder / "study.db").exists():
        return {}
    with (
        closing(sqlite3.connect(folder / "study.db", timeout=60)) as database,
        suppress(sqlite3.OperationalError),  # before the tables are made
    ):
        rows = database.execute(
            "SELECT number, state, value FROM trials LEFT JOIN trial_values USING (trial_id) "
            "WHERE state != 'RUNNING' AND state != 'WAITING'"
        )
        return {number: (state, value) for number, state, value in rows}
    return {}


def digest(model: Any) -> str:
    """Tell all weights of a model, or of the members of an ensemble, apart from others."""
    total = hashlib.sha256()
    for member in getattr(model, "estimators_", [model]):
        for name, tensor in sorted(member.module_.state_dict().items()):
            total.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def killed(fit: Fit, folder: Path, kills: int, drawn: Random, fresh: list[str]) -> str:
    """Kill a training at random moments, again and again, and compare each that ends.

    Parameters
    ----------
    fit : Fit
    folder : Path
        A new one.
    kills : int
        Processes that are to die.
    drawn : Random
    fresh : list of str
        Command that trains in the folder that is put behind it; every tenth process is one of it,
        so that imports are interrupted, too.

    Returns
    -------
    str
        What happened, in words.
    """
    alone = folder / "alone"
    alone.mkdir()
    whole = _value(in_child(partial(fit.call, alone)))
    seconds = seconds_of(partial(fit.call, _new(folder)))
    start = time.monotonic()
    subprocess.run([*fresh, str(_new(folder))], check=True, stdout=subprocess.DEVNULL)
    seconds_fresh = time.monotonic() - start
    died, died_fresh, ends, place = 0, 0, 0, _new(folder)
    kept: dict[Any, Any] = {}
    while died < kills or ends == 0:
        moment = drawn.uniform(0, seconds / 3) if died < kills else 1e9
        if died < kills and (died + ends) % 10 == 9:
            child = subprocess.Popen([*fresh, str(place)], stdout=subprocess.DEVNULL)
            time.sleep(drawn.uniform(0, seconds_fresh))
            child.kill()
            was_killed = child.wait() == -signal.SIGKILL
            died_fresh += was_killed
            outcome = Outcome(error=f"signal {int(signal.SIGKILL)}") if was_killed else in_child(
                partial(fit.call, place)
            )  # fmt: skip
        elif died < kills:
            outcome = ended_after(partial(fit.call, place), moment, signal.SIGKILL)
        else:
            outcome = in_child(partial(fit.call, place))
        now = fit.look(place)
        assert kept.items() <= now.items(), f"{kept} was there, {now} is"
        kept = now
        if outcome.error == f"signal {int(signal.SIGKILL)}":
            died += 1
            continue
        assert _value(outcome) == whole, "other weights than without interruptions"
        ends, place, kept = ends + 1, _new(folder), {}
    return (
        f"killed {died} times ({died_fresh} of them new interpreters) within {ends} trainings of "
        f"{seconds:.1f} s: all came to {whole[:16]}, as without"
    )


def _value(outcome: Outcome) -> str:
    assert not outcome.error, outcome.said
    return str(outcome.value)


def _new(folder: Path) -> Path:
    place = folder / f"{len(list(folder.iterdir()))}"
    place.mkdir()
    return place


def main() -> None:
    """Train in a folder, as a script of a user does: ``python -m tests.interruptions.fits``."""
    name, epochs, folder = sys.argv[1:]
    print(make_fits(int(epochs))[name].call(Path(folder)))


if __name__ == "__main__":
    main()
