"""Readers of what runs, registries and the command line leave behind, each with small files.

A parser is a folder made once, the files in it that are changed, one call through a public door,
and an oracle that says whether what was read of a changed file is right.
"""

import hashlib
import json
import shutil
import zipfile

import pandas as pd

import v1tlearn as v1
from tests.datasets.nwb_files import units
from tests.datasets.sensorium_files import recording
from tests.fuzz.arguments import arrays, in_form, tiny
from tests.fuzz.model_parsers import _same_weights
from tests.fuzz.parser import Parser, loaded
from v1tlearn.cli.errors import UsageError
from v1tlearn.cli.models import make_estimator
from v1tlearn.cli.values import read_parameters
from v1tlearn.tracking import CSVLog, RunFolder

HISTORY = [
    {"epoch": epoch, "loss": 1.5 / epoch, "validation_loss": 2.0 / epoch, "lr": 1e-3}
    for epoch in (1, 2, 3)
]


def csv_log(folder):
    """A table of epochs, of one training and of a candidate, that another epoch is added to."""
    path = folder / "epochs.csv"
    CSVLog(path).begin(HISTORY[:2])
    CSVLog(path).begin(HISTORY[:2], candidate=3)

    def read():
        log = CSVLog(path)
        log.begin(HISTORY[:2])
        log(HISTORY[2])
        return pd.read_csv(path)

    def is_right(table):
        own = table[table["candidate"].isna()] if "candidate" in table else table
        same = own["epoch"].tolist() == [1, 2, 3]
        return same and own["loss"].tolist() == [record["loss"] for record in HISTORY]

    return Parser(path, [path], read, is_right)


def run_folder(folder):
    """The file of a run, which another attempt goes on with."""
    root, model = folder / "run", tiny()
    trials = v1.Trials.from_arrays(**in_form(arrays(), "dict"))

    def read():
        with RunFolder(root, model, trials) as run:
            run.begin(HISTORY[:1])
            run(HISTORY[1])
        return json.loads((root / "run.json").read_text())

    intact = read()

    def is_right(told):
        own = [record for record in told["history"] if record.get("candidate") is None]
        ended = told["status"] == "finished" and told["attempts"][-1]["status"] == "finished"
        return ended and own == HISTORY[:2] and told["parameters"] == intact["parameters"]

    return Parser(root, [root / "run.json"], read, is_right)


def _of_command(path):
    """A model of parameters in a file; those that it does not take are a refusal, too."""
    given = read_parameters(path)
    try:
        return make_estimator("CNNRegressor", None, given)
    except UsageError:
        return None


PARAMETERS = {"lr": 0.01, "betas": [0.9, 0.999], "readout": "gaussian", "device": "cpu"}
PARAMETERS |= {"batch_size": 8, "lr_patience": None, "low_memory": False}


def parameters_json(folder):
    """Parameters for the command line, as JSON: those of a file, and those of a run."""
    plain, run = folder / "plain.json", folder / "run.json"
    plain.write_text(json.dumps(PARAMETERS))
    run.write_text(json.dumps({"format": 1, "parameters": PARAMETERS, "attempts": []}))
    return Parser(folder, [plain, run], lambda: (_of_command(plain), _of_command(run)))


def parameters_yaml(folder):
    """The same as YAML."""
    path = folder / "parameters.yaml"
    text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in PARAMETERS.items())
    path.write_text(text)
    return Parser(path, [path], lambda: _of_command(path))


def _published(folder):
    """A registry with one model, and a copy of it that nobody changes."""
    model = tiny().fit(**in_form(arrays(), "dict"))
    model.save(folder / "saved", card={"licence": "CC0-1.0"})
    registry = folder / "models"
    v1.publish_model(folder / "saved", registry, "small", licence="CC0-1.0")
    return model, registry


