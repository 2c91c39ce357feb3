"""Draw the diagrams of the data model and of choosing a model.

``python docs/diagrams.py`` writes ``data_model.svg`` and ``choosing.svg`` into ``docs/_static``.
They are 380 units wide, so that text stays readable on a phone.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

STATIC = Path(__file__).parent / "_static"
WIDTH = 380
INK, SOFT = "#1d2733", "#55606e"
QUESTION, ANSWER = "#ffffff", "#e2ecf7"
IMAGES, BEHAVIOR, RESPONSES, LABELS = "#dfe3e8", "#f3e9d7", "#e2ecf7", "#e8dff0"


class Drawing:
    """Elements of an SVG image, from top to bottom.

    Parameters
    ----------
    height : int
        In units of which the image is 380 wide.
    label : str
        What it shows, for those who do not see it.
    """

    def __init__(self, height: int, label: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{escape(label)}" font-family="system-ui, sans-serif">',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{SOFT}"/></marker>',
            "</defs>",
        ]

    def box(self, x: float, y: float, w: float, h: float, fill: str, radius: int = 5) -> None:
        """Draw a rectangle with a frame."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{radius}" fill="{fill}" '
            f'stroke="{SOFT}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        bold: bool = False,
        anchor: str = "start",
        color: str = INK,
    ) -> None:
        """Write one line, whose baseline is at y."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" text-anchor="{anchor}"'
            f"{weight}>{escape(text)}</text>"
        )

    def arrow(self, x: float, y: float, to_x: float, to_y: float, label: str = "") -> None:
        """Draw a straight arrow; its label stands above it, or right of one that goes down."""
        self.parts.append(
            f'<path d="M{x} {y}L{to_x} {to_y}" stroke="{SOFT}" fill="none" marker-end="url(#tip)"/>'
        )
        if label and y == to_y:
            self.text((x + to_x) / 2 - 2, y - 4, label, size=12, anchor="middle", color=SOFT)
        elif label:
            self.text(x + 6, (y + to_y) / 2 + 4, label, size=12, color=SOFT)

    def svg(self) -> str:
        """Return the whole image."""
        return "\n".join([*self.parts, "</svg>", ""])


# Question, its lines below, and what to take if the answer is yes, with a word on it.
QUESTIONS = [
    ("Decode images?", ["from responses back"], ["DINAAligner"], []),
    ("Movies?", ["what was before matters"],
     ["MovieLNRegressor", "MovieCNNRegressor", "ViSTRegressor"], []),
    ("The first fit?", ["is there anything", "to predict?"], ["LNRegressor"], ["in minutes"]),
    ("How small can it be?", ["one network for all,", "or one per neuron"],
     ["FullModelRegressor", "MinimodelRegressor"], []),
    ("A pretrained core?", ["trained on photographs"], ["PretrainedViTRegressor"], []),
    ("A core of your own?", ["any torch module"], ["EncodingRegressor"], []),
    ("Few images, no GPU?", ["below thousands of", "images per animal"], ["CNNRegressor"], []),
    ("Behaviour recorded?", ["running, pupil"], ["V1TRegressor"], ["no: ViTRegressor"]),
]  # fmt: skip


def choosing() -> str:
    """Return the flow chart of choosing a model."""
    row, left, right = 78, 166, 174
    drawing = Drawing(row * len(QUESTIONS) - 8, "Flow chart: which estimator for which question")
    for i, (question, about, answers, note) in enumerate(QUESTIONS):
        y = 6 + i * row
        height = 56
        drawing.box(4, y, left, height, QUESTION)
        drawing.text(12, y + 17, question, bold=True)
        for j, line in enumerate(about):
            drawing.text(12, y + 33 + 15 * j, line, size=12, color=SOFT)
        drawing.arrow(4 + left, y + height / 2, WIDTH - right - 4, y + height / 2, "yes")
        drawing.box(WIDTH - right - 4, y, right, height, ANSWER)
        lines = len(answers) + len(note)
        first = y + height / 2 + 5 - 8 * (lines - 1)
        for j, answer in enumerate(answers):
            drawing.text(WIDTH - right + 4, first + 16 * j, answer, bold=True)
        for j, line in enumerate(note, len(answers)):
            drawing.text(WIDTH - right + 4, first + 16 * j, line, size=12, color=SOFT)
        if i + 1 < len(QUESTIONS):
            drawing.arrow(40, y + height, 40, y + row, "no")
    return drawing.svg()


def data_model() -> str:
    """Return the picture of recordings, trees and trials."""
    drawing = Drawing(
        548,
        "Two recordings, each with stimuli, behaviour, responses and labels on one axis of trials; "
        "both in a tree; and all their trials on one axis, from which some are selected",
    )
    drawing.text(6, 20, "Recordings: an xarray.DataTree", bold=True, size=15)
    drawing.text(6, 37, "a Dataset per animal; each row is a trial", size=12, color=SOFT)
    columns = [(34, "stimuli"), (120, "behaviors"), (200, "responses"), (310, "labels")]
    for x, name in columns:
        drawing.text(x, 60, name, size=12, bold=True)
    for mouse, top, trials, neurons in (("A", 68, 6, 100), ("B", 188, 5, 64)):
        drawing.text(8, top + 8 * trials + 4, mouse, bold=True, size=15)
        for i in range(trials):
            y = top + 16 * i
            drawing.box(34, y, 70, 14, IMAGES, 1)
            drawing.box(120, y, 46, 14, BEHAVIOR, 1)
            drawing.box(200, y, neurons, 14, RESPONSES, 1)
            drawing.box(310, y, 62, 14, LABELS, 1)
            drawing.text(314, y + 11, "test" if i >= trials - 2 else "train", size=11)
            drawing.text(348, y + 11, f"#{(7, 12, 3, 9, 5, 5)[i - trials]}", size=11)
        bottom = top + 16 * trials + 11
        drawing.text(34, bottom, "channel, y, x", size=11, color=SOFT)
        drawing.text(200, bottom, f"{'more' if mouse == 'A' else 'fewer'} neurons", size=11,
                     color=SOFT)  # fmt: skip
    drawing.text(296, 175, "tier, image_id", size=11, color=SOFT)

    drawing.arrow(70, 290, 70, 322, "v1.Trials(recordings)")
    drawing.text(6, 345, "Trials: all animals on one axis", bold=True, size=15)
    drawing.text(6, 362, "an index; nothing is copied, and scikit-learn slices it", size=12,
                 color=SOFT)  # fmt: skip
    cell = 32
    for i, name in enumerate("AAAAAABBBBB"):
        test = i in (4, 5, 9, 10)
        drawing.box(8 + cell * i, 372, cell, 24, LABELS if test else RESPONSES, 1)
        drawing.text(8 + cell * (i + 0.5), 389, name, bold=True, anchor="middle")
    drawing.arrow(70, 400, 70, 432, 'trials.sel(tier="train")')
    drawing.arrow(270, 400, 270, 432, 'tier="test"')
    for i, name in enumerate("AAAABBB"):
        drawing.box(8 + 30 * i, 438, 30, 24, RESPONSES, 1)
        drawing.text(8 + 30 * (i + 0.5), 455, name, bold=True, anchor="middle")
    for i, name in enumerate("AABB"):
        drawing.box(246 + 30 * i, 438, 30, 24, LABELS, 1)
        drawing.text(246 + 30 * (i + 0.5), 455, name, bold=True, anchor="middle")
    drawing.arrow(70, 466, 70, 496, "model.fit(train)")
    drawing.arrow(270, 466, 270, 496, ".predict(test)")
    drawing.text(8, 516, "a fitted model", bold=True)
    drawing.text(246, 516, "Responses", bold=True)
    drawing.text(8, 533, "one core, a readout per animal", size=12, color=SOFT)
    drawing.text(246, 533, "(trial, neuron) each", size=12, color=SOFT)
    return drawing.svg()


DIAGRAMS = {"choosing.svg": choosing, "data_model.svg": data_model}

if __name__ == "__main__":
    for name, draw in DIAGRAMS.items():
        (STATIC / name).write_text(draw(), encoding="utf-8")
