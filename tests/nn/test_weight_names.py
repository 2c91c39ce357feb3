"""Weights under the names that versions of transformers gave them come to those of today."""

import pytest

from tests.backbones import CONFIGURATIONS, DINOV2, random_backbone
from v1tlearn.nn.cores.weight_names import renamed

VIT = {**DINOV2, "model_type": "vit", "intermediate_size": 64}
_OLD_ATTENTION = [f"attention.attention.{n}" for n in ("query", "key", "value")]
_OLD_ATTENTION += ["attention.output.dense"]
_ATTENTION = [f"attention.{n}_proj" for n in "qkvo"]
_SCALED = ["norm1", "norm2", "mlp.fc1", "mlp.fc2"]
_VIT_NORMS = ["layernorm_before", "layernorm_after"]

# Where blocks were, and what of one has weight and bias: with 5.0 or earlier, and later.
BLOCKS = {
    "dinov2": [
        ("encoder.layer.{}.", [*_OLD_ATTENTION, *_SCALED]),
        ("encoder.layer.{}.", [*_ATTENTION, *_SCALED]),
    ],
    "dinov3": [
        ("layer.{}.", ["attention.q_proj", "attention.o_proj", "mlp.up_proj", "norm1"]),
        ("model.layer.{}.", ["attention.q_proj", "attention.o_proj", "mlp.up_proj", "norm1"]),
    ],
    "vit": [
        ("encoder.layer.{}.", [*_OLD_ATTENTION, "intermediate.dense", "output.dense", *_VIT_NORMS]),
        ("layers.{}.", [*_ATTENTION, "mlp.fc1", "mlp.fc2", *_VIT_NORMS]),
    ],
}


def names(family, version):
    place, parts = BLOCKS[family][version]
    ends = ("weight", "bias")
    return [
        f"core.backbone.model.{place.format(block)}{part}.{end}"
        for block in (0, 1, 10)
        for part in parts
        for end in ends
    ]


@pytest.mark.parametrize("family", BLOCKS)
@pytest.mark.parametrize(("of", "now"), [(0, 1), (1, 0), (0, 0)])
def test_each_weight_comes_to_its_own_name(family, of, now):
    told, known = names(family, of), names(family, now)
    values = {name: number for number, name in enumerate(told)}
    assert renamed(values, known) == {name: number for number, name in enumerate(known)}


@pytest.mark.parametrize("family", [*CONFIGURATIONS, "vit"])
def test_names_of_today_are_told_apart(family):
    """Of no two weights of a model are the names taken for those of one."""
    configuration = CONFIGURATIONS.get(family, VIT)
    today = [f"model.{name}" for name in random_backbone(configuration).state_dict()]
    other = {name.replace("layer.", "layers."): name for name in today}
    assert renamed(other, today) == {name: name for name in today}
    assert renamed({"core.other": 1}, today) == {"core.other": 1}
