"""Three small mice whose values tell mouse, trial and column."""

import numpy as np
import xarray as xr

SIZES = {"A": (7, 3), "B": (4, 5), "C": (1, 2)}  # trials, neurons
NAMES = ["pupil_dilation", "pupil_dilation_derivative", "running_speed"]

FLAT_MICE = np.repeat(list(SIZES), [n for n, _ in SIZES.values()])
FLAT_ROWS = np.concatenate([np.arange(n) for n, _ in SIZES.values()])
N = len(FLAT_ROWS)


def recording(mouse, **labels):
    """Stimuli, behaviour and responses whose values tell mouse, trial and column."""
    n, neurons = SIZES[mouse]
    base = 100 * list(SIZES).index(mouse)
    trial = np.arange(n)
    return xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                np.broadcast_to((base + trial)[:, None, None, None], (n, 1, 4, 6)).astype("u1"),
            ),
            "behaviors": (("trial", "behavior"), base + trial[:, None] + np.arange(3) / 10),
            "responses": (
                ("trial", "neuron"),
                (base + trial[:, None] + np.arange(neurons) / 10).astype("f4"),
                {"units": "Hz"},
            ),
        },
        coords={
            "behavior": NAMES,
            "neuron": 1000 + np.arange(neurons),
            "image_id": ("trial", trial % 3),
            "tier": ("trial", np.where(trial % 2, "test", "train")),
            "trial_id": ("trial", trial[::-1]),
            "position": (("neuron", "axis"), np.arange(2.0 * neurons).reshape(-1, 2)),
        }
        | labels,
    )


def vectors(view):
    """Response vectors of a view, from the values that `recording` writes."""
    out = []
    for mouse, row in zip(*flat(view), strict=True):
        base = 100 * list(SIZES).index(mouse)
        out.append((base + row + np.arange(SIZES[mouse][1]) / 10).astype("f4"))
    return out


def flat(view):
    """Mouse and row of each trial, told by the responses."""
    firsts = [int(v[0]) for v in np.asarray(view.responses)]
    mice = [list(SIZES)[value // 100] for value in firsts]
    return mice, [value % 100 for value in firsts]


def same(view, mice, rows):
    """Every way to ask a view gives these trials in this order."""
    mice, rows = np.asarray(mice), np.asarray(rows, dtype=int)
    assert len(view) == len(rows)
    assert view.shape == (len(rows),)
    np.testing.assert_array_equal(view.mouse_ids, mice)
    present = [m for m in SIZES if m in mice]
    assert view.mice == present
    assert view.n_neurons == {m: SIZES[m][1] for m in present}
    np.testing.assert_array_equal(view.image_ids, rows % 3)
    np.testing.assert_array_equal(view.tiers, np.where(rows % 2, "test", "train"))
    answer = np.asarray(view.responses)
    assert answer.shape == (len(rows),)
    assert answer.dtype == object
    for vector, expected in zip(answer, vectors(view), strict=True):
        np.testing.assert_array_equal(vector, expected)
    for m in present:
        of_mouse = rows[mice == m]
        source = recording(m)
        for name in ("stimuli", "behaviors", "responses"):
            np.testing.assert_array_equal(view.get(name, m), source[name].values[of_mouse])
        np.testing.assert_array_equal(view.rows(m)[0], np.flatnonzero(mice == m))
    tree = view.recordings
    assert isinstance(tree, xr.DataTree)
    assert list(tree.children) == present
    for m in present:
        expected = recording(m).isel(trial=rows[mice == m])
        xr.testing.assert_identical(tree[m].to_dataset(), expected)


class Scale:
    """A step that multiplies by the number of the mouse, and remembers what it saw."""

    def __init__(self, factors):
        self.factors, self.calls = factors, []

    def stimuli(self, mouse_id, images):
        self.calls.append(("stimuli", mouse_id, len(images)))
        return images.astype(float) * self.factors[mouse_id]

    def behaviors(self, mouse_id, values, names):
        assert names == NAMES
        self.calls.append(("behaviors", mouse_id, len(values)))
        return values * self.factors[mouse_id]


def known_neurons(mouse):
    """A recording whose neurons bear more labels, in an area that mouse B does not have."""
    neurons = SIZES[mouse][1]
    area = np.where(np.arange(neurons) % 2, "LM", "V1") if mouse == "A" else ["V1"] * neurons
    return recording(
        mouse,
        area=("neuron", np.asarray(area)),
        layer=("neuron", np.resize(["L2/3", "L4"], neurons)),
        depth=("neuron", 100 + np.arange(neurons) // 2),
        axis=["x", "y"],
    ).assign(
        expected_responses=(
            ("trial", "neuron"),
            np.arange(neurons * SIZES[mouse][0], dtype="f4").reshape(-1, neurons),
            {"units": "Hz"},
        ),
        responses_mean=("neuron", np.arange(neurons) / 2),
        receptive_field=(("neuron", "row", "column"), np.zeros((neurons, 2, 2))),
    )
