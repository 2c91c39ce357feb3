"""Sphinx configuration: pydata theme, numpydoc API pages, sphinx-gallery examples.

What goes beyond settings is in `_ext/`.
"""

import os
import shutil
import sys
import warnings
from importlib.metadata import version as installed_version
from pathlib import Path

import torch
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # an example imports it

from v1tlearn import _urls

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from other_projects import short_names, write_inventories  # noqa: E402

warnings.filterwarnings("ignore", message=".*is non-interactive, and thus cannot be shown")

# Steps of the gallery's small models are too short to be shared between threads, which then wait
# for one another and spend processor time on it.
torch.set_num_threads(1)

# Models that several examples need are fitted once per build, see `checkpoint_dir` of `fit`.
SHARED_MODELS = HERE / "_build" / "models"
shutil.rmtree(SHARED_MODELS, ignore_errors=True)
os.environ["V1TLEARN_EXAMPLE_MODELS"] = str(SHARED_MODELS)

QUICK = tags.has("quick")  # noqa: F821  # `make docs QUICK=1`; Sphinx defines it

project = "v1tlearn"
author = "v1tlearn developers"
copyright = "2026, v1tlearn developers"
release = version = installed_version("v1tlearn")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "pages",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/**/*.ipynb", "auto_examples/**/*.py"]
smartquotes = False  # of "auto" and its like they make what is not Python
toc_object_entries_show_parents = "hide"
default_role = "py:obj"  # a link where there is such an object, code otherwise
rst_prolog = ".. currentmodule:: v1tlearn\n"

intersphinx_mapping = write_inventories(HERE / "generated" / "inventories")
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc gives shapes and units, which the hints cannot
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"  # all but these
numpydoc_xref_aliases = {
    **short_names(),
    **{name: f"v1tlearn.{name}" for name in ("Responses", "Trials")},
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)(?!plot_)\w+\.py$",  # scripts beside the sections
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("v1tlearn",),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "plot_gallery": not QUICK,
}

# `sphinx -b linkcheck docs out` asks for every address outside; it needs a network. Publishers
# turn scripts away, and the repository's own pages are there when it is published.
linkcheck_ignore = [rf"{_urls.REPOSITORY_URL}/edit/", rf"{_urls.DOCS_URL}/"]
linkcheck_allowed_redirects = {r"https://doi\.org/.*": r"https://.*"}
linkcheck_report_timeouts_as_broken = True
linkcheck_timeout, linkcheck_retries = 30, 3

html_theme = "pydata_sphinx_theme"
html_baseurl = f"{_urls.DOCS_URL}/"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = "v1tlearn"
html_show_sourcelink = False
owner, repository = _urls.REPOSITORY_URL.split("/")[-2:]
html_context = {
    "repository": _urls.REPOSITORY_URL,
    "github_user": owner,
    "github_repo": repository,
    "github_version": "main",
    "doc_path": "docs",
    "default_mode": "light",
}
html_theme_options = {
    "announcement": "Built without running the examples: no figures." if QUICK else "",
    "github_url": _urls.REPOSITORY_URL,
    "use_edit_page_button": True,
    "show_toc_level": 2,
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc", "edit-this-page"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "getting_started": [], "changelog": [], "contributing": []}
