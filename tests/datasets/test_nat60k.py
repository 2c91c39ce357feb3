import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import v1tlearn as v1
from tests.datasets.nat60k_files import (
    STACK_V73,
    few_images,
    make_responses,
    make_stack,
    make_texture_responses,
    write_stack,
)
from v1tlearn.datasets import read_nat60k, read_text16
from v1tlearn.datasets.mat_files import read_mat

REFERENCE = Path(__file__).parents[1] / "reference" / "minimodel"
STACK = make_stack()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nat60k")


@pytest.fixture(scope="module")
def images(folder):
    return write_stack(folder / "nat60k_text16.mat", STACK)


@pytest.fixture(scope="module")
def responses(folder):
    path = folder / "mouse1_nat60k_2023_02_27.npz"
    np.savez(path, **make_responses())
    return path


def read(responses, images, **options):
    (recording,) = read_nat60k(responses, images, **({"window": None} | options)).children.values()
    return recording.to_dataset()


def test_single_trials_come_first_then_the_repeats_image_by_image(responses, images):
    held, found = make_responses(), read(responses, images)
    counts = [len(repeats) for repeats in held["ss_all"]]
    shown = np.concatenate([held["istim_sp"], np.repeat(held["istim_ss"], counts)])
    assert found["stimuli"].dims == ("trial", "channel", "height", "width")
    assert found["stimuli"].dtype == np.uint8
    assert np.array_equal(found["stimuli"].values[:, 0], STACK[shown])
    expected = np.concatenate([held["sp"].T, *held["ss_all"]])
    assert np.array_equal(found["responses"].values, expected)
    assert found["responses"].dtype == np.float32
    assert np.array_equal(found["image_id"].values, shown)
    tiers = found["tier"].values
    assert np.array_equal(np.flatnonzero(tiers == "validation"), [0, 10, 20, 30])
    assert (tiers[40:] == "test").all()
    assert (tiers == "train").sum() == 36
    v1.validate_recordings({"m": found})


def test_positions_are_in_micrometres_and_planes_are_kept(responses, images):
    held, found = make_responses(), read(responses, images)
    expected = np.stack([held["xpos"] / 0.75, held["ypos"] / 0.5], axis=1)
    np.testing.assert_allclose(found["position"].values, expected)
    assert found["position"].attrs["units"] == "um"
    assert found["axis"].values.tolist() == ["x", "y"]
    assert np.array_equal(found["plane"].values, held["iplane"])


def test_statistics_are_those_of_the_whole_stack_and_of_the_training_trials(responses, images):
    held, found = make_responses(), read(responses, images, window=(1, 5))
    shown = STACK[:, :, 1:5].astype("f8")
    assert found["stimuli_mean"].item() == pytest.approx(shown.mean(), rel=1e-12)
    assert found["stimuli_std"].item() == pytest.approx(shown.std(), rel=1e-12)
    train = np.delete(held["sp"].T, [0, 10, 20, 30], axis=0)
    np.testing.assert_allclose(found["responses_mean"], train.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["responses_std"], train.std(axis=0), rtol=1e-6)


@pytest.mark.parametrize("every", [None, 1, 19])
def test_every_so_manieth_trial_validates(responses, images, every):
    tiers = read(responses, images, validation_every=every)["tier"].values[:40]
    expected = [] if every is None else list(range(0, 40, every))
    assert np.flatnonzero(tiers == "validation").tolist() == expected


# ------------------------------------------------------------------------------- mirrored copies


def test_mirrored_test_images_are_named(responses, images):
    found = read(responses, images)["flip_of"].values
    assert np.array_equal(np.flatnonzero(found >= 0), [3, 11])
    assert found[[3, 11]].tolist() == [7, 499]


@pytest.mark.parametrize(
    ("flips", "left_out"),
    [
        ("keep", []),
        ("drop", [3, 11]),
        ("drop_published", [3, 11, 20]),
        ("originals", [3, 11, 20, 21, 22, 23]),
    ],
)
def test_mirrored_test_images_are_left_out_as_asked_for(responses, images, flips, left_out):
    held, found = make_responses(), read(responses, images, flips=flips)
    kept = np.delete(np.arange(40), left_out)
    n = len(kept)
    assert np.array_equal(found["image_id"].values[:n], held["istim_sp"][kept])
    assert np.array_equal(found["responses"].values[:n], held["sp"].T[kept])
    tiers = found["tier"].values
    assert np.array_equal(np.flatnonzero(tiers == "validation"), np.arange(0, n, 10))
    assert tiers[n] == "test"


