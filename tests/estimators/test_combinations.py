"""Every combination of tokenizer, attention, behaviour and shift trains; impossible ones say why.

In the default suite each pair of values meets at least once, in the slow one each three of them.
"""

import itertools

import numpy as np
import pytest

import v1tlearn as v1

# Of three or four neurons that were trained for one epoch all may be lost.
pytestmark = pytest.mark.filterwarnings("ignore:.*cannot follow their images")

TOKENIZERS = ("unfold", "conv", "spt", "cct", "dual_norm")
ATTENTION = ("standard", "lsa")
MODES = ("auto", "none", "channels", "b_mlp", "b_mlp_first_block", "b_mlp_shared")
MODES += ("b_mlp_per_mouse",)
NETWORKS = {  # of the mice, per behaviour MLP; and whether one is ahead of either block
    "none": [[], [False, False]],
    "channels": [[], [False, False]],
    "b_mlp": [[1, 1], [True, True]],
    "b_mlp_first_block": [[1], [True, False]],
    "b_mlp_shared": [[1], [True, True]],
    "b_mlp_per_mouse": [[2, 2], [True, True]],
}
SHIFTS = ("none", "readout", "stimulus", "both", "both_behavior")
COLUMNS = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]
PAIRWISE = [
    (TOKENIZERS[(i + j) % 5], ATTENTION[(i + j) % 2], mode, shift)
    for i, mode in enumerate(MODES)
    for j, shift in enumerate(SHIFTS)
]
BY_THREES = [
    (tokenizer, ATTENTION[(i + j + k) % 2], mode, shift)
    for i, mode in enumerate(MODES)
    for j, shift in enumerate(SHIFTS)
    for k, tokenizer in enumerate(TOKENIZERS)
]


@pytest.fixture(scope="module")
def few():
    """Two mice with 4 and 3 neurons, training and test tier, images of 10 x 13 pixels."""
    recordings = v1.make_v1_recordings(
        n_mice=2,
        n_neurons=[4, 3],
        n_trials=20,
        n_test_images=2,
        n_repeats=2,
        image_shape=(10, 13),
        random_state=0,
    )
    trials = v1.Trials(recordings)
    return trials.sel(tier="train"), trials.sel(tier="test")


def tiny(**params):
    """A V1T of two blocks, since behaviour may enter the first one only, or both alike."""
    params = {"patch_size": 4, "patch_stride": 3, "n_blocks": 2, "n_heads": 2} | params
    params = {"embed_dim": 8, "mlp_dim": 6, "crop_scale": 0.8, "max_epochs": 1} | params
    return v1.V1TRegressor(**{"random_state": 0, "device": "cpu"} | params)


def check(few, tokenizer, attention, mode, shift):
    train, test = few
    est = tiny(tokenizer=tokenizer, attention=attention, behavior_mode=mode, shift=shift)
    start = est.set_params(max_epochs=0).fit(train).predict(test)
    est.partial_fit(train)
    assert est.n_iter_ == 1
    assert est.behavior_mode_ == ("b_mlp" if mode == "auto" else mode)
    networks = [
        [len(mlp.networks) for mlp in est.module_.core.behavior_mlps],
        [est.module_.core.behavior_mlp(block) is not None for block in (0, 1)],
    ]
    assert networks == NETWORKS[est.behavior_mode_]
    predicted = est.predict(test)
    for mouse, n_neurons in (("A", 4), ("B", 3)):
        rates = np.asarray(predicted[mouse])
        assert rates.shape == (4, n_neurons)
        assert np.isfinite(rates).all()
        assert (rates > 0).all()
        assert not np.array_equal(rates, np.asarray(start[mouse]))
    assert all(np.isfinite(value) for record in est.history_ for value in record.values())


@pytest.mark.parametrize(("cases", "n"), [(PAIRWISE, 2), (BY_THREES, 3)])
def test_each_of_their_values_meet(cases, n):
    for axes in itertools.combinations(range(4), n):
        met = {tuple(case[axis] for axis in axes) for case in cases}
        values = (TOKENIZERS, ATTENTION, MODES, SHIFTS)
        assert met == set(itertools.product(*(values[axis] for axis in axes)))


@pytest.mark.slow
@pytest.mark.parametrize(("tokenizer", "attention", "mode", "shift"), PAIRWISE)
def test_pairs_train_and_predict(few, tokenizer, attention, mode, shift):
    check(few, tokenizer, attention, mode, shift)


