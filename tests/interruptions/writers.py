"""All that the package writes: how two versions of each are written, and which one lies there."""

import http.server
import io
import sqlite3
import threading
import warnings
import zipfile
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pooch  # noqa: F401  # while all of Python may be read: nobody may not, perhaps
import requests  # noqa: F401

import v1tlearn as v1
from tests.interruptions import for_others
from tests.interruptions.writer import Writer, small, which
from v1tlearn.inspection import Report

ZIP = "static21067-10-18-GrayImageNet-94c6ff995dac583098847cfecd43e7b6.zip"


def make_writers(scratch: Path) -> dict[str, Writer]:
    """All of them, with what they write; `scratch` is for what they read."""
    trees = [v1.make_v1_recordings(1, 8, 24, image_shape=(18, 32), random_state=s, n_test_images=1,
                                   n_repeats=2) for s in (0, 1)]  # fmt: skip
    trials = [v1.Trials(tree) for tree in trees]
    writers = {
        "recordings": _recordings(trees, "zlib"),
        "recordings in a row": _recordings(trees, None),
        "responses": _responses(trials),
        "report": _reports(),
        **_models(trials[0].sel(tier="train")),
        **_sensorium(trees, scratch),
        "cache of features": _features(trials[0].sel(tier="train")),
        "study": _study(trials[0].sel(tier="train")),
        "download": _download(),
        **for_others.make_writers(trees, scratch),
    }
    return writers


def _loaded(path):
    while True:
        try:
            with v1.open_recordings(path) as found:
                return found.load()
        except ValueError as error:
            if "was written anew since" not in str(error):
                raise


def _recordings(trees, compression):
    def write(folder, version):
        v1.save_recordings(trees[version], folder / "r.nc", compression)

    def read(folder):
        if not (folder / "r.nc").exists():
            return None
        found = _loaded(folder / "r.nc")
        for version, tree in enumerate(trees):
            if all(found[m].to_dataset().equals(tree[m].to_dataset()) for m in tree.children):
                return version
        raise AssertionError("recordings that nobody wrote")

    return Writer(write, read)


def _responses(trials):
    def read(folder):
        if not (folder / "y.nc").exists():
            return None
        found = v1.trials.Responses.open(folder / "y.nc")["A"].values
        return which(found, [t.responses["A"].values for t in trials], "responses")

    return Writer(lambda folder, v: trials[v].responses.to_netcdf(folder / "y.nc"), read)


def _reports():
    begin = '<!DOCTYPE html><meta name="generator" content="v1tlearn report"><title>A page</title>'
    texts = [begin + str(version) * 200_000 for version in range(2)]

    def read(folder):
        path = folder / "page.html"
        return texts.index(path.read_text()) if path.exists() else None

    return Writer(lambda folder, v: Report(texts[v], {}).save(folder / "page.html"), read)


def _models(train):
    models = [small(random_state=seed).fit(train) for seed in range(2)]
    # built of one by one, since candidates are trained in no time that matters here
    ensembles = [v1.EnsembleRegressor.from_members([model]) for model in models]

    def saved(kept):
        predicted = [model.predict(train)["A"].values for model in kept]

        def read(folder):
            if not (folder / "model" / "model.json").exists():
                return None
            found = v1.load(folder / "model", device="cpu").predict(train)["A"].values
            return which(found, predicted, "a model")

        return Writer(lambda folder, v: kept[v].save(folder / "model"), read)

    def fit(folder, version, epochs=3):
        return small(max_epochs=epochs, random_state=version).fit(
            train, checkpoint_dir=folder / f"states-{version}"
        )

    whole = [small(max_epochs=3, random_state=s).fit(train).predict(train)["A"] for s in (0, 1)]

    def read_states(folder):
        found = None
        for version in range(2):
            if any((folder / f"states-{version}").glob("epoch-*")):
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # of states that are damaged
                    again = fit(folder, version)
                assert np.array_equal(again.predict(train)["A"], whole[version])
                found = version
        return found

    return {
        "model": saved(models),
        "ensemble": saved(ensembles),
        "states of a fit": Writer(fit, read_states, replaces=False),
    }


