"""The code on the pages of the documentation and in the README: it runs, and prints what they show.

The blocks of a page run in their order and share their names, in an empty folder. What a page takes
for granted, such as a reader's files and arrays, is simulated. Models of published sizes are made
small, by other defaults and presets; numbers that a page states itself are replaced, and have to be
there. Pages that show what training leads to run as they are, in the slow tests.
"""

import ast
import contextlib
import functools
import io
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.backbones import DINOV3, random_backbone
from tests.datasets.nat60k_files import make_responses, write_stack
from tests.datasets.nwb_files import movie_shown_often, of_recording
from tests.datasets.onken_files import write_onken
from tests.datasets.sensorium2023_files import NAME, TIERS, write_movies
from tests.datasets.stimulus_spikes_files import make_bins, write
from tests.datasets.stringer_files import (
    N_IMAGES,
    write_classes,
    write_images,
    write_recording,
)
from tests.interop.published_runs import Published
from tests.sweeps import quick

ROOT = Path(__file__).parents[1]
KEYS = ("21067-10-18", "22846-10-16", "23343-5-17", "23656-14-22", "23964-4-22")
CODE = re.compile(
    r"^\.\. code-block:: python\n(?:   :.*\n)*\n((?:   .*\n|\n)+)"
    r"(?:\.\. code-block:: none\n   :class: output\n\n((?:   .*\n|\n)+))?",
    re.MULTILINE,
)
FENCED = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
ABOUT = re.compile(r"-?\d+\.\d+|\d+%")  # what training leads to, not the same on every machine
TOLERANCE = 0.035


def blocks(name):
    """Code and shown output, or None, of every block of a page."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = (FENCED if name.endswith(".md") else CODE).findall(text)
    assert len(found) == len(re.findall(r"code-block:: python|^```python", text, re.MULTILINE))
    return [tuple(dedent(part) if part else None for part in block) for block in found]


def dedent(text):
    lines = text.strip("\n").split("\n")
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[indent:] for line in lines)


# ----------------------------------------------------------------------------- what readers have


@functools.cache
def recordings(n_mice=2, n_neurons=3, n_trials=24, image_shape=(20, 36), **params):
    params = {"n_test_images": 2, "n_repeats": 4, "random_state": 0} | params
    return v1.make_v1_recordings(n_mice, n_neurons, n_trials, image_shape=image_shape, **params)


def sensorium(names=KEYS, folder="sensorium", **params):
    """Zips of mice, some of which are the same under another name."""
    children = [child.to_dataset() for child in recordings(**params).children.values()]
    mice = dict(zip(names, itertools.cycle(children), strict=False))
    v1.write_sensorium(mice, folder, zip=True)


def arrays(names):
    """Arrays of two mice as readers may have them."""
    sizes = {"n_neurons": (40, 25), "n_trials": 270, "n_test_images": 3, "n_repeats": 10}
    made = recordings(image_shape=(18, 32), **sizes)
    for mouse, prefix in (("A", ""), ("B", "other_")):
        recording = made[mouse].to_dataset()
        names[f"{prefix}stimuli"] = recording["stimuli"].values
        names[f"{prefix}behaviors"] = recording["behaviors"].values[:, :3]
        names[f"{prefix}responses"] = recording["responses"].values
        names[f"{prefix}image_ids"] = recording["image_id"].values
        names[f"{prefix}tiers"] = recording["tier"].values
        names["unit_ids"] = made["A"]["neuron"].values


def nat60k(folder="nat60k"):
    """Responses of a mouse, and as many images as these need."""
    Path(folder).mkdir()
    held = make_responses()
    held["istim_sp"] = held["istim_sp"] % 600
    np.savez(f"{folder}/FX10_nat60k_2023_05_16.npz", **held)
    images = np.random.default_rng(0).integers(0, 256, (600, 4, 132), dtype=np.uint8)
    write_stack(f"{folder}/nat60k_text16.mat", images)


def natimg2800(folder="natimg2800"):
    """A recording, its images, and the classes of these."""
    Path(folder).mkdir()
    write_recording(f"{folder}/natimg2800_M170717_MP033_2017-08-20.mat")
    write_images(f"{folder}/images_natimg2800_all.mat")
    write_classes(f"{folder}/stimuli_class_assignment.mat", np.arange(N_IMAGES) % 3)


def movies():
    """A mouse, a retina, and files of MATLAB's."""
    mouse = Path("sensorium2023") / NAME
    write_movies(mouse)
    np.save(mouse / "meta/trials/tiers.npy", np.where(TIERS == "none", "train", TIERS))
    write_onken(Path("onken2016"))
    Path("rat_retina").mkdir()
    held = make_bins(n_bins=200, n_test_bins=40)
    names = {"train": "nonrepeat_data_bars.mat", "test": "test_data_bars.mat"}
    for tier, name in names.items():
        write(f"rat_retina/{name}", held[tier])


