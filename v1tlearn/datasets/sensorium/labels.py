"""Labels of trials as files in the wild have them, brought to those of the schema."""

from __future__ import annotations

import numpy as np

from v1tlearn.datasets.schema import TIERS
from v1tlearn.datasets.sensorium.layout import TIER_NAMES


def as_text(values: np.ndarray, where: str) -> np.ndarray:
    """Return labels that are bytes as text, all others as they are."""
    if values.dtype.kind != "S":
        return values
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: its labels are bytes that are no UTF-8 ({error}); save them as text"
        ) from None


def read_tiers(
    labels: np.ndarray, mouse: str, *, others_told: bool = True
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return tiers of the schema, which trials have one, and what there is to tell of them.

    Parameters
    ----------
    labels : ndarray (n_trials,)
        As the file has them.
    mouse : str
        For what is told.
    others_told : bool, default=True
        Whether it is told, too, of tiers that have other names, which are those of later releases.

    Raises
    ------
    ValueError
        If no trial is in a tier.
    """
    if labels.dtype.kind != "U":
        raise ValueError(
            f"mouse {mouse!r}, tier: labels are {labels.dtype}, expected text: {', '.join(TIERS)}"
        )
    tiers, kept = labels.copy(), np.ones(len(labels), bool)
    told, unknown = [], []
    for label in np.unique(labels).tolist():
        here, plain = labels == label, label.strip().lower()
        tier = plain if plain in TIERS else TIER_NAMES.get(plain)
        what = f"mouse {mouse!r}: the {here.sum()} trials of tier {label!r}"
        if tier is None:
            kept[here] = False
            unknown.append(label)
            told.append(what)
        elif tier != label:
            tiers = tiers.astype(max(tiers.dtype, np.dtype(f"U{len(tier)}")))
            tiers[here] = tier
            told += [f"{what}, read as {tier!r}"] * others_told
    if not kept.any():
        raise ValueError(
            f"mouse {mouse!r}, tier: unknown {', '.join(map(repr, unknown[:10]))} in all trials; "
            f"expected {', '.join(TIERS)}, or names of later releases: {', '.join(TIER_NAMES)}"
        )
    return tiers, kept, told
