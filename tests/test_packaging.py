"""What is shipped, under which versions, and what the forge is told to run."""

import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import v1tlearn

ROOT = Path(__file__).parents[1]
URLS = runpy.run_path(str(ROOT / "v1tlearn" / "_urls.py"))
ALONGSIDE = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]  # which the builds overwrite
build_meta.build_sdist(out)
build_meta.build_wheel(out)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and source distribution of what is in the folder now, and the wheel's metadata."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in (*ALONGSIDE, "MANIFEST.in", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    unbuilt = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(ROOT / "v1tlearn", source / "v1tlearn", ignore=unbuilt)
    # Without a compiler: that the kernels are built has a test of its own.
    environment = {**os.environ, "CC": "no-compiler", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        (metadata,) = (name for name in in_wheel if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(metadata).decode())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    return in_wheel, in_sdist, metadata


def test_both_distributions_hold_every_module_and_say_that_they_are_typed(built):
    in_wheel, in_sdist, metadata = built
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "v1tlearn").rglob("*.py")}
    pages = {f"v1tlearn/inspection/reports/page.{kind}" for kind in ("css", "html.jinja")}
    for names in (in_wheel, in_sdist):
        assert modules | pages <= names
        assert "v1tlearn/py.typed" in names
        assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    assert set(ALONGSIDE) <= in_sdist
    assert "Typing :: Typed" in metadata.get_all("Classifier")


@pytest.mark.skipif(sys.platform == "win32", reason="no kernels are built here")
def test_the_source_distribution_holds_all_that_the_kernels_are_built_from(built):
    _, in_sdist, _ = built
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "v1tlearn").rglob("*.[ch]")}
    assert {Path(name).suffix for name in sources} == {".c", ".h"}
    assert sources <= in_sdist


def test_the_addresses_of_the_project_come_from_one_place(built):
    *_, metadata = built
    stated = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL"))
    assert stated["Source"] == URLS["REPOSITORY_URL"]
    assert stated["Documentation"] == URLS["DOCS_URL"]
    assert all(
        address.startswith((URLS["REPOSITORY_URL"], URLS["DOCS_URL"]))
        for address in stated.values()
    )


def test_no_other_file_holds_an_address_of_the_project():
    texts = [*ROOT.glob("*.*"), *(ROOT / ".github").rglob("*.*"), *(ROOT / "docs").glob("*.*")]
    places = [URLS[name].partition("//")[2] for name in ("REPOSITORY_URL", "DOCS_URL")]
    for path in texts:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [place for place in places if place in text], path


def requirements(metadata):
    """One entry per package and extra."""
    return [Requirement(text) for text in metadata.get_all("Requires-Dist")]


def pinned(path):
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return {name.lower(): Version(v) for name, _, v in (x.partition("==") for x in lines if x)}


def test_the_lowest_versions_are_the_lower_bounds(built):
    lowest = pinned(ROOT / "constraints-lowest.txt")
    bounds = {}
    for requirement in requirements(built[2]):
        (bound,) = requirement.specifier
        assert bound.operator == ">=", f"no plain lower bound: {requirement}"
        if str(requirement.marker) != 'extra == "docs"':  # the site is built with tested versions
            bounds[requirement.name.lower()] = Version(bound.version)
    assert lowest | bounds == lowest
    assert lowest.keys() - bounds.keys() == {"pyparsing"}  # of matplotlib


def test_the_tested_versions_are_within_the_bounds(built):
    tested = pinned(ROOT / "constraints.txt")
    for requirement in requirements(built[2]):
        name = requirement.name.lower()
        assert name in tested, f"constraints.txt has no version of {name}"
        assert requirement.specifier.contains(tested[name]), f"{requirement}: {tested[name]}"


def test_the_version_is_that_of_the_citation_and_written_nowhere_else(built):
    version = built[2]["Version"]
    assert load(ROOT / "CITATION.cff")["version"] == version
    assert v1tlearn.__version__ == importlib.metadata.version("v1tlearn")
    others = [*(ROOT / "v1tlearn").rglob("*.py"), *(ROOT / "docs").glob("*.py")]
    assert not [path for path in others if f'"{version}"' in path.read_text(encoding="utf-8")]


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def workflow(name="ci"):
    """A workflow; YAML 1.1 reads the key `on` as True."""
    return load(ROOT / ".github" / "workflows" / f"{name}.yml")


