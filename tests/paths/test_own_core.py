"""An engineer with a torch module: the code of docs/your_own_core.rst, and what it says of it."""

import contextlib
import io
import pickle
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.base import clone

import v1tlearn as v1
from v1tlearn.inspection import receptive_fields

pytestmark = pytest.mark.slow  # trains models; that the code runs is also shown in test_code_blocks

PAGE = Path(__file__).parents[2] / "docs" / "your_own_core.rst"


def blocks(kind):
    """Blocks of the page of one language, in their order."""
    found = re.findall(
        rf"^\.\. code-block:: {kind}\n(?:   :.*\n)*\n((?:   .*\n|\n)+)", PAGE.read_text(), re.M
    )
    return [textwrap.dedent(block).strip() for block in found]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A module with the code of the page, run in an empty folder, and what it printed."""
    module = ModuleType("code_of_your_own_core")
    sys.modules[module.__name__] = module  # where pickle finds the classes
    printed = io.StringIO()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.chdir(tmp_path_factory.mktemp("page")), contextlib.redirect_stdout(printed):
        exec("\n".join(blocks("python")), module.__dict__)
    yield module, printed.getvalue()
    torch.set_num_threads(threads)
    del sys.modules[module.__name__]


@pytest.fixture(scope="module")
def model(page):
    return page[0].model


@pytest.fixture(scope="module")
def test(page):
    return page[0].test


def test_the_page_prints_what_it_shows(page):
    assert page[1].split() == "\n".join(blocks("none")).split()


def test_it_learns(page, model, test):
    untrained = clone(model).set_params(max_epochs=0).fit(page[0].train)
    longer = clone(model).set_params(max_epochs=30).fit(page[0].train)
    assert longer.score(test) > untrained.score(test) + 0.03
    assert model.history_[-1]["loss"] < model.history_[0]["loss"]


def test_it_is_cloned_and_pickled(page, model, test):
    assert clone(model).get_params() == model.get_params()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(test).get("A"), model.predict(test).get("A"))


def test_it_is_transferred_combined_and_mapped(page, model, test):
    module, _ = page
    one = module.train.sel(mouse_id="A")
    for freeze in (True, False):
        moved = model.transfer(one, freeze, max_epochs=1)
        kept = torch.equal(moved.module_.core.filters.weight, model.module_.core.filters.weight)
        assert kept == freeze
    template = clone(model).set_params(max_epochs=1)
    ensemble = v1.EnsembleRegressor(template, n_candidates=2, n_members=2, random_state=0)
    assert np.isfinite(ensemble.fit(module.train).score(test))
    assert receptive_fields(model, 20)["A"].sizes["neuron"] == 30


def test_a_list_of_parts_saves_memory_as_the_page_says(page):
    module, _ = page

    class Frugal(module.EnergyCore):
        def recomputed_parts(self):
            return [self.filters]

    one = module.train.sel(mouse_id="A")
    fits = [
        v1.EncodingRegressor(Frugal, max_epochs=1, random_state=0, low_memory=again).fit(one)
        for again in (True, False)
    ]
    weights = [fit.module_.core.filters.weight for fit in fits]
    torch.testing.assert_close(*weights)