@pytest.mark.slow
@pytest.mark.parametrize(("tokenizer", "attention", "mode", "shift"), BY_THREES)
def test_threes_train_and_predict(few, tokenizer, attention, mode, shift):
    check(few, tokenizer, attention, mode, shift)


# ------------------------------------------------------------------------- what is not possible


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"tokenizer": "cct", "embed_dim": 10},
            r"tokenizer='cct'.*does not come out even.*multiple of n_heads squared, 4",
        ),
        ({"patch_size": 9}, "patch of 9 x 9 pixels does not fit into images of 8 x 10"),
        (
            {"image_size": (6, 20), "patch_size": 7},
            "patch of 7 x 7 pixels does not fit into images of 6 x 20",
        ),
        ({"crop_scale": 0.3}, "patch of 4 x 4 pixels does not fit into images of 3 x 3"),
        ({"crop_scale": 0.05}, r"crop scale of 0\.05 leaves no pixel of images of 10 x 13"),
        (
            {"patch_stride": 5},
            "patch_stride 5 is larger than patch_size 4, so pixels between the patches would",
        ),
        (
            {"tokenizer": "cct", "attention": "lsa", "patch_size": 14, "patch_stride": 14},
            r"attention='lsa'\) needs at least two tokens",
        ),
        ({"behavior_columns": ["licking"]}, r"mouse 'A': behavior_columns asks for \['licking'\]"),
        ({"behavior_columns": []}, r"behavior_columns=\[\] leaves no column"),
        ({"shift_columns": ["licking"]}, r"mouse 'A': shift_columns asks for \['licking'\]"),
        ({"image_size": (8,)}, r"image_size=\(8,\): expected 'auto' or \(height, width\)"),
        ({"behavior_mode": "mlp"}, "'behavior_mode' parameter of V1TRegressor must be a str among"),
        ({"tokenizer": "fold"}, "'tokenizer' parameter of V1TRegressor must be a str among"),
    ],
)
def test_impossible_parameters_say_why_at_fit(few, params, message):
    est = tiny(**params)
    with pytest.raises(ValueError, match=message):
        est.fit(few[0])
    assert not hasattr(est, "module_")


@pytest.mark.parametrize("kind", [v1.CNNRegressor, v1.LNRegressor, v1.ViTRegressor])
def test_only_v1t_has_behavior_networks(few, kind):
    with pytest.raises(ValueError, match=f"'behavior_mode' parameter of {kind.__name__} must be"):
        kind(behavior_mode="b_mlp").fit(few[0])


def arrays(few, columns=None):
    """Arrays per mouse, with some of the columns of behaviour or without behaviour."""
    train = few[0]
    out = [{m: train.get(n, m) for m in train.mice} for n in ("stimuli", "behaviors", "responses")]
    kept = None if columns is None else [COLUMNS.index(c) for c in columns]
    out[1] = None if kept is None else {m: b[:, kept] for m, b in out[1].items()}
    return out


@pytest.mark.parametrize("mode", MODES[2:])
def test_behavior_modes_without_behavior(few, mode):
    message = rf"behavior_mode='{mode}', but the mice \['A', 'B'\] have no behaviors"
    with pytest.raises(ValueError, match=message):
        tiny(behavior_mode=mode, shift="none").fit(*arrays(few))


@pytest.mark.parametrize("columns", [None, COLUMNS[:3], COLUMNS[:4]])
@pytest.mark.parametrize("shift", ["stimulus", "both", "both_behavior"])
def test_a_stimulus_that_moves_with_an_eye_that_was_not_seen(few, shift, columns):
    message = rf"shift='{shift}' moves the image with the eye, but the mice \['A', 'B'\] have no"
    with pytest.raises(ValueError, match=message):
        tiny(shift=shift).fit(*arrays(few, columns), behavior_names=columns)


def test_nothing_but_the_pupil_leaves_a_vit_without_behavior(few):
    est = v1.ViTRegressor(patch_size=4, n_blocks=1, behavior_mode="channels")
    with pytest.raises(ValueError, match="behavior_columns='non_pupil' leaves no column of"):
        est.fit(*arrays(few, COLUMNS[3:]), behavior_names=COLUMNS[3:])