def test_copies_elsewhere_in_the_stack_are_found_by_content(tmp_path, responses):
    stack = STACK.copy()
    place = make_responses()["istim_sp"][5]
    stack[place] = stack[42][:, ::-1]
    found = read(responses, write_stack(tmp_path / "a.mat", stack))["flip_of"].values
    assert found[5] == 42
    assert np.array_equal(np.flatnonzero(found >= 0), [3, 5, 11])


def test_copies_by_place_that_are_none_by_content_count_and_are_told(tmp_path, responses):
    stack = STACK.copy()
    stack[30_007] += 1
    path = write_stack(tmp_path / "a.mat", stack)
    with pytest.warns(UserWarning, match="1 images that by their place .* the first 30007"):
        found = read(responses, path)["flip_of"].values
    assert found[[3, 11]].tolist() == [7, 499]


def test_estimators_warn_of_training_on_mirrored_test_images(tmp_path):
    images = write_stack(tmp_path / "a.mat", make_stack(8, 12))
    np.savez(tmp_path / "mouse_nat60k_2023_02_27.npz", **make_responses())
    model = v1.LNRegressor(
        input_kernel=5, hidden_kernel=3, hidden_channels=2, n_layers=1, image_size=(8, 12),
        max_epochs=1, random_state=0, validation_fraction=0.2,
    )  # fmt: skip
    path = tmp_path / "mouse_nat60k_2023_02_27.npz"
    trials = v1.Trials(read_nat60k(path, images, window=None)).sel(tier="train")
    with pytest.warns(UserWarning, match="2 of 36 training trials show .* flip_of"):
        model.fit(trials)
    dropped = v1.Trials(read_nat60k(path, images, window=None, flips="drop")).sel(tier="train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(dropped)
        model.fit(trials.sel(flip_of=-1))


# ------------------------------------------------------------------------------------- references


def test_responses_agree_with_the_published_preprocessing(tmp_path, images):
    with np.load(REFERENCE / "responses.npz") as file:
        reference = dict(file)
    n_repeats, test = reference["n_repeats"], reference["test_responses"]
    repeats = [trials[:n] for trials, n in zip(test, n_repeats, strict=True)]
    filled = repeats + [np.ones((1, 5), "f4")] * (500 - len(repeats))
    objects = np.empty(500, object)
    objects[:] = filled
    held = {"sp": reference["sp_neuron_major"], "istim_sp": reference["istim_sp"]}
    path = tmp_path / "L1_A1_nat60k_2023_03_06.npz"
    np.savez(path, **held, ss_all=objects, istim_ss=np.arange(500))
    for flips, name in (
        ("keep", "default"),
        ("drop_published", "mouse_1_published"),
        ("drop", "mouse_1_stated"),
        ("originals", "unique_images_only"),
    ):
        found = read(path, images, flips=flips)
        kept = reference[f"kept_istim/{name}"]
        assert np.array_equal(found["image_id"].values[: len(kept)], kept)
        assert found["tier"].values[len(kept)] == "test"
    found = read(path, images)
    n = len(held["istim_sp"])
    for tier, name in (("train", "train"), ("validation", "validation")):
        trials = np.flatnonzero(found["tier"].values == tier)
        assert np.array_equal(trials, reference[f"split/{name}"])
    for fraction, every in (("0.8", 5), ("0.95", 19), ("0.5", 2)):
        tiers = read(path, images, validation_every=every)["tier"].values
        expected = reference[f"split_other_fractions/validation_{fraction}"]
        assert np.array_equal(np.flatnonzero(tiers == "validation"), expected)
    scale = np.maximum(found["responses_std"].values, 0.01)  # the published floor
    close(scale, reference["scale"])
    scaled = found["responses"].values / scale
    close(scaled[:n], reference["scaled_responses"])
    expected = np.concatenate(
        [t[:k] for t, k in zip(reference["scaled_test_responses"], n_repeats, strict=True)]
    )
    close(scaled[n : n + len(expected)], expected)


@pytest.mark.parametrize(("window", "downsample"), [((0, 130), 1), ((0, 130), 2), ((46, 176), 2)])
def test_images_agree_with_the_published_preprocessing(tmp_path, window, downsample):
    case = f"window_{window[0]}_{window[1]}_downsample_{downsample}/"
    with np.load(REFERENCE / "images.npz") as file:
        images = file["images"]
        reference = {name.removeprefix(case): file[name] for name in file if case in name}
    path = write_stack(tmp_path / "a.mat", images)
    n = len(images)
    held = {"sp": np.ones((1, n)), "istim_sp": np.arange(n)}
    np.savez(tmp_path / "a.npz", **held, ss_all=np.ones((1, 2, 1)), istim_ss=[0])
    found = read(
        tmp_path / "a.npz", path, window=window, downsample=downsample, validation_every=None
    )
    close(found["stimuli_mean"].values, reference["mean"])
    close(found["stimuli_std"].values, reference["std"])
    stimuli = found["stimuli"].values[:n, 0]
    assert stimuli.shape == tuple(reference["shape"])
    scaled = (stimuli - found["stimuli_mean"].values) / found["stimuli_std"].values
    close(scaled[0], reference["zscored_image_0"])
    close(scaled.sum(axis=(1, 2)), reference["zscored_sum_per_image"])
    close((scaled**2).sum(axis=(1, 2)), reference["zscored_sum_of_squares_per_image"])
    # The same by an estimator's preprocessing, trained on each of the images once.
    trials = v1.Trials({"m": found.isel(trial=slice(n))})
    standardized = v1.TrialStandardizer().fit(trials).transform(trials)
    close(standardized.get("stimuli", "m")[0, 0], reference["zscored_image_0"])


def close(got, reference, tolerance=1e-5):
    assert np.abs(got - reference).max() <= tolerance * np.abs(reference).max()


# ------------------------------------------------------------------------------------------ forms


def test_repeats_may_be_one_array(tmp_path, images):
    held = make_responses()
    held["ss_all"] = np.random.default_rng(0).random((500, 3, 4))
    np.savez_compressed(tmp_path / "a.npz", **held)
    found = read(tmp_path / "a.npz", images)
    expected = held["ss_all"].reshape(1500, 4).astype("f4")
    assert np.array_equal(found["responses"].values[40:], expected)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_repeats_may_be_pickled_arrays_of_any_protocol_and_order(tmp_path, images, protocol):
    held = make_responses()
    held["ss_all"][1] = np.asfortranarray(held["ss_all"][1].astype(">f8"))
    held["ss_all"][2] = held["ss_all"][2].astype("i2")
    path = write_with_pickle(tmp_path, held, pickle.dumps(held["ss_all"], protocol))
    found = read(path, images)
    expected = np.concatenate(list(held["ss_all"])).astype("f4")
    assert np.array_equal(found["responses"].values[40:], expected)


def test_repeats_may_be_numbers_as_objects(tmp_path, images):
    held = make_responses()
    values = np.random.default_rng(0).random((500, 2, 4))
    path = write_with_pickle(tmp_path, held, pickle.dumps(values.astype(object)))
    expected = values.reshape(1000, 4).astype("f4")
    assert np.array_equal(read(path, images)["responses"].values[40:], expected)


def write_with_pickle(folder, held, pickled):
    """Write the file of a mouse with these bytes as the pickle of its repeats."""
    path = folder / "mouse_nat60k_2023_02_27.npz"
    np.savez(path, **{name: values for name, values in held.items() if name != "ss_all"})
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (500,), }".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("ss_all.npy", start + pickled)
    return path


