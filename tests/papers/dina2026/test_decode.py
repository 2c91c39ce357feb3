"""The script that makes the measurements that are reported of DINA, on simulated mice."""

import json

import numpy as np
import pytest
import scipy.io
import torch

import v1tlearn as v1
from papers.dina2026 import data, decode, measures, tables
from papers.dina2026.cnn_decoder import ConvolutionalTower, decoded_images, make_decoder
from papers.dina2026.published import CNN, DINA, MEASURES

pytestmark = pytest.mark.slow

QUICK = ["--quick", "--epochs", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("matplotlib")
    return tmp_path_factory.mktemp("dina")


@pytest.fixture(scope="module")
def found(folder):
    """What the command finds of a simulated mouse, with hardly trained models."""
    return decode.main([*QUICK, "--out", str(folder)])


def cells(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_all_measurements_stand_beside_what_is_reported(found, folder):
    text = (folder / "tables.md").read_text(encoding="utf-8")
    assert text == found["tables"]
    for reported in MEASURES.values():
        assert cells(text, reported.name)[-2:] == [reported.dina, reported.cnn]
        assert reported.differs in text
    measured = [float(cell.split()[0]) for cell in cells(text, "images found (top-1)")[:3]]
    assert max(measured) > 5 / 48  # of 48 images
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_has_what_the_measurements_say(found):
    ((one),) = found["found"]
    rows = {(row["model"], row["metric"]): row for row in one["decoding"]["rows"]}
    first, second, ridge = cells(found["tables"], "images found (top-1)")[:3]
    for text, model in ((first, DINA), (second, CNN), (ridge, measures.RIDGE)):
        row = rows[model, "top_1"]
        assert text == f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        assert row["chance"] == pytest.approx(1 / 48)
    of_probe = rows[measures.PROBE, "pixel_correlation"]["value"]
    assert cells(found["tables"], "pixel correlation")[0].startswith(f"{of_probe:.3f} ")
    for model in (DINA, CNN):
        assert one["neurons"][model]["counts"][-1] == 60
        assert one["blur"][model]["low_pass"]["values"][0] == 1


def test_the_command_goes_on_where_it_stopped(found, folder):
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    lost = folder / "jobs" / "dimensions-seed0.json"
    before = json.loads(lost.read_text(encoding="utf-8"))
    lost.unlink()
    again = decode.main([*QUICK, "--out", str(folder)])
    assert json.loads(lost.read_text(encoding="utf-8")) == before
    assert again["tables"] == found["tables"]
    unchanged = [path for path in kept if path not in (lost, folder / "settings.json")]
    assert len(unchanged) > 4
    assert all(path.stat().st_mtime_ns == kept[path] for path in unchanged)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["--recipe", "code"], "recipe"),
        (["--repeats", "mean"], "repeats"),
        (["--select-on", "test"], "select_on"),
        (["--published-habits"], "select_on, keep, range"),
        (["--epochs", "3"], "epochs"),
    ],
)
def test_results_of_other_settings_are_not_taken(found, folder, more, name):
    with pytest.raises(ValueError, match=f"another run: {name} differ"):
        decode.main([*QUICK, *more, "--out", str(folder)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "or --quick"), (["--quick", "--mouse", "A"], "leave --data and --mouse")],
)
def test_what_does_not_fit_together_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        decode.parse(arguments)
    assert message in capsys.readouterr().err


# ------------------------------------------------------------------------------- published habits


SMALL = {"n_neurons": 8, "n_trials": 30, "n_test_images": 6, "image_shape": (8, 12), "cutoff": 2.0}


def small(**options):
    return v1.Trials(v1.make_coarse_recordings(**SMALL | {"random_state": 0} | options))


