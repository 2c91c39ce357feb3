"""The HTML of estimators leads to their pages in the documentation."""

import re
from html.parser import HTMLParser
from importlib.metadata import metadata
from pathlib import Path

import pytest
import sklearn
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn.search import HyperbandSearch

ROOT = Path(__file__).parents[1]
URLS = dict(told.split(", ") for told in metadata("v1tlearn").get_all("Project-URL"))
DOCS_URL = URLS["Documentation"]
MODEL = v1.CNNRegressor(lr=0.1)
ESTIMATORS = [
    MODEL,
    v1.LNRegressor(),
    v1.FullModelRegressor(),
    v1.MinimodelRegressor(),
    v1.MovieCNNRegressor(),
    v1.MovieLNRegressor(),
    v1.ViTRegressor(),
    v1.V1TRegressor(),
    v1.PretrainedViTRegressor({"model_type": "dinov2"}, weights=None),
    v1.EncodingRegressor(v1.nn.Stacked2dCore),
    v1.EnsembleRegressor(MODEL),
    v1.DINAAligner(),
    v1.ViSTRegressor(),
    v1.LinearProbe(),
    v1.RidgeDecoder(),
    HyperbandSearch(MODEL),
    v1.TrialStandardizer(),
    v1.SpontaneousProjector(),
    v1.CenterCrop(0.5),
    v1.ResizeStimuli((4, 4)),
    v1.Grayscale(),
]
VOID = {"input", "br", "img", "meta", "link", "hr", "path", "circle", "use"}
VOID |= {"combining_estimators", "metadata_routing"}  # references, tags by scikit-learn 1.8


class Links(HTMLParser):
    """Collects links, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "a" and "href" in dict(attrs):
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def links(estimator):
    parser = Links()
    parser.feed(estimator._repr_html_())
    assert not parser.open
    return parser.links


def pages():
    """Pages that autosummary makes for the API page: "module.name"."""
    module, found, inside = None, set(), False
    for line in (ROOT / "docs" / "api.rst").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = match[1]
        inside = line.startswith(".. autosummary::") or (inside and line[:1] in ("", " "))
        if inside and re.fullmatch(r"   \w+", line):
            found.add(f"{module}.{line.strip()}")
    return found


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_every_estimator_links_to_its_page(estimator):
    page = links(estimator)[0]
    assert page.startswith(f"{DOCS_URL}/generated/v1tlearn.")
    assert page.removeprefix(f"{DOCS_URL}/generated/").removesuffix(".html") in pages()


def test_all_public_estimators_were_tried():
    public = {
        getattr(module, name)
        for module in (v1, v1.search)
        for name in module.__all__
        if isinstance(getattr(module, name), type) and hasattr(getattr(module, name), "get_params")
    }
    assert public == {type(estimator) for estimator in ESTIMATORS}


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_parameters_link_to_their_description(estimator):
    html, page = estimator._repr_html_(), estimator._get_doc_link()
    if "param-doc-description" not in html and sklearn.__version__ < "1.9":
        pytest.skip("this scikit-learn does not describe parameters")
    anchors = {link for link in links(estimator) if link.startswith(f"{page}#")}
    names = {re.search(r"text=(\w+),", anchor)[1] for anchor in anchors}
    assert names == set(estimator.get_params(deep=False))


def test_a_pipeline_links_to_each_step():
    pipeline = make_pipeline(v1.CenterCrop(0.5), MODEL)
    found = links(pipeline)
    for step in pipeline:
        assert step._get_doc_link() in found


def test_a_fitted_model_is_whole_html(tmp_path):
    trials = v1.Trials(
        v1.make_v1_recordings(
            n_mice=1, n_neurons=3, n_trials=30, n_test_images=2, n_repeats=2, image_shape=(12, 16)
        )
    )
    small = {"n_layers": 1, "hidden_channels": 2, "input_kernel": 5, "max_epochs": 1}
    fitted = v1.LNRegressor(**small, device="cpu").fit(trials.sel(tier="train"))
    assert fitted._get_doc_link() in links(fitted)


def test_classes_of_others_have_no_link():
    class Mine(v1.CNNRegressor):
        """Somewhere else."""

    assert Mine()._get_doc_link() == ""
    assert not any(link.startswith(DOCS_URL) for link in links(Mine()))
    assert "scikit-learn.org" in BaseEstimator._doc_link_template.fget(BaseEstimator())
