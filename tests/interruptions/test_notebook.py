"""The kernel of a notebook, interrupted as the menu does it: it lives, and models are whole."""

import os
import sys
import textwrap
import time
from queue import Empty

import pytest

manager = pytest.importorskip("jupyter_client.manager")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="interrupts come in another way"),
]

SETUP = """
import warnings
warnings.simplefilter("ignore")
import numpy as np, torch, v1tlearn as v1
torch.set_num_threads(1)
trials = v1.Trials(v1.make_v1_recordings(
    n_mice=1, n_neurons=6, n_trials=60, n_test_images=2, n_repeats=2, image_shape=(9, 16),
    random_state=0)).sel(tier="train")

def make(**params):
    return v1.CNNRegressor(
        n_layers=2, hidden_channels=4, input_kernel=3, hidden_kernel=3, batch_size=4,
        device="cpu", random_state=0, **params)
"""


class Kernel:
    """A kernel of IPython, and what its cells print."""

    def __init__(self, folder):
        self.manager, self.client = manager.start_new_kernel(
            cwd=str(folder), env=os.environ | {"OMP_NUM_THREADS": "1", "HOME": str(folder)},
            kernel_name="python3", startup_timeout=300,
        )  # fmt: skip

    def run(self, code, interrupt_at=""):
        """Run a cell, and interrupt it once it printed something; its text and its error."""
        self.client.execute(textwrap.dedent(code))
        printed, error, until = "", "", time.monotonic() + 300
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=10)
            except Empty:
                assert time.monotonic() < until, printed
                assert self.manager.is_alive()
                continue
            kind, content = message["msg_type"], message["content"]
            printed += content.get("text", "") if kind == "stream" else ""
            error = content["ename"] if kind == "error" else error
            if interrupt_at and interrupt_at in printed:
                interrupt_at = ""
                self.manager.interrupt_kernel()
            if kind == "status" and content["execution_state"] == "idle":
                return printed, error


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    started = Kernel(tmp_path_factory.mktemp("notebook"))
    assert started.run(SETUP) == ("", "")
    yield started
    started.client.stop_channels()
    started.manager.shutdown_kernel(now=True)


def test_a_fit_that_is_interrupted_leaves_the_best_weights_and_the_next_cell_works(kernel):
    printed, error = kernel.run(
        """
        model = make(max_epochs=100_000)
        model.fit(trials, on_epoch=lambda r: print(f"epoch {r['epoch']:.0f};", flush=True))
        """,
        interrupt_at="epoch 3;",
    )
    assert "epoch 3;" in printed
    assert error == "KeyboardInterrupt"
    printed, error = kernel.run(
        """
        again = make(max_epochs=len(model.history_)).fit(trials)
        same = (model.predict(trials)["A"].values == again.predict(trials)["A"].values).all()
        print(model.stop_reason_, model.best_epoch_ == again.best_epoch_, same)
        """
    )
    assert (printed, error) == ("interrupted True True\n", "")


def test_loading_and_saving_that_is_interrupted_leaves_a_whole_model(kernel):
    assert kernel.run("make(max_epochs=2).fit(trials).save('m')")[1] == ""
    for call in ("kept.save('m')", "v1.load('m', device='cpu')"):
        _, error = kernel.run(
            f"""
            kept = v1.load('m', device='cpu')
            print("begun", flush=True)
            while True:
                {call}
            """,
            interrupt_at="begun",
        )
        assert error == "KeyboardInterrupt"
        printed, error = kernel.run(
            """
            import os
            v1.load('m', device='cpu').save('m')
            same = v1.load('m', device='cpu').predict(trials)["A"] == kept.predict(trials)["A"]
            print(bool(same.all()), len(os.listdir('m')))
            """
        )
        assert (printed, error) == ("True 2\n", "")
