"""What `help` and the site say of the models' parameters, in groups."""

import inspect
from dataclasses import fields

import pytest
from numpydoc.docscrape import ClassDoc

import v1tlearn as v1

KINDS = [v1.V1TRegressor, v1.ViTRegressor, v1.CNNRegressor, v1.LNRegressor]
KINDS += [v1.FullModelRegressor, v1.MinimodelRegressor, v1.PretrainedViTRegressor]
KINDS += [v1.MovieCNNRegressor, v1.MovieLNRegressor, v1.EncodingRegressor]
GROUPS = ["inputs", "architecture", "readout", "training", "machine"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_stands_in_one_group(kind):
    groups = kind._parameter_groups
    assert list(groups) == GROUPS
    listed = [name for names in groups.values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(listed) == {field.name for field in fields(kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_groups_follow_each_other_in_the_documentation(kind):
    documented = [
        name
        for parameter in ClassDoc(kind, config={"show_class_members": False})["Parameters"]
        for name in parameter.name.split(", ")
    ]
    assert documented == [name for names in kind._parameter_groups.values() for name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_announced_and_set_apart_by_blank_lines(kind):
    text = inspect.getdoc(kind)
    before, after = text.split("\nParameters\n----------\n")
    blocks = after.split("\nAttributes\n")[0].strip().split("\n\n")
    assert len(blocks) == len(GROUPS)
    announced = " ".join(before.split())
    for (group, names), block in zip(kind._parameter_groups.items(), blocks, strict=True):
        assert block.startswith(names[0])
        assert f"{group} (from `{names[0]}`)" in announced


def test_defaults_are_those_of_each_class():
    for kind, layers in ((v1.CNNRegressor, 4), (v1.LNRegressor, 3)):
        assert f"n_layers : int, default={layers}\n" in inspect.getdoc(kind)
