"""What is written for people and other programs: cards, tables, registries, logs, command lines."""

import encodings.cp437  # noqa: F401  # while all of Python may be read: nobody may not, perhaps
import io
import json
import re
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet  # noqa: F401
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import v1tlearn as v1
from tests.exact_csv import read_csv
from tests.interruptions.writer import Writer, small, which
from v1tlearn._replacing import alone_in
from v1tlearn.cli.main import main
from v1tlearn.tracking import CSVLog, RunFolder, TensorBoardLog

EPOCHS = 3


def make_writers(trees: list, scratch: Path) -> dict[str, Writer]:
    """All of them, for two versions of recordings."""
    trials = [v1.Trials(tree) for tree in trees]
    train = trials[0].sel(tier="train")
    models = [small(random_state=seed).fit(train) for seed in range(2)]
    predicted = [model.predict(train)["A"].values for model in models]

    def load(path):
        return which(v1.load(path, device="cpu").predict(train)["A"].values, predicted, "a model")

    for number, model in enumerate(models):
        model.save(scratch / f"model-{number}", card={})
    return {
        "model with a card": _cards(models, load, scratch),
        "table as CSV": _tables(trials, "t.csv", scratch),
        "table as Parquet": _tables(trials, "t.parquet", scratch),
        "predictions": _predictions(models, train, scratch),
        **_registries(load, scratch),
        **_logs(train),
        **_commands(trees[0], models, train, scratch),
    }


def _cards(models, load, scratch):
    def write(folder, version):
        models[version].save(folder / "model", card={"title": f"Version {version}"})

    def read(folder):
        if not (folder / "model" / "model.json").exists():
            return None
        card = folder / "model" / "README.md"
        with alone_in(folder / "model"):  # or another process is in between
            found = load(folder / "model")
            if card.exists() and f"# Version {found}\n" not in card.read_text():
                with pytest.raises(ValueError, match="tells of another model"):
                    v1.publish_model(folder / "model", scratch / "published", "a", licence="MIT")
        return found

    return Writer(write, read)


def _tables(trials, name, scratch):
    for version, known in enumerate(trials):
        v1.save_table(known.responses, scratch / f"{version}-{name}")
    known = [(scratch / f"{version}-{name}").read_bytes() for version in range(2)]

    def read(folder):
        path = folder / name
        return known.index(path.read_bytes()) if path.exists() else None

    return Writer(lambda folder, v: v1.save_table(trials[v].responses, folder / name), read)


def _predictions(models, train, scratch):
    def write(folder, version):
        v1.save_predictions(models[version], train, folder / "p.nc", part_bytes=200)

    known = []
    for version in range(2):
        write(scratch, version)
        known.append(v1.Responses.open(scratch / "p.nc")["A"].values)

    def read(folder):
        if not (folder / "p.nc").exists():
            return None
        return which(v1.Responses.open(folder / "p.nc")["A"].values, known, "predictions")

    return Writer(write, read)


def _registries(load, scratch):
    def publish(folder, version):
        v1.publish_model(scratch / f"model-{version}", folder / "hub", "a", licence="MIT")

    def read(folder):
        if not (folder / "hub" / "registry.json").exists():
            return None
        with tempfile.TemporaryDirectory() as cache:
            return load(v1.fetch_model("a", folder / "hub", cache))

    for version in range(2):
        publish(scratch / f"{version}", version)

    def read_fetched(folder):
        found = [load(path.parent) for path in folder.glob("models/[!.]*/model.json")]
        return found[-1] if found else None

    return {
        "registry": Writer(publish, read),
        "fetched model": Writer(
            lambda folder, v: v1.fetch_model("a", scratch / f"{v}" / "hub", folder),
            read_fetched,
            replaces=False,
        ),
    }


def _rows(path):
    return read_csv(path).drop(columns="seconds").to_dict("records")


def _scalars(folder):
    if not any(folder.glob("events.*")):
        return []
    shown = EventAccumulator(str(folder)).Reload()
    rows: dict = {}
    for tag in set(shown.Tags()["scalars"]) - {"seconds"}:
        for event in shown.Scalars(tag):
            assert tag not in rows.setdefault(event.step, {}), f"epoch {event.step} is there twice"
            rows[event.step][tag] = event.value
    return [{"epoch": epoch} | rows[epoch] for epoch in sorted(rows)]