def test_the_workflow_runs_ci_on_three_systems_with_lowest_and_highest_versions():
    job = workflow()["jobs"]["ci"]
    matrix = job["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}
    assert set(matrix["versions"]) == {"lowest", "highest"}
    constraints = {entry["versions"]: entry["constraints"] for entry in matrix["include"]}
    assert constraints["highest"] == ""
    assert (ROOT / constraints["lowest"]).is_file()
    assert constraints["lowest"] != constraints["tested"] == "constraints.txt"
    assert job["env"]["CONSTRAINTS"] == "${{ matrix.constraints }}"
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert (ROOT / ".ci" / "run").is_file()


def test_the_workflow_builds_the_site_in_a_second_step():
    job = workflow()["jobs"]["docs"]
    assert job["needs"] == "ci"
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["bash .ci/docs", "make linkcheck"]
    assert "\nmake --no-print-directory docs\n" in (ROOT / ".ci" / "docs").read_text()


def test_the_lowest_python_of_the_workflow_is_the_one_that_setup_asks_for(built):
    entries = workflow()["jobs"]["ci"]["strategy"]["matrix"]["include"]
    pythons = {entry["versions"]: Version(entry["python"]) for entry in entries}
    assert built[2]["Requires-Python"] == f">={pythons['lowest']}"
    assert pythons["highest"] > pythons["lowest"]


def test_wheels_are_built_for_each_system_and_used():
    jobs = workflow("wheels")["jobs"]
    systems = {name for job in jobs.values() for name in job["strategy"]["matrix"]["system"]}
    kinds = {name.partition("-")[0] for name in systems}
    assert kinds == {"ubuntu", "macos", "windows"}
    assert any(name.endswith("-arm") for name in systems)
    with open(ROOT / "pyproject.toml", "rb") as file:
        settings = tomllib.load(file)["tool"]["cibuildwheel"]
    assert settings["build"] == "cp311-*"  # of which later ones take the wheel
    script, compiled = settings["test-command"].rpartition("{project}/")[2].split()
    assert (ROOT / script).is_file()
    assert compiled == "--compiled"  # or a wheel whose kernels failed to build would pass


@pytest.mark.parametrize("name", ["ci", "wheels"])
def test_the_workflow_may_only_read_and_names_the_version_of_every_action(name):
    flow = workflow(name)
    assert flow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in flow[True]
    for job in flow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] > 0
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
            # What strangers write must not become part of a command.
            assert "${{" not in step.get("run", "")


@pytest.mark.parametrize(
    ("given", "environment", "constraint"),
    [
        ([], ".venv", "-c constraints.txt "),
        (["CONSTRAINTS=constraints-lowest.txt"], ".venv-lowest", "-c constraints-lowest.txt "),
        (["CONSTRAINTS="], ".venv-highest", ""),
    ],
)
def test_every_set_of_versions_has_an_environment_of_its_own(given, environment, constraint):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    target = f"{environment}/.installed-test"
    plan = subprocess.run(
        ["make", "--no-print-directory", "-n", "-W", "setup.py", "test", *given],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in ("CONSTRAINTS", "MAKEFLAGS")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (install,) = re.findall(r"(\S+) -m pip install --quiet +(.*)-e", plan)
    assert Path(install[0]).parts[0] == environment
    assert install[1].strip() == constraint.strip()
    assert f"touch {target}" in plan


ISSUE_FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


@pytest.mark.parametrize("path", ISSUE_FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_what_the_forge_expects(path):
    form = load(path)
    if path.stem == "config":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(form) <= {"name", "description", "labels", "body"}
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for field in form["body"]:
        assert field["type"] in KINDS
        assert field["attributes"].get("label" if field["type"] != "markdown" else "value")
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_there_are_forms_for_wrong_missing_and_unclear():
    assert {path.stem for path in ISSUE_FORMS} == {
        "bug_report",
        "config",
        "documentation",
        "feature_request",
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="installs by names of POSIX systems")
def test_what_is_released_works_in_an_empty_environment():
    command = [sys.executable, "-m", "tests.smoke", "--here"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"v1tlearn {re.escape(v1tlearn.__version__)} works", done.stdout)
