"""What an alignment of images and responses finds: the section about retrieval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from v1tlearn.inspection.alignment import RetrievalDisplay
from v1tlearn.inspection.reports._asking import asked
from v1tlearn.inspection.reports._parts import Absent, Section, Table, number
from v1tlearn.inspection.reports._pictures import picture
from v1tlearn.trials import Trials

_MATCHES = 5


def retrieval_section(
    aligner: Any, trials: Trials, mice: list[str], n_images: int, seed: int
) -> Section:
    """Tell how often responses find the image that was seen, and show some matches.

    Parameters
    ----------
    aligner : DINAAligner
    trials : Trials
    mice : list of str
        Those that are drawn.
    n_images : int
        Trials that are shown of each, drawn by lot.
    seed : int

    Returns
    -------
    Section
    """
    section = Section("retrieval", "Retrieval")
    rows = []
    for mouse in trials.mice:
        own = trials.sel(mouse_id=mouse)
        score = asked(f"retrieval of mouse {mouse}", aligner.score, own)
        if isinstance(score, Absent):
            section.parts.append(score)
            continue
        n = len(pd.unique(own.image_ids))
        rows.append([mouse, number(float(score)), number(1 / n), str(n), str(len(own))])
    if rows:
        heads = ["mouse", "share found", "chance", "images", "trials"]
        caption = "Share of the trials whose image is the best match among all that the mouse saw."
        section.parts.append(Table(heads, rows, caption))
    rng = np.random.default_rng(seed)
    for mouse in mice:
        own = trials.sel(mouse_id=mouse)
        first = np.unique(own.image_ids, return_index=True)[1]
        some = np.sort(rng.choice(first, min(n_images, len(first)), replace=False))
        shown = asked(
            f"matches of mouse {mouse}",
            RetrievalDisplay.from_estimator,
            aligner,
            own,
            shown=some.tolist(),
            k=min(_MATCHES, len(first)),
        )
        if isinstance(shown, Absent):
            section.parts.append(shown)
            continue
        told = f"Mouse {mouse}: images that were seen in trials drawn by lot, and the best matches "
        told += "of the responses with their similarity; a green frame where it is the seen one."
        alt = f"Mouse {mouse}: {len(some)} rows of a seen image and its best matches"
        section.parts.append(picture(shown.figure_, f"{alt}.", told))
    return section
