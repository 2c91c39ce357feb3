"""Whether all that touches a GPU works on one: small fits of all models, and what is around.

Run by ``python benchmarks/gpu.py --check``. Speed is the business of `gpu.py` itself; what a CPU
can tell of devices, types and layouts is tested in `tests/training/test_fake_gpu.py`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _models import CNN, TINY_IMAGE, V1T, make_batch, make_model
from _plain import our_optimizer, our_step
from sklearn.base import clone

import v1tlearn as v1
from v1tlearn import inspection
from v1tlearn.nn import soft_dtw_divergence
from v1tlearn.training import numerics
from v1tlearn.training.memory import InsufficientMemoryError
from v1tlearn.training.sources import HostArray, read_ahead

ROOT = Path(__file__).parents[1]
PRECISIONS = ("float32", "tf32", "bfloat16")
Check = Callable[[torch.device], str | None]
_COMMON = {"max_epochs": 2, "random_state": 0, "batch_size": 8, "lr": 2e-3}
_MOVIES = {"max_epochs": 2, "random_state": 0, "window_frames": 6}
_CNN = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
_VIT = {"patch_size": 4, "patch_stride": 4, "n_blocks": 2, "n_heads": 2, "embed_dim": 8}

IMAGES: dict[str, Any] = {
    "V1T": v1.V1TRegressor(**_COMMON, **_VIT, mlp_dim=8),
    "V1T, stimuli moved": v1.V1TRegressor(
        **_COMMON, **_VIT, mlp_dim=8, shift="both", crop_scale=0.8
    ),
    "ViT": v1.ViTRegressor(**_COMMON, **_VIT, mlp_dim=8, attention="lsa"),
    "CNN": v1.CNNRegressor(**_COMMON, **_CNN),
    "CNN, factorised": v1.CNNRegressor(**_COMMON, **_CNN, readout="factorized"),
    "LN": v1.LNRegressor(**_COMMON, n_layers=2, hidden_channels=4, input_kernel=5, hidden_kernel=3),
    "full model": v1.FullModelRegressor(**_COMMON, channels=(3, 4), kernels=(5, 3)),
    "minimodels": v1.MinimodelRegressor(
        **_COMMON, hidden_channels=3, hidden_kernel=3,
        full_model=v1.FullModelRegressor(**_COMMON, channels=(3, 4), kernels=(5, 3)),
    ),
}  # fmt: skip
MOVIES: dict[str, Any] = {
    "movie LN": v1.MovieLNRegressor(**_MOVIES, n_lags=4),
    "movie CNN": v1.MovieCNNRegressor(
        **_MOVIES, n_layers=2, hidden_channels=3, input_kernel=3, hidden_kernel=3,
        input_time_kernel=3, hidden_time_kernel=2, recurrent=True, memory_frames=2,
    ),
    "Vi-ST": v1.ViSTRegressor(
        **_MOVIES, grid=4, n_layers=1, channels=4, kernels=((1, 3),), condition="none", loss="rmse",
        batch_size=3, steps_per_epoch=2, warmup_epochs=1,
    ),
}  # fmt: skip
DINA = v1.DINAAligner(
    map_size=(4, 6), map_channels=3, hidden_channels=4, n_layers=2, input_kernel=3, embed_dim=4,
    neural_channels=4, max_epochs=2, random_state=0, batch_size=8,
)  # fmt: skip


class Skipped(Exception):
    """What cannot be tried here, and why."""


def images(size: tuple[int, int] = TINY_IMAGE) -> v1.Trials:
    """Two mice that saw images."""
    recordings = v1.make_v1_recordings(
        n_mice=2, n_neurons=5, n_trials=24, n_test_images=2, n_repeats=2, image_shape=size,
        random_state=0,
    )  # fmt: skip
    return v1.Trials(recordings).sel(tier="train")


def movies() -> v1.Trials:
    """Two mice that saw movies."""
    recordings = v1.make_movie_recordings(
        2, 3, 6, 2, 2, n_frames=(18, 30), image_shape=(8, 12), random_state=0
    )
    return v1.Trials(recordings).sel(tier="train")


def near(found: Any, expected: Any, tolerance: float) -> float:
    """Largest difference over the largest value, if it is within a tolerance."""
    worst = 0.0
    for mouse in expected.mice:
        one, other = found.get(mouse), expected.get(mouse)
        known = np.isfinite(other)
        assert np.isfinite(one[known]).all(), f"mouse {mouse!r}: predictions are not finite"
        scale = max(float(np.abs(other[known]).max()), 1e-6)
        worst = max(worst, float(np.abs(one - other)[known].max()) / scale)
    assert worst <= tolerance, f"differ by {worst:.2g} of the largest, above {tolerance:.2g}"
    return worst


# --------------------------------------------------------------------------------------- the checks


def fit(
    model: Any, make: Callable[[], v1.Trials], precision: str, device: torch.device, **options: Any
) -> str:
    """Fit on the device, save, load there and on a CPU, and predict the same."""
    trials = make()
    est = clone(model).set_params(device=str(device), precision=precision, **options).fit(trials)
    assert all(np.isfinite(record["loss"]) for record in est.history_), "losses are not finite"
    assert all(p.device.type == device.type for p in est.module_.parameters())
    assert all(p.dtype == torch.float32 for p in est.module_.parameters())
    predicted = est.set_params(precision="float32").predict(trials)
    with tempfile.TemporaryDirectory() as folder:
        est.save(Path(folder) / "model")
        again = v1.load(Path(folder) / "model", device=str(device)).predict(trials)
        on_cpu = v1.load(Path(folder) / "model", device="cpu").predict(trials)
    near(again, predicted, 1e-6)
    difference = near(predicted, on_cpu, 2e-3)
    shorter = near(est.set_params(precision=precision).predict(trials), on_cpu, 0.1)
    return f"{difference:.1g} from a CPU's predictions, in {precision} {shorter:.1g}"


def pretrained(precision: str, device: torch.device) -> str:
    """Fit behind a small pretrained transformer whose weights are random."""
    try:
        from transformers import AutoModel, Dinov2Config
    except ImportError as error:
        raise Skipped(str(error)) from error
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with tempfile.TemporaryDirectory() as folder:
        AutoModel.from_config(
            Dinov2Config(**sizes, patch_size=14, image_size=70)
        ).eval().save_pretrained(folder)
        model = v1.PretrainedViTRegressor(folder, block=1, max_epochs=2, random_state=0)
        return fit(model, partial(images, (28, 42)), precision, device)


def align(precision: str, device: torch.device) -> str:
    """Fit an alignment, and find images as on a CPU."""
    trials = images()
    est = clone(DINA).set_params(device=str(device), precision=precision).fit(trials)
    est.set_params(precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        est.save(Path(folder) / "model")
        on_cpu = v1.load(Path(folder) / "model", device="cpu")
        scores = est.score(trials), on_cpu.score(trials)
    assert abs(scores[0] - scores[1]) <= 0.1, f"scores are {scores[0]:.3f} and {scores[1]:.3f}"
    return f"scores {scores[0]:.3f}, on a CPU {scores[1]:.3f}"


def repeat(model: Any, device: torch.device) -> None:
    """Fit twice by deterministic algorithms, and get the same weights bit for bit."""
    weights = []
    for _ in range(2):
        est = clone(model).set_params(device=str(device), deterministic=True).fit(images())
        weights.append({n: w.cpu() for n, w in est.module_.state_dict().items()})
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), f"{name} differs"


def stream(model: Any, device: torch.device) -> str:
    """Train on trials in host memory as on those on the device."""
    trials, found = images(), []
    for low_memory in (False, True):
        est = clone(model).set_params(
            device=str(device), deterministic=True, precision="float32", low_memory=low_memory
        )
        found.append(est.fit(trials).predict(trials))
    return f"{near(*found, 1e-3):.1g} apart"


def carry(device: torch.device) -> str:
    """Bring rows by page-locked buffers, in order and unspoilt, while the device is busy."""
    values = np.random.default_rng(0).normal(size=(64, 2**16)).astype(np.float32)
    steps = [{"x": np.arange(i, i + 16)} for i in range(48)]
    busy = torch.randn(512, 512, device=device)
    sums = []
    for arrived in read_ahead({"x": HostArray(values)}, steps, device):
        busy = busy @ busy / 512
        sums.append(arrived["x"].sum(dtype=torch.float32))
    expected = [values[step["x"]].sum() for step in steps]
    np.testing.assert_allclose([float(s) for s in sums], expected, rtol=1e-2, atol=2.0)
    return f"{len(steps)} steps"


def gradients(kind: str, device: torch.device) -> str:
    """Gradients of a step in evaluation mode are those of a CPU."""
    found, batch = [], None
    for where in (torch.device("cpu"), device):
        options = CNN if kind == "CNN" else V1T
        model = make_model(kind, options["tiny"], 2, 6, TINY_IMAGE, where).eval()
        if batch is None:
            batch = make_batch(model, 4)
        inputs, targets = (_moved(part, where) for part in batch)
        with numerics("float32", where):
            rates = model(inputs)
            sum((r - targets[m][0]).square().sum() for m, r in rates.items()).backward()
        found.append({n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None})
    worst = max(
        float((value - found[0][n]).abs().max() / found[0][n].abs().max().clamp(min=1e-3))
        for n, value in found[1].items()
    )
    assert worst < 5e-3, f"gradients differ by {worst:.2g} of the largest"
    return f"{worst:.1g} from a CPU's"


def _moved(part: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    def bring(value: Any) -> Any:
        return None if value is None else value.to(device)

    return {
        mouse: type(own)(*map(bring, own)) if hasattr(own, "_fields") else tuple(map(bring, own))
        for mouse, own in part.items()
    }


def tf32(device: torch.device) -> None:
    """Take steps in the short form of float32."""
    with numerics("tf32", device):
        model = make_model("V1T", V1T["tiny"], 2, 6, TINY_IMAGE, device)
        inputs, targets = make_batch(model, 4)
        our_step(model, inputs, targets, our_optimizer(model), "tf32")()


def warp(device: torch.device) -> str:
    """Soft-DTW and its gradient are those of a CPU."""
    given = torch.randn(2, 4, 9, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for where in (torch.device("cpu"), device):
        x, y = (s.to(where).requires_grad_() for s in given)
        value = soft_dtw_divergence(x, y)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        found.append((value.detach().cpu(), gradient.cpu()))
    worst = max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))
    assert worst < 1e-3, f"differ by {worst:.2g}"
    return f"{worst:.1g} from a CPU's"


def fields(device: torch.device) -> None:
    """Receptive fields from noise are finite."""
    est = clone(IMAGES["CNN"]).set_params(device=str(device)).fit(images())
    for found in inspection.receptive_fields(est, 64).values():
        assert np.isfinite(found.values).all(), "receptive fields are not finite"


def end_of_memory(device: torch.device) -> str:
    """Where the memory ends an error names what helps, and the next fit succeeds."""
    _on_gpu(device)
    larger = {"patch_stride": 1, "embed_dim": 128, "mlp_dim": 512, "batch_size": 24}
    trials, est = images(), clone(IMAGES["V1T"]).set_params(device=str(device), **larger)
    est.set_params(micro_batch_size=24, low_memory=False, precision="float32")
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.empty(free - 2**26, dtype=torch.uint8, device=device)  # 64 MiB for the model
    try:
        est.fit(trials)
    except InsufficientMemoryError as error:
        told = str(error)
    else:
        raise AssertionError("nothing was said where there was no memory")
    finally:
        del kept
        torch.cuda.empty_cache()
    est.fit(trials)
    return told[:60]


def second_device(device: torch.device) -> None:
    """Fit on another GPU than the current one."""
    _on_gpu(device)
    if torch.cuda.device_count() < 2:
        raise Skipped("there is one GPU")
    other = torch.device("cuda", (torch.cuda.current_device() + 1) % torch.cuda.device_count())
    for options in ({}, {"low_memory": True}):
        est = clone(IMAGES["V1T"]).set_params(device=str(other), **options).fit(images())
        assert {p.device for p in est.module_.parameters()} == {other}
        est.predict(images())


def compiled(wanted: bool | str, device: torch.device) -> str:
    """Train with a compiled core, with CUDA graphs or without."""
    _on_gpu(device)
    return fit(IMAGES["V1T"], images, "bfloat16", device, compile=wanted)


def tests(device: torch.device) -> str:
    """Run the tests that need a GPU."""
    _on_gpu(device)
    if not (ROOT / "tests").is_dir():
        raise Skipped("the tests are not here")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]
    assert done.returncode == 0, last
    return last


def _on_gpu(device: torch.device) -> None:
    if device.type != "cuda":
        raise Skipped("needs a CUDA device")


def checks() -> dict[str, Check]:
    """All checks, by name."""
    out: dict[str, Check] = {
        **{f"gradients, {kind}": partial(gradients, kind) for kind in ("V1T", "CNN")},
        "page-locked buffers": carry,
        "TF32": tf32,
        "soft-DTW": warp,
    }
    for make, family in ((images, IMAGES), (movies, MOVIES)):
        for name, model in family.items():
            for precision in PRECISIONS[: 2 if name == "minimodels" else 3]:
                out[f"{name}, {precision}"] = partial(fit, model, make, precision)
    for precision in PRECISIONS:
        out[f"DINA, {precision}"] = partial(align, precision)
        out[f"pretrained ViT, {precision}"] = partial(pretrained, precision)
    for name in ("V1T, stimuli moved", "CNN", "full model", "minimodels"):
        out[f"{name}, deterministic twice"] = partial(repeat, IMAGES[name])
    for name in ("CNN", "V1T"):
        out[f"{name}, streamed"] = partial(stream, IMAGES[name])
    return out | {
        "receptive fields": fields,
        "end of memory": end_of_memory,
        "another GPU": second_device,
        "compiled": partial(compiled, True),
        "compiled, CUDA graphs": partial(compiled, "reduce-overhead"),
        "tests of GPUs": tests,
    }


# ---------------------------------------------------------------------------------------- the table


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run_checks(device: torch.device, wanted: Mapping[str, Check]) -> int:
    """Run checks one after the other, and print what came of each.

    Returns
    -------
    int
        How many failed.
    """
    v1.show_versions()
    counts = dict.fromkeys(("passed", "FAILED", "skipped"), 0)
    for name, check in wanted.items():
        start, verdict, report = time.perf_counter(), "passed", ""
        try:
            with _quiet():
                note = check(device) or ""
        except Skipped as reason:
            verdict, note = "skipped", str(reason)
        except Exception as error:
            verdict, note = "FAILED", f"{type(error).__name__}: {error}".splitlines()[0][:200]
            report = traceback.format_exc()
        counts[verdict] += 1
        print(f"{verdict:<8} {time.perf_counter() - start:6.1f} s  {name}: {note}", flush=True)
        print(report, end="", flush=True)
    print(", ".join(f"{n} {verdict}" for verdict, n in counts.items()), flush=True)
    return counts["FAILED"]
