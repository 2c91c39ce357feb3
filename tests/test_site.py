"""What the site is built and looked at with: inventories of other projects, widths of pages."""

import importlib.util
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
    names += ["auto_examples/index"]
    names += [f"auto_examples/{path.stem}" for path in (root / "examples").glob("plot_*.py")]
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
@pytest.mark.skipif(look.find_browser() is None, reason="no Chromium or Chrome is installed")
def test_wide_pages_and_boxes_are_found(tmp_path):
    wide = '<div style="width: {}px">wide</div>'
    box = '<pre style="overflow-x: auto">' + wide.format(2000) + "</pre>"
    for name, body in {"narrow": "x", "wide": wide.format(700), "boxed": box}.items():
        page = f'<body style="margin: 0"><div class="bd-article-container">{body}</div></body>'
        (tmp_path / f"{name}.html").write_text(page)
    pages = ["narrow.html", "wide.html", "boxed.html"]
    found = look.look(tmp_path, pages, tmp_path / "drawn", look.find_browser())
    assert [found[page, 390]["width"] for page in pages] == [390, 700, 390]
    assert [found[page, 1400]["width"] for page in pages] == [1400, 1400, 1400]
    assert found["boxed.html", 390]["scrolled"] == [["pre", 2000, 390]]
    assert found["wide.html", 390]["outside"] == ["div"]
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 6