def _history(folder):
    found = json.loads((folder / "run.json").read_text())["history"]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in found]


def _logs(train):
    """Logs of trainings that go on from states."""
    make = partial(small, max_epochs=EPOCHS)
    kept = [make(random_state=version).fit(train).history_ for version in range(2)]
    kept = [[{k: v for k, v in r.items() if k != "seconds"} for r in rows] for rows in kept]

    def is_whole(rows, version):
        """Whether all epochs are there; each is once, in order, with its own numbers."""
        assert len(rows) <= EPOCHS, f"{len(rows)} epochs"
        for row, own in zip(rows, kept[version], strict=False):
            assert row.keys() == own.keys()
            np.testing.assert_allclose(list(row.values()), [own[k] for k in row], rtol=1e-6)
        return len(rows) == EPOCHS

    def log(name, make_log, rows_of):
        def write(folder, version):
            place = folder / f"{name}-{version}"
            make(random_state=version).fit(
                train, on_epoch=make_log(place), checkpoint_dir=folder / f"states-{version}"
            )

        return write, partial(read, name=name, rows_of=rows_of)

    def read(folder, name, rows_of):
        found = None
        for version in range(2):
            place = folder / f"{name}-{version}"
            if place.exists() and is_whole(rows_of(place), version):
                found = version
        return found

    def write_run(folder, version):
        model = make(random_state=version)
        with RunFolder(folder / f"run-{version}", model, train) as run:
            model.fit(train, on_epoch=run, checkpoint_dir=run.checkpoints)

    def rows_of_run(folder):
        return _history(folder) if (folder / "run.json").exists() else []

    return {
        "log as CSV": Writer(*log("log.csv", CSVLog, _rows), replaces=False),
        "log for TensorBoard": Writer(*log("tb", TensorBoardLog, _scalars), replaces=False),
        "run folder": Writer(
            write_run, partial(read, name="run", rows_of=rows_of_run), replaces=False
        ),
    }


def _run(*arguments):
    """Run a command, and raise what it tells."""
    told, out = io.StringIO(), io.StringIO()
    with redirect_stderr(told), redirect_stdout(out):
        code = main([str(one) for one in arguments])
    if code == 130:
        raise KeyboardInterrupt
    number = re.search(r"\[Errno (\d+)\]", told.getvalue())
    if code:
        raise OSError(int(number[1]) if number else 0, told.getvalue())


def _commands(tree, models, train, scratch):
    source = scratch / "recordings.nc"
    v1.save_recordings(tree, source)
    options = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 3, "hidden_kernel": 3,
               "batch_size": 8, "max_epochs": 2, "device": "cpu"}  # fmt: skip
    given = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]

    def fit(folder, version):
        _run("fit", "-q", "--model", "CNNRegressor", *given, "--set", f"random_state={version}",
             "--out", folder / f"run-{version}", "--resume", source)  # fmt: skip
        assert (folder / f"run-{version}" / "model" / "model.json").exists()

    whole = [v1.CNNRegressor(**options, random_state=s).fit(train).predict(train)["A"].values
             for s in range(2)]  # fmt: skip

    def read(folder):
        found = None
        for version in range(2):
            path = folder / f"run-{version}"
            if (path / "history.csv").exists():
                assert _rows(path / "history.csv") in (_history(path)[:n] for n in range(3))
            if (path / "model" / "model.json").exists():
                model = v1.load(path / "model", device="cpu")
                assert which(model.predict(train)["A"].values, whole, "a model") == version
                found = version
        return found

    def score(folder, version):
        _run("score", "-q", scratch / f"model-{version}", source, "--tier", "all", "--metric",
             "single_trial_correlation", "--out", folder / "s.json", "--overwrite")  # fmt: skip

    score(scratch, 0)
    expected = [(scratch / "s.json").read_text()]
    score(scratch, 1)
    expected.append((scratch / "s.json").read_text())

    def read_scores(folder):
        path = folder / "s.json"
        return expected.index(path.read_text()) if path.exists() else None

    return {
        "v1tlearn fit": Writer(fit, read, replaces=False),
        "v1tlearn score": Writer(score, read_scores),
    }
