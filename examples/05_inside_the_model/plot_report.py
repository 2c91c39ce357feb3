"""
What is there to know about a fitted model?
===========================================

After a fit the same questions come up every time: how good is it, and how good could it be; did the
training end well; where do its neurons look, which does it miss, what does behaviour do? A report
answers them on one page.
"""

# %%
# A model of two mice
# -------------------

import tempfile
import textwrap
from pathlib import Path

import v1tlearn as v1
from v1tlearn.inspection import report

recordings = v1.make_v1_recordings(
    n_mice=2,
    n_neurons=[60, 40],
    n_trials=900,
    n_test_images=30,
    n_repeats=5,
    image_shape=(18, 32),
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
size = {"n_layers": 2, "hidden_channels": 16, "input_kernel": 9, "hidden_kernel": 5}
model = v1.CNNRegressor(**size, max_epochs=15, random_state=0)
model.fit(train, validation=validation)
# sphinx_gallery_thumbnail_path = "_static/report.png"

# %%
# The page
# --------
# The trials of all tiers are described, those of the tier "test" are scored. With a path the page
# becomes a file, whole or not at all; a file that is no report is never replaced.

folder = Path(tempfile.mkdtemp())
page = report(model, trials, folder / "model.html", n_mice=1, n_neurons=4, n_bootstrap=100)
print(page)

# %%
# What is not on it
# -----------------
# A convolutional network has no attention. The page says so, in the words of the analysis, and so
# does the object.

for what, reason in page.absent.items():
    print(textwrap.fill(f"no {what}: {reason}", 80))

# %%
# A notebook shows the page when it is the last line of a cell, in a frame of its own:

page  # noqa: B018
