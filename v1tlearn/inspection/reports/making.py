"""One page about a fitted model: which sections there are, in their order."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from v1tlearn._instead import path_of
from v1tlearn._models import last_step, named_models, short_name
from v1tlearn._values import as_whole, plain
from v1tlearn.estimators import DINAAligner
from v1tlearn.inspection._opened import check_trials
from v1tlearn.inspection.reports._alignment import retrieval_section
from v1tlearn.inspection.reports._asking import asked, warned
from v1tlearn.inspection.reports._behavior import behavior_section
from v1tlearn.inspection.reports._model import made_section, model_section, recordings_section
from v1tlearn.inspection.reports._neurons import neuron_scores, neurons_section, ranked
from v1tlearn.inspection.reports._parts import Absent, Section, Text
from v1tlearn.inspection.reports._pictures import plain_figures
from v1tlearn.inspection.reports._places import (
    attention_section,
    fields_section,
    retinotopy_section,
)
from v1tlearn.inspection.reports._scores import headline, scores_section
from v1tlearn.inspection.reports._training import training_section
from v1tlearn.inspection.reports.page import Report, check_free, rendered
from v1tlearn.training import draw_seed
from v1tlearn.trials import Trials
from v1tlearn.trials.predicted import predict_responses

_TEST = "test"


def report(
    estimator: Any,
    trials: Trials,
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    n_neurons: int = 6,
    n_images: int = 6,
    n_mice: int = 4,
    n_bootstrap: int = 200,
    n_repeats: int = 3,
    random_state: Any = 0,
) -> Report:
    """Make one page about a fitted model, to keep, to print and to send around.

    The page tells what was fitted, and on what; scores with ceilings, training curves, the neurons
    that are predicted best and worst, receptive fields, retinotopy, attention, and what behaviour
    does. It is a single file, which needs no network and runs no script. An analysis that has no
    meaning for the model says why in its place.

    Parameters
    ----------
    estimator : V1TRegressor, MovieCNNRegressor, EnsembleRegressor, DINAAligner or another model
        Fitted; a Pipeline or a search, too. It stays as it is. Of an ensemble the first member
        tells where it looks.
    trials : Trials
        With responses, of mice that the model knows. Where some are of the tier "test", these
        alone are predicted and scored; otherwise all are.
    path : str or path, optional
        Where the page is written, such as "model.html", as `Report.save` does. It is only
        returned by default.
    title : str, optional
        By default the class of the model.
    n_neurons : int, default=6
        Neurons of each mouse that are drawn: half of them those that are predicted best, half the
        worst; and receptive fields of as many of the best.
    n_images : int, default=6
        Images whose attention, or best matches, are drawn.
    n_mice : int, default=4
        Mice that are drawn, from the first on. Tables are of all.
    n_bootstrap : int, default=200
        Draws of images for the intervals of scores and ceilings; 0 for none.
    n_repeats : int, default=3
        Permutations of each column of behaviour, and divisions of trials at random.
    random_state : int, RandomState, Generator or None, default=0
        Of the draws, the permutations and the images that are drawn by lot.

    Returns
    -------
    Report
        With the page, ``html``, and ``absent``, what analyses without a meaning said. A notebook
        shows it.

    Raises
    ------
    TypeError
        If this is no estimator of this package's kind, or these are no trials.
    ValueError
        If trials are not of the mice, images or behaviour of `fit`, or an option is out of its
        range.
    FileExistsError
        If something that is no report is at `path`.
    NotFittedError
        Before `fit`.
    ImportError
        Without matplotlib, the extra `plot`.

    Notes
    -----
    Errors of an analysis that are no such answer, those of other libraries among them, are raised:
    no part of the page is left out for a fault.

    The page has at most 5 + 3 * `n_mice` pictures, PNG files of twice the resolution of the page,
    some 0.05 to 0.6 MB each with the numbers of neurons and images of the defaults; the sum stands
    at its end. Apart from its date it is the same for the same model, trials, seed and versions.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import report
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> page = report(model.fit(trials.sel(tier="train")), trials, n_bootstrap=0)
    >>> sorted(page.absent)
    ['attention']
    """
    numbers = {"n_neurons": n_neurons, "n_images": n_images, "n_mice": n_mice}
    n_neurons, n_images, n_mice = (as_whole(value, name) for name, value in numbers.items())
    n_bootstrap = as_whole(n_bootstrap, "n_bootstrap", 0)
    n_repeats = as_whole(n_repeats, "n_repeats")
    check_trials(trials)
    last = last_step(estimator)
    aligns = isinstance(last, DINAAligner)
    if aligns:
        check_is_fitted(last)
    else:
        named_models([estimator])
        if not hasattr(last, "module_") and not hasattr(last, "estimators_"):
            raise TypeError(
                f"a {type(last).__name__} came: expected a model of responses, or a DINAAligner; "
                "decoding_table tells of decoders."
            )
    if title is not None and not isinstance(title, str):
        raise TypeError(f"title={title!r}: expected text, or None.")
    if path is not None:
        path = path_of("path", path, "report(model, trials, path)")
        check_free(path)
    seed = draw_seed(plain(random_state))
    evaluated = trials.sel(tier=_TEST) if _TEST in trials.tiers else trials
    mice = evaluated.mice[:n_mice]
    with plain_figures():
        sections = [warned(model_section, estimator), warned(recordings_section, trials, evaluated)]
        if len(mice) < len(evaluated.mice):
            told = f"Pictures of single mice are of the first {len(mice)} of {len(evaluated.mice)}."
            sections[-1].parts.append(Text(told))
        name = short_name(estimator)
        whole, one = _one_model(estimator)
        if aligns:
            lead = headline(name, evaluated, None)
            sections += [
                warned(training_section, estimator),
                warned(retrieval_section, estimator, evaluated, mice, n_images, seed),
                _without_predictions(name, estimator),
            ]
            neurons = {mouse: evaluated.neuron_ids(mouse)[:n_neurons] for mouse in mice}
        else:
            predicted = predict_responses(estimator, evaluated)
            scores = neuron_scores(evaluated, predicted)
            lead = headline(name, evaluated, scores)
            sections += [
                warned(scores_section, name, estimator, evaluated, predicted, n_bootstrap, seed),
                warned(training_section, estimator),
                warned(neurons_section, name, evaluated, predicted, scores, mice, n_neurons),
            ]
            neurons = _best(evaluated, scores, mice, n_neurons)
        sections += [
            warned(fields_section, one, neurons, seed),
            warned(retinotopy_section, one, mice, seed),
            warned(attention_section, whole, evaluated, n_images, seed),
            warned(behavior_section, estimator, evaluated, mice, n_repeats, seed),
            made_section(seed),
        ]
    page = rendered(type(last).__name__ if title is None else title, lead, sections)
    if path is not None:
        page.save(path)
    return page


def _one_model(estimator: Any) -> tuple[Any, Any]:
    """What tells where it looks: with all that comes ahead of it, and alone.

    Of an ensemble it is the first member; where a Pipeline is around the ensemble, analyses of
    images refuse it, since the member alone does not know what the Pipeline does to them.
    """
    last = last_step(estimator)
    if not hasattr(last, "estimators_"):
        return estimator, last
    member = last.estimators_[0]
    return (member if last is estimator else estimator), member


def _without_predictions(name: str, estimator: Any) -> Section:
    """Say why there are no scores of neurons, and no best ones."""
    found = asked("scores of neurons, best and worst ones", named_models, {name: estimator})
    return Section("scores", "Scores", [found])


def _best(
    trials: Trials, scores: dict[str, np.ndarray] | Absent, mice: list[str], n: int
) -> dict[str, Any]:
    """Unit ids of the neurons that are predicted best; the first ones where none has a score."""
    out = {}
    for mouse in mice:
        ids = trials.neuron_ids(mouse)
        own = np.full(len(ids), np.nan) if isinstance(scores, Absent) else scores[mouse]
        best = np.concatenate(ranked(own, 2 * n))[:n]
        out[mouse] = ids[best] if len(best) else ids[:n]
    return out