def _sensorium(trees, scratch):
    sources = [v1.write_sensorium(tree, scratch / f"source-{v}") for v, tree in enumerate(trees)]
    expected = [v1.read_sensorium(source).load() for source in sources]

    def equals(found, version):
        return all(found[m].to_dataset().equals(expected[version][m].to_dataset()) for m in found)

    def read(folder, pattern):
        found = None
        for version in range(2):
            for path in (folder / f"{version}").glob(pattern):
                assert equals(v1.read_sensorium([path]).load(), version)
                found = version
        return found

    def written(zipped):
        def write(folder, version):
            with suppress(FileExistsError):  # it is never overwritten
                v1.write_sensorium(trees[version], folder / f"{version}", zip=zipped)

        return Writer(write, partial(read, pattern="static*"), replaces=False)

    def keep(folder, version):
        with v1.read_sensorium(sources[version], cache=folder) as found:
            assert equals(found.load(), version)

    def read_kept(folder):
        stores = list(folder.glob("*.nc"))
        for path in stores:
            _loaded(path)
        for version in range(2 if stores else 0):
            keep(folder, version)
        return 0 if stores else None

    return {
        "folder of Sensorium": written(False),
        "zip of Sensorium": written(True),
        "cache of Sensorium": Writer(keep, read_kept, replaces=False),
    }


def _features(train):
    tiny = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "patch_size": 14, "image_size": 28}  # fmt: skip

    def fit(folder, version):
        model = v1.PretrainedViTRegressor(
            tiny, weights=None, block=0, feature_cache=folder, batch_size=8, max_epochs=1,
            device="cpu", random_state=version, image_size=(28, 42),
        )  # fmt: skip
        return model.fit(train).predict(train)["A"].values

    expected = [fit("memory", version) for version in range(2)]

    def write(folder, version):
        assert np.array_equal(fit(folder, version), expected[version])

    def read(folder):
        if not any(folder.rglob("*.features")):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of files that are damaged
            for version in range(2):
                write(folder, version)
        return 0

    return Writer(write, read, replaces=False)


class Pretended(v1.CNNRegressor):
    """Trains nothing; its score is its learning rate."""

    def fit(self, *args, on_epoch=None, **kwargs):
        """Tell one epoch."""
        on_epoch({"epoch": 1, "validation_correlation": self.lr})
        return self


def an_hour_passes(path):
    """So that trials of killed processes are taken for dead at once."""
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        for table, column in (("trials", "datetime_start"), ("trial_heartbeats", "heartbeat")):
            with suppress(sqlite3.OperationalError):  # it was killed before it made the tables
                database.execute(f"UPDATE {table} SET {column} = datetime({column}, '-1 hour')")


def _study(train):
    from scipy.stats import uniform

    def search(folder, version, n_trials):
        return v1.search.HyperbandSearch(
            Pretended(max_epochs=1), {"lr": uniform(0.1, 0.9)}, n_trials=n_trials, min_epochs=1,
            storage=folder / f"study-{version}.db", random_state=version, refit=False,
        ).fit(train)  # fmt: skip

    def read(folder):
        found = None
        for version in range(2):
            if (folder / f"study-{version}.db").exists():
                an_hour_passes(folder / f"study-{version}.db")
                table = search(folder, version, 1).results_
                over = table[table["state"] == "complete"]
                assert (over["score"] == over["param_lr"]).all()
                found = version
        return found

    return Writer(partial(search, n_trials=2), read, replaces=False)


def _download():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", np.random.default_rng(0).bytes(200_000))
    content = buffer.getvalue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            start = min(int(asked[6:-1]), len(content)) if asked else 0
            if asked and start == len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{start}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if asked:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.end_headers()
            try:
                self.wfile.write(content[start:])
            except OSError:  # who asked was killed
                self.close_connection = True

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/data"

    def write(folder, version):
        v1.fetch_sensorium2022(
            "A", folder / f"{version}", base_url=url, retry_pause=0, progressbar=False
        )

    def read(folder):
        paths = list(folder.rglob(ZIP))
        assert all(path.read_bytes() == content for path in paths)
        return 0 if paths else None

    return Writer(write, read, replaces=False, keeps_parts=True)
