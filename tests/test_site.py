"""What the site is built and looked at with: inventories of other projects, widths of pages."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # as docs/conf.py

import v1tlearn as v1

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
diagrams = load(DOCS / "diagrams.py")


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


EXAMPLES = sorted((DOCS.parent / "examples").glob("*/plot_*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_asks_one_question_and_has_a_chosen_thumbnail(path):
    text = path.read_text(encoding="utf-8")
    title = ast.get_docstring(ast.parse(text)).splitlines()[0]
    assert title.endswith("?")
    if drawn := re.findall(r'^# sphinx_gallery_thumbnail_path = "(.+)"$', text, re.MULTILINE):
        assert (DOCS / drawn[0]).exists()
        return
    (number,) = re.findall(r"^# sphinx_gallery_thumbnail_number = (\d+)$", text, re.MULTILINE)
    figures = re.findall(
        r"^ *(?:\w+, .*= plt\.subplots|\w*\.?\w*Display\b.*\()", text, re.MULTILINE
    )
    assert 1 <= int(number) <= len(figures)


def test_sections_of_the_gallery_are_numbered_without_gaps():
    sections = sorted(
        path.parent.name for path in DOCS.parent.glob("examples/*/GALLERY_HEADER.rst")
    )
    assert [int(name[:2]) for name in sections] == list(range(1, len(sections) + 1))
    assert len(EXAMPLES) >= 18
    for number, name in enumerate(sections, 1):
        header = DOCS.parent / "examples" / name / "GALLERY_HEADER.rst"
        assert header.read_text(encoding="utf-8").startswith(f"{number}. ")
        assert any(path.parent.name == name for path in EXAMPLES)


def test_examples_that_call_a_class_method_stand_under_the_class():
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(DOCS / "_templates/autosummary"))
    templates.filters["underline"] = str  # which Sphinx adds
    methods = ["from_estimator", "plot"]
    names = {"module": "v1tlearn.inspection", "objname": "ScoreDisplay", "methods": methods}
    page = templates.get_template("class.rst").render(names)
    (listed,) = re.findall(r"^\.\. minigallery:: (.+)\n   :add-heading: ", page, re.MULTILINE)
    full = "v1tlearn.inspection.ScoreDisplay"
    assert listed.split() == [full, *(f"{full}.{method}" for method in methods)]


# ---------------------------------------------------------------------------------- pages and links

# without the page of times that a build of the gallery leaves here
PAGES = sorted(path for path in DOCS.glob("*.rst") if path.stem != "sg_execution_times")


def labels():
    """Labels that pages set themselves, and those that sphinx-gallery gives to examples."""
    own = {
        label
        for path in PAGES
        for label in re.findall(
            r"^ *\.\. _([\w-]+):$", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    return own | {f"sphx_glr_auto_examples_{path.parent.name}_{path.name}" for path in EXAMPLES}


@pytest.mark.parametrize("path", [*PAGES, *EXAMPLES], ids=lambda path: path.stem)
def test_pages_labels_files_and_pictures_that_are_linked_are_there(path):
    text = path.read_text(encoding="utf-8")
    home = "auto_examples/x/" if path.suffix == ".py" else ""
    pages = {p.stem for p in PAGES} | {"auto_examples/index"}
    pages |= {f"auto_examples/{p.parent.name}/{p.stem}" for p in EXAMPLES}
    for role, target in re.findall(r":(doc|ref):`(?:[^`<]*<)?([^`<>]+)>?`", text):
        if role == "doc":
            assert (target[1:] if target.startswith("/") else home + target) in pages, target
        else:
            assert target in labels(), target
    for target in re.findall(
        r"^ *\.\. (?:figure|image|literalinclude):: (\S+)$", text, re.MULTILINE
    ):
        assert (path.parent / target).is_file(), target


def test_every_page_is_in_the_contents():
    listed = {"index"}
    for name in ("index", "user_guide"):
        text = (DOCS / f"{name}.rst").read_text(encoding="utf-8")
        for block in re.findall(r"\.\. toctree::\n((?:   .*\n|\n)+)", text):
            listed |= set(re.findall(r"^   (?:[\w ]+<)?([\w/]+)>?$", block, re.MULTILINE))
    assert {path.stem for path in PAGES} <= listed


def test_diagrams_are_those_that_the_script_draws():
    for name, draw in diagrams.DIAGRAMS.items():
        assert (DOCS / "_static" / name).read_text(encoding="utf-8") == draw(), name


@pytest.mark.parametrize("draw", diagrams.DIAGRAMS.values(), ids=diagrams.DIAGRAMS)
def test_diagrams_are_whole_and_name_models_that_exist(draw):
    root = ElementTree.fromstring(draw())
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    named = {name for text in texts for name in re.findall(r"\w+(?:Regressor|Aligner)", text)}
    assert all(hasattr(v1, name) for name in named)
    if draw is diagrams.choosing:
        page = (DOCS / "choosing_a_model.rst").read_text(encoding="utf-8")
        assert all(f"`{name}" in page or f"``{name}" in page for name in named)
        assert len(named) >= 10


def test_tests_that_the_page_on_reproducibility_names_are_there():
    text = (DOCS / "reproducibility.rst").read_text(encoding="utf-8")
    named = re.findall(r"``(\S+\.py)::(\w+)``", text)
    assert len(named) >= 10
    for file, function in named:
        assert f"def {function}(" in (DOCS.parent / "tests" / file).read_text(encoding="utf-8")


def messages():
    """Texts of the package, "\0" for what is put in."""
    for path in (DOCS.parent / "v1tlearn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value.replace("%s", "\0")


def test_messages_that_the_page_on_trouble_quotes_are_those_of_the_package():
    text = (DOCS / "troubleshooting.rst").read_text(encoding="utf-8")
    quoted = re.findall(r"^``([^`]+)``$", text, re.MULTILINE)
    assert len(quoted) >= 15
    known = list(messages())
    for message in quoted:
        parts = [re.escape(part.strip()) for part in message.split("...") if part.strip()]
        pattern = re.compile(r"[\s\S]*".join(parts), re.IGNORECASE)
        assert any(pattern.search(text) for text in known), message


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
    (section.parent / "demo.py").write_text('"""No example."""\n')
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
    assert not (tmp_path / "html" / "auto_examples" / "demo.html").exists()


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
