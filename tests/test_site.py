"""What the site is built and looked at with: inventories of other projects, widths of pages."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # as docs/conf.py

DOCS = Path(__file__).parents[1] / "docs"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


other_projects = load(DOCS / "_ext" / "other_projects.py")
look = load(DOCS / "look.py")
pages = load(DOCS / "_ext" / "pages.py")


def test_inventories_hold_full_and_short_names(tmp_path):
    mapping = other_projects.write_inventories(tmp_path)
    assert mapping.keys() == other_projects.PROJECTS.keys()
    url, file = mapping["sklearn"]
    head, content = Path(file).read_bytes().split(b"zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2\n# Project: sklearn\n# Version: \n")
    entries = dict(line.split(" ", 1) for line in zlib.decompress(content).decode().splitlines())
    page = "modules/generated/sklearn.pipeline.Pipeline.html#sklearn.pipeline.Pipeline"
    assert url == "https://scikit-learn.org/stable/"
    assert entries["Pipeline"] == entries["sklearn.pipeline.Pipeline"] == f"py:class 1 {page} -"
    assert entries["make_pipeline"].startswith("py:function ")


def test_the_link_to_edit_a_page_leads_to_a_file():
    root = DOCS.parent
    names = [path.stem for path in DOCS.glob("*.rst")]
    examples = [p.relative_to(root / "examples") for p in (root / "examples").rglob("plot_*.py")]
    assert examples
    names += [f"auto_examples/{path.with_suffix('').as_posix()}" for path in examples]
    names += ["auto_examples/index"]
    names += [f"auto_examples/{path.parent.as_posix()}/index" for path in examples]
    names += [f"generated/v1tlearn.{name}" for name in ("Trials", "V1TRegressor", "score_table")]
    for name in names:
        assert (root / pages.source_of(name)).is_file(), name
    assert pages.source_of("generated/v1tlearn.concat").as_posix() == "v1tlearn/trials/concat.py"


def test_names_that_projects_do_not_have_are_refused():
    with pytest.raises(ValueError, match=r"xarray\.Nothing is not there"):
        other_projects._kind("xarray.Nothing")


def test_short_names_belong_to_one_project():
    full = [
        n for p in other_projects.PROJECTS.values() for names in p.objects.values() for n in names
    ]
    short = [name.rpartition(".")[2] for name in full]
    shared = {name for name in short if short.count(name) > 1}
    assert not shared & set(other_projects.short_names())


@pytest.mark.slow
@pytest.mark.parametrize(("given", "runs"), [([], True), (["QUICK=1"], False)])
def test_quick_docs_run_no_example(given, runs, tmp_path):
    """The site's own settings and options, with a gallery of one example that leaves a file."""
    pytest.importorskip("sphinx_gallery")
    if shutil.which("make") is None:
        pytest.skip("needs make")
    plan = subprocess.run(
        ["make", "-n", "docs", *given],
        cwd=DOCS.parent,
        env={k: v for k, v in os.environ.items() if k not in ("QUICK", "MAKEFLAGS")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (options,) = re.findall(r"-m sphinx (.*) docs docs/_build/html", plan)
    for folder in ("_ext", "_static", "_templates"):
        shutil.copytree(DOCS / folder, tmp_path / "docs" / folder)
    shutil.copy(DOCS / "conf.py", tmp_path / "docs")
    section = tmp_path / "examples" / "1_section"
    section.mkdir(parents=True)
    for folder in (section, section.parent):
        (folder / "GALLERY_HEADER.rst").write_text("Title\n=====\n")
    left = tmp_path / "left"
    (section / "plot_file.py").write_text(
        f'"""\nTitle\n=====\n"""\n\nopen({str(left)!r}, "w").close()\n'
    )
    (tmp_path / "docs" / "index.rst").write_text(
        "Title\n=====\n\n.. toctree::\n\n   auto_examples/index\n"
    )
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options.split(), "docs", "html"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "html" / "auto_examples" / "1_section" / "plot_file.html").is_file()
    assert left.exists() == runs


@pytest.mark.slow
@pytest.mark.skipif(look.find_browser() is None, reason="no Chromium or Chrome is installed")
def test_wide_pages_and_boxes_are_found(tmp_path):
    wide = '<div style="width: {}px">wide</div>'
    box = '<pre style="overflow-x: auto">' + wide.format(2000) + "</pre>"
    there = '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==">'
    narrow = there + '<img class="lost" src="nowhere.png">'
    for name, body in {"narrow": narrow, "wide": wide.format(700), "boxed": box}.items():
        page = f'<body style="margin: 0"><div class="bd-article-container">{body}</div></body>'
        (tmp_path / f"{name}.html").write_text(page)
    pages = ["narrow.html", "wide.html", "boxed.html"]
    found = look.look(tmp_path, pages, tmp_path / "drawn", look.find_browser())
    assert [found[page, 390]["width"] for page in pages] == [390, 700, 390]
    assert [found[page, 1400]["width"] for page in pages] == [1400, 1400, 1400]
    assert found["boxed.html", 390]["scrolled"] == [["pre", 2000, 390]]
    assert found["wide.html", 390]["outside"] == ["div"]
    assert (found["narrow.html", 390]["images"], found["narrow.html", 390]["broken"]) == (
        2,
        ["img.lost"],
    )
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 6
