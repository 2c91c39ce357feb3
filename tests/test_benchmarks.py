"""The scripts of benchmarks/: what they compute from times, sizes and scores, and that they run."""

import argparse
import copy
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn.nn import ViTCore, fast

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # no package, but scripts with siblings

pytest.importorskip("resource", reason="the benchmarks measure memory as POSIX does")

import _gpu_checks  # noqa: E402
import _limits  # noqa: E402
import _measure  # noqa: E402
import _plain  # noqa: E402
import _trace  # noqa: E402
import bench_loop  # noqa: E402
import bench_precision  # noqa: E402
import bench_scaling  # noqa: E402
import gpu  # noqa: E402
import plots  # noqa: E402

sys.path.remove(str(BENCHMARKS))


def arguments(out, *more):
    return _measure.parser("A test.").parse_args(["--out", str(out), "--device", "cpu", *more])


def run(script, out, *more):
    """Run a script at its tiny sizes and return what it wrote."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--device", "cpu", "--out", str(out), *more],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (file,) = Path(out).glob("*.json")
    return json.loads(file.read_text())


def test_plain_reading_stacks_the_files_of_a_directory(tmp_path):
    values = {}
    for variable in ("images", "behavior", "pupil_center", "responses"):
        folder = tmp_path / "mouse" / "data" / variable
        folder.mkdir(parents=True)
        values[variable] = np.random.default_rng(0).random((12, 3))
        for i, value in enumerate(values[variable]):
            np.save(folder / f"{i}.npy", value)
    read = _plain.plain_read(tmp_path)
    assert {v: a.tolist() for v, a in read.items()} == {v: a.tolist() for v, a in values.items()}
    with pytest.raises(ValueError, match="expected one mouse"):
        _plain.plain_read(tmp_path / "mouse" / "data" / "images")


@pytest.mark.slow
def test_peak_memory_counts_what_a_call_allocates_at_once(tmp_path):
    script = tmp_path / "allocate.py"
    script.write_text(
        "import torch\n"
        "def prepare(megabytes, kept):\n"
        "    data = torch.ones(kept * 2**18)\n"
        "    def call():\n"
        "        for _ in range(3):\n"
        "            torch.ones(megabytes * 2**18).sum()\n"
        "    return lambda: (call(), data)\n"
    )
    found = _measure.peak_memory("prepare", script, 40, 100) / 2**20
    assert found == pytest.approx(40, abs=4)


@pytest.mark.slow
def test_peak_memory_shows_what_went_wrong(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("def prepare():\n    raise ValueError('no such thing')\n")
    with pytest.raises(RuntimeError, match="no such thing"):
        _measure.peak_memory("prepare", script)


def test_functions_are_timed_in_turn():
    clock, calls = [0.0], []

    def lasting(name, seconds):
        def function():
            calls.append(name)
            clock[0] += seconds * (2 if len(calls) > 4 else 1)  # the machine slows down

        return function

    plain, ours, ratio = _measure.compare(
        lasting("plain", 3.0), lasting("ours", 1.5), 4, clock=lambda: clock[0]
    )
    assert calls[2:] == ["plain", "ours", "ours", "plain"] * 2
    assert ratio == pytest.approx(2.0)
    assert plain == pytest.approx(2 * ours)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        _measure.compare(plain, ours, 0)


@pytest.mark.parametrize(("n", "share"), [(31, 0.95), (121, 0.95), (40, 0.5)])
def test_the_median_lies_in_its_interval_as_often_as_wanted(n, share):
    ranks = np.arange(n)
    low, high = _measure.median_interval(ranks, share)
    assert low + high == n - 1

    def coverage(rank):
        return 1 - 2 * sum(math.comb(n, i) for i in range(rank + 1)) / 2**n

    assert coverage(low) >= share > coverage(low + 1)
    samples = np.random.default_rng(0).standard_exponential((2000, n))
    ends = np.array([_measure.median_interval(sample, share) for sample in samples])
    inside = ((ends[:, 0] <= math.log(2)) & (ends[:, 1] >= math.log(2))).mean()
    assert inside == pytest.approx(coverage(low), abs=0.03)


def test_few_values_tell_no_more_than_their_range():
    assert _measure.median_interval([3.0]) == (3.0, 3.0)
    assert _measure.median_interval([3.0, 1.0, 2.0, 5.0, 4.0]) == (1.0, 5.0)


@pytest.mark.parametrize(("kind", "at_once"), [("CNN", 4), ("V1T", 4), ("V1T", 3)])
def test_bare_steps_and_the_loop_do_the_same_work(kind, at_once):
    """Without random numbers, and by gradient descent, both end at the same weights."""
    args = argparse.Namespace(quick=True, steps=3, mice=2, neurons=5)
    runs = bench_loop.Runs(
        args, kind, torch.device("cpu"), lambda m: torch.optim.SGD(m.parameters(), lr=1e-5)
    )
    runs.settings = dataclasses.replace(runs.settings, micro_batch_size=at_once)
    for module in runs.model.modules():
        for rate in {"p", "attention_dropout"} & set(vars(module)):
            setattr(module, rate, 0.0)
    for readout in runs.model.readouts:
        readout.sigma.requires_grad_(False).zero_()
    models = [copy.deepcopy(runs.model) for _ in range(2)]
    runs.bare(models[0])()
    runs.loop(models[1])()
    for before, *after in zip(*(m.parameters() for m in (runs.model, *models)), strict=True):
        one, other = (values.detach() - before.detach() for values in after)
        assert before.requires_grad == bool(one.any())
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif("avx2" not in fast.kernel_variants(), reason="a processor without AVX2")
def test_a_script_can_be_held_to_the_instructions_of_another_processor(tmp_path):
    script = tmp_path / "held.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import _limits, _measure
from v1tlearn.nn.fast.choice import chosen_variant
_limits.hold(sys.argv[1])
with _limits.in_force():
    assert chosen_variant() == "avx2"
place = _measure.machine()
assert (place["vector_bits"], place["held_to"]) == (256, "avx2"), place
assert "for avx2, as chosen; torch held by ATEN_CPU_CAPABILITY=avx2" in place["kernels"]
print("held")
"""
    )
    done = subprocess.run(
        [sys.executable, str(script), "avx2"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "held\n", done.stderr


def test_nothing_is_limited_by_default():
    _limits.hold(None)
    assert _limits.held_to() is None
    assert _limits.kernels() == fast.describe_kernels()


def test_matrix_rate_counts_two_operations_per_product():
    ticks = itertools.count(step=0.25)  # so a product takes 0.25 s
    rate = _measure.matrix_rate(torch.float32, "cpu", 100, clock=lambda: next(ticks))
    assert rate == pytest.approx(8e6)


@pytest.mark.parametrize(
    ("row", "passed"),
    [
        ({"ours": 1.0}, None),
        ({"ours": 1.0, "ratio": 3.0, "bar": 2.5}, True),
        ({"ours": 9.0, "ratio": 2.0, "bar": 2.5}, False),
        ({"ours": 1990.0, "bar": 2000.0}, False),
        ({"ours": 0.004, "bar": 0.005, "at_most": True}, True),
    ],
)
def test_bars_are_of_ratios_or_else_of_our_figures(row, passed):
    assert _measure.Row("", None, unit="", **row).passed() is passed


def test_report_prints_and_writes(tmp_path, capsys):
    rows = [_measure.Row("a step", 3.0, 1.0, "s", 3.0, 4.0, "small")]
    _measure.report("topic", rows, arguments(tmp_path / "new"), curves=[1])
    printed = capsys.readouterr().out
    assert ">= 4.00  MISSED" in printed
    written = json.loads((tmp_path / "new" / "topic.json").read_text())
    assert written["rows"][0] == {
        "what": "a step",
        "plain": 3.0,
        "ours": 1.0,
        "unit": "s",
        "ratio": 3.0,
        "bar": 4.0,
        "note": "small",
        "at_most": False,
        "passed": False,
    }
    assert written["curves"] == [1]
    assert written["machine"]["threads"] == torch.get_num_threads()
    assert written["arguments"]["quick"] is False


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (2.345, "2.35"), (0.00123, "0.00123"), (12345.6, "12,346")],
)
def test_figures_have_three_digits(value, text):
    assert _measure.number(value) == text


