import numpy as np
import pytest

import v1tlearn as v1
from tests.datasets.nat60k_files import make_macaque
from v1tlearn.datasets import read_cadena2019


def read(path, held, **options):
    np.savez(path, **held)
    return read_cadena2019(path, **options)


def test_rows_of_both_tiers_come_first_then_the_repeats(tmp_path):
    held = make_macaque()
    tree = read(tmp_path / "a.npz", held)
    assert list(tree.children) == ["macaque"]
    found = tree["macaque"].to_dataset()
    v1.validate_recordings({"macaque": found})
    n = len(held["images"])
    assert np.array_equal(found["stimuli"].values[:n], held["images"])
    tiers = found["tier"].values
    assert np.array_equal(np.flatnonzero(tiers == "validation"), held["val_idx"])
    assert np.array_equal(np.flatnonzero(tiers == "train"), held["train_idx"])
    assert (tiers[n:] == "test").all()
    expected = np.where(held["real_responses"], held["responses"], np.nan)
    np.testing.assert_array_equal(found["responses"].values[:n], expected)
    repeats = held["test_responses"].copy()
    for neuron, own in enumerate(held["repetitions"]):
        repeats[own:, :, neuron] = np.nan
    np.testing.assert_array_equal(found["responses"].values[n:], repeats.reshape(-1, 3))
    shown = np.tile(held["test_images"], (4, 1, 1, 1))
    assert np.array_equal(found["stimuli"].values[n:], shown)
    assert found["animal_id"].values.tolist() == [1, 1, 2]
    assert found["repetitions"].values.tolist() == [4, 3, 2]


def test_equal_images_share_their_id(tmp_path):
    held = make_macaque()
    ids = read(tmp_path / "a.npz", held)["macaque"]["image_id"].values
    assert ids[0] == ids[1]
    assert len(np.unique(ids)) == 11 + 3
    assert ids[12] == ids[15] == ids[18]
    held["image_ids"] = np.array([70, 70, *range(71, 81)])
    ids = read(tmp_path / "b.npz", held)["macaque"]["image_id"].values
    assert ids[:12].tolist() == held["image_ids"].astype(str).tolist()
    assert len(np.unique(ids)) == 11 + 3


@pytest.mark.parametrize(("one", "other"), [("u1", "f4"), ("f8", "u1"), ("i2", "f4")])
def test_equal_images_of_unequal_types_share_their_id(tmp_path, one, other):
    held = make_macaque()
    held["images"] = held["images"].astype(one)
    held["test_images"] = np.concatenate([held["images"][3:4], held["test_images"][1:]])
    held["test_images"] = held["test_images"].astype(other)
    ids = read(tmp_path / "a.npz", held)["macaque"]["image_id"].values
    assert ids[12] == ids[3]
    assert len(np.unique(ids)) == 11 + 2


def test_metrics_use_the_repeats_that_each_neuron_has(tmp_path):
    held = make_macaque(n_test=20)
    tree = read(tmp_path / "a.npz", held)
    test = v1.Trials(tree).sel(tier="test").responses
    got = v1.metrics.fev(test, multioutput="raw_values")
    trials = held["test_responses"].reshape(-1, 3)
    expected = v1.metrics.fev(
        trials,
        image_ids=np.tile(np.arange(20), 4),
        first_repeats=held["repetitions"],
        multioutput="raw_values",
    )
    np.testing.assert_allclose(got.values, expected.values)


def test_images_are_cropped_and_trials_that_nobody_has_are_left_out(tmp_path):
    held = make_macaque()
    del held["real_responses"], held["subject_id"]
    held["images"] = held["images"][:, 0].astype("u1")
    held["test_images"] = held["test_images"][:, 0].astype("u1")
    held["repetitions"] = np.array([3, 3, 2])
    held["val_idx"] = held["val_idx"][:1]
    found = read(tmp_path / "a.npz", held, name="m", crop=2)["m"].to_dataset()
    assert found.sizes["trial"] == 10 + 9
    assert found["stimuli"].dtype == np.uint8
    expected = held["images"][[0, 1, 2, 3, 4, 5, 6, 8, 9, 10]][:, None, 2:8, 2:8]
    assert np.array_equal(found["stimuli"].values[:10], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("responses"), "has no array 'responses'"),
        (lambda h: h.update(images=h["images"][0, 0]), "images has shape"),
        (lambda h: h.update(images=h["images"] * np.nan), "images holds numbers that are not"),
        (lambda h: h.update(responses=h["responses"][1:]), r"expected \(12, neurons\)"),
        (lambda h: h.update(responses=h["responses"] + np.inf), "not finite"),
        (lambda h: h.update(real_responses=h["real_responses"][1:]), "real_responses has shape"),
        (lambda h: h.update(test_responses=h["test_responses"][:, 1:]), r"\(repeats, 3, 3\)"),
        (lambda h: h.update(val_idx=h["train_idx"][:2]), "in train_idx and val_idx"),
        (lambda h: h.update(train_idx=np.array([0, 12])), "below 12, each once"),
        (lambda h: h.update(train_idx=np.array([0, 0])), "below 12, each once"),
        (lambda h: h.update(repetitions=np.array([0, 1, 2])), "numbers from 1 on"),
        (lambda h: h.update(repetitions=np.array([4, 1.5, 2])), "whole numbers from 1 on"),
        (lambda h: h.update(repetitions=np.array([4, np.inf, 2])), "whole numbers from 1 on"),
        (lambda h: h.update(repetitions=np.array(["4", "3", "2"])), "whole numbers from 1 on"),
        (lambda h: h.update(real_responses=h["real_responses"] / 2), "than 0 and 1; expected tru"),
        (
            lambda h: h.update(real_responses=np.where(h["real_responses"], 1.0, np.nan)),
            "real_responses holds other values",
        ),
        (lambda h: h.update(subject_id=np.array([1])), "subject_id has 1 values"),
        (lambda h: h.update(image_ids=np.array([1])), "image_ids has 1 values"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    held = make_macaque()
    change(held)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path / "a.npz", held)
    assert "a.npz" in str(error.value)


def test_crops_that_leave_nothing_and_missing_files_are_refused(tmp_path):
    for crop in (5, -1, 1.5):
        with pytest.raises(ValueError, match=f"crop is {crop} of images 10 x 10"):
            read(tmp_path / "a.npz", make_macaque(), crop=crop)
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_cadena2019(tmp_path / "nothing.npz")
