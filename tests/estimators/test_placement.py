"""Wherever recordings are kept while a model is trained, the model is the same."""

import logging
import os
import shutil
import subprocess
import sys
import threading

import netCDF4
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.estimators import placement
from v1tlearn.estimators.moments import moments_in_blocks
from v1tlearn.estimators.mouse_data import bring, read_responses, with_responses
from v1tlearn.estimators.placement import DEVICE, MEMORY, RECORDINGS, n_bytes, place

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert not [t for t in threading.enumerate() if t.name == "v1tlearn-read-ahead"]


def same_models(first, second):
    """Whether weights and history agree to the last bit, the time it took apart."""
    weights = [model.module_.state_dict() for model in (first, second)]
    histories = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in model.history_]
        for model in (first, second)
    ]
    return histories[0] == histories[1] and all(
        torch.equal(value.cpu(), weights[1][name].cpu()) for name, value in weights[0].items()
    )


@pytest.fixture(scope="module")
def store(recordings, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "recordings.nc"
    v1.save_recordings(recordings, path)
    return path


@pytest.fixture(scope="module")
def folder(recordings, tmp_path_factory):
    """Both mice in the Sensorium layout, zipped."""
    path = tmp_path_factory.mktemp("sensorium")
    v1.write_sensorium(recordings, path / "mice")
    for mouse in sorted((path / "mice").iterdir()):
        shutil.make_archive(str(path / "zips" / mouse.name), "zip", mouse)
    return path / "zips"


# ------------------------------------------------------------------------------ the same model


@pytest.mark.parametrize(
    ("kind", "params"),
    quick(
        [
            (v1.CNNRegressor, {"core_pass": "per_mouse", "loss_scale": "sqrt_recording"}),
            (v1.V1TRegressor, {"attention_dropout": 0.3, "batch_size": 7}),
            (v1.CNNRegressor, {"shuffle_block": 4, "batch_size": 5, "max_epochs": 1}),
        ],
        0,
    ),
)
def test_streaming_changes_nothing(kind, params, small, trials, store, equal):
    resident = small(kind, low_memory=False, **params).fit(trials)
    lazy = v1.Trials.open(store).sel(tier="train")
    for source in (trials, lazy):
        streamed = small(kind, low_memory=True, **params).fit(source)
        assert same_models(resident, streamed)
    assert equal(resident.predict(trials), streamed.predict(trials))


@settings(max_examples=4)
@given(
    batch_size=st.integers(2, 12),
    lengths=st.tuples(st.integers(12, 30), st.integers(12, 30)),
    missing=st.booleans(),
    floats=st.booleans(),
)
def test_streaming_changes_nothing_whatever_the_sizes(batch_size, lengths, missing, floats, arrays):
    small = {"n_layers": 1, "hidden_channels": 2, "input_kernel": 3, "device": "cpu"}
    stimuli, behaviors, responses = (
        {m: arrays[name][m][:n].copy() for m, n in zip("AB", lengths, strict=True)}
        for name in ("stimuli", "behaviors", "responses")
    )
    if missing:
        responses["A"][1::3, ::2] = np.nan
    if floats:
        stimuli = {m: images.astype(np.float64) for m, images in stimuli.items()}
    models = [
        v1.CNNRegressor(
            batch_size=batch_size,
            max_epochs=2,
            random_state=0,
            validation_fraction=0,
            low_memory=stream,
            **small,
        ).fit(stimuli, behaviors, responses)
        for stream in (False, True)
    ]
    assert same_models(*models)


def test_a_sensorium_zip_is_streamed(small, trials, folder):
    zipped = v1.Trials(v1.read_sensorium(folder, names=["A", "B"])).sel(tier="train")
    first, second = (small(low_memory=stream, max_epochs=1).fit(zipped) for stream in (False, True))
    assert same_models(first, second)


def test_preprocessing_is_applied_to_what_is_streamed(small, store):
    lazy = v1.Trials.open(store).sel(tier="train")
    resized = v1.preprocessing.ResizeStimuli((9, 14)).fit_transform(lazy)
    first, second = (
        small(low_memory=stream, max_epochs=1).fit(resized) for stream in (False, True)
    )
    assert same_models(first, second)


def test_partial_fit_and_transfer_stream_too(small, trials):
    models = []
    for stream in (False, True):
        model = small(low_memory=stream, validation_fraction=0).partial_fit(trials)
        models.append(model.partial_fit(trials).transfer(trials.sel(mouse_id="B"), max_epochs=1))
    assert same_models(*models)


def test_data_in_host_memory_give_the_same_batches(fitted, trials):
    target = trials.responses
    for mouse in trials.mice:
        resident, memory, stored = (
            with_responses(fitted.fitted_, trials, mouse, target, CPU, where)
            for where in (DEVICE, MEMORY, RECORDINGS)
        )
        rows = torch.tensor([3, 0, 3, 11])
        assert not resident.sources
        for streamed in (memory, stored):
            assert set(streamed.sources) == {"images", "responses"}
            assert len(streamed) == len(resident)
            assert streamed.scale_trials == resident.scale_trials
            for mine, other in zip(resident.batch(rows), streamed.batch(rows), strict=True):
                assert other is None if mine is None else torch.equal(mine, other)
            assert torch.equal(resident.targets(rows)[0], streamed.targets(rows)[0])
        assert memory.targets(rows)[1] is None
        assert stored.targets(rows)[1].all()


@pytest.mark.gpu
@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("kept", [MEMORY, RECORDINGS])
def test_streaming_to_a_gpu_changes_nothing(kept, block, small, trials, store, monkeypatch):
    params = {"device": "cuda", "deterministic": True, "precision": "float32"}
    params |= {"shuffle_block": block, "batch_size": 5}
    resident = small(low_memory=False, **params).fit(trials)
    if kept == RECORDINGS:
        monkeypatch.setattr(placement, "free_memory", lambda device: 0)
    streamed = small(low_memory=True, **params).fit(v1.Trials.open(store).sel(tier="train"))
    assert same_models(resident, streamed)


# -------------------------------------------------------------------------------- the decision


@pytest.mark.parametrize(
    ("stream", "device", "free", "where"),
    [
        (False, GPU, {"cuda": 0, "cpu": 0}, DEVICE),
        (np.False_, CPU, {"cpu": 0}, DEVICE),
        ("auto", CPU, {"cpu": 1.7}, DEVICE),
        ("auto", CPU, {"cpu": 1.6}, RECORDINGS),
        ("auto", CPU, {"cpu": None}, DEVICE),
        ("auto", GPU, {"cuda": 1.7, "cpu": 0}, DEVICE),
        ("auto", GPU, {"cuda": 1.6, "cpu": 1.7}, MEMORY),
        ("auto", GPU, {"cuda": 1.6, "cpu": 1.6}, RECORDINGS),
        ("auto", GPU, {"cuda": 1.6, "cpu": None}, MEMORY),
        (True, GPU, {"cuda": 9, "cpu": 1.7}, MEMORY),
        (True, GPU, {"cuda": 9, "cpu": 1.6}, RECORDINGS),
        (True, CPU, {"cpu": 9}, RECORDINGS),
    ],
)
def test_where_recordings_are_kept(stream, device, free, where, trials):
    """Free memory is given in multiples of what the recordings take."""
    needed = n_bytes(trials, trials.responses)
    sizes = {kind: x if x is None else x * needed for kind, x in free.items()}
    free_on = {torch.device(kind): size for kind, size in sizes.items()}.get
    assert place(stream, device, trials, trials.responses, free_on)[0] == where


def test_bytes_are_those_of_the_tensors(fitted, trials):
    data = bring(fitted.fitted_, trials, trials.responses, CPU, stream=False, count_recording=False)
    expected = sum(d.images.nbytes + d.responses.nbytes for d in data.values())
    assert n_bytes(trials, trials.responses) == expected


def test_the_log_says_what_and_why(small, trials, caplog):
    with caplog.at_level(logging.INFO, "v1tlearn"):
        small(low_memory=False, max_epochs=1).fit(trials)
        assert not [r for r in caplog.records if "streamed" in r.message]
        small(low_memory=True, max_epochs=1, validation_fraction=0).fit(trials)
    (line,) = [r.message for r in caplog.records if "streamed" in r.message]
    assert f"{len(trials)} trials of 2 mice are streamed from the recordings" in line
    assert "GB" in line


@pytest.mark.parametrize(("stream", "loaded"), [(True, False), (False, True), ("auto", True)])
def test_responses_stay_in_files_if_images_do(stream, loaded, small, store):
    lazy = v1.Trials.open(store)
    target = read_responses(stream, CPU, lazy, lazy.responses)
    assert isinstance(target._sources["A"], np.ndarray) == loaded
    for mouse in lazy.mice:
        np.testing.assert_array_equal(target.get(mouse), lazy.responses.get(mouse))


# ------------------------------------------------------------------- files that change meanwhile


def test_a_store_that_is_cut_off_meanwhile(small, store, tmp_path):
    path = tmp_path / "cut.nc"
    shutil.copy(store, path)
    cache = netCDF4.get_chunk_cache()
    netCDF4.set_chunk_cache(0, 1, 0)  # otherwise so few trials are read once and kept
    try:
        lazy = v1.Trials.open(path).sel(tier="train")
        model = small(low_memory=True, max_epochs=5)
        with pytest.raises(ValueError, match=r"mouse '[AB]': (stimuli|responses) could not be r"):
            model.fit(lazy, on_epoch=lambda _: os.truncate(path, path.stat().st_size // 3))
    finally:
        netCDF4.set_chunk_cache(*cache)
    assert len(model.history_) == 1


def test_a_zip_that_is_damaged_meanwhile(small, folder, tmp_path):
    paths = [shutil.copy(path, tmp_path) for path in sorted(folder.iterdir())]
    zipped = v1.Trials(v1.read_sensorium(tmp_path, names=["A", "B"])).sel(tier="train")

    def damage(record):
        """Overwrite all members of the second mouse's archive but the first ones."""
        size = os.path.getsize(paths[1])
        with open(paths[1], "r+b") as file:
            file.seek(size // 10)
            file.write(bytes(size * 9 // 10))

    model = small(low_memory=True, max_epochs=5)
    with pytest.raises(ValueError, match=r"mouse 'B': .* could not be read while the model was"):
        model.fit(zipped, on_epoch=damage)
    assert len(model.history_) == 1


def test_values_that_are_not_finite_are_named(small, arrays):
    stimuli = {m: images.astype(np.float32) for m, images in arrays["stimuli"].items()}
    stimuli["B"][-1, 0, 0, 0] = np.inf
    model = small(low_memory=True, standardize=False, validation_fraction=0)
    with pytest.raises(ValueError, match="mouse 'B': stimuli hold NaN or infinite values"):
        model.fit(stimuli, arrays["behaviors"], arrays["responses"])


# ------------------------------------------------------------------------------------- moments


@given(
    n=st.integers(1, 40),
    n_neurons=st.integers(1, 9),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64, np.int16]),
    cuts=st.integers(1, 41),
    seed=st.integers(0, 99),
)
def test_moments_of_blocks_are_those_of_the_whole(n, n_neurons, share, dtype, cuts, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(3, 20, (n, n_neurons)).astype(dtype)
    if dtype != np.int16:
        values[rng.random(values.shape) < share] = np.nan
    found = moments_in_blocks(lambda: np.split(values, range(cuts, n, cuts)))
    for i, column in enumerate(values.T.astype(np.float64)):
        column = column[~np.isnan(column)]
        assert found.count[i] == len(column)
        assert found.total[i] == pytest.approx(column.sum())
        expected = (column.mean(), column.std()) if len(column) else (np.nan, np.nan)
        np.testing.assert_allclose([found.mean[i], found.std[i]], expected, rtol=1e-9, atol=1e-9)
    assert found.lowest == np.nanmin(values.astype(np.float64), initial=np.inf)


def test_infinite_responses_are_seen():
    for values in ([[np.inf, 1.0], [-np.inf, 2.0]], [[1.0, 1.0], [np.inf, np.nan]]):
        found = moments_in_blocks(lambda values=values: [np.array(values)])
        assert np.isfinite(found.total).tolist() == [False, True]


# -------------------------------------------------------------------------------------- memory

_FIT = """
import sys
import netCDF4, torch, v1tlearn as v1
torch.set_num_threads(1)
netCDF4.set_chunk_cache(2**20)  # 64 MB otherwise, whatever is read

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

trials = v1.Trials.open(sys.argv[1])
model = v1.CNNRegressor(n_layers=1, hidden_channels=2, input_kernel=3, batch_size=16, max_epochs=1,
                        random_state=0, device="cpu", image_size=(9, 16), validation_fraction=0,
                        low_memory=sys.argv[2] == "True")
model.fit(trials[: int(sys.argv[3])])
print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells")
def test_memory_does_not_grow_with_the_recording(tmp_path):
    rng = np.random.default_rng(0)
    n, path = 4000, tmp_path / "large.nc"
    stimuli = np.zeros((n, 1, 144, 256), np.uint8)
    stimuli[:, 0, 70] = rng.integers(0, 256, (n, 256))
    responses = rng.exponential(size=(n, 20)).astype(np.float32)
    v1.Trials.from_arrays(stimuli, None, responses, image_ids=np.arange(n)).to_netcdf(path)

    def peak(stream, n_trials, tries=1):
        """Peak memory of a process that fits some of the trials, in bytes, least of some tries.

        How far a reading is ahead when memory is at its highest, depends on who runs when.
        """
        run = [sys.executable, "-c", _FIT, str(path), str(stream), str(n_trials)]
        return min(int(subprocess.check_output(run, text=True)) for _ in range(tries))

    added = stimuli[n // 2 :].nbytes
    assert peak(False, n) - peak(False, n // 2) > 0.7 * added
    assert peak(True, n, tries=3) - peak(True, n // 2, tries=3) < 0.15 * added