class Told(Exception):
    """Raised by what no file may run."""


class Runs:
    """Pickles as a call of whatever it names."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def raise_told(*args):
    raise Told


@pytest.mark.parametrize(
    "pickled",
    [
        pickle.dumps(Runs(raise_told, ())),
        pickle.dumps(Runs(print, ("printed",))),
        pickle.dumps(np.array([Runs(raise_told, ())], object)),
        pickle.dumps(np.array([{"a": 1}], object)),
        pickle.dumps(np.array([np.array([Runs(raise_told, ())], object)] * 2, object)),
        pickle.dumps([1, 2, 3]),
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes that are not there
        b"\x80\x04Nr\xff\xff\xff\x7f.",  # a place in the memo far out
        b"",
    ],
)
def test_nothing_of_a_file_is_run(tmp_path, images, pickled, capsys):
    path = write_with_pickle(tmp_path, make_responses(), pickled)
    with pytest.raises(ValueError, match=r"mouse_nat60k_2023_02_27\.npz"):
        read(path, images)
    assert capsys.readouterr().out == ""


def test_images_may_be_stored_in_hdf5(tmp_path):
    held, images = make_responses(), few_images()
    held["istim_sp"] = held["istim_sp"] % 600
    np.savez(tmp_path / "a.npz", **held)
    found = read(tmp_path / "a.npz", STACK_V73)
    assert np.array_equal(found["stimuli"].values[:, 0], images[found["image_id"].values])
    assert found["stimuli"].dtype == np.uint8
    assert found["stimuli_mean"].item() == pytest.approx(images.mean())


@pytest.mark.parametrize("kind", ["compressed", "double", "small"])
def test_images_may_be_stored_in_other_ways(tmp_path, responses, kind):
    path = tmp_path / "a.mat"
    if kind == "double":
        write_stack(path, STACK.astype("f8"))
    elif kind == "small":  # beside others
        others = {"a": np.arange(3), "note": "text", "cell": np.array([1, "b"], object)}
        scipy.io.savemat(path, others | {"img": STACK.transpose(1, 2, 0)})
    else:
        write_stack(path, STACK, compressed=True)
    found = read(responses, path)
    dtype = np.float32 if kind == "double" else np.uint8
    assert found["stimuli"].dtype == dtype
    assert np.array_equal(found["stimuli"].values[:, 0], STACK[found["image_id"].values])


def test_mapped_images_are_read_as_far_as_asked_for_and_pickled_by_place(responses, images):
    found = read(responses, images)
    content = pickle.dumps(found["stimuli"])
    assert len(content) < STACK.nbytes / 10
    again = pickle.loads(content)
    assert np.array_equal(again.values, found["stimuli"].values)
    part = found["stimuli"][[5, 2], :, 1, ::2]
    shown = found["image_id"].values[[5, 2]]
    assert np.array_equal(part.values[:, 0], STACK[shown][:, 1, ::2])
    assert np.array_equal(found["stimuli"][7].values[0], STACK[found["image_id"].values[7]])


def test_images_that_are_written_anew_are_not_read(tmp_path, responses):
    path = write_stack(tmp_path / "a.mat", STACK)
    found = read(responses, path)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="was written anew"):
        found["stimuli"].values  # noqa: B018


# ----------------------------------------------------------------------------------- several mice


def test_mice_share_the_stack_and_have_windows_of_their_own(tmp_path):
    stack = make_stack(2, 180)[:, :, :180]
    images = write_stack(tmp_path / "a.mat", stack)
    paths = []
    for name, seed in (("FX20_nat60k_2023_09_29", 1), ("L1_A5_nat60k_2023_02_27", 2)):
        paths.append(tmp_path / f"{name}.npz")
        np.savez(paths[-1], **make_responses(seed=seed))
    tree = read_nat60k(paths, images)
    assert list(tree.children) == ["FX20", "L1_A5"]
    for mouse, window in (("FX20", slice(46, 176)), ("L1_A5", slice(0, 130))):
        found = tree[mouse].to_dataset()
        expected = stack[found["image_id"].values[:5]][:, :, window]
        assert np.array_equal(found["stimuli"][:5].values[:, 0], expected)
        assert found["stimuli_mean"].item() == pytest.approx(stack[:, :, window].mean())
    renamed = read_nat60k(paths, images, names=["a", "b"], window={"a": (0, 9), "b": None})
    assert renamed["a"]["stimuli"].shape[3] == 9
    assert renamed["b"]["stimuli"].shape[3] == 180


# --------------------------------------------------------------------------------------- textures


@pytest.mark.parametrize("spelling", ["code", "readme"])
def test_textures_bring_their_categories(tmp_path, images, spelling):
    held = make_texture_responses()
    stored = dict(held)
    if spelling == "readme":
        stored["istim_sp"], stored["istim_ss"] = stored.pop("istim"), stored.pop("ss_istim")
    path = tmp_path / "text16_FX8_2023_05_16.npz"
    np.savez(path, **stored)
    tree = read_text16(path, images, window=None)
    assert list(tree.children) == ["FX8"]
    found = tree["FX8"].to_dataset()
    shown = np.concatenate([held["istim"], np.repeat(held["ss_istim"], 2)])
    assert np.array_equal(found["image_id"].values, shown)
    assert np.array_equal(found["stimuli"].values[:, 0], STACK[shown])
    labels = np.concatenate([held["labels"], np.repeat(held["ss_labels"], 2)])
    assert np.array_equal(found["category"].values, labels)
    expected = np.concatenate([held["sp"].T, held["ss_all"].reshape(16, 3)]).astype("f4")
    assert np.array_equal(found["responses"].values, expected)
    assert found["tier"].values.tolist() == ["train"] * 20 + ["test"] * 16
    assert "position" not in found
    responses = v1.Trials(tree).sel(tier="test").responses
    means = held["ss_all"].mean(axis=1)
    expected = v1.metrics.fecv(means.astype("f4"), categories=held["ss_labels"])
    assert v1.metrics.fecv(responses) == pytest.approx(expected, rel=1e-5)


def test_textures_counted_from_the_first_need_a_word(tmp_path, images):
    held = make_texture_responses()
    path = tmp_path / "text16_FX8_2023_05_16.npz"
    np.savez(
        path, **held | {"istim": held["istim"] - 60_000, "ss_istim": held["ss_istim"] - 60_000}
    )
    with pytest.raises(ValueError, match="pass first_image=60000"):
        read_text16(path, images, window=None)
    found = read_text16(path, images, window=None, first_image=60_000)["FX8"]
    assert np.array_equal(found["image_id"].values[:20], held["istim"])


@pytest.mark.parametrize("first", [0.5, 2.5, "a", True, -1, 10**30, [0], np.nan])
def test_first_images_that_are_no_numbers_of_images_are_refused(tmp_path, images, first):
    path = tmp_path / "text16_FX8_2023_05_16.npz"
    np.savez(path, **make_texture_responses())
    with pytest.raises(ValueError, match=r"first_image is .*expected a whole number from 0 on"):
        read_text16(path, images, window=None, first_image=first)
    found = read_text16(path, images, window=None, first_image=np.int64(0))["FX8"]
    assert found["image_id"].values.min() >= 60_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ss_labels": np.array(["a", "b"] * 4)}, "labels are of type int64 and ss_labels of type"),
        ({"labels": np.arange(20) % 2 == 0}, "labels are of type bool and ss_labels of type int64"),
        ({"istim": np.full(20, 60_001)}, r"image 60001 is in the categories \[0, 1\]"),
        ({"ss_istim": np.full(8, 60_001)}, r"image 60001 is in the categories \[0, 1\]"),
    ],
)
def test_categories_that_contradict_each_other_are_refused(tmp_path, images, change, message):
    path = tmp_path / "text16_FX8_2023_05_16.npz"
    np.savez(path, **make_texture_responses() | change)
    with pytest.raises(ValueError, match=message) as error:
        read_text16(path, images, window=None)
    assert path.name in str(error.value)


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("sp"), "has no array 'sp'"),
        (lambda h: h.pop("ss_all"), "has no array 'ss_all'"),
        (lambda h: h.pop("istim_sp"), "'istim_sp' or 'istim'"),
        (lambda h: h.update(sp=h["sp"].T), r"ss_all\[0\] has shape"),
        (lambda h: h.update(sp=h["sp"][0]), r"sp has shape \(40,\)"),
        (lambda h: h.update(sp=h["sp"].astype(str)), "expected numbers"),
        (lambda h: h.update(istim_sp=h["istim_sp"][1:]), "istim_sp has 39 values"),
        (lambda h: h.update(istim_sp=h["istim_sp"] + 0.5), "whole numbers"),
        (lambda h: h.update(istim_sp=h["istim_sp"] > 9), "istim_sp holds truth values"),
        (lambda h: h.update(istim_sp=h["istim_sp"] * np.nan), "whole numbers"),
        (lambda h: h.update(istim_sp=h["istim_sp"] + 40_000), "numbers below 68000"),
        (lambda h: h.update(istim_ss=h["istim_ss"] - 1), "numbers below 68000"),
        (lambda h: h.update(xpos=h["xpos"][1:]), "xpos has 3 values"),
        (lambda h: h.update(ypos=h["ypos"] * np.nan), "finite"),
        (lambda h: h.update(sp=h["sp"] * np.inf), "hold Inf"),
        (lambda h: h["ss_all"].__setitem__(4, np.ones((2, 9))), r"ss_all\[4\] has shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, images, change, message):
    held = make_responses()
    change(held)
    path = tmp_path / "mouse_nat60k_2023_02_27.npz"
    np.savez(path, **held)
    with pytest.raises(ValueError, match=message) as error:
        read(path, images)
    assert path.name in str(error.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": "auto"}, ValueError, "'mouse1': which columns .* pass window="),
        ({"window": (3, 3)}, ValueError, r"window is \(3, 3\)"),
        ({"window": (0, 7)}, ValueError, "6 wide"),
        ({"window": {"other": None}}, ValueError, "has no entry"),
        ({"flips": "sometimes"}, ValueError, "flips='sometimes'"),
        ({"validation_every": 0}, ValueError, "validation_every is 0"),
        ({"validation_every": 2.5}, ValueError, "validation_every is 2.5"),
        ({"window": (0, 2.5)}, ValueError, r"window is \(0, 2.5\)"),
        ({"window": "left"}, ValueError, "window is 'left'"),
        ({"downsample": 0.5}, ValueError, "downsample is 0.5"),
        ({"downsample": "2"}, ValueError, "downsample is '2'"),
        ({"downsample": 3}, ValueError, "downsample is 3 of images of 2 x 6 pixels"),
        ({"downsample": 100, "window": (1, 4)}, ValueError, "'mouse1': .* of 2 x 3 pixels"),
        ({"names": ["a", "b"]}, ValueError, "expected a name for each"),
        ({"names": "a"}, ValueError, "expected a name for each"),
    ],
)
def test_options_that_make_no_sense_are_refused(responses, images, options, error, message):
    with pytest.raises(error, match=message):
        read(responses, images, **options)


def test_files_that_are_missing_or_of_another_kind_are_named(tmp_path, responses, images):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        read(tmp_path / "nothing.npz", images)
    with pytest.raises(FileNotFoundError, match=r"nothing\.mat"):
        read(responses, tmp_path / "nothing.mat")
    with pytest.raises(ValueError, match=r"nat60k_text16\.mat.*no file of arrays"):
        read(images, images)
    with pytest.raises(ValueError, match=r"mouse1.*is no MATLAB file"):
        read(responses, responses)
    scipy.io.savemat(tmp_path / "other.mat", {"images": np.ones((2, 3, 4)), "img2": 1})
    with pytest.raises(ValueError, match=r"no 'img' in it, only .*images"):
        read(responses, tmp_path / "other.mat")
    scipy.io.savemat(tmp_path / "flat.mat", {"img": np.ones((20, 30))})
    with pytest.raises(ValueError, match=r"shape \(20, 30\), expected \(height, width, images\)"):
        read(responses, tmp_path / "flat.mat")
    scipy.io.savemat(tmp_path / "text.mat", {"img": "text"})
    with pytest.raises(ValueError, match="no array of real numbers"):
        read(responses, tmp_path / "text.mat")


@pytest.mark.parametrize("reader", [read_nat60k, read_text16])
def test_what_is_no_path_is_refused(responses, images, reader):
    for wrong in (5, None, [responses, 5]):
        with pytest.raises(TypeError, match=rf"responses is a .*{reader.__name__}\(responses"):
            reader(wrong, images)
    with pytest.raises(TypeError, match=r"images is a int: expected a path"):
        reader(responses, 5, window=None)
    with pytest.raises(TypeError, match=r"is a dict.*list\(paths.values\(\)\), images, names=list"):
        reader({"FX10": responses}, images)


def test_pixels_that_are_not_finite_are_refused_where_they_are_seen(tmp_path, responses):
    stack = STACK.astype("f4")
    stack[67_321, 1, 4] = np.nan
    path = write_stack(tmp_path / "a.mat", stack)
    with pytest.raises(ValueError, match=r"a\.mat: image 67321 holds NaN or Inf"):
        read(responses, path)
    assert np.isfinite(read(responses, path, window=(0, 4))["stimuli_mean"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.booleans(),
    st.booleans(),
)
def test_matlab_files_hold_what_was_written(tmp_path, dtype, shape, compressed, mapped):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"b": 1.0, "img": values}, do_compression=compressed)
    found = read_mat(path, "img")
    assert np.array_equal(found.values, values)
    assert found.place is None or not compressed
