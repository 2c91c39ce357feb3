"""The script that redoes the tables of the vision transformers, on a simulated mouse."""

import json

import pytest

from papers.vit_encoding2026 import pretrain, sweep


def row(block, seed, frozen, tuned, resolution=""):
    kinds = {"frozen": frozen, "fine-tuned": tuned}
    scores = {k: {"validation": v, "test": t} for k, (v, t) in kinds.items()}
    return {"block": block, "seed": seed, "resolution": resolution, **scores}


def test_the_block_chosen_on_test_images_is_told_apart_from_that_of_validation():
    rows = [
        row(1, 0, (0.5, 0.20), (0.1, 0.30)),
        row(4, 0, (0.4, 0.26), (0.2, 0.40)),
        row(4, 0, (0.4, 0.90), (0.2, 0.90), resolution="twice the pixels"),
    ]
    told = sweep.block_table(rows)
    assert "| 1 | 0.200 | 0.300 | 0.249 | - |" in told
    assert "| 4 | 0.260 | 0.400 | 0.321 | 0.517 |" in told
    assert "frozen: FEVE 0.200 with the block chosen on validation images, 0.260 with" in told
    assert "as the page did: 0.060 more" in told
    assert "fine-tuned: FEVE 0.400 with the block chosen on validation images, 0.400" in told
    assert "| twice the pixels | 0.900 | 0.900 |" in sweep.resolution_table(rows)


def test_several_seeds_come_with_their_spread():
    rows = [row(1, seed, (0.5, 0.1 + 0.1 * seed), (0.1, 0.3)) for seed in range(3)]
    assert "| 1 | 0.200 ± 0.100 | 0.300 ± 0.000 |" in sweep.block_table(rows)


def test_training_without_labels_learns(tmp_path):
    losses = pretrain.pretrain(tmp_path / "backbone", n_images=128, side=16, epochs=3)
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert (tmp_path / "backbone" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_command_goes_from_simulated_recordings_to_tables(tmp_path, capsys):
    small = ["--quick", "--blocks", "1", "2", "--trials", "120", "--neurons", "5"]
    small += ["--images", "64", "--epochs", "1", "--device", "cpu", "--out", str(tmp_path)]
    first = sweep.main(small)
    assert "FEVE" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "blocks.png").exists()
    kept = {path: path.read_text() for path in tmp_path.glob("*.json")}
    assert len(kept) == 5
    again = sweep.main(small)  # nothing is fitted again
    assert again["tables"] == first["tables"] == (tmp_path / "tables.md").read_text().strip() + "\n"
    assert all(json.loads(text)["frozen"]["test"] < 1 for text in kept.values())
    capsys.readouterr()
    with pytest.raises(SystemExit):
        sweep.main([])
    assert "--quick" in capsys.readouterr().err