def zips_and_arrays(names):
    sensorium(KEYS[:3])
    arrays(names)


def files_and_arrays(names):
    sensorium(KEYS[:3])
    nat60k()
    natimg2800()
    movies()
    arrays(names)


def views(names, n_mice=2, **params):
    """Trials by tier, and small models."""
    names["v1"] = v1
    names["recordings"] = recordings(n_mice, **params)
    names["trials"] = v1.Trials(names["recordings"])
    for tier in ("train", "validation", "test"):
        names[tier] = names["trials"].sel(tier=tier)
    names["model"] = names["est"] = v1.CNNRegressor(
        n_layers=2, hidden_channels=2, input_kernel=7, hidden_kernel=3, max_epochs=1
    )


def run_of_published_code(path, mice):
    """A run directory of V1T with these mice."""
    sizes = {"output_shapes": {mouse: [3] for mouse in mice}, "input_shape": [1, 20, 36]}
    args = Published.arguments(mouse_ids=mice, disable_grid_predictor=True, **sizes)
    Published.write(Path(path), args, Published.arrays(args))


def readme(names):
    sensorium(KEYS[:2])
    run_of_published_code("runs/v1t", ["A", "B"])


def not_a_mouse(names):
    trials = v1.Trials(recordings())
    names["train"], names["test"] = trials.sel(tier="train"), trials.sel(tier="test")


def several_models(names):
    views(names, n_mice=3, n_trials=60)  # scores of two validation trials are all alike
    new = names["trials"].sel(mouse_id="C", tier="train")
    for tier in ("train", "validation", "test"):
        names[tier] = names[tier].sel(mouse_id=["A", "B"])
    names["trials_of_the_new_mouse"] = new


def scored(names):
    """Two models that hardly learned anything, and the trials to compare them on."""
    views(names, n_test_images=6)
    small = {"n_layers": 1, "hidden_channels": 4, "input_kernel": 5, "max_epochs": 1}
    names["cnn"] = v1.CNNRegressor(**small, random_state=0).fit(names["train"])
    names["ln"] = v1.LNRegressor(**small, random_state=0).fit(names["train"])


def data_model(names):
    sensorium()
    views(names)
    v1.save_recordings(names["recordings"], "recordings.nc")


def interop(names):
    sensorium(folder="data/sensorium", n_mice=5)
    run_of_published_code("runs/003_v1t", list("ABCDE"))
    for file in ("sensorium_p_sota_model.pth", "sensorium_p_ln_model.pth"):
        torch.save(state_of_sensorium(), file)
    torch.save(
        state_of_a_minimodel(), "FX20_092923_2layer_16_320_clamp_norm_depthsep_pool_xrange_176.pt"
    )
    names |= {"mean": 0.0, "std": 1.0, "images": np.zeros((2, 1, 66, 130))}


