"""Behaviour columns of loaded models: told, or assumed and then found by their names."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import v1tlearn as v1
from v1tlearn.interop import load_sensorium, load_v1t

REFERENCE = Path(__file__).parents[1] / "reference"
FIVE = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]


def assert_agrees(value, reference, tolerance=1e-4):
    assert value.shape == reference.shape
    assert np.abs(value - reference).max() <= tolerance * np.abs(reference).max()


# ------------------------------------------------------------------------------- runs of V1T


def inputs_of_vit():
    """Statistics, images and five columns of behaviour of both mice of a fixture."""
    io = dict(np.load(REFERENCE / "vit" / "io.npz"))
    statistics = {
        mouse: {
            kind: (io[f"{mouse}/stats/{kind}/mean"], io[f"{mouse}/stats/{kind}/std"])
            for kind in ("image", "behavior", "pupil", "response")
        }
        for mouse in "AB"
    }
    images = {mouse: io[f"{mouse}/images"] for mouse in "AB"}
    behaviors = {m: np.c_[io[f"{m}/behavior"], io[f"{m}/pupil_center"]] for m in "AB"}
    return statistics, images, behaviors


def without_shifters(tmp_path):
    """The run of the fixture "vit", whose core takes three columns, without its shifters."""
    args = yaml.safe_load((REFERENCE / "vit" / "args.yaml").read_text()) | {"shift_mode": 0}
    with torch.serialization.safe_globals([torch.amp.GradScaler]):
        content = torch.load(REFERENCE / "vit" / "ckpt" / "model_state.pt", weights_only=True)
    content["model"] = {
        name: value for name, value in content["model"].items() if "shifter" not in name
    }
    (tmp_path / "run" / "ckpt").mkdir(parents=True)
    (tmp_path / "run" / "args.yaml").write_text(yaml.safe_dump(args))
    torch.save(content, tmp_path / "run" / "ckpt" / "model_state.pt")
    return tmp_path / "run"


def test_only_columns_that_the_model_uses_are_needed(tmp_path):
    statistics, images, behaviors = inputs_of_vit()
    folder = without_shifters(tmp_path)
    est = load_v1t(folder, statistics)
    assert (est.shift, est.behavior_columns) == ("none", "non_pupil")
    expected = est.predict(images, behaviors)  # all five, by their number
    three = {mouse: values[:, :3] for mouse, values in behaviors.items()}
    shuffled = {mouse: values[:, [4, 2, 0, 1]] for mouse, values in behaviors.items()}
    names = [FIVE[i] for i in (4, 2, 0, 1)]
    reordered = {
        mouse: {**pairs, "behavior": [np.ravel(values)[[2, 0, 1]] for values in pairs["behavior"]]}
        for mouse, pairs in statistics.items()
    }
    told = load_v1t(folder, reordered, behavior_names=names)
    answers = [
        est.predict(images, three),
        est.predict(images, three, behavior_names=FIVE[:3]),
        est.predict(images, shuffled, behavior_names=names),
        est.predict(v1.Trials.from_arrays(images, three)),
        est.predict(v1.Trials.from_arrays(images, shuffled, behavior_names=names)),
        told.predict(images, shuffled),
    ]
    est.save(tmp_path / "model")
    again = v1.ViTRegressor.load(tmp_path / "model", device="cpu")
    answers.append(again.predict(images, shuffled, behavior_names=names))
    for answer in answers:
        for mouse in "AB":
            np.testing.assert_array_equal(np.asarray(answer[mouse]), expected[mouse])
    changed = {mouse: values[:, :3] + [0, 0, 1] for mouse, values in behaviors.items()}
    assert not np.array_equal(est.predict(images, changed)["A"], expected["A"])
    with pytest.raises(ValueError, match=r"mouse 'A'.*\['running_speed'\] are missing"):
        est.predict(images, three, behavior_names=[*FIVE[:2], "pupil_x"])
    with pytest.raises(ValueError, match="at fit they were"):
        told.predict(images, three, behavior_names=FIVE[:3])
    with pytest.raises(ValueError, match=r"mouse 'A'.*\['running_speed'\] are not among"):
        load_v1t(folder, statistics, behavior_names=FIVE[:2])


@pytest.mark.parametrize("names", ["running_speed", [*FIVE, "pupil_x"]])
def test_names_that_are_no_list_of_columns(names):
    with pytest.raises(ValueError, match=r"behavior_names=.*one name per column"):
        load_v1t(REFERENCE / "vit", behavior_names=names)
    with pytest.raises(ValueError, match=r"behavior_names=.*one name per column"):
        load_sensorium(sensorium("cnn_gray")[0], behavior_names=names)


def test_assumed_columns_end_with_a_fit_anew(published, tmp_path):
    args = published.arguments(behavior_mode=2, patch_stride=5, num_blocks=1)
    arrays = published.arrays(args)
    est = load_v1t(published.write(tmp_path / "run", args, arrays))
    images, behaviors = published.inputs(args, n_trials=12)
    order = [3, 4, 2, 1, 0]
    names = [FIVE[i] for i in order]
    expected = {m: published.prediction(args, arrays, m, images, behaviors) for m in "AB"}
    trials = v1.Trials.from_arrays(
        dict.fromkeys("AB", images),
        dict.fromkeys("AB", behaviors[:, order]),
        expected,
        behavior_names=names,
    )
    for mouse in "AB":
        assert_agrees(np.asarray(est.predict(trials)[mouse]), expected[mouse])
    est.set_params(device="cpu", lr=1e-5).partial_fit(trials)  # goes on by name
    assert est.score(trials) > 0.9
    est.set_params(max_epochs=1, warm_start=False, validation_fraction=0).fit(trials)
    with pytest.raises(ValueError, match="at fit they were"):
        est.predict(images, behaviors, "A", behavior_names=FIVE)


# ------------------------------------------------------------------------ models of Sensorium


def sensorium(name):
    """Arrays of a fixture under the names of a saved model, and the rest of it."""
    arrays = dict(np.load(REFERENCE / f"{name}.npz"))
    state = {}
    for full, value in arrays.items():
        part, _, rest = full.partition("/")
        if part in ("core", "readout", "shifter"):
            key = "" if part == "core" else "21067-10-18."
            state[f"{part}.{key}{rest}"] = value
    return state, arrays


def named(values, names):
    return pd.DataFrame(np.asarray(values), columns=names)


def test_only_the_columns_that_the_core_uses_are_needed():
    """The fixture of behaviour channels, without its shifter and with the behaviour it has."""
    state, arrays = sensorium("cnn_behavior_channels")
    state = {name: value for name, value in state.items() if "shifter" not in name}
    est = load_sensorium(state, image_shape=(1, 36, 64))
    images, behaviors = arrays["x"][:, :1], arrays["behaviors"]
    assert behaviors.shape == (7, 3)
    expected = est.predict(images, behaviors)
    planes = load_sensorium(state, image_shape=(1, 36, 64), behavior_names=FIVE[:3])
    np.testing.assert_array_equal(planes.predict(images, behaviors), expected)
    five = np.concatenate([behaviors, arrays["pupil_center"]], 1)
    order = [4, 2, 0, 1]
    some = five[:, order], [FIVE[i] for i in order]
    for answer in (
        est.predict(images, five),
        est.predict(images, named(*some)),
        est.predict(images, some[0], behavior_names=some[1]),
    ):
        np.testing.assert_array_equal(answer, expected)
    with pytest.raises(ValueError, match=r"\['running_speed'\] are missing"):
        est.predict(images, named(behaviors[:, :2], FIVE[:2]))
    with pytest.raises(ValueError, match="missing, but the model"):
        est.predict(images)


def test_only_the_pupil_is_needed_where_it_alone_is_used():
    state, arrays = sensorium("cnn_gray")
    images, pupil = arrays["x"], arrays["pupil_center"]
    est = load_sensorium(state, image_shape=(1, 36, 64))
    assert_agrees(est.predict(images, pupil, behavior_names=FIVE[3:]), arrays["prediction"])
    backwards = est.predict(images, pupil[:, ::-1], behavior_names=FIVE[:2:-1])
    assert_agrees(backwards, arrays["prediction"])
    told = load_sensorium(state, image_shape=(1, 36, 64), behavior_names=FIVE[3:])
    assert_agrees(told.predict(images, pupil), arrays["prediction"])
    with pytest.raises(ValueError, match="at fit they were"):  # an order that was told is checked
        told.predict(images, pupil[:, ::-1], behavior_names=FIVE[:2:-1])