@given(exponent=st.floats(0.5, 2.5), factor=st.floats(1e-4, 10), n=st.integers(2, 6))
@settings(max_examples=15)
def test_exponents_of_known_curves(exponent, factor, n):
    sizes = [64 * 2**i for i in range(n)]
    values = [factor * size**exponent for size in sizes]
    assert bench_scaling.power_law(sizes, values) == pytest.approx((exponent, factor))


def test_exponents_of_noisy_curves():
    sizes, noise = [512, 1024, 2048, 4096], [1.02, 0.98, 1.01, 0.99]
    values = [0.001 * size * factor for size, factor in zip(sizes, noise, strict=True)]
    assert bench_scaling.power_law(sizes, values)[0] == pytest.approx(1.0, abs=0.1)
    assert bench_scaling.power_law(sizes[:2], [1.0, 4.0]) == pytest.approx((2.0, 2**-18))
    assert bench_scaling.upper_slope(sizes, [1.0, 1.0, 1.0, 8.0]) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("sizes", "values"), [([1], [1.0]), ([1, 1], [1.0, 2.0]), ([1, 2], [1.0, 0.0]), ([1, 2], [1.0])]
)
def test_exponents_need_two_sizes_and_positive_costs(sizes, values):
    with pytest.raises(ValueError, match="two sizes or more"):
        bench_scaling.power_law(sizes, values)


