"""
What a description of DINA (Wang et al. 2026) reports, and how its protocol may differ from ours.

The numbers stand in the description alone: the abstract (arXiv 2605.04309) has none, and the
released code measures none of them. Neither tells how they were measured. They are not aimed at.
"""

from typing import NamedTuple

DINA, CNN = "DINA", "CNN decoder"


class Reported(NamedTuple):
    """A measure: what is reported of both models, and what the report leaves open."""

    name: str
    dina: str
    cnn: str
    differs: str


MEASURES = {
    "top_1": Reported(
        "images found (top-1)",
        "78 %",
        "62 %",
        "Here among all test images, by single trials or by the mean of repeats. The description "
        "says neither how many images there are to choose from, nor which responses ask.",
    ),
    "pixel_correlation": Reported(
        "pixel correlation",
        ".71",
        ".58",
        "Here of whole images at their full size: of DINA what a linear probe reads from the maps "
        "of the responses. The description names a linear probe, and no size.",
    ),
    "needed_share": Reported(
        "neurons for 90 % of top-1",
        "12 %",
        "35 %",
        "Here the best by importance, ranked on half of the test images and judged on the other. "
        "The description says neither how neurons were ranked, nor whether on other images.",
    ),
    "cutoff": Reported(
        "low-pass cut-off for 90 % of top-1",
        "coarse structure dominates",
        "-",
        "Here images of the gallery are blurred, in cycles per image height, and responses stay as "
        "they are. The description reports no number.",
    ),
    "needed": Reported(
        "neurons for a dimension",
        "5-10",
        "-",
        "Here those that explain 90 % of the variance of a principal component of the maps in "
        "other images, chosen step by step. The description does not say what a dimension is.",
    ),
}
