"""Every public name says what goes in, what comes out, and what each of them means."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
from numpydoc.validate import validate

import v1tlearn

MODULES = ["v1tlearn"] + [
    f"v1tlearn.{name}" for name in v1tlearn.__all__ if inspect.ismodule(getattr(v1tlearn, name))
]

# Beyond the form that `make lint` checks: parameters complete, returns named.
CHECKS = {"GL08", "PR01", "PR02", "RT01", "YD01"}


def _public_objects():
    names = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            found = getattr(module, name)
            if not (inspect.isclass(found) or inspect.isfunction(found)):
                continue
            names.add(f"{found.__module__}.{found.__qualname__}")
            if inspect.isclass(found):
                names.update(_members(found))
    return sorted(names)


def _members(cls):
    """Public methods and properties of a class that this package wrote."""
    for base in cls.__mro__:
        if not base.__module__.startswith("v1tlearn"):
            continue
        for name, member in vars(base).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                yield f"{base.__module__}.{base.__qualname__}.{name}"


def test_there_is_a_public_interface():
    assert len(_public_objects()) > 20


@pytest.mark.parametrize("name", _public_objects())
def test_docstring_is_complete(name):
    errors = [(code, text) for code, text in validate(name)["errors"] if code in CHECKS]
    assert not errors, f"{name}: {errors}"


def _listed_in_the_api_page():
    page = Path(__file__).parent.parent / "docs" / "api.rst"
    return set(page.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", MODULES)
def test_api_page_lists_every_public_name(name):
    module = importlib.import_module(name)
    public = {n for n in module.__all__ if callable(getattr(module, n))}
    assert public <= _listed_in_the_api_page()


def test_templates_of_the_api_page_exist():
    """Where a template is missing, classes are shown without their methods."""
    docs = Path(__file__).parent.parent / "docs"
    named = re.findall(r":template: (\S+)", (docs / "api.rst").read_text(encoding="utf-8"))
    assert named
    assert all((docs / "_templates" / name).is_file() for name in named)