def lasting(clock, seconds, slowness=lambda now: 1.0):
    """A task of in_turn whose calls take so long, on a machine that may be slow for a while."""

    def calls(n):
        start = clock[0]
        for _ in range(round(128 * n * seconds)):
            clock[0] += slowness(clock[0]) / 128
        return (clock[0] - start) / n

    return calls


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.4])
def test_exponents_are_those_of_the_work_where_the_machine_slows_down(exponent):
    sizes, clock = [128, 256, 512, 1024], [0.0]
    work = [(size / 1024) ** exponent for size in sizes]
    costs = bench_scaling.in_turn(
        [lasting(clock, seconds, lambda now: 1 + now / 200) for seconds in work], 3
    )
    assert bench_scaling.power_law(sizes, costs)[0] == pytest.approx(exponent, abs=0.02)
    assert bench_scaling.upper_slope(sizes, costs) == pytest.approx(exponent, abs=0.02)


def test_exponents_do_not_come_from_quiet_moments_that_only_short_tasks_fit_into():
    sizes, clock = [128, 256, 512, 1024], [0.0]
    tasks = [lasting(clock, size / 512, lambda now: 1 + 3 * (now % 0.7 > 0.28)) for size in sizes]
    costs = bench_scaling.in_turn(tasks, 3)
    assert bench_scaling.power_law(sizes, costs)[0] == pytest.approx(1.0, abs=0.02)
    fastest = [min(task(1) for _ in range(3)) for task in tasks]
    assert bench_scaling.power_law(sizes, fastest)[0] > 1.2


def test_a_round_in_which_one_size_was_disturbed_does_not_count():
    clock, calls = [0.0], []

    def disturbed(n):
        calls.append(n)
        clock[0] += n * (9.0 if len(calls) == 2 else 1.0)
        return 9.0 if len(calls) == 2 else 1.0

    costs = bench_scaling.in_turn([disturbed, lasting(clock, 2.0)], 3)
    assert costs[1] / costs[0] == pytest.approx(2.0)
    assert calls[1:] == [2] * 6  # twice as often as what takes twice as long


@pytest.mark.parametrize(("cost", "bar"), [("memory", 1.05), ("epoch", 2.05), ("prediction", 2.05)])
def test_tokens_may_cost_quadratic_time_but_no_more_than_linear_memory(cost, bar):
    for values, passed in (([2.0, 4.0], True), ([2.0, 8.0], bar > 2), ([2.0, 18.0], False)):
        curve = bench_scaling.curve("V1T", "tokens", cost, "s", [1024, 2048], values)
        (row,) = bench_scaling.rows([curve])
        assert (row.bar, row.passed()) == (pytest.approx(bar), passed)


def test_tokens_are_trained_with_dropout_on_their_attention():
    model = bench_scaling.estimator("V1T", "tokens", 1, "cpu")
    assert model.attention_dropout > 0


@pytest.mark.parametrize("tokens", bench_scaling.SIZES["tokens"])
def test_images_of_the_token_axis_have_that_many_tokens(tokens):
    sizes = bench_scaling.sizes_of("tokens", tokens, quick=False)
    shape = (1, sizes["height"], sizes["width"])
    grid = ViTCore(shape, patch_size=bench_scaling.PATCH, patch_stride=1, embed_dim=8).grid
    assert grid[0] * grid[1] == tokens


