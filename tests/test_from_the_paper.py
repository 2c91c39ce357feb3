"""What docs/from_the_paper.rst says to call: every name is there, and the calls run as written.

Literals of the page are run with smaller numbers put in, which have to be found there.
"""

import ast
import inspect
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GroupKFold, HalvingRandomSearchCV, learning_curve
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.interop.published_runs import Published

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "from_the_paper.rst").read_text()
# The analyses of the last section are run below, and in the tests of `inspection`.
LITERALS = [
    " ".join(literal.split())
    for literal in re.findall(r"``([^`]+?)``", PAGE)
    if not literal.startswith(("inspection.", "v1tlearn.inspection"))
]
# Of these, calls of what is there.
ANALYSES = [
    literal
    for literal in (" ".join(found.split()) for found in re.findall(r"``([^`]+?)``", PAGE))
    if re.match(r"inspection\.\w*(attention|behavior|Attention|Behavior)\w*[.(]", literal)
]
SMALL = {"patch_size": 8, "patch_stride": 8, "n_blocks": 1, "n_heads": 1, "embed_dim": 8}
SMALL |= {"mlp_dim": 4, "max_epochs": 1, "device": "cpu"}


def attribute(name):
    """What a dotted name stands for."""
    found = v1
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


def calls():
    """Calls of public names, and of `from_preset`, in the literals that are Python."""
    for literal in LITERALS:
        try:
            tree = ast.parse(literal)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), node


def settings():
    """Every (parameter, value) of literals such as ``a="b" | "c"`` and ``a="b", c="d"``."""
    for literal in LITERALS:
        if re.match(r"(?!scoring)\w+=", literal):
            (call,) = ast.parse(f"f({literal})").body
            for keyword in call.value.keywords:
                alternatives = ast.unparse(keyword.value).split(" | ")
                yield from ((keyword.arg, ast.literal_eval(value)) for value in alternatives)


# ------------------------------------------------------------------------------------ what it names


def test_every_public_name_is_there():
    text = PAGE.replace("v1tlearn.inspection", "")
    names = set(re.findall(r"\bv1(?:tlearn)?(?:\.[A-Za-z_]\w*)+", " ".join(re.split(r"\s+", text))))
    assert {"v1.V1TRegressor", "v1.search.V1T_SPACE", "v1tlearn.nn.attention_rollout"} <= names
    assert len(names) > 25
    for name in names:
        found = attribute(name.removesuffix(".from_preset"))
        assert found is not None
        assert not name.endswith(".from_preset") or callable(found.from_preset)


def test_keywords_of_calls_are_those_of_the_functions():
    seen = set()
    for name, call in calls():
        if re.fullmatch(r"v1(\.\w+)+", name) and not name.endswith("from_preset"):
            known = inspect.signature(attribute(name)).parameters
            if any(p.kind is p.VAR_KEYWORD for p in known.values()):
                continue
            seen.add(name)
            assert {keyword.arg for keyword in call.keywords} <= set(known), name
    assert {"v1.search.HyperbandSearch", "v1.EnsembleRegressor", "v1.CenterCrop"} <= seen


def test_values_of_parameters_are_allowed():
    found = list(settings())
    assert {"tokenizer", "attention", "behavior_mode", "shift", "crop_scale"} <= dict(found).keys()
    assert len(found) >= 12
    for name, value in found:
        v1.V1TRegressor(**{name: value})._validate_params()
    without = [pair for pair in found if pair[1] == "none"]
    assert len(without) == 2
    for kind in (v1.CNNRegressor, v1.ViTRegressor):
        kind(**dict(without))._validate_params()


def test_presets_are_known():
    found = re.findall(r"v1\.(\w+)\.from_preset\(\"(\w+)\"", PAGE)
    assert len(found) >= 5
    for kind, preset in found:
        getattr(v1, kind).from_preset(preset)
    assert '"sensorium2022"' in LITERALS
    for kind in (v1.LNRegressor, v1.CNNRegressor):
        kind.from_preset("sensorium2022")


def test_scripts_are_there():
    modules = set(re.findall(r"python -m (\S+?)[\s`]", PAGE))
    assert len(modules) == 3
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in modules)


# ------------------------------------------------------------------------------------ what it calls


KEYS = ("21067-10-18", "22846-10-16", "23343-5-17", "23656-14-22", "23964-4-22")
COMPETITION = ("26872-17-20", "27204-5-13")


def simulate(keys, **params):
    """Recordings of two mice, under as many names as needed."""
    recordings = v1.make_v1_recordings(
        n_mice=2,
        n_neurons=3,
        n_trials=20,
        n_test_images=2,
        n_repeats=3,
        image_shape=(20, 36),
        random_state=0,
        **params,
    )
    datasets = (child.to_dataset() for child in recordings.children.values())
    return dict(zip(keys, itertools.cycle(datasets), strict=False))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What the page's own beginning leaves behind, from zips of both data sets."""
    folder = tmp_path_factory.mktemp("downloads")
    v1.write_sensorium(simulate(KEYS + COMPETITION), folder / "sensorium", zip=True)
    v1.write_sensorium(simulate(["F1", "F2"], n_channels=2), folder / "franke", zip=True)
    (code,) = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", PAGE)
    namespace = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(inspect.cleandoc(code), namespace)
    namespace["folder"] = folder
    return namespace


