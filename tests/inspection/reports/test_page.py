"""How a report is kept and shown, with names of strangers, and in a browser."""

import html
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import v1tlearn as v1
from v1tlearn.inspection import Report, report

EVIL = "<script>alert(1)"
NEURON = '"><img src=x onerror=alert(1)> $\\frac{'
SMALL = {"n_neurons": 2, "n_images": 2, "n_mice": 2, "n_bootstrap": 0, "n_repeats": 1}


@pytest.fixture(scope="module")
def look():
    path = Path(__file__).parents[3] / "docs" / "look.py"
    spec = importlib.util.spec_from_file_location("look", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["look"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(recordings, plt):
    """A report of mice and neurons with names that mean something to browsers and matplotlib."""
    mice = {}
    for name, mouse in zip((EVIL, "$x_{"), ("A", "B"), strict=True):
        own = recordings[mouse].to_dataset()
        ids = [f"{NEURON}{i}" for i in range(own.sizes["neuron"])]
        mice[name] = own.assign_coords(neuron=ids)
    trials = v1.Trials(mice)
    sizes = {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2, "embed_dim": 8}
    model = v1.V1TRegressor(**sizes, mlp_dim=8, max_epochs=2, random_state=0, device="cpu")
    model.fit(trials.sel(tier="train"))
    return report(model, trials, title="</title><script>alert(2)</script>", **SMALL)


@pytest.mark.slow
def test_text_of_strangers_is_only_shown(made):
    assert "<script" not in made.html
    assert "<img src=x" not in made.html
    for text in (EVIL, NEURON, "</title><script>alert(2)</script>"):
        assert text not in made.html
        assert html.escape(text).replace("&quot;", "&#34;") in made.html


def test_it_is_written_and_replaces_an_earlier_report_alone(made, tmp_path):
    path = tmp_path / "new" / "page.html"
    made.save(path)
    assert path.read_text(encoding="utf-8") == made.html
    other = Report(made.html + "<!-- later -->", {})
    other.save(str(path))
    assert path.read_text(encoding="utf-8") == other.html
    assert [one.name for one in path.parent.iterdir()] == ["page.html"]
    notes = tmp_path / "notes.html"
    notes.write_text("my notes")
    for taken in (notes, tmp_path):
        with pytest.raises(FileExistsError, match="is no report"):
            made.save(taken)
    assert notes.read_text() == "my notes"


def test_a_path_that_is_taken_is_refused_ahead_of_the_work(models, recordings, tmp_path):
    notes = tmp_path / "notes.html"
    notes.write_text("my notes")
    with pytest.raises(FileExistsError, match="is no report"):
        report(models["LN"], v1.Trials(recordings), notes, n_bootstrap=10**9)


@pytest.mark.slow
def test_a_path_gets_the_page_and_the_session_stays_as_it_is(models, recordings, tmp_path, plt):
    before = plt.get_fignums(), dict(plt.rcParams)
    made = report(models["LN"], v1.Trials(recordings), tmp_path / "a.html", **SMALL | {"n_mice": 1})
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == made.html
    assert "Pictures of single mice are of the first 1 of 2." in made.html
    assert (plt.get_fignums(), dict(plt.rcParams)) == before


def test_notebooks_show_it_in_a_frame(made):
    frame = made._repr_html_()
    assert frame.startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
    start = frame.index('srcdoc="') + len('srcdoc="')
    assert html.unescape(frame[start : frame.index('"', start)]) == made.html


def test_a_page_of_two_mice_is_small(made):
    assert len(made.html) < 5e6


@pytest.mark.slow
def test_browsers_show_all_of_it_on_wide_screens_and_phones(made, look, tmp_path):
    browser = look.find_browser()
    if browser is None:
        pytest.skip("no Chromium or Chrome is installed, so that no page is looked at")
    made.save(tmp_path / "page.html")
    found = look.look(tmp_path, ["page.html"], None, browser)
    for width in (1400, 390):
        measured = found["page.html", width]
        assert measured["width"] == width
        assert measured["outside"] == []
        assert measured["images"] == made.html.count("<img ") > 8
        assert measured["broken"] == []


@pytest.mark.slow
def test_browsers_find_no_fault(made, look, tmp_path):
    browser = look.find_browser()
    if browser is None:
        pytest.skip("no Chromium or Chrome is installed, so that no page is looked at")
    made.save(tmp_path / "page.html")
    faulty = tmp_path / "faulty.html"
    faulty.write_text(made.html.replace("</body>", "<script>alert(1)</script></body>"))
    assert "CONSOLE" not in said(browser, tmp_path / "page.html", tmp_path / "one")
    # and the check would see one: of scripts that came in against all odds, none may run
    assert "Content Security Policy" in said(browser, faulty, tmp_path / "two")


def said(browser, page, profile):
    """What the browser writes of a page, its console among it."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, check=True, timeout=300
    )
    assert "<h2>Scores</h2>" in done.stdout
    return done.stderr