def test_precision_table_shows_every_seed_and_the_mean():
    def run_of(precision, seed, correlation):
        return {
            "model": "V1T",
            "precision": precision,
            "seed": seed,
            "correlation": correlation,
            "oracle": 0.5,
            "seconds": 1.0,
        }

    full = [run_of("float32", seed, 0.3) for seed in range(3)]
    low = [run_of("bfloat16", seed, c) for seed, c in enumerate((0.31, 0.29, 0.288))]
    *seeds, mean = bench_precision.rows(full + low)
    assert [(row.plain, row.ours) for row in seeds] == [(0.3, 0.31), (0.3, 0.29), (0.3, 0.288)]
    assert mean.ours == pytest.approx(0.004)
    assert mean.passed()
    assert "-0.0040, standard error 0.0070 over 3 seeds" in mean.note


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=8))
def test_idle_time_is_what_no_kernel_covers(kernels):
    intervals = [(float(start), float(start + length)) for start, length in kernels]
    found = _trace.activity(intervals)
    first, last = min(s for s, _ in intervals), max(e for _, e in intervals)
    busy = [any(s <= t < e for s, e in intervals) for t in range(int(first), int(last))]
    assert found.span == last - first
    assert found.idle == pytest.approx(1 - sum(busy) / len(busy))
    gaps = "".join("x" if b else " " for b in busy).split("x")
    assert found.longest_gap == max(len(gap) for gap in gaps)
    assert found.n_kernels == len(intervals)


def test_traces_count_only_what_runs_on_the_device(tmp_path):
    path = tmp_path / "trace.json"
    events = [
        {"ph": "X", "cat": "kernel", "ts": 10.0, "dur": 2.0},
        {"ph": "X", "cat": "gpu_memcpy", "ts": 16.0, "dur": 4.0},
        {"ph": "X", "cat": "cpu_op", "ts": 0.0, "dur": 50.0},
        {"ph": "i", "cat": "kernel", "ts": 99.0},
    ]
    path.write_text(json.dumps({"traceEvents": events}))
    found = _trace.read_activity(path, "cuda")
    assert found.span == pytest.approx(10e-6)
    assert found.idle == pytest.approx(0.4)
    assert _trace.read_activity(path, "cpu").span == pytest.approx(50e-6)
    path.write_text(json.dumps({"traceEvents": events[2:]}))
    with pytest.raises(ValueError, match="holds no kernel"):
        _trace.read_activity(path, "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_gpu_script_says_where_there_is_none(tmp_path, capsys):
    gpu.main(["--out", str(tmp_path), "--if-present"])
    assert "no CUDA device is present" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="no CUDA device is present"):
        gpu.main(["--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="add --quick"):
        gpu.main(["--device", "cpu"])


def test_gpu_script_tells_what_passed_and_fails_if_anything_did(capsys):
    def bad(device):
        raise ValueError(f"wrong on {device}")

    def missing(device):
        raise _gpu_checks.Skipped("there is none")

    wanted = {"good": lambda device: "2 steps", "bad": bad, "missing": missing}
    assert _gpu_checks.run_checks(torch.device("cpu"), wanted) == 1
    printed = capsys.readouterr().out
    for line in ("good: 2 steps", "bad: ValueError: wrong on cpu", "missing: there is none"):
        assert line in printed
    assert "Traceback" in printed
    assert printed.endswith("1 passed, 1 FAILED, 1 skipped\n")


@pytest.mark.slow
def test_gpu_script_checks_as_far_as_a_cpu_gets(capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--check", "--device", "cpu"])
    assert ended.value.code == 0, capsys.readouterr().out


@pytest.mark.slow
def test_gpu_script_trains_and_compares_on_any_device(tmp_path):
    command = ["--quick", "--device", "cpu", "--repeats", "1", "--out", str(tmp_path)]
    gpu.main([*command, "--only", "training", "epochs"])
    written = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row["what"]: row for row in written["rows"]}
    assert rows["V1T training, bfloat16"]["bar"] == 2000
    assert rows["V1T training step, bfloat16, against plain with checkpointing"]["bar"] == 8
    assert rows["V1T epoch through fit"]["bar"] == 15
    assert "V1T receptive fields, bfloat16" in rows
    assert {"V1T predict, float32", "V1T predict, bfloat16"} <= set(rows)
    share = rows["share of the bfloat16 matrix rate, V1T training step"]
    assert 0 < share["ours"] < 1
    assert all(np.isfinite(row["ours"]) and row["ours"] > 0 for row in written["rows"])


def results(directory, *options):
    """Results of two scripts."""
    rows = [
        _measure.Row("V1T training step", 3.0, 1.0, "s", 3.0, 2.5, "published size, float32"),
        _measure.Row("V1T training step", 0.3, 0.2, "s", 1.5, None, "small size, float32"),
        _measure.Row("share of the float32 matrix rate", None, 0.5, ""),
        _measure.Row("overhead", 1.0, 1.02, "s", 1.02, 1.03, at_most=True),
    ]
    args = arguments(directory, *options)
    _measure.report("v1t", rows, args)
    sizes = [1, 2, 4]
    curves = [
        bench_scaling.curve("V1T", "mice", "epoch", "s", sizes, [1.0, 2.0, 4.0]),
        bench_scaling.curve("V1T", "mice", "memory", "MiB", sizes[-2:], [1.0, 2.0]),
    ]
    _measure.report("scaling", bench_scaling.rows(curves), args, curves=curves)


@pytest.mark.parametrize(
    ("script", "what", "label"),
    [
        ("v1t", "ViT training float32", "ViT training float32"),
        ("v1t", "V1T training float32", "V1T training float32"),
        ("cnn", "training step, small", "CNN: training step, small"),
        ("epoch", "CNN, small, epoch", "CNN, small, epoch"),
        ("receptive_fields", "V1T, small", "receptive fields: V1T, small"),
    ],
)
def test_a_row_is_labelled_with_its_own_model(script, what, label):
    assert plots._label(script, what) == label


def test_plots_draw_everything_that_was_written(tmp_path, capsys):
    results(tmp_path)
    plots.main(["--out", str(tmp_path)])
    for name in ("ratios.png", "scaling.png", "matrix_rate.png"):
        height, width, _ = plots.plt.imread(tmp_path / name).shape
        assert min(height, width) > 100
    capsys.readouterr()
    plots.main(["--out", str(tmp_path), "--table"])
    table = capsys.readouterr().out
    for text in (
        ".. list-table:: ``v1t``: ",
        "V1T training step (small size)",
        "- ≥ 2.50",
        "- ≤ 1.03",
        "V1T: epoch against mice",
        "vectors of ",
    ):
        assert text in table
    assert "missed" not in table


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        (_measure.Row("a", 2.0, 1.0, "s", 2.0, 2.5), "**≥ 2.50, missed**"),
        (_measure.Row("b", 2.0, 2.1, "s", 1.05, 1.03, at_most=True), "**≤ 1.03, missed**"),
        (_measure.Row("c", 3.0, 1.0, "s", 3.0, 2.5), "≥ 2.50"),
        (_measure.Row("d", 3.0, 1.0, "s", 3.0), ""),
    ],
)
def test_table_marks_bars_that_were_missed(row, cell):
    assert plots._cells(row)[-1] == cell


