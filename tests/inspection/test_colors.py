"""Colours: one for every model, whatever it is called, and never the same for two."""

import pytest

from v1tlearn.inspection import MODEL_COLORS, model_color
from v1tlearn.inspection.colors import figure_colors


@pytest.mark.parametrize("known", MODEL_COLORS)
def test_names_that_begin_with_a_model_have_its_color(known):
    for name in (known, known.lower(), f"{known}Regressor", f"{known}, 64", f"{known} (2)"):
        assert model_color(name) == MODEL_COLORS[known]


@pytest.mark.parametrize("name", ["lnx", "Vital", "CNNish", "my V1T", "oracles", ""])
def test_other_words_are_names_of_your_own(name):
    assert model_color(name) not in MODEL_COLORS.values()


def test_colors_are_all_different():
    assert len(set(MODEL_COLORS.values())) == len(MODEL_COLORS)


def test_names_of_your_own_have_a_color_each_that_stays():
    names = ["my model", "yours", "ours", "theirs", "a", "b"]
    colors = [model_color(name, names) for name in names]
    assert len(set(colors)) == len(names)
    assert not set(colors) & set(MODEL_COLORS.values())
    assert model_color("my model") == colors[0] == model_color("my model", ["CNN", "my model"])
    assert [model_color(name, ["V1T", *names]) for name in names] == colors
    many = [f"model {i}" for i in range(30)]
    assert all(model_color(name, many).startswith("#") for name in many)


def test_several_of_one_model_are_shades_of_its_color():
    colors = figure_colors(["CNN, 8", "LN", "CNN, 16", "CNN, 32", "mine"])
    assert colors["CNN, 8"] == MODEL_COLORS["CNN"]
    assert colors["LN"] == MODEL_COLORS["LN"]
    assert colors["mine"] == model_color("mine")
    assert len(set(colors.values())) == 5

    def lightness(color):
        return sum(int(color[i : i + 2], 16) for i in (1, 3, 5))

    tones = [lightness(colors[name]) for name in ("CNN, 8", "CNN, 16", "CNN, 32")]
    assert tones == sorted(tones)
    assert tones[-1] < 3 * 230  # seen on white