def state_of_a_minimodel(n_neurons=3, width=4):
    """Arrays of a full model of one layer, as its authors call them."""
    made = np.random.default_rng(0)
    layer = "core.features.layer0"
    shapes = {f"{layer}.norm.{n}": (width,) for n in ("weight", "bias", "running_mean")}
    shapes |= {f"{layer}.norm.running_var": (width,), f"{layer}.conv.weight": (width, 1, 5, 5)}
    shapes |= {"readout.Wy": (n_neurons, 1, 33), "readout.Wx": (n_neurons, 1, 65)}
    shapes |= {"readout.Wc": (n_neurons, 1, width), "readout.bias": (n_neurons,)}
    return {name: torch.from_numpy(made.uniform(0.1, 0.5, s)).float() for name, s in shapes.items()}


def state_of_sensorium(n_neurons=3, width=4):
    """Arrays of a convolutional model with free positions, as its authors call them."""
    made = np.random.default_rng(0)
    layer = "core.features.layer0"
    shapes = {f"{layer}.conv.weight": (width, 1, 5, 5), f"{layer}.norm.weight": (width,)}
    shapes |= {f"{layer}.norm.bias": (width,), f"{layer}.norm.running_mean": (width,)}
    shapes |= {f"{layer}.norm.running_var": (width,)}
    for key in KEYS:
        base = f"readout.{key}"
        shapes |= {f"{base}.sigma": (1, n_neurons, 2, 2), f"{base}._mu": (1, n_neurons, 1, 2)}
        shapes |= {f"{base}._features": (1, width, 1, n_neurons), f"{base}.bias": (n_neurons,)}
    return {name: torch.from_numpy(made.uniform(0.1, 0.5, s)).float() for name, s in shapes.items()}


# -------------------------------------------------------------------------------- pages and runs


@dataclass
class Page:
    """What a page needs to run, and what makes it quick."""

    prepare: Callable[[dict], None] = lambda names: None
    replace: dict[str, str] = field(default_factory=dict)  # by code that has to be there
    shown: bool = False  # whether it prints what training leads to


BRIEF = {"max_epochs=20": "max_epochs=1"}
FEW_FOLDS = {"max_epochs=5": "max_epochs=1", "GroupKFold(3)": "GroupKFold(2)"}
FEW_FITS = {
    "n_candidates=10, n_members=5, n_jobs=2": "n_candidates=2, n_members=1",
    "n_trials=100": "n_trials=6",
    "v1.search.V1T_SPACE": '{"lr": v1.search.V1T_SPACE["lr"]}',
}

FEW_JOBS = {  # without processes, which tests of clusters start
    "n_jobs=2": "n_jobs=1",
    "[0.001, 0.003, 0.01]": "[0.001]",
    "GroupKFold(3)": "GroupKFold(2)",
    "LocalCluster(n_workers=2,": (
        "LocalCluster(n_workers=1, processes=False, dashboard_address=':0',"
    ),
    "n_candidates=4, n_members=2": "n_candidates=2, n_members=1",
}


def pretrained(names):
    """A backbone in a folder of the published name, and trials of a mouse by tier."""
    name = v1.PretrainedViTRegressor.from_preset("vit_encoding2026_frozen").backbone
    random_backbone({**DINOV3, "num_hidden_layers": 6}).save_pretrained(name)
    trials = v1.Trials(recordings(1, n_trials=30))
    for tier in ("train", "validation", "test"):
        names[tier] = trials.sel(tier=tier)


BRIEF_FITS = {
    "block=4, image_size": "block=4, max_epochs=1, space_init=0.3, image_size",
    '"vit_encoding2026_frozen")': '"vit_encoding2026_frozen", max_epochs=1, space_init=0.3)',
    '"vit_encoding2026_fine_tuned")': (
        '"vit_encoding2026_fine_tuned", max_epochs=1, space_init=0.3)'
    ),
    "GroupKFold(3)": "GroupKFold(2)",
}


def images_and_responses(names):
    """The recording of `natimg2800`, of images that are large enough for towers."""
    natimg2800()
    images = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 16, 24), dtype=np.uint8)
    write_images("natimg2800/images_natimg2800_all.mat", images)