def test_habits_are_clean_unless_asked_for_and_can_be_mixed():
    def asked(*arguments):
        parsed = decode.parse(["--quick", *arguments])
        return [getattr(parsed, name) for name in ("select_on", "keep", "range")]

    assert asked() == ["validation", "best", "train"]
    assert asked("--published-habits") == ["test", "last", "recording"]
    assert asked("--published-habits", "--keep", "best") == ["test", "best", "recording"]
    assert asked("--range", "recording") == ["validation", "best", "recording"]


def test_published_habits_reach_the_fit():
    trials = small()
    options = decode.parse([*QUICK, "--published-habits", "--recipe", "code"])
    model = measures.make(DINA, options, trials, 0)
    wanted = {"selection": "loss", "keep": "last", "range_over": "recording", "max_epochs": 4}
    wanted |= {"image_tower": "dsnet", "neural_tower": "attention", "temperature": 0.01}
    assert {name: model.get_params()[name] for name in wanted} == wanted
    assert set(measures.training(options, trials).tiers) == {"train", "validation"}
    fitted = measures.fit(CNN, options, trials, 0)
    assert fitted.best_epoch_ == 4
    clean = decode.parse(QUICK)
    assert set(measures.training(clean, trials).tiers) == {"train"}
    assert measures.make(DINA, clean, trials, 0).selection == "top1"


# ----------------------------------------------------------------------------------- the decoder


@pytest.mark.filterwarnings("ignore:.*look like images")  # those of six numbers do, by chance
def test_the_cnn_decoder_reconstructs_coarse_images_that_responses_tell():
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(400, 1, 2, 3)).astype(np.float32)
    images = 120 + 30 * torch.nn.functional.interpolate(
        torch.from_numpy(coarse), (8, 12), mode="bilinear"
    )
    responses = coarse.reshape(400, 6) @ rng.normal(size=(6, 24)).astype(np.float32)
    trials = v1.Trials.from_arrays(
        {"A": images.numpy()}, None, {"A": responses}, image_ids={"A": np.arange(400)}
    )
    options = {"max_epochs": 40, "response_scale": "std", "random_state": 0, "device": "cpu"}
    decoder = make_decoder((8, 12), **options).fit(trials[:340])
    test = trials[340:]
    found = decoded_images(decoder, test)
    shown = test.get("stimuli", "A")
    assert v1.metrics.pixel_correlation(found.values, shown).mean() > 0.85
    assert decoder.score(test) > 0.5  # chance is 1/60
    centred = shown - shown.mean((1, 2, 3), keepdims=True)
    slope = (found.values - found.values.mean((1, 2, 3), keepdims=True)).ravel() @ centred.ravel()
    assert 0.7 < slope / (centred.ravel() @ centred.ravel()) < 1.1  # in grey levels


@pytest.mark.parametrize("shape", [(1, 8, 12), (2, 7, 9)])
def test_decoded_images_have_the_size_of_images(shape):
    assert ConvolutionalTower(5, shape)(torch.zeros(3, 5)).shape == (3, *shape)


# -------------------------------------------------------------------------------------- recordings


def test_the_mean_of_repeats_is_over_what_was_recorded():
    dataset = small(n_repeats=3).recordings["A"].to_dataset().load()
    responses = dataset["responses"].values.copy()
    ids = dataset["image_id"].values
    repeated = np.flatnonzero(ids == np.unique(ids[dataset["tier"].values == "test"])[0])
    responses[repeated[0], 0] = np.nan
    responses[repeated, 1] = np.nan
    trials = v1.Trials({"A": dataset.assign(responses=(("trial", "neuron"), responses))})
    means = data.mean_of_repeats(trials)
    assert len(means) == len(np.unique(ids)) == 36
    for image, row in zip(means.image_ids, means.get("responses", "A"), strict=True):
        own = responses[ids == image].astype(float)
        if image == ids[repeated[0]]:
            assert np.isnan(row[1])
            own[:, 1] = row[1] = 0
        np.testing.assert_allclose(row, np.nanmean(own, axis=0), rtol=1e-6)
    first = [np.flatnonzero(ids == image)[0] for image in means.image_ids]
    np.testing.assert_array_equal(means.tiers, dataset["tier"].values[first])
    np.testing.assert_array_equal(means.get("stimuli", "A"), dataset["stimuli"].values[first])


