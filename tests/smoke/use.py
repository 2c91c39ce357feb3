"""What an installed package has to do: run alone, in the environment that holds it.

With ``--compiled`` it also has to have its compiled kernels, as wheels of a release do: a build in
which they fail goes on without them.
"""

import importlib
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

import v1tlearn as v1
from v1tlearn.nn.fast import describe_kernels


def main():
    assert Path(sys.prefix) in Path(v1.__file__).parents, f"{v1.__file__} is not what was installed"
    if "--compiled" in sys.argv:
        importlib.import_module("v1tlearn.nn.fast._kernels")
        if (sys.platform, platform.machine()) == ("linux", "x86_64"):
            importlib.import_module("v1tlearn.nn.fast._warping")
    recordings = v1.make_v1_recordings(2, 5, 40, 4, 4, image_shape=(12, 16), random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        v1.save_recordings(recordings, Path(folder) / "a.nc")
        with v1.open_recordings(Path(folder) / "a.nc") as opened:
            trials = v1.Trials(opened)
            train, test = trials.sel(tier="train"), trials.sel(tier="test")
            sizes = {"n_layers": 2, "hidden_channels": 2, "input_kernel": 5, "hidden_kernel": 3}
            model = v1.CNNRegressor(**sizes, max_epochs=1, random_state=0).fit(train)
            model.save(Path(folder) / "model")
            again = v1.load(Path(folder) / "model")
            for mouse in test.mice:
                first, second = (m.predict(test).get(mouse) for m in (model, again))
                np.testing.assert_array_equal(first, second)
    print(f"v1tlearn {v1.__version__} works; {describe_kernels()}")


if __name__ == "__main__":
    main()