def registry(folder):
    """The list of a registry, and the zip in it, both of which the checksum covers."""
    model, root = _published(folder)
    expected, cache = model.module_.state_dict(), root / "cache"

    def read():
        shutil.rmtree(cache, ignore_errors=True)
        return v1.load(v1.fetch_model("small", root, cache), device="cpu")

    (archive,) = root.glob("*.zip")
    targets = [root / "registry.json", archive]
    return Parser(root, targets, read, lambda found: _same_weights(found, expected))


def registry_zip(folder):
    """The zip of a model, its checksum set right: what it is made of is what a stranger chose."""
    _, root = _published(folder)
    index, cache = root / "registry.json", root / "cache"
    (archive,) = root.glob("*.zip")

    def read():
        shutil.rmtree(cache, ignore_errors=True)
        listed = json.loads(index.read_text())
        listed["small"]["sha256"] = hashlib.sha256(archive.read_bytes()).hexdigest()
        index.write_text(json.dumps(listed))
        before = {path for path in folder.rglob("*") if cache not in (path, *path.parents)}
        found = v1.load(v1.fetch_model("small", root, cache), device="cpu")
        after = {path for path in folder.rglob("*") if cache not in (path, *path.parents)}
        return found, before == after

    return Parser(root, [archive], read, lambda found: found[1])


def publishing(folder):
    """The list of a registry that another model is added to."""
    _, root = _published(folder)
    index = root / "registry.json"

    def read():
        v1.publish_model(folder / "saved", root, "other", licence="CC0-1.0")
        return json.loads(index.read_text())

    return Parser(root, [index], read, lambda listed: set(listed["other"]) >= {"url", "sha256"})


def card(folder):
    """The card beside a model that is saved anew, which goes unless somebody wrote it himself."""
    model = tiny().fit(**in_form(arrays(), "dict"))
    root = folder / "saved"
    model.save(root, card={"licence": "CC0-1.0"})
    path, expected = root / "README.md", model.module_.state_dict()

    def read():
        before = path.read_bytes()
        model.save(root)
        kept = path.read_bytes() if path.exists() else None
        return v1.load(root, device="cpu"), kept in (None, before)

    return Parser(root, [path], read, lambda found: found[1] and _same_weights(found[0], expected))


def predictions(folder):
    """Predictions in netCDF, by a library in C."""
    trials = v1.Trials.from_arrays(**in_form(arrays(), "dict"))
    path = folder / "predictions.nc"
    v1.save_predictions(tiny().fit(trials), trials, path)
    return Parser(path, [path], lambda: v1.Responses.open(path)["A"][:], in_child=True)


def cache(folder):
    """Trials that are kept of a zip: what is damaged there is read from the zip again."""
    (path,) = v1.write_sensorium({"m": recording()}, folder / "in", zip=True)
    kept = folder / "kept"

    def read():
        return loaded(v1.read_sensorium(path, cache=kept))["m"]

    intact = read()
    (target,) = kept.glob("*.nc")

    def is_sane(found):
        same = all(
            (v.dims, v.shape, v.dtype, v.attrs) == (w.dims, w.shape, w.dtype, w.attrs)
            for v, w in ((found[name], intact[name]) for name in intact.variables)
        )
        kept_there = ("stimuli", "behaviors", "responses")
        return same and found.drop_vars(kept_there, errors="ignore").equals(
            intact.drop_vars(kept_there, errors="ignore")
        )

    return Parser(kept, [target], read, intact.equals, is_sane, in_child=True)


def nwb_units(folder):
    """Images that were shown one after the other, units and electrodes, by libraries in C."""
    path = folder / "units.nwb"
    units(path, n_trials=4)
    return Parser(path, [path], lambda: v1.read_nwb(path).load(), in_child=True)


def packed(folder):
    """A recording in a zip without a cache, its members as they are."""
    (path,) = v1.write_sensorium({"m": recording()}, folder, zip=True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    return Parser(path, [path], lambda: loaded(v1.read_sensorium(path)))
