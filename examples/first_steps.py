"""From Sensorium zips to a table and a figure: ``python examples/first_steps.py FOLDER [EPOCHS]``.

Writes ``first_steps.csv`` and ``first_steps.png`` into the folder it is run in.
"""

import sys

import v1tlearn as v1
from v1tlearn.inspection import ScoreDisplay

trials = v1.Trials(v1.read_sensorium(sys.argv[1]))
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
settings = {"max_epochs": int((*sys.argv, 100)[2]), "random_state": 0, "verbose": 1}
models = {"LN": v1.LNRegressor(**settings), "CNN": v1.CNNRegressor(**settings)}
for model in models.values():
    model.fit(train, validation=validation)

table = v1.score_table(models, test, multioutput="uniform_average")
table = table.pivot(index="model", columns="metric", values="value").loc[list(models)]
table.to_csv("first_steps.csv")
print(table.round(3).to_string())

display = ScoreDisplay.from_estimator(models, test)  # and the oracle, from repeated images
display.figure_.savefig("first_steps.png", dpi=150)