def test_machine_tells_the_width_of_its_vectors():
    for capability, bits in (("AVX512", 512), ("AVX2", 256), ("DEFAULT", 128)):
        assert _measure.vector_bits(capability) == bits
    of_torch = torch.backends.cpu.get_cpu_capability()
    assert _measure.machine()["vector_bits"] == _measure.vector_bits(of_torch)


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        ({}, "X, vectors of 512 bits, 2 threads, torch 2"),
        ({"bfloat16": ["avx512_bf16"]}, "vectors of 512 bits with avx512_bf16, 2 threads"),
        ({"device": "NVIDIA"}, "X, NVIDIA, 2 threads, torch 2"),
    ],
)
def test_table_tells_what_it_was_measured_on(machine, told):
    known = {"processor": "X", "vector_bits": 512, "bfloat16": [], "threads": 2, "torch": "2"}
    assert told in plots._place(known | {"device": "cpu"} | machine)


def test_table_refuses_quick_runs_and_nothing(tmp_path):
    command = ["--out", str(tmp_path), "--table"]
    with pytest.raises(SystemExit, match="holds no results"):
        plots.main(command)
    results(tmp_path, "--quick")
    with pytest.raises(SystemExit, match="come from --quick runs"):
        plots.main(command)


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(p.name for p in BENCHMARKS.glob("bench_*.py")))
def test_scripts_run_at_tiny_sizes(script, tmp_path):
    written = run(script, tmp_path)
    assert written["name"] == script.removeprefix("bench_").removesuffix(".py")
    assert written["arguments"]["quick"] is True
    assert written["rows"]
    for row in written["rows"]:
        assert set(row) == {*_measure.Row.__dataclass_fields__, "passed"}
        assert np.isfinite(row["ours"])


@pytest.mark.slow
def test_gpu_script_runs_as_a_whole(tmp_path):
    written = run("gpu.py", tmp_path)
    assert written["name"] == "gpu"
    names = [row["what"] for row in written["rows"]]
    assert any("peak memory" in name for name in names)
    assert any("compiled" in name for name in names)
    assert "share of an epoch in which no kernel runs" in names
    assert (tmp_path / "gpu_trace.json.gz").exists()


@pytest.mark.gpu
def test_gpu_script_measures_a_gpu(tmp_path):
    sys_argv = [sys.executable, str(BENCHMARKS / "gpu.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(sys_argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["machine"]["device"] != "cpu"
    assert all(np.isfinite(row["ours"]) for row in written["rows"])