@pytest.fixture
def names(prepared):
    """Fresh names as the page uses them: mice A and B, a small model, and a fitted one."""
    found = dict(prepared) | {"np": np}
    found["v1t"] = v1.V1TRegressor.from_preset("v1t2023", random_state=0, **SMALL)
    found["trials"] = prepared["trials"].sel(mouse_id=["A", "B"])
    for tier in ("train", "validation", "test"):
        found[tier] = found["trials"].sel(tier=tier)
    found["model"] = v1.V1TRegressor.from_preset("v1t2023", random_state=0, **SMALL)
    for other in (GroupKFold, HalvingRandomSearchCV, clone, learning_curve, make_pipeline):
        found[other.__name__] = other
    return found


def run(start, names, **smaller):
    """Run the literal that begins so; the value of its expression, or of its assignment."""
    (code,) = {literal for literal in LITERALS if literal.startswith(start)}
    for old, new in smaller.pop("replace", {}).items():
        assert old in code, f"{old} is not in {code}"
        code = code.replace(old, new)
    (statement,) = ast.parse(code).body
    value = eval(ast.unparse(statement.value), names)
    if isinstance(statement, ast.Assign):
        names[statement.targets[0].id] = value
    return value


def test_beginning_reads_the_five_mice(prepared):
    trials = prepared["trials"]
    assert trials.mice == list("ABCDE")
    assert prepared["names"] == dict(zip(KEYS, "ABCDE", strict=True))
    tiers = [prepared[tier] for tier in ("train", "validation", "test")]
    assert [set(part.tiers) for part in tiers] == [{"train"}, {"validation"}, {"test"}]
    assert sum(map(len, tiers)) == len(trials) == 5 * 26
    assert isinstance(prepared["v1t"], v1.V1TRegressor)


def test_data_are_read_and_validated(names):
    names["folder"] /= "sensorium"
    names["recordings"] = run("v1.read_sensorium(folder)", names)
    assert set(names["recordings"].children) == set(KEYS + COMPETITION)
    run("v1.validate_recordings(recordings)", names)


def test_scores(names):
    score = run("model.fit(train, validation=validation).score(test)", names)
    metric = run("v1.metrics.single_trial_correlation(", names)
    assert score == pytest.approx(metric, rel=1e-5)
    average = run("v1.metrics.average_correlation(", names)
    (scoring,) = (literal for literal in LITERALS if literal.startswith("scoring="))
    scorer = eval(scoring.removeprefix("scoring="), names)
    test = names["test"]
    assert scorer(names["model"], test, test.responses) == pytest.approx(average, rel=1e-5)
    rates = names["model"].predict(test)
    raw = v1.metrics.single_trial_correlation(test.responses, rates, multioutput="raw_values")
    assert raw.shape == (6,)
    names |= {"block": 0}
    assert run("model.module_.core.behavior_mlp(block)", names) is not None


@pytest.mark.parametrize("kind", ["LN", "CNN", "ViT"])
def test_other_models(names, kind):
    size = {"max_epochs": 1, "device": "cpu", "random_state": 0}
    if kind == "ViT":
        size |= SMALL
    else:
        size |= {"n_layers": 2, "input_kernel": 9}
        size |= {"hidden_channels": 2} if kind == "CNN" else {}
    model = run(f'v1.{kind}Regressor.from_preset("v1t2023")', names).set_params(**size)
    for params in ({}, {"behavior_mode": "none", "shift": "none"}):
        model.set_params(**params).fit(names["train"], validation=names["validation"])
        assert np.isfinite(model.score(names["test"]))


def test_attention_rollout_of_tensors(names):
    model = names["model"].set_params(behavior_mode="none", max_epochs=0).fit(names["train"])
    images = torch.randn(2, *model.module_.core.input_shape)
    names |= {"v1tlearn": v1, "images": images, "behaviors": None}
    assert len(run("v1tlearn.nn.attention_rollout(", names)) == 2


@pytest.mark.parametrize("literal", ANALYSES)
def test_analyses_of_attention_and_behavior(names, literal):
    if "Display" in literal:
        pytest.importorskip("matplotlib").use("Agg")
    names["model"].set_params(max_epochs=1).fit(names["train"], validation=names["validation"])
    names["inspection"] = v1.inspection
    found = eval(literal, names)
    if isinstance(found, dict):
        assert list(found) == ["A", "B"]
    elif literal.endswith("as_table=True)"):
        assert found.index.tolist() == ["A", "B", "mean"]
    else:
        assert len(found.axes_) >= 1


