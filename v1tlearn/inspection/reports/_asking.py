"""Asking analyses of any model: their result, or why they have no meaning for it."""

from __future__ import annotations

import dis
import warnings
from collections.abc import Callable
from typing import Any

from v1tlearn.inspection.reports._parts import Absent, Section

_RAISE = dis.opmap["RAISE_VARARGS"]


def asked(what: str, analysis: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call an analysis, or tell why it has no meaning here.

    Parameters
    ----------
    what : str
        What it gives.
    analysis : callable
    *args, **options
        Of the analysis.

    Returns
    -------
    object or Absent
        What the analysis gave; or its reason, where it refused by a `TypeError` or `ValueError` of
        this package. All other errors are raised.
    """
    try:
        return analysis(*args, **options)
    except (TypeError, ValueError) as error:
        if not _refused(error):
            raise
        return Absent(what, str(error))


def _refused(error: Exception) -> bool:
    """Whether a line of this package raised an error, rather than what that line called.

    Libraries raise the same kinds of errors where the package has a fault, and models of one's own
    where these have one: neither tells that an analysis has no meaning.
    """
    trace = error.__traceback__
    assert trace is not None  # it was raised
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code
    ours = trace.tb_frame.f_globals.get("__name__", "").startswith("v1tlearn.")
    return ours and code[trace.tb_lasti] == _RAISE


def warned(make: Callable[..., Section], *args: Any) -> Section:
    """Make a section, and note in it what was warned of, which is warned of all the same.

    Parameters
    ----------
    make : callable
    *args
        Its arguments.

    Returns
    -------
    Section
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        section = make(*args)
    for one in caught:
        # of what will change in some library readers of a page need not know
        if not issubclass(one.category, DeprecationWarning | PendingDeprecationWarning):
            section.warnings.append(str(one.message))
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    section.warnings = list(dict.fromkeys(section.warnings))
    return section
