"""The script that redoes the tables of the vision transformers, on a simulated mouse."""

import json

import numpy as np
import pytest
import transformers

import v1tlearn as v1
from papers.minimodel2025.data import describe
from papers.v1t2023.jobs import keep_settings
from papers.vit_encoding2026 import data, fits, pretrain, published, sweep, tables

VITS = "facebook/dinov3-vits16-pretrain-lvd1689m"
VITB = "facebook/dinov3-vitb16-pretrain-lvd1689m"
REAL = {"mouse": "FX10", "quick": False, "flips": "drop"}


def row(block, seed, *by_stages, resolution=fits.PAGE, backbone=VITS):
    """Validation and test score without and with fine-tuning, the latter by number of stages."""
    scores = {str(n): {"validation": v, "test": t} for n, v, t in by_stages}
    found = {"backbone": backbone, "block": block, "seed": seed, "resolution": resolution}
    return found | {"scores": scores}


ROWS = [
    row(1, 0, (0, 0.5, 0.20)),
    row(4, 0, (0, 0.4, 0.26), (2, 0.2, 0.40)),
    row(5, 0, (0, 0.3, 0.25), (2, 0.3, 0.35)),
    row(1, 0, (0, 0.4, 0.90), resolution=fits.TWICE),
]


def cells(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_block_chosen_on_test_images_is_told_apart_from_that_of_validation():
    told = tables.block_table(ROWS, comparable=True)
    assert "frozen: FEVE 0.200 with the block chosen on validation images, 0.260 with" in told
    assert "as the page did: 0.060 more" in told
    assert "last 2: FEVE 0.350 with the block chosen on validation images, 0.400 with" in told
    assert cells(tables.resolution_table(ROWS), "twice the pixels") == ["0.900"]
    assert cells(tables.resolution_table(ROWS), "grid of the page") == ["0.200"]


@pytest.mark.parametrize(
    ("backbone", "stages", "page"),
    [(VITS, 2, ["0.321", "0.517"]), (VITB, 2, ["0.379", "0.511"]), (VITS, 4, ["0.321", "-"])],
)
def test_numbers_of_the_page_stand_beside_the_same_backbone_and_stages(backbone, stages, page):
    one = [row(4, 0, (0, 0.4, 0.26), (stages, 0.2, 0.4), backbone=backbone)]
    told = cells(tables.block_table(one, comparable=True), 4)
    assert told == ["0.260", page[0], "0.400", page[1]]


@pytest.mark.parametrize(("backbone", "comparable"), [("a-folder", True), (VITS, False)])
def test_no_number_of_the_page_stands_beside_anything_else(backbone, comparable):
    one = [row(4, 0, (0, 0.4, 0.26), (2, 0.2, 0.4), backbone=backbone)]
    told = tables.block_table(one, comparable)
    assert cells(told, 4) == ["0.260", "0.400"]
    assert "| page" not in told


def test_curves_have_all_blocks_and_peak_where_the_page_says():
    for (_, stages), curve in published.CURVES.items():
        if stages in (0, 2):
            assert sorted(curve) == list(range(1 if stages == 0 else 2, 13))
    peaks = {key: max(curve.values()) for key, curve in published.CURVES.items()}
    assert peaks.keys() == published.BEST.keys()
    assert all(abs(peaks[key] - value) <= 0.005 for key, value in published.BEST.items())


def test_the_table_of_the_page_has_all_its_rows():
    full = [{"seed": 0, "scores": {"validation": 0.5, "test": 0.61}}]
    told = tables.page_table(ROWS, full, comparable=True)
    assert cells(told, "full model 16-320, the page's CNN") == ["-", "0.610", "-", "0.665"]
    assert cells(told, "ViT-S, frozen") == ["1", "0.200", "0.260", "0.323"]
    assert cells(told, "ViT-S, last 2") == ["5", "0.350", "0.400", "0.517"]
    for stages, value in ((1, "0.490"), (3, "0.538"), (4, "0.545")):
        assert cells(told, f"ViT-S, last {stages}") == ["-", "-", "-", value]
    assert cells(told, "ViT-S, frozen, twice the pixels") == ["1", "0.900", "0.900", "-"]
    assert cells(told, "ViT-B, last 4, twice the pixels") == ["-", "-", "-", "0.635"]
    assert "is not settled" in told
    simulated = tables.page_table(ROWS, full, comparable=False)
    assert cells(simulated, "ViT-S, frozen") == ["1", "0.200", "0.260"]
    assert "ViT-B" not in simulated
    assert "is not settled" not in simulated


def test_several_seeds_come_with_their_spread():
    rows = [row(1, seed, (0, 0.5, 0.1 + 0.1 * seed), (1, 0.1, 0.3)) for seed in range(3)]
    told = cells(tables.block_table(rows, comparable=False), 1)
    assert told == ["0.200 ± 0.100", "0.300 ± 0.000"]


def test_the_figure_draws_curves_of_the_page(tmp_path):
    pytest.importorskip("matplotlib")
    for comparable in (False, True):
        tables.draw([ROWS], tmp_path / f"{comparable}.png", comparable)
    without, beside = ((tmp_path / f"{c}.png").read_bytes() for c in (False, True))
    assert without.startswith(b"\x89PNG")
    assert without != beside


def test_blocks_are_those_of_the_backbone(tmp_path):
    transformers.Dinov2Config(num_hidden_layers=14).save_pretrained(tmp_path)
    assert sweep.blocks_of(str(tmp_path), None) == list(range(14))
    assert sweep.blocks_of(str(tmp_path), [13, 2, 2]) == [1, 12]
    with pytest.raises(SystemExit, match=r"\[0, 15\].*has blocks 1 to 14"):
        sweep.blocks_of(str(tmp_path), [0, 1, 15])
    deep = [row(13, 0, (0, 0.4, 0.26), backbone=VITS)]
    assert cells(tables.block_table(deep, comparable=True), 13) == ["0.260", "-"]


def test_columns_are_the_left_half_for_the_mouse_of_the_page_alone():
    assert data.columns("FX10") == "left_half"
    assert data.columns("FX20") == {"FX20": (46, 176)}
    assert data.columns("FX8") == {"FX8": (0, 130)}


@pytest.mark.parametrize(("mouse", "first"), [("FX10", 0), ("FX20", 46)])
def test_simulated_mice_look_at_the_columns_of_the_real_ones(tmp_path, mouse, first):
    folder = data.simulate(tmp_path / "mouse", mouse, 2, 20, seed=0)
    whole = data.open_mouse(folder, mouse, "drop")
    window = data.open_mouse(folder, mouse, "drop", window="auto")
    assert whole.mice == [mouse]
    stimuli = whole.stimuli.get(mouse)[:3]
    assert stimuli.shape == (3, 1, 66, 264)
    np.testing.assert_array_equal(stimuli[..., first : first + 130], window.stimuli.get(mouse)[:3])
    with pytest.raises(ValueError, match="no file of mouse FX9, only of"):
        data.open_mouse(folder, "FX9", "drop")


def test_mirrored_test_images_are_left_out_unless_asked_for(tmp_path):
    folder = data.simulate(tmp_path / "mouse", "FX10", 2, 20, seed=0)
    (path,) = folder.glob("*.npz")
    with np.load(path) as file:
        held = dict(file)
    held["istim_sp"][3] = 50 + held["istim_ss"][0]  # behind 50 images lie their mirrored copies
    np.savez(path, **held)
    for flips, n_trials in ((sweep.parse(["--quick"]).flips, 19), ("published", 20)):
        trials = data.open_mouse(folder, "FX10", flips)
        assert len(trials.sel(tier=["train", "validation"])) == n_trials


def test_neurons_at_the_threshold_do_not_count():
    responses = np.array([[2.0, 0, 3, 10, 4, 11], [0, 1, 10, 11, 20, 21]]).T
    images = np.repeat(np.arange(3), 2)
    test = v1.Trials.from_arrays(np.zeros((6, 1, 2, 2)), None, responses, image_ids=images)
    assert v1.metrics.fev(test.responses, multioutput="raw_values")[0] == 0.15

    class Model:
        history_, best_epoch_, selection = [{"validation_correlation": 0.25}], 1, "correlation"

        def predict(self, trials):
            return trials.responses

    found = fits.scores(Model(), test)
    expected = v1.metrics.feve(test.responses, test.responses, multioutput="raw_values")
    assert found == {"validation": 0.25, "test": pytest.approx(float(expected[1]))}
    assert abs(float(expected[0] - expected[1])) > 0.1


def test_training_without_labels_learns(tmp_path):
    folder = tmp_path / "backbone"
    losses = pretrain.pretrain(folder, n_images=128, side=16, epochs=3)
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert (folder / "model.safetensors").exists()
    assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(FileExistsError, match="there already"):
        pretrain.pretrain(folder, n_images=128, side=16, epochs=3)


def test_a_backbone_is_there_whole_or_not_at_all(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # of weights
    try:
        with pytest.raises(Exception, match="File too large"):
            pretrain.pretrain(tmp_path / "backbone", n_images=32, side=16, epochs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "backbone").exists()


def test_simulated_and_recorded_mice_have_folders_of_their_own():
    quick, real = sweep.parse(["--quick"]), sweep.parse(["--data", "nat60k"])
    assert quick.out != real.out
    assert real.backbone == [VITS]


def test_other_weights_in_a_folder_are_told_apart(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = sweep.weights_of(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert sweep.weights_of(str(tmp_path)) != before
    assert sweep.weights_of(VITS) == VITS


def test_results_of_other_settings_are_not_taken(tmp_path):
    parsed = sweep.parse(["--quick", "--out", str(tmp_path)])
    settings = {name: getattr(parsed, name) for name in (*sweep._CHOICES, *sweep._QUICK_CHOICES)}
    keep_settings(tmp_path / "settings.json", settings, ["blocks"])
    for more, name in (
        (["--quick", "--mouse", "FX20"], "mouse"),
        (["--quick", "--fine-tune", "3"], "fine_tune"),
        (["--quick", "--epochs", "2"], "epochs"),
        (["--quick", "--images", "10"], "images"),
        (["--quick", "--neurons", "10"], "neurons"),
        (["--quick", "--flips", "published"], "flips"),
        (["--data", str(tmp_path)], "quick"),
    ):
        with pytest.raises(ValueError, match=f"another run: .*{name}.* differ"):
            sweep.main([*more, "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "or --quick"),
        (["--quick", "--data", "a"], "leave --data"),
        (["--quick", "--fine-tune", "0"], "from 1 on"),
        (["--data", "a", "--backbone", "x/vit", "y/vit"], "several of one name"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        sweep.parse(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_goes_from_simulated_files_to_tables(tmp_path):
    small = ["--quick", "--blocks", "1", "2", "--trials", "120", "--neurons", "5"]
    small += ["--images", "64", "--epochs", "1", "--device", "cpu", "--out", str(tmp_path)]
    first = sweep.main(small)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "jobs").iterdir()}
    assert "FEVE" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "blocks.png").exists()
    kept = {path.name: json.loads(path.read_text()) for path in (tmp_path / "jobs").iterdir()}
    assert len(kept) == 5  # two blocks, two more resolutions, the full model
    by_stages = [set(r["scores"]) for r in first["rows"] if r["block"] == 2]
    assert by_stages == [{"0", "2"}] * len(by_stages)
    trials = sweep.open_mouse(sweep.parse(small), 0)
    assert (
        describe(trials)
        == json.loads((tmp_path / "settings.json").read_text())["recording of seed 0"]
    )
    assert sweep.main(small)["tables"] == first["tables"]
    assert {path: path.stat().st_mtime_ns for path in written} == written  # fitted once
