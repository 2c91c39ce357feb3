"""Links to the documentation of other projects, without asking them for it.

Intersphinx looks names up in inventories that it fetches from each project; without a network
there are none, and no links. Those that these pages use stand here instead, and are written as
inventories in the form that intersphinx reads (Sphinx, version 2) whenever the site is built. A
name that is missing here is shown as code; add it to its project. Names also work without their
module, as in `GridSearchCV`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from inspect import isclass
from pathlib import Path
from pydoc import locate


@dataclass(frozen=True)
class Project:
    """Where a project's pages are, and what it has."""

    url: str
    objects: dict[str, list[str]]  # page, with {} for the name: names it is the page of
    terms: dict[str, str] = field(default_factory=dict)  # other entries, "domain:role name": page


PROJECTS = {
    "python": Project(
        "https://docs.python.org/3/",
        {
            "library/constants.html#{}": ["None", "True", "False"],
            "library/stdtypes.html#{}": ["list", "tuple", "str", "dict"],
            "library/functions.html#{}": ["int", "float", "bool", "callable"],
            "library/pathlib.html#{}": ["pathlib.Path"],
            "library/exceptions.html#{}": ["ValueError", "TypeError", "FileExistsError"],
        },
        {
            "std:label bltin-boolean-values": "library/stdtypes.html#boolean-type-bool",
            "std:term sequence": "glossary.html#term-sequence",
            "std:term iterable": "glossary.html#term-iterable",
            "std:term generator": "glossary.html#term-generator",
        },
    ),
    "numpy": Project(
        "https://numpy.org/doc/stable/",
        {
            "reference/generated/{}.html#{}": ["numpy.ndarray", "numpy.asarray"],
            "reference/random/generator.html#{}": ["numpy.random.Generator"],
            "reference/random/legacy.html#{}": ["numpy.random.RandomState"],
        },
        {"std:term array_like": "glossary.html#term-array_like"},
    ),
    "pandas": Project(
        "https://pandas.pydata.org/docs/",
        {
            "reference/api/{}.html#{}": [
                "pandas.DataFrame",
                "pandas.DataFrame.pivot_table",
                "pandas.MultiIndex",
                "pandas.Series",
            ]
        },
    ),
    "xarray": Project(
        "https://docs.xarray.dev/en/stable/",
        {
            "generated/{}.html#{}": [
                "xarray.DataArray",
                "xarray.DataTree",
                "xarray.Dataset",
                "xarray.open_datatree",
            ]
        },
    ),
    "sklearn": Project(
        "https://scikit-learn.org/stable/",
        {
            "modules/generated/{}.html#{}": [
                "sklearn.base.clone",
                "sklearn.model_selection.GridSearchCV",
                "sklearn.model_selection.GroupKFold",
                "sklearn.model_selection.HalvingRandomSearchCV",
                "sklearn.model_selection.KFold",
                "sklearn.model_selection.RandomizedSearchCV",
                "sklearn.model_selection.cross_val_score",
                "sklearn.model_selection.learning_curve",
                "sklearn.pipeline.Pipeline",
                "sklearn.pipeline.make_pipeline",
            ]
        },
    ),
    "torch": Project(
        "https://docs.pytorch.org/docs/stable/",
        {
            "generated/{}.html#{}": [
                "torch.compile",
                "torch.nn.Module",
                "torch.save",
                "torch.set_num_threads",
            ],
            "tensors.html#{}": ["torch.Tensor"],
            "tensor_attributes.html#{}": ["torch.device", "torch.dtype"],
        },
    ),
    "joblib": Project(
        "https://joblib.readthedocs.io/en/stable/",
        {"generated/{}.html#{}": ["joblib.parallel_config"]},
    ),
    "matplotlib": Project(
        "https://matplotlib.org/stable/",
        {
            "api/_as_gen/{}.html#{}": ["matplotlib.axes.Axes"],
            "api/figure_api.html#{}": ["matplotlib.figure.Figure"],
        },
    ),
    "optuna": Project(
        "https://optuna.readthedocs.io/en/stable/",
        {"reference/generated/{}.html#{}": ["optuna.study.Study"]},
    ),
}


def short_names() -> dict[str, str]:
    """Full names by their last part, where that begins with a capital or has an underscore."""
    full = [n for p in PROJECTS.values() for names in p.objects.values() for n in names]
    short = {name.rpartition(".")[2]: name for name in full if "." in name}
    return {k: v for k, v in short.items() if k[0].isupper() or "_" in k}


def _kind(name: str) -> str:
    """How the Python domain calls an object; an error where there is no such object."""
    if name in ("None", "True", "False"):
        return "data"
    found = locate(name)
    if found is None:
        raise ValueError(f"{name} is not there: correct it in {__file__}.")
    return "class" if isclass(found) else "function"


def write_inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write one inventory per project and return them as an ``intersphinx_mapping``."""
    folder.mkdir(parents=True, exist_ok=True)
    aliases = {full: short for short, full in short_names().items()}
    mapping = {}
    for key, project in PROJECTS.items():
        lines = []
        for page, names in project.objects.items():
            for name in names:
                for found in filter(None, (name, aliases.get(name))):
                    lines.append(f"{found} py:{_kind(name)} 1 {page.replace('{}', name)} -")
        for entry, page in project.terms.items():
            role, _, name = entry.partition(" ")
            lines.append(f"{name} {role} -1 {page} {name}")
        head = f"# Sphinx inventory version 2\n# Project: {key}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        file = folder / f"{key}.inv"
        content = head.encode() + zlib.compress("\n".join([*sorted(lines), ""]).encode())
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)
        mapping[key] = (project.url, str(file))
    return mapping