def test_files_of_the_released_code_are_read(tmp_path):
    rng = np.random.default_rng(0)
    images, responses = rng.integers(0, 255, (40, 6, 9)), rng.random((40, 5))
    scipy.io.savemat(tmp_path / "images.mat", {"images": images.astype(np.uint8)})
    scipy.io.savemat(tmp_path / "responses.mat", {"responses": responses})
    trials = data.open_recording(tmp_path, None)
    assert trials.mice == [tmp_path.name]
    assert len(trials.sel(tier="test")) == 4
    np.testing.assert_allclose(trials.get("responses", trials.mice[0]), responses, rtol=1e-6)


def test_a_recording_is_opened_once_for_all_seeds_and_a_simulated_one_for_each(tmp_path):
    path = tmp_path / "mine.nc"
    v1.save_recordings(v1.make_coarse_recordings(**SMALL, random_state=0), path)
    first, second = decode.open_trials(
        decode.parse(["--data", str(path), "--seeds", "0", "1", "--repeats", "mean"])
    ).values()
    assert first is second
    assert len(first) == len(np.unique(first.image_ids))
    first, second = decode.open_trials(
        decode.parse(["--quick", "--seeds", "0", "1", "--out", str(tmp_path)])
    ).values()
    assert (first.responses.get("A") != second.responses.get("A")).any()


def test_recordings_without_what_is_needed_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recordings, natimg2800"):
        data.open_recording(tmp_path, None)
    two = v1.make_coarse_recordings(
        2, 4, n_trials=10, n_test_images=2, image_shape=(8, 12), cutoff=2.0, random_state=0
    )
    v1.save_recordings(two, tmp_path / "two.nc")
    with pytest.raises(ValueError, match="mice A, B: name one by --mouse"):
        data.open_recording(tmp_path / "two.nc", None)
    with pytest.raises(ValueError, match="no mouse C, only A, B"):
        data.open_recording(tmp_path / "two.nc", "C")
    assert data.open_recording(tmp_path / "two.nc", "B").mice == ["B"]
    train = two["A"].to_dataset().load()
    train = train.isel(trial=np.flatnonzero(train["tier"].values == "train"))
    v1.save_recordings({"A": train}, tmp_path / "few.nc")
    with pytest.raises(ValueError, match="no trials of the tier validation, test"):
        data.open_recording(tmp_path / "few.nc", None)


# ---------------------------------------------------------------------------------------- tables


def measured(needed, cutoff, explained=30):
    one = {"needed": needed, "explained": [[0.0] * explained]}
    return {
        "dimensions": dict.fromkeys((DINA, CNN), one),
        "blur": dict.fromkeys((DINA, CNN), cutoff),
    }


def test_what_is_never_enough_is_no_number():
    never = [measured([[3, None], [None, None]], {"cutoff": [None] * 3})]
    told = tables.lines(never)
    assert told["needed"][DINA] == "more than 30"
    assert told["cutoff"][CNN] == "-"
    mostly = tables.lines([measured([[3, 5], [8, None]], {"cutoff": [2.0, 1.5, 4.0]})])
    assert mostly["needed"][DINA] == "6.5"
    assert mostly["cutoff"][CNN] == "2.0 (1.5 to 4.0)"
    assert "top_1" not in mostly


def test_several_seeds_come_with_their_spread():
    seeds = [measured([[n]], {"cutoff": [float(n), 0.0, 9.0]}) for n in (2, 4)]
    told = tables.lines(seeds)
    assert told["needed"][DINA] == "3.0 ± 1.4"
    assert told["cutoff"][DINA] == "3.0 ± 1.4"
