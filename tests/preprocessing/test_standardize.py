import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import sklearn
import xarray as xr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import v1tlearn as v1
from v1tlearn.preprocessing import CenterCrop, ResizeStimuli, TrialStandardizer
from v1tlearn.trials import Trials

NAMES = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]


def make_recording(seed, n=40, names=NAMES, dtype="uint8"):
    rng = np.random.default_rng(seed)
    variables = {
        "stimuli": (
            ("trial", "channel", "height", "width"),
            rng.integers(10 * seed, 256, (n, 1, 6, 8)).astype(dtype),
        ),
        "responses": (("trial", "neuron"), rng.random((n, 3)).astype("float32")),
    }
    coords = {"tier": ("trial", np.where(np.arange(n) < n // 2, "train", "test"))}
    if names is not None:
        values = rng.standard_normal((n, len(names))) * 3 + 5 + seed
        variables["behaviors"] = (("trial", "behavior"), values.astype("float32"))
        coords["behavior"] = list(names)
    return xr.Dataset(variables, coords)


@pytest.fixture
def trials():
    return Trials({"A": make_recording(1), "B": make_recording(2)})


class TestTrials:
    def test_training_trials_come_out_standardised(self, trials):
        view = TrialStandardizer().fit_transform(trials)
        for mouse in view.mice:
            images = view.get("stimuli", mouse)
            assert images.dtype == np.float32
            assert images.mean() == pytest.approx(0, abs=1e-5)
            assert images.std() == pytest.approx(1, abs=1e-5)
            behaviors = view.get("behaviors", mouse)
            raw = trials.get("behaviors", mouse).astype(float)
            np.testing.assert_allclose(behaviors.std(axis=0), 1, atol=1e-5)
            np.testing.assert_allclose(behaviors[:, 3:].mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose(
                behaviors[:, :3], raw[:, :3] / raw[:, :3].std(axis=0), rtol=1e-5
            )
            np.testing.assert_array_equal(view.responses.get(mouse), trials.responses.get(mouse))

    def test_behaviour_is_rounded_once(self, trials):
        raw = trials.get("behaviors", "A").astype("float64")
        shift, scale = raw.mean(axis=0) * [0, 0, 0, 1, 1], raw.std(axis=0)
        got = TrialStandardizer().fit_transform(trials).get("behaviors", "A")
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, ((raw - shift) / scale).astype("float32"), rtol=6e-8)

    def test_statistics_are_those_of_the_training_fold(self, trials):
        train, test = trials.sel(tier="train"), trials.sel(tier="test")
        standardizer = TrialStandardizer().fit(train)
        images = test.get("stimuli", "A").astype(float)
        seen = train.get("stimuli", "A")
        np.testing.assert_allclose(
            standardizer.transform(test).get("stimuli", "A"),
            (images - seen.mean()) / seen.std(),
            atol=1e-5,
        )

    def test_nothing_is_copied_or_changed(self, trials):
        before = {m: trials.get("stimuli", m).copy() for m in trials.mice}
        view = TrialStandardizer().fit_transform(trials)
        assert len(pickle.dumps(view)) < len(pickle.dumps(trials)) + 5000
        for mouse in trials.mice:
            np.testing.assert_array_equal(trials.get("stimuli", mouse), before[mouse])

    def test_inverse(self, trials):
        standardizer = TrialStandardizer().fit(trials)
        back = standardizer.inverse_transform(standardizer.transform(trials))
        for name in ("stimuli", "behaviors"):
            np.testing.assert_allclose(back.get(name, "B"), trials.get(name, "B"), rtol=1e-4)

    def test_either_alone(self, trials):
        images = TrialStandardizer(behaviors=False).fit_transform(trials)
        np.testing.assert_array_equal(images.get("behaviors", "A"), trials.get("behaviors", "A"))
        assert images.get("stimuli", "A").std() == pytest.approx(1, abs=1e-5)
        behaviors = TrialStandardizer(stimuli=False).fit_transform(trials)
        np.testing.assert_array_equal(behaviors.get("stimuli", "A"), trials.get("stimuli", "A"))
        np.testing.assert_allclose(behaviors.get("behaviors", "A").std(axis=0), 1, atol=1e-5)

    def test_a_mouse_without_behaviour(self):
        trials = Trials({"A": make_recording(1), "B": make_recording(2, names=None)})
        view = TrialStandardizer().fit_transform(trials)
        assert view.get("behaviors", "B") is None
        assert view.get("behaviors", "A").shape == (40, 5)

    def test_constants_are_not_divided_by_0(self):
        recording = make_recording(1)
        recording["stimuli"][:] = 7
        recording["behaviors"][:, [1, 3]] = 2.5
        view = TrialStandardizer().fit_transform(Trials({"A": recording}))
        np.testing.assert_array_equal(view.get("stimuli", "A"), 0)
        np.testing.assert_array_equal(view.get("behaviors", "A")[:, 1], 1)
        np.testing.assert_array_equal(view.get("behaviors", "A")[:, 3], 0)

    def test_in_a_pipeline_statistics_are_those_of_what_comes_in(self, trials):
        view = make_pipeline(CenterCrop(0.5), TrialStandardizer()).fit_transform(trials)
        assert view.get("stimuli", "A").shape == (40, 1, 3, 4)
        assert view.get("stimuli", "A").mean() == pytest.approx(0, abs=1e-5)
        published = make_pipeline(TrialStandardizer(), ResizeStimuli((3, 4)))
        assert published.fit_transform(trials).get("stimuli", "A").shape == (40, 1, 3, 4)

    def test_unknown_mouse(self, trials):
        standardizer = TrialStandardizer().fit(trials.sel(mouse_id="A"))
        with pytest.raises(ValueError, match=r"unknown mouse 'B'.*fitted on the mice \['A'\]"):
            standardizer.transform(trials)

    def test_other_columns(self, trials):
        standardizer = TrialStandardizer().fit(trials)
        other = Trials({"A": make_recording(1, names=NAMES[::-1])})
        with pytest.raises(ValueError, match="mouse 'A': the behaviour columns are"):
            standardizer.transform(other)

    def test_feature_names(self, trials):
        names = TrialStandardizer().fit(trials).get_feature_names_out()
        assert names.tolist() == NAMES
        mixed = Trials({"A": make_recording(1), "B": make_recording(2, names=NAMES[:3])})
        with pytest.raises(ValueError, match="no behaviour columns common"):
            TrialStandardizer().fit(mixed).get_feature_names_out()

    def test_pickle_clone_and_repr(self, trials):
        standardizer = TrialStandardizer().fit(trials)
        copy = pickle.loads(pickle.dumps(standardizer))
        np.testing.assert_array_equal(
            copy.transform(trials).get("stimuli", "A"),
            standardizer.transform(trials).get("stimuli", "A"),
        )
        view = pickle.loads(pickle.dumps(standardizer.transform(trials)))
        assert view.get("stimuli", "A").dtype == np.float32
        with pytest.raises(NotFittedError):
            clone(standardizer).transform(trials)
        assert "<div" in standardizer._repr_html_()

    def test_output_containers_do_not_apply(self, trials):
        with sklearn.config_context(transform_output="pandas"):
            assert isinstance(TrialStandardizer().fit_transform(trials), Trials)


class TestArrays:
    def test_stimuli_and_behaviour_as_in_trials(self, trials):
        view = TrialStandardizer().fit_transform(trials)
        for name in ("stimuli", "behaviors"):
            standardizer = TrialStandardizer()
            array = trials.get(name, "A")
            got = standardizer.fit_transform(array)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, view.get(name, "A"), rtol=1e-6)
            np.testing.assert_allclose(standardizer.inverse_transform(got), array, rtol=1e-4)

    def test_names_of_a_data_frame(self):
        values = np.random.default_rng(0).standard_normal((30, 2)) + 4
        table = pd.DataFrame(values, columns=["running_speed", "pupil_x"])
        standardizer = TrialStandardizer().fit(table)
        got = standardizer.transform(table)
        np.testing.assert_allclose(
            got.mean(axis=0), [values[:, 0].mean() / values[:, 0].std(), 0], atol=1e-12
        )
        assert standardizer.get_feature_names_out().tolist() == ["running_speed", "pupil_x"]
        with pytest.raises(ValueError, match="feature names should match"):
            standardizer.transform(table[["pupil_x", "running_speed"]])

    def test_columns_without_known_names(self):
        with pytest.raises(ValueError, match="behaviour has 4 columns without names"):
            TrialStandardizer().fit(np.ones((9, 4)))

    def test_nan_stays_in_its_column(self):
        values = np.random.default_rng(0).standard_normal((30, 3))
        values[4, 1] = np.nan
        with pytest.warns(UserWarning, match=r"\['pupil_dilation_derivative'\] holds NaN"):
            got = TrialStandardizer().fit_transform(values)
        np.testing.assert_array_equal(np.isnan(got).all(axis=0), [False, True, False])
        np.testing.assert_array_equal(np.isnan(got).any(axis=0), [False, True, False])

    def test_forms_do_not_mix(self, trials):
        images, behaviors = trials.get("stimuli", "A"), trials.get("behaviors", "A")
        with pytest.raises(ValueError, match="fitted on stimuli, but behaviour came"):
            TrialStandardizer().fit(images).transform(behaviors)
        with pytest.raises(ValueError, match="fitted on behaviour, but stimuli came"):
            TrialStandardizer().fit(behaviors).transform(images)
        with pytest.raises(ValueError, match="fitted on Trials"):
            TrialStandardizer().fit(trials).transform(images)
        with pytest.raises(ValueError, match=r"unknown mouse 'A'.*fitted on an array"):
            TrialStandardizer().fit(images).transform(trials)

    def test_a_second_fit_forgets_the_first(self, trials):
        images, behaviors = trials.get("stimuli", "A"), trials.get("behaviors", "A")
        standardizer = TrialStandardizer().fit(behaviors).fit(images)
        assert standardizer.transform(images).shape == images.shape
        assert not hasattr(standardizer, "n_features_in_")

    @pytest.mark.parametrize("wrong", [np.ones((5, 2, 3)), np.full((2, 1, 2, 2), "a")])
    def test_other_arrays(self, wrong):
        with pytest.raises(ValueError, match="takes Trials or stimuli of shape"):
            TrialStandardizer().fit(wrong)

    def test_nan_in_stimuli(self):
        with pytest.raises(ValueError, match="TrialStandardizer: stimuli hold NaN"):
            TrialStandardizer().fit(np.full((2, 1, 2, 2), np.nan))


class AnyColumns(TrialStandardizer):
    """Names the columns of any 2-D array, so that scikit-learn's checks can run."""

    def _column_names(self, n_columns):
        if hasattr(self, "feature_names_in_"):
            return super()._column_names(n_columns)
        return [f"x{k}" for k in range(n_columns)]


@parametrize_with_checks([AnyColumns()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("form", ["folder", "zip", "cache", "netcdf"])
def test_statistics_that_a_pipeline_remembers_are_those_of_the_files_as_they_are(tmp_path, form):
    def written(inverted):
        options = {"n_neurons": 3, "n_trials": 12, "n_test_images": 2, "n_repeats": 2}
        made = v1.make_v1_recordings(1, random_state=0, image_shape=(8, 12), **options)
        if inverted:  # and every label as it was
            made["A"]["stimuli"] = 200 - made["A"]["stimuli"] // 2
        if form == "netcdf":
            v1.save_recordings(made, tmp_path / "r.nc")
            return v1.Trials.open(tmp_path / "r.nc")
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        paths = v1.write_sensorium(made, tmp_path / "source", zip=form == "zip")
        cache = tmp_path / "cache" if form == "cache" else None
        return v1.Trials(v1.read_sensorium(paths, cache=cache))

    def remembered(trials):
        steps = [("scale", TrialStandardizer()), ("again", TrialStandardizer())]
        pipeline = Pipeline(steps, memory=str(tmp_path / "memory")).fit(trials)
        return pipeline["scale"].transform(trials).get("stimuli", "A")

    found = []
    for inverted in (False, True, True):
        trials = written(inverted)
        found.append(remembered(trials))
        expected = TrialStandardizer().fit(trials).transform(trials).get("stimuli", "A")
        np.testing.assert_array_equal(found[-1], expected)
    assert not np.array_equal(found[0], found[1])


def test_stimuli_beyond_all_bounds_are_refused():
    images = np.ones((4, 1, 5, 5))
    images[2, 0, 1, 1] = 1e300
    with pytest.raises(ValueError, match=r"stimuli hold values whose squares are too large"):
        TrialStandardizer().fit(np.concatenate([images, images * 1e-3, images]))