def nwb(names):
    """A session of DANDI's, where its client leaves it."""
    folder = Path("000000/sub-mouse1")
    folder.mkdir(parents=True)
    sizes = {"n_neurons": 30, "n_trials": 400, "n_test_images": 10, "n_repeats": 5}
    made = recordings(1, image_shape=(18, 32), **sizes)
    of_recording(made["A"], folder / "sub-mouse1_image+ophys.nwb")
    movie_shown_often(folder / "sub-mouse1_movie+ophys.nwb")


def clusters(names):
    """Trials and a model, in a script that was started."""
    views(names)
    names["__name__"] = "__main__"


def sharing(names):
    """A model that hardly learned anything."""
    scored(names)
    names["model"] = names["cnn"]


INSIDE = {
    "n_neurons=100, n_trials=1000": "n_neurons=3, n_trials=30, n_test_images=4, n_repeats=3",
    "patch_stride=4, n_blocks=2, embed_dim=32": "patch_stride=8, n_blocks=1, embed_dim=8",
    "n_repeats=5)": "n_repeats=1)",
    '"model.html")': '"model.html", n_neurons=2, n_images=2, n_mice=1, n_bootstrap=9, n_repeats=1)',
}
# What only the speed of a GPU trains for as long as the page has it, and prints nothing.
FOR_A_GPU = {"README.md": {'from_preset("v1t2023")': 'from_preset("v1t2023", max_epochs=1)'}}
PAGES = {
    "README.md": Page(readme, {"max_epochs=5": "max_epochs=1"}, shown=True),
    "docs/index.rst": Page(files_and_arrays, BRIEF, shown=True),
    "docs/getting_started.rst": Page(zips_and_arrays, BRIEF | FEW_FOLDS, shown=True),
    "docs/your_recordings.rst": Page(files_and_arrays),
    "docs/nwb.rst": Page(nwb, BRIEF),
    "docs/sharing.rst": Page(sharing),
    "docs/data_model.rst": Page(data_model),
    "docs/several_gpus.rst": Page(),
    "docs/clusters.rst": Page(clusters, FEW_JOBS),
    "docs/several_models.rst": Page(several_models, FEW_FITS),
    "docs/ceilings_and_metrics.rst": Page(scored),
    "docs/not_a_mouse.rst": Page(not_a_mouse, {"max_epochs=25": "max_epochs=1"}),
    "docs/from_the_paper.rst": Page(lambda names: sensorium()),
    "docs/interop.rst": Page(interop),
    "docs/pretrained_transformers.rst": Page(pretrained, BRIEF_FITS),
    "docs/images_and_responses.rst": Page(images_and_responses, {"max_epochs=50": "max_epochs=1"}),
    "docs/movies.rst": Page(
        lambda names: movies(),
        {"max_epochs=20": "max_epochs=1", "warmup_epochs=2": "warmup_epochs=0"},
    ),
    "docs/receptive_fields.rst": Page(),
    "docs/in_silico.rst": Page(),
    "docs/inside_the_model.rst": Page(replace=INSIDE),
    "docs/reproducibility.rst": Page(),
    "docs/watching.rst": Page(),
    "docs/your_own_core.rst": Page(replace={"max_epochs=15": "max_epochs=1"}),
}


def test_every_page_with_code_is_run():
    pages = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.rst"))]
    assert {page for page in pages if blocks(page)} == set(PAGES)


@pytest.fixture
def small_models(monkeypatch):
    """Defaults and presets of small models that train for one epoch."""
    small = {"max_epochs": 1, "device": "cpu"}
    transformer = {"patch_size": 8, "patch_stride": 8, "n_blocks": 1, "n_heads": 1}
    transformer |= {"embed_dim": 8, "mlp_dim": 4}
    for kind in (v1.V1TRegressor, v1.ViTRegressor, v1.CNNRegressor, v1.LNRegressor):
        sizes = small | (transformer if issubclass(kind, v1.ViTRegressor) else {})
        for name, value in sizes.items():
            monkeypatch.setitem(kind.__init__.__kwdefaults__, name, value)
            for preset in kind._presets.values():
                if name in preset:
                    monkeypatch.setitem(preset, name, value)


