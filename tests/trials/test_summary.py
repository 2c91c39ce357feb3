"""What views show of themselves: counts per mouse and tier, and nothing read for it."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.trials.labelled import SIZES, Scale, recording


def test_text(trials):
    assert repr(trials[:9]) == (
        "<Trials: 9 trials of 2 mice>\n"
        "mouse  trials  train  test  neurons\n"
        "A           7      4     3        3\n"
        "B           2      1     1        5"
    )
    assert repr(trials[:1].responses) == (
        "<Responses 'responses': 1 trial of 1 mouse>\n"
        "mouse  trials  train  neurons  units\n"
        "A           1      1        3  Hz"
    )
    assert repr(trials[-1:].stimuli) == (
        "<Stimuli: 1 trial of 1 mouse>\n"
        "mouse  trials  train  recorded\n"
        "C           1      1  1 × 4 × 6"
    )
    assert "B           4      2     2  pupil_dilation" in repr(trials.behaviors)


def test_neurons_are_those_selected(trials):
    assert "A           7      4     3        1" in repr(trials.sel(neuron={"A": 1001}))
    assert "<td>1</td>" in trials.sel(neuron={"A": 1001}, mouse_id="A").responses._repr_html_()


def cells(page):
    rows = page.split("<tbody>")[1].split("<tr>")[1:]
    return [[c.split("</td>")[0] for c in row.split("<td>")[1:]] for row in rows]


def test_pages(trials):
    page = trials[:9]._repr_html_()
    assert "<strong>Trials</strong>: 9 trials of 2 mice" in page
    behavior = "pupil_dilation, pupil_dilation_derivative, running_speed"
    assert cells(page) == [
        ["A", "7", "4", "3", "3", "1 × 4 × 6", behavior],
        ["B", "2", "1", "1", "5", "1 × 4 × 6", behavior],
    ]
    assert cells(trials[7:].responses._repr_html_()) == [
        ["B", "4", "2", "2", "5", "Hz"],
        ["C", "1", "1", "0", "2", "Hz"],
    ]
    page = trials.with_step(Scale({}))._repr_html_()
    assert "12 trials of 3 mice, 1 preprocessing step<" in page
    twice = trials.with_step(Scale({})).with_step(Scale({}))
    assert repr(twice).startswith("<Trials: 12 trials of 3 mice, 2 preprocessing steps>")


def test_what_may_be_missing(recordings):
    bare = v1.Trials({"A": recording("A")[["stimuli"]].drop_vars("tier")})
    assert repr(bare).splitlines() == [
        "<Trials: 7 trials of 1 mouse>",
        "mouse  trials  neurons",
        "A           7        –",
    ]
    assert cells(bare._repr_html_()) == [["A", "7", "–", "1 × 4 × 6", "–"]]
    some = v1.Trials({"A": recordings["A"].drop_vars("tier"), "B": recordings["B"]})
    assert "mouse  trials  train  test  no tier  neurons" in repr(some)
    assert repr(some[:0]) == "<Trials: 0 trials of 0 mice>"
    assert "<table>" not in some[:0]._repr_html_()
    assert "0 trials" in some[:0].responses._repr_html_()
    predicted = v1.Responses.from_arrays({"A": np.zeros((7, 4))}, like=bare, name="predictions")
    assert "<Responses 'predictions': 7 trials of 1 mouse>" in repr(predicted)
    assert "A           7        4      –" in repr(predicted)


def test_names_are_escaped():
    page = v1.Trials({"<b>": recording("A")[["stimuli"]]})._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_many_mice_are_cut_short():
    trials = v1.Trials({f"mouse{i:02}": recording("C") for i in range(25)})
    assert repr(trials).splitlines()[-1] == "... and 5 mice more"
    assert len(repr(trials).splitlines()) == 23
    assert "… and 5 mice more" in trials._repr_html_()
    assert "mouse19" in trials._repr_html_()
    assert "mouse20" not in trials._repr_html_()


@pytest.mark.parametrize("name", ["stimuli", "responses"])
def test_nothing_is_read(name):
    class Unread(xr.backends.BackendArray):
        shape = {"stimuli": (7, 1, 4, 6), "responses": (7, 3)}[name]
        dtype = np.dtype("f4")

        def __getitem__(self, key):
            raise AssertionError("values were read")

    lazy = xr.core.indexing.LazilyIndexedArray(Unread())
    dataset = recording("A").drop_vars(["image_id", name])
    dataset = dataset.assign({name: (recording("A")[name].dims, lazy)})
    trials = v1.Trials({"A": dataset})
    for view in (trials, trials.responses, trials.stimuli, trials.sel(tier="test", neuron=1001)):
        assert "A" in repr(view)
        assert "A" in view._repr_html_()
    assert SIZES["A"] == (7, 3)
