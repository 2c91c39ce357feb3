"""A reader of the V1T paper: from the README to the call for a row of a table."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def text(name):
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def test_the_readme_leads_to_the_command_and_the_page():
    readme = text("README.md")
    assert "python -m papers.v1t2023.dataset_s --data sensorium/" in readme
    assert "docs/from_the_paper.rst" in readme


def test_the_site_leads_to_the_page():
    assert ":doc:`from_the_paper`" in text("docs/index.rst")
    assert " from_the_paper " in f"{text('docs/user_guide.rst')} "


def test_the_page_leads_to_scripts_and_their_guide():
    page = text("docs/from_the_paper.rst")
    assert ":doc:`paper_scripts`" in page
    for script in ("dataset_s", "dataset_f"):
        assert f"python -m papers.v1t2023.{script} --data" in page
        assert (ROOT / "papers" / "v1t2023" / f"{script}.py").is_file()


def test_every_table_that_the_scripts_write_is_on_the_page():
    titles = re.findall(r'"(A\.\d+)"', (ROOT / "papers" / "v1t2023" / "tables.py").read_text())
    page = (ROOT / "docs" / "from_the_paper.rst").read_text(encoding="utf-8")
    rows = " ".join(re.findall(r"\* - (Tables? .*)", page))
    assert {"A.5", "A.7", "A.8"} <= set(titles) <= set(re.findall(r"A\.\d+", rows))