def run(name, folder, monkeypatch, replace, compare):
    """Run a page, and compare what it prints with what it shows."""
    monkeypatch.chdir(folder)
    names = {}
    PAGES[name].prepare(names)
    unused = set(replace)
    for code, shown in blocks(name):
        for old, new in replace.items():
            if old in code:
                unused.discard(old)
                code = code.replace(old, new)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, name, "exec"), names)
        if shown is not None:
            compare(shown, printed.getvalue())
    assert not unused, f"{unused} are not on {name}"
    return names


def compare_but_for_training(shown, printed):
    assert ABOUT.sub("about", printed).split() == ABOUT.sub("about", shown).split()


def compare_all(shown, printed):
    compare_but_for_training(shown, printed)
    for mine, theirs in zip(ABOUT.findall(printed), ABOUT.findall(shown), strict=True):
        scale = 100 if mine.endswith("%") else 1
        difference = abs(float(mine.rstrip("%")) - float(theirs.rstrip("%"))) / scale
        assert difference < TOLERANCE * (2 if scale == 100 else 1), (mine, theirs)


@pytest.mark.filterwarnings("ignore:.*cannot follow their images")  # tiny models, one epoch
@pytest.mark.parametrize(
    "name", quick([n for n, page in PAGES.items() if not page.shown] + ["README.md"], -1)
)
def test_code_of_the_page_runs(name, tmp_path, monkeypatch, small_models):
    run(name, tmp_path, monkeypatch, PAGES[name].replace, compare_but_for_training)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.shown])
def test_code_of_the_page_prints_what_it_shows(name, tmp_path, monkeypatch):
    run(name, tmp_path, monkeypatch, FOR_A_GPU.get(name, {}), compare_all)


# ------------------------------------------------------------------------------ what pages quote


def literals(name):
    return re.findall(r"``([^`]+)``", (ROOT / name).read_text(encoding="utf-8"))


PROSE = sorted(["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.rst"))])


@pytest.mark.parametrize("name", PROSE)
def test_scripts_and_targets_that_the_page_names_are_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for script in re.findall(r"\bpython (\w+/\w+\.py)", text):
        assert (ROOT / script).is_file(), script
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`|\s{2,})make ([a-z-]+)\b", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_quoted_error_is_the_one_that_is_raised():
    page = (ROOT / "docs" / "getting_started.rst").read_text(encoding="utf-8")
    (quoted,) = re.findall(r'^"(.*) \.\.\."$', page, re.MULTILINE)
    trials = v1.Trials(recordings())
    model = v1.LNRegressor(n_layers=1, hidden_channels=2, max_epochs=1).fit(
        trials.sel(tier="train")
    )
    with pytest.raises(ValueError, match=re.escape(quoted)):
        model.predict({"A": trials.recordings["A"]["stimuli"].values})


def test_no_page_installs_from_an_index():
    """The package is not on one; extras are named so that they work from a clone, too."""
    paths = [*PROSE, *(str(p.relative_to(ROOT)) for p in (ROOT / "v1tlearn").rglob("*.py"))]
    paths += [str(p.relative_to(ROOT)) for p in (ROOT / "examples").rglob("*.py")]
    for path in paths:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not re.search(r"pip install ['\"]?v1tlearn", text), path


def test_parameters_that_pages_set_exist():
    kinds = (v1.V1TRegressor, v1.CNNRegressor, v1.MinimodelRegressor, v1.MovieCNNRegressor)
    known = {name for kind in kinds for name in kind().get_params()}
    known |= v1.EnsembleRegressor(v1.LNRegressor()).get_params(deep=False).keys()
    for page in ("docs/choosing_a_model.rst", "docs/speed.rst"):
        seen = set()
        for literal in literals(page):
            with contextlib.suppress(SyntaxError):
                (statement,) = ast.parse(f"f({literal})").body
                seen |= {keyword.arg for keyword in statement.value.keywords}
        assert seen, page
        assert seen <= known, (page, seen - known)
