"""The package where nothing but its own requirements is installed."""

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
    import sys

    EXTRAS = {"captum", "dask", "deflate", "distributed", "matplotlib", "optuna", "pooch"}
    EXTRAS |= {"pyarrow", "pynwb", "requests", "tensorboard", "transformers", "yaml"}


    class Without:
        def __init__(self, finder):
            self.finder = finder

        def __getattr__(self, name):
            return getattr(self.finder, name)

        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] not in EXTRAS:
                return self.finder.find_spec(name, path, target)


    sys.meta_path[:] = map(Without, sys.meta_path)
    import numpy as np
    import v1tlearn as v1

    recordings = v1.make_v1_recordings(
        n_mice=1, n_neurons=3, n_trials=24, n_test_images=2, n_repeats=2, image_shape=(16, 16)
    )
    files = v1.write_sensorium(recordings, "mice", zip=True)
    read = v1.read_sensorium(files)
    np.testing.assert_array_equal(read["A"].stimuli, recordings["A"].stimuli)
    v1.save_recordings(read, "recordings.nc")
    trials = v1.Trials.open("recordings.nc")
    sizes = dict(n_layers=2, hidden_channels=4, input_kernel=5, hidden_kernel=3)
    est = v1.CNNRegressor(**sizes, max_epochs=2, device="cpu", random_state=0)
    est.fit(trials.sel(tier="train"))
    est.save("model")
    test = trials.sel(tier="test")
    np.testing.assert_array_equal(v1.load("model").predict(test)["A"], est.predict(test)["A"])
    backbone = v1.PretrainedViTRegressor({"model_type": "dinov2"}, weights=None)
    aligner = v1.DINAAligner(max_epochs=1, map_size=(4, 4), map_channels=2, device="cpu")
    aligner.fit(trials.sel(tier="train"))
    integrated = "integrated_gradients"
    for extra, call in (
        ("attribution", lambda: v1.inspection.neuron_importance(aligner, test, integrated)),
        ("backbones", lambda: backbone.fit(trials.sel(tier="train"))),
        ("backbones", lambda: v1.load("PretrainedViTRegressor")),
        ("dask", lambda: v1.parallel.on_dask().__enter__()),
        ("fetch", lambda: v1.fetch_sensorium2022("A", "here")),
        ("interop", lambda: v1.load_v1t("run")),
        ("nwb", lambda: v1.read_nwb("recordings.nc")),
        ("parquet", lambda: v1.save_table(est.predict(test), "predictions.parquet")),
        ("plot", lambda: v1.inspection.TrainingDisplay.from_estimator(est).plot()),
        ("plot", lambda: v1.inspection.report(est, test)),
        ("search", lambda: v1.search.HyperbandSearch(est).fit(trials.sel(tier="train"))),
        ("tensorboard", lambda: v1.tracking.TensorBoardLog("runs")),
    ):
        try:
            call()
        except ImportError as error:
            assert f'".[{extra}]"' in str(error), error
        else:
            raise AssertionError(f"{extra} is not missed")
    assert not EXTRAS & set(sys.modules)
"""


@pytest.mark.slow
def test_fitting_saving_and_reading_need_no_extra(tmp_path):
    with zipfile.ZipFile(ROOT / "tests" / "reference" / "kept" / "format_2.zip") as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
