"""A reader of the V1T paper: from the README to the call for a row of a table."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def text(name):
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def test_the_readme_leads_to_the_command_and_the_page():
    readme = text("README.md")
    assert "python examples/dataset_s.py --data sensorium/" in readme
    assert "docs/from_the_paper.rst" in readme


def test_the_site_leads_to_the_page():
    assert ":doc:`from_the_paper`" in text("docs/index.rst")
    assert " from_the_paper " in f"{text('docs/user_guide.rst')} "


def test_the_page_leads_to_scripts_and_their_guide():
    page = text("docs/from_the_paper.rst")
    assert ":doc:`paper_scripts`" in page
    for script in ("dataset_s.py", "dataset_f.py"):
        assert f"python examples/{script} --data" in page
        assert (ROOT / "examples" / script).is_file()


def test_every_table_that_the_scripts_write_is_on_the_page():
    """Titles of their tables are those of the paper; what the page says covers each."""
    titles = re.findall(r'"(A\.\d+)"', (ROOT / "examples" / "paper_tables.py").read_text())
    page = text("docs/from_the_paper.rst")
    assert len(set(titles)) > 3
    for title in set(titles):
        assert f"Table {title}" in page or re.search(rf"Tables? [^.]*{re.escape(title)}", page), (
            title
        )
