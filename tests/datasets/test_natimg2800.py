"""Recordings of Stringer et al. (2019): what is in the files is what comes out, trial by trial."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.datasets.stringer_files import (
    N_IMAGES,
    N_NEURONS,
    RED,
    cells,
    make_images,
    make_position,
    make_stim,
    write_classes,
    write_images,
    write_recording,
    write_table,
    write_v73,
)

PREPARATION = Path(__file__).parents[1] / "reference" / "dina" / "preparation.npz"
NAME = "natimg2800_M170717_MP033_2017-08-20.mat"
MOUSE = "M170717_MP033_2017-08-20"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("natimg2800")
    write_recording(folder / NAME)
    write_images(folder / "images_natimg2800_all.mat")
    write_classes(folder / "classes.mat", np.arange(N_IMAGES) % 3)
    return folder


def read(folder, path=None, **options):
    path = folder / NAME if path is None else path
    return v1.read_natimg2800(path, folder / "images_natimg2800_all.mat", **options)


@pytest.fixture(scope="module")
def recording(folder):
    return read(folder)[MOUSE].to_dataset()


class TestTrials:
    def test_every_presentation_of_an_image_is_a_trial_and_grey_is_left_out(self, recording):
        stim, images = make_stim(), make_images()
        shown = stim["istim"][:, 0].astype(int) - 1
        kept = shown < N_IMAGES
        v1.validate_recordings({"m": recording})
        assert recording.sizes["trial"] == 2 * N_IMAGES
        np.testing.assert_array_equal(recording["image_id"], shown[kept])
        np.testing.assert_array_equal(recording["trial_id"], np.flatnonzero(kept))
        np.testing.assert_array_equal(recording["stimuli"][:, 0], images[shown[kept]])
        np.testing.assert_array_equal(recording["responses"], stim["resp"][kept][:, RED == 0])
        assert recording["stimuli"].dtype == np.uint8
        assert recording["responses"].dtype == np.float32
        counts = np.unique(recording["image_id"], return_counts=True)[1]
        assert (counts == 2).all()

    def test_spontaneous_activity_is_of_the_same_cells(self, recording):
        expected = make_stim()["spont"][:, RED == 0]
        assert recording["spontaneous"].dims == ("frame", "neuron")
        np.testing.assert_array_equal(recording["spontaneous"], expected)

    def test_recordings_may_lack_it(self, folder, tmp_path):
        path = write_recording(tmp_path / NAME, make_stim() | {"spont": np.zeros((0, 0))})
        assert "spontaneous" not in read(folder, path)[MOUSE]

    def test_red_cells_are_left_out_of_all_or_told(self, folder, recording):
        np.testing.assert_array_equal(recording["neuron"], np.flatnonzero(RED == 0))
        np.testing.assert_allclose(recording["position"], make_position()[RED == 0], rtol=1e-6)
        assert recording["axis"].values.tolist() == ["x", "y", "z"]
        kept = read(folder, red_cells="keep")[MOUSE]
        np.testing.assert_array_equal(kept["red_cell"], RED == 1)
        assert kept["neuron"].values.tolist() == list(range(N_NEURONS))
        np.testing.assert_array_equal(kept["responses"][:, RED == 0], recording["responses"])

    def test_recordings_that_tell_no_red_cells_keep_all(self, folder, tmp_path):
        path = write_recording(tmp_path / NAME, stat=cells(None))
        assert read(folder, path)[MOUSE].sizes["neuron"] == N_NEURONS

    def test_what_was_not_recorded_stays_so(self, folder, tmp_path):
        stim = make_stim()
        stim["resp"][:, 3] = np.nan
        found = read(folder, write_recording(tmp_path / NAME, stim))[MOUSE]
        lost = np.isnan(found["responses"].values)
        assert lost.all(axis=0).tolist() == [False, False, True, False, False]  # 0, 2, 3, 4, 6
        assert lost.sum() == len(lost)

    def test_several_recordings_are_called_by_mouse_and_date(self, folder, tmp_path):
        other = write_recording(tmp_path / "natimg2800_M160825_MP027_2016-12-14.mat")
        projected = write_recording(tmp_path / "natimg2800_8D_M1_2017-01-01.mat")
        found = read(folder, [folder / NAME, other, projected])
        assert list(found.children) == [MOUSE, "M160825_MP027_2016-12-14", "M1_2017-01-01"]
        named = read(folder, [folder / NAME, other], names=["a", "b"])
        assert list(named.children) == ["a", "b"]

    def test_images_of_other_types_are_read_as_floats(self, folder, tmp_path):
        images = make_images(np.float64) / 255
        path = write_images(tmp_path / "images.mat", images)
        found = v1.read_natimg2800(folder / NAME, path)[MOUSE]
        assert found["stimuli"].dtype == np.float32
        expected = images[found["image_id"].values].astype("f4")
        np.testing.assert_array_equal(found["stimuli"][:, 0], expected)


class TestSplit:
    def test_images_are_split_as_published_and_their_repeats_stay_together(self, recording):
        with np.load(PREPARATION) as file:
            test = file["split_50/test"]
            train = file["split_50/train"]
        tiers, ids = recording["tier"].values, recording["image_id"].values
        assert set(ids[tiers == "test"].tolist()) == set(test.tolist())
        assert set(ids[tiers != "test"].tolist()) == set(train.tolist())
        assert len(set(ids[tiers == "validation"].tolist())) == 5
        pairs = set(zip(ids.tolist(), tiers.tolist(), strict=True))
        assert len(pairs) == N_IMAGES

    def test_tiers_that_are_not_asked_for_are_not_there(self, folder):
        found = read(folder, test_fraction=0, validation_fraction=0)[MOUSE]
        assert set(found["tier"].values.tolist()) == {"train"}

    @pytest.mark.parametrize("name", ["test_fraction", "validation_fraction"])
    @pytest.mark.parametrize("value", [1, -0.1, "0.1", True, np.nan])
    def test_shares_that_are_none_are_refused(self, folder, name, value):
        with pytest.raises(ValueError, match=rf"{name} is .*, expected a number in \[0, 1\)"):
            read(folder, **{name: value})

    def test_some_images_are_left_for_training(self, folder):
        with pytest.raises(ValueError, match="of 50 images leave none for training"):
            read(folder, test_fraction=0.5, validation_fraction=0.5)


class TestClasses:
    def test_trials_tell_the_class_of_their_image(self, folder):
        found = read(folder, classes=folder / "classes.mat")[MOUSE]
        expected = np.array(["unknown", "birds", "cats"])[found["image_id"].values % 3]
        assert found["category"].dims == ("trial",)
        np.testing.assert_array_equal(found["category"], expected)

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            (np.zeros(49), "class_assignment has 49 values; expected one for each of 50 images"),
            (np.r_[np.zeros(49), np.nan], "50 values, nan among them; expected"),
            (np.r_[np.zeros(49), 3], "3.0 among them; expected .* whole numbers from 0 to 2"),
        ],
    )
    def test_classes_that_fit_no_images_are_refused(self, folder, tmp_path, numbers, message):
        path = write_classes(tmp_path / "classes.mat", numbers)
        with pytest.raises(ValueError, match=message):
            read(folder, classes=path)

    def test_names_that_are_written_as_nothing_are_refused(self, folder, tmp_path):
        path = write_classes(tmp_path / "classes.mat", np.arange(N_IMAGES) % 3)
        path.write_bytes(with_last_cell_empty(path.read_bytes()))
        with pytest.raises(ValueError, match=r"classes.mat.*a cell of 'class_names'.* is empty"):
            read(folder, classes=path)


def with_last_cell_empty(data):
    """A file of version 5 whose last variable holds cells, the last of which becomes a bare tag."""
    variable = 128
    while (end := variable + 8 + int.from_bytes(data[variable + 4 : variable + 8], "little")) < len(
        data
    ):
        variable = end
    tag = data.rfind((14).to_bytes(4, "little"))
    n_bytes = int.from_bytes(data[tag + 4 : tag + 8], "little")
    assert variable < tag
    assert tag + 8 + n_bytes == len(data)
    size = (end - variable - 8 - n_bytes).to_bytes(4, "little")
    return data[: variable + 4] + size + data[variable + 8 : tag + 4] + bytes(4)


class TestLayouts:
    def test_a_table_of_one_response_per_image(self, tmp_path):
        rng, images = np.random.default_rng(0), make_images()
        responses = rng.random((N_IMAGES, 4))
        paths = write_table(tmp_path / "M6", responses, images)
        found = v1.read_natimg2800(*paths)["M6"]
        np.testing.assert_array_equal(found["responses"], responses.astype("f4"))
        np.testing.assert_array_equal(found["stimuli"][:, 0], images)
        assert found["image_id"].values.tolist() == list(range(N_IMAGES))
        assert not {"trial_id", "position"} & set(found.coords)
        assert "spontaneous" not in found
        copied = pickle.loads(pickle.dumps(v1.Trials(found)))  # mapped images among it
        np.testing.assert_array_equal(copied.get("stimuli", "M6")[:, 0], images)

    def test_a_table_has_a_row_for_each_image(self, tmp_path):
        paths = write_table(tmp_path / "M6", np.ones((49, 4)), make_images())
        with pytest.raises(ValueError, match=r"'M6': responses are to 49 images .* of 50"):
            v1.read_natimg2800(*paths)

    def test_version_73_gives_the_same(self, folder, tmp_path):
        path = write_v73(tmp_path / NAME)
        plain = write_recording(tmp_path / "plain.mat", stat=cells(None), compressed=False)
        expected = read(folder, plain, names=[MOUSE])
        xr.testing.assert_identical(read(folder, path), expected)

    def test_version_73_that_does_not_tell_red_cells_is_refused_unless_all_are_kept(
        self, folder, tmp_path
    ):
        path = write_v73(tmp_path / NAME, marks={"npix": np.ones((1, N_NEURONS))})
        with pytest.raises(ValueError, match=r"stat.redcell of version 7.3 .* red_cells='keep'"):
            read(folder, path)
        assert read(folder, path, red_cells="keep")[MOUSE].sizes["neuron"] == N_NEURONS


class TestSpontaneousActivity:
    def test_it_comes_through_files_and_selections(self, recording, tmp_path):
        trials = v1.Trials({"m": recording})
        some = trials.sel(tier="test", neuron={"m": [6, 2]})
        some.to_netcdf(tmp_path / "some.nc")
        opened = v1.Trials.open(tmp_path / "some.nc")
        expected = make_stim()["spont"][:, [6, 2]]
        for view in (some, some[:3], opened, opened[[0]], pickle.loads(pickle.dumps(some))):
            np.testing.assert_array_equal(view["m"]["spontaneous"], expected)
            np.testing.assert_array_equal(view.recordings["m"]["spontaneous"], expected)
        assert opened["m"]["spontaneous"].attrs["units"] == "a.u."
        np.testing.assert_array_equal(
            opened.sel(neuron={"m": [2]})["m"]["spontaneous"], expected[:, 1:]
        )

    def test_files_keep_it_on_disk_until_it_is_used(self, recording, tmp_path):
        v1.save_recordings({"m": recording}, tmp_path / "m.nc")
        opened = v1.open_recordings(tmp_path / "m.nc")
        assert not opened["m"]["spontaneous"].variable._in_memory
        opened.close()

    def test_responses_leave_it_behind(self, recording):
        frames = np.zeros((5000, recording.sizes["neuron"]), "f4")
        longer = recording.drop_vars("spontaneous").assign(
            spontaneous=(("frame", "neuron"), frames)
        )
        assert len(pickle.dumps(v1.Trials({"m": longer}).responses)) < frames.nbytes / 2

    def test_parts_of_a_recording_are_joined_with_it(self, recording):
        trials = v1.Trials({"m": recording})
        parts = [v1.Trials({"m": trials[start : start + 5]["m"]}) for start in (0, 5)]
        joined = v1.concat(parts)
        np.testing.assert_array_equal(joined["m"]["spontaneous"], recording["spontaneous"])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: v.transpose(), r"'m', spontaneous: dims are .* expected \('frame', 'neu"),
            (lambda v: v.astype(str), "'m', spontaneous: dtype is <U32, expected numbers"),
            (lambda v: v.where(v["frame"] != 4), "'m', spontaneous: nan in frame 4; expected fin"),
            (lambda v: v[:0], r"expected \('frame', 'neuron'\), at least one frame"),
        ],
    )
    def test_it_is_validated(self, recording, change, message):
        values = recording["spontaneous"].assign_coords(frame=np.arange(30))
        changed = recording.drop_vars("spontaneous").assign(spontaneous=change(values))
        with pytest.raises(ValueError, match=message):
            v1.validate_recordings({"m": changed})


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"istim": np.ones((3, 1))}, r"stim.istim has 3 values in .*; expected 105"),
            ({"istim": np.full((105, 1), 52.0)}, "names the image 52 in .* from 1 to 50.* 51 for"),
            ({"istim": np.full((105, 1), 0.0)}, "names the image 0 in"),
            ({"istim": np.full((105, 1), 1.5)}, "names the image 1.5 in"),
            ({"istim": np.full((105, 1), 51.0)}, "all trials show the grey screen"),
            ({"resp": np.ones((105, 7, 2))}, "stim.resp has shape"),
            ({"resp": np.full((105, 7), np.inf)}, "stim.resp holds NaN or Inf .* or NaN"),
            ({"resp": np.zeros((0, 0))}, "stim.resp is missing or empty"),
            ({"resp": "text"}, "'stim.resp' in it is no array of real numbers"),
            ({"spont": np.ones((30, 6))}, r"stim.spont has shape \(30, 6\) in .* \(frames, 7\)"),
            ({"spont": np.full((30, 7), np.nan)}, "stim.spont holds NaN or Inf"),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, folder, tmp_path, change, message):
        path = write_recording(tmp_path / NAME, make_stim() | change)
        with pytest.raises(ValueError, match=message) as error:
            read(folder, path)
        assert str(path) in str(error.value) or MOUSE in str(error.value)

    def test_red_cells_that_cannot_be_told_are_refused(self, folder, tmp_path):
        marks = cells()
        marks["redcell"][0, 2] = np.zeros((0, 0))
        path = write_recording(tmp_path / NAME, stat=marks)
        with pytest.raises(ValueError, match=r"stat.redcell in it holds other values"):
            read(folder, path)
        fewer = write_recording(tmp_path / NAME, stat=cells()[:, :5])
        with pytest.raises(ValueError, match="stat has 5 cells"):
            read(folder, fewer)
        with pytest.raises(ValueError, match="all cells are red"):
            read(folder, write_recording(tmp_path / NAME, stat=cells(np.ones(N_NEURONS))))

    def test_positions_that_do_not_fit_are_refused(self, folder, tmp_path):
        path = write_recording(tmp_path / NAME, med=np.ones((6, 3)))
        with pytest.raises(ValueError, match=r"med has shape \(6, 3\) in .*; expected \(7, 3\)"):
            read(folder, path)

    def test_files_of_something_else_are_told_by_what_they_hold(self, folder):
        images, classes = folder / "images_natimg2800_all.mat", folder / "classes.mat"
        with pytest.raises(ValueError, match=r"holds \['class_assignment', .* structure 'stim'"):
            v1.read_natimg2800(classes, images)
        with pytest.raises(ValueError, match=r"expected 'imgs' .height, width, images."):
            v1.read_natimg2800(folder / NAME, classes)
        with pytest.raises(ValueError, match="no MATLAB file"):
            v1.read_natimg2800(__file__, images)
        with pytest.raises(FileNotFoundError, match="expected a file of natimg2800"):
            v1.read_natimg2800(folder / "none.mat", images)
        with pytest.raises(ValueError, match="red_cells='no': expected one of"):
            read(folder, red_cells="no")

    def test_images_that_are_not_finite_are_refused(self, folder, tmp_path):
        images = make_images(np.float32)
        images[7, 0, 0] = np.nan
        path = write_images(tmp_path / "images.mat", images)
        with pytest.raises(ValueError, match="image 7 holds NaN or Inf"):
            v1.read_natimg2800(folder / NAME, path)
