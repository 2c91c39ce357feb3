"""Links from the HTML of estimators to their pages in the documentation."""

from __future__ import annotations

from v1tlearn._urls import DOCS_URL


class DocumentationLinkMixin:
    """Make scikit-learn's HTML of an estimator link to the documentation of this package.

    Parameters and attributes are linked, too, and show their description on hovering. Stands ahead
    of `sklearn.base.BaseEstimator`; classes that others derive in their own packages have no link.
    """

    _documented_in = "v1tlearn"  # the module under whose name the class has its page
    _doc_link_module = "v1tlearn"
    _doc_link_template = DOCS_URL + "/generated/{module}.{name}.html"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        return {"module": self._documented_in, "name": type(self).__name__}
