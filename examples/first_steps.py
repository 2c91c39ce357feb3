"""From Sensorium zips to a table and a figure: ``python examples/first_steps.py FOLDER [EPOCHS]``.

Writes ``first_steps.csv`` and ``first_steps.png`` into the folder it is run in.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import v1tlearn as v1
from v1tlearn.inspection import model_color
from v1tlearn.metrics import average_correlation, scorers

trials = v1.Trials(v1.read_sensorium(sys.argv[1]))
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
settings = {"max_epochs": int((*sys.argv, 100)[2]), "random_state": 0, "verbose": 1}
models = {"LN": v1.LNRegressor(**settings), "CNN": v1.CNNRegressor(**settings)}
for model in models.values():
    model.fit(train, validation=validation)

names = ["single_trial_correlation", "average_correlation", "fraction_oracle", "feve"]
rows = {model: {n: scorers[n](models[model], test) for n in names} for model in models}
table = pd.DataFrame.from_dict(rows, orient="index")
table.to_csv("first_steps.csv")
print(table.round(3).to_string())

fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
for name, model in models.items():
    per_neuron = average_correlation(test.responses, model.predict(test), multioutput="raw_values")
    ax.ecdf(np.asarray(per_neuron), color=model_color(name), label=name)
ax.set(xlabel="correlation to average over repeats", ylabel="share of neurons")
ax.legend(frameon=False)
fig.savefig("first_steps.png", dpi=150)