def test_every_analysis_of_attention_and_behavior_is_called():
    assert len(ANALYSES) == 7


def test_no_row_is_told_to_follow():
    rows = re.split(r"^   \* - ", PAGE, flags=re.MULTILINE)[1:]
    assert len(rows) > 20
    assert not [row for row in rows if re.search(r"\bfollow", row)]
    assert "to follow" not in " ".join(PAGE.split())


def test_every_analysis_is_there():
    found = set(re.findall(r"\binspection\.(\w+)", PAGE))
    assert len(found) > 10
    assert all(hasattr(v1.inspection, name) for name in found)


def test_ensemble(names):
    smaller = {"n_candidates=10, n_members=5, n_jobs=2": "n_candidates=2, n_members=1"}
    ensemble = run("v1.EnsembleRegressor(", names, replace=smaller)
    ensemble.fit(names["train"], validation=names["validation"])
    assert np.isfinite(ensemble.score(names["test"]))


def test_crop_inside_and_outside_of_the_model(names):
    (crop,) = (value for name, value in settings() if name == "crop_scale")
    whole = {"validation_fraction": 0.0}  # a part set aside has no part in the model's statistics
    inside = names["model"].set_params(crop_scale=crop, image_size=(36, 64), **whole)
    inside.fit(names["train"])
    names["v1t"].set_params(**whole)
    outside = run("make_pipeline(", names).fit(names["train"], names["train"].responses)
    for mouse in "AB":
        np.testing.assert_allclose(
            np.asarray(outside.predict(names["test"])[mouse]),
            np.asarray(inside.predict(names["test"])[mouse]),
            rtol=1e-3,
        )


def test_learning_curve(names):
    run("both = ", names)
    assert set(names["both"].tiers) == {"train", "test"}
    smaller = {"5 * np.arange(500, 4001, 500)": "np.arange(12, 25, 12)"}
    sizes, _, scores = run("learning_curve(", names, replace=smaller)
    assert sizes.tolist() == [12, 24]
    assert scores.shape == (2, 1)
    assert np.isfinite(scores).all()


def test_leave_one_mouse_out(names):
    table = run("v1.model_selection.leave_one_mouse_out(", names)
    assert table["mouse"].tolist() == ["A", "A", "B", "B"]
    assert np.isfinite(table["correlation"]).all()


def test_transfer_from_the_other_data_set(names):
    franke = v1.Trials(v1.read_sensorium(names["folder"] / "franke"))
    for tier in ("train", "validation"):
        names[f"franke_{tier}"] = franke.sel(tier=tier)
    run("gray = ", names)
    core = run("core = ", names)
    assert core.mice_ == ["F1", "F2"]
    moved = run("core.transfer(", names)
    assert moved.mice_ == ["A", "B"]
    assert moved.core_frozen_
    assert np.isfinite(moved.score(names["test"]))


@pytest.mark.filterwarnings("ignore:.*cannot follow their images")  # three neurons, one epoch
def test_hyperband_search(names, monkeypatch):
    monkeypatch.chdir(names["folder"])
    # the whole space has models of minutes
    names["space"] = {"lr": v1.search.V1T_SPACE["lr"]}
    smaller = {"v1.search.V1T_SPACE,": "space, n_trials=1,"}
    search = run("v1.search.HyperbandSearch(", names, replace=smaller)
    assert search.best_params_.keys() == {"lr"}
    assert Path("search.db").is_file()
    names["search"] = search
    with pytest.raises(ValueError, match="1 of 1 trials were trained to their end, too few"):
        run("search.importances()", names)


@pytest.mark.filterwarnings("ignore:.*cannot follow their images")  # one epoch of any lr
def test_halving_search(names):
    names["space"] = {n: v1.search.V1T_SPACE[n] for n in ("lr", "patch_dropout")}
    small = "max_resources=2, min_resources=1, factor=2, n_candidates=2"
    smaller = {
        "max_resources=100": small,
        "GroupKFold(5)": "GroupKFold(2)",
        "v1.search.V1T_SPACE": "space",
    }
    search = run("HalvingRandomSearchCV(", names, replace=smaller)
    assert search.n_resources_ == [1, 2]
    assert search.best_params_.keys() == {"lr", "patch_dropout", "max_epochs"}


def test_published_weights(names):
    train = names["train"]
    sizes = {"output_shapes": {mouse: [n] for mouse, n in train.n_neurons.items()}}
    sizes["input_shape"] = list(train.recordings["A"]["stimuli"].shape[1:])
    args = Published.arguments(mouse_ids=train.mice, disable_grid_predictor=True, **sizes)
    folder = Published.write(names["folder"] / "run", args, Published.arrays(args))
    names |= {"run_directory": folder, "statistics": train.recordings}
    opened = run("v1.load_v1t(run_directory, statistics)", names)
    assert opened.n_neurons_ == train.n_neurons
    assert np.isfinite(opened.score(names["test"]))
