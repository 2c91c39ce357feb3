"""Sphinx configuration: pydata theme, numpydoc API pages, sphinx-gallery examples."""

import warnings
from importlib.metadata import version as installed_version

warnings.filterwarnings("ignore", message=".*is non-interactive, and thus cannot be shown")

project = "v1tlearn"
author = "v1tlearn developers"
copyright = "2026, v1tlearn developers"
release = version = installed_version("v1tlearn")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/**/*.ipynb", "auto_examples/**/*.py"]
default_role = "code"

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc gives shapes and units, which the hints cannot
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(demo|dataset_.|paper_\w+)\.py",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("v1tlearn",),
    "download_all_examples": False,
    "show_signature": False,
    "plot_gallery": True,
}

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = "v1tlearn"
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "getting_started": [], "changelog": []}
