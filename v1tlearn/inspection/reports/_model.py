"""What was fitted, and to what: the sections about the model and the recordings."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import estimator_html_repr

from v1tlearn._models import last_step
from v1tlearn.datasets.schema import TIERS
from v1tlearn.inspection.reports._parts import Markup, Section, Table, Text, counted
from v1tlearn.trials import Trials

_PACKAGES = ("v1tlearn", "torch", "numpy", "xarray", "scikit-learn", "matplotlib")


def model_section(estimator: Any) -> Section:
    """Tell the class, the parameters and the sizes of a model.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    Section
    """
    model = last_step(estimator)
    members = getattr(model, "estimators_", None)
    one = model if members is None else members[0]
    n_weights = sum(p.numel() for p in one.module_.parameters())
    shape = " × ".join(map(str, one.image_shape_))
    rows = [
        ("class", type(model).__name__),
        ("weights", f"{n_weights:,}" + (" in each member" if members else "")),
        ("neurons", _by_mouse(model.n_neurons_)),
        ("images at fit", f"{shape} (channels × height × width)"),
        ("behaviour in the core", ", ".join(one.core_columns_) or "none"),
        ("epochs", f"{one.n_iter_}, weights of epoch {one.best_epoch_} kept"),
        ("training ended", str(one.stop_reason_ or "not yet")),
        ("seed", str(model.seed_)),
        ("device", str(one.device_)),
    ]
    if members is not None:
        rows.insert(1, ("members", f"{len(members)} {type(one).__name__}; the first is told of"))
    return Section(
        "model", "Model", [Table(("what", "value"), rows), Markup(_parameters(estimator))]
    )


def recordings_section(trials: Trials, evaluated: Trials) -> Section:
    """Tell the mice, neurons, trials, images and behaviour of trials.

    Parameters
    ----------
    trials, evaluated : Trials
        All, and those whose responses are predicted.

    Returns
    -------
    Section
    """
    present = set(trials.tiers.tolist()) - {""}
    named = [t for t in TIERS if t in present] + sorted(present - set(TIERS))
    heads = ["mouse", "neurons", "trials", *named, "images", "size", "behaviour"]
    n_frames = trials.n_frames
    if n_frames is not None:
        heads[-3:-1] = ["movies", "size of a frame", "frames", "frames per second"]
    rows = []
    for mouse in trials.mice:
        at = trials.rows(mouse)[0]
        size = " × ".join(map(str, _image_shape(trials[at[:1]], mouse)))
        row = [mouse, str(trials.n_neurons[mouse]), str(len(at))]
        row += [str((trials.tiers[at] == tier).sum()) for tier in named]
        row += [str(len(pd.unique(trials.image_ids[at]))), size]
        if n_frames is not None:
            frames, rate = n_frames[at], trials.frame_rate(mouse)
            row += ["–".join(dict.fromkeys([str(frames.min()), str(frames.max())]))]
            row += ["–" if rate is None else f"{rate:.4g}"]
        rows.append([*row, ", ".join(trials.behavior_names(mouse) or []) or "none"])
    whose = sorted(set(evaluated.tiers.tolist()) - {""})
    told = f"Scores, and all else that needs responses, are of {counted(len(evaluated), 'trial')}"
    told += f" of the tier {' and '.join(whose)}." if whose else "; they name no tier."
    return Section("recordings", "Recordings", [Table(heads, rows), Text(told)])


def made_section(seed: int, packages: Sequence[str] = _PACKAGES) -> Section:
    """Tell versions, date and seed.

    Parameters
    ----------
    seed : int
    packages : sequence of str

    Returns
    -------
    Section
    """
    rows = [("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))]
    rows += [("seed of this page", str(seed)), ("Python", platform.python_version())]
    rows += [(name, version(name)) for name in packages]
    return Section("made", "How it was made", [Table(("what", "value"), rows)])


def _by_mouse(values: dict[str, int]) -> str:
    shown = [f"{mouse}: {n}" for mouse, n in list(values.items())[:20]]
    more = len(values) - len(shown)
    return "; ".join(shown) + (f"; and {counted(more, 'mouse', 'mice')} more" if more > 0 else "")


def _image_shape(trials: Trials, mouse: str) -> tuple[int, ...]:
    return np.shape(trials.get("stimuli", mouse))[-3:]


def _parameters(estimator: Any) -> str:
    """Take scikit-learn's table of parameters, without scripts, alike from call to call."""
    page = estimator_html_repr(estimator)
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    page = re.sub(r'<(button|i)\b[^>]*class="copy-paste-icon".*?</\1>', "", page, flags=re.DOTALL)
    seen: dict[str, int] = {}
    return re.sub(
        r"\b(sk-(?:container|estimator)-id-)(\d+)\b",
        lambda found: f"{found[1]}{seen.setdefault(found[0], len(seen) + 1)}",
        page,
    )
