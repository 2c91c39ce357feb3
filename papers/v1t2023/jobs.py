"""
The fits behind the tables: which there are, how each is made, and one after the other.

A job is one row of a table, or the few rows that are made together. What is finished is kept, as
is every fitted model, so that a run goes on where it stopped.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import v1tlearn as v1
from papers.v1t2023 import data, tables
from v1tlearn.training import NonFiniteLossError

KINDS = {
    "LN": v1.LNRegressor,
    "CNN": v1.CNNRegressor,
    "ViT": v1.ViTRegressor,
    "V1T": v1.V1TRegressor,
}
COMPETITION = "competition"
B_MLP_MODES = {
    "V1T, B-MLP in first block": "b_mlp_first_block",
    "V1T, B-MLP shared": "b_mlp_shared",
    "V1T, B-MLP per animal": "b_mlp_per_mouse",
}
CCT_EMBED_DIM = 160  # as published; CCT needs a multiple of n_heads squared, 16
ENSEMBLE = 10, 5  # candidates, members

# --quick: small cores that still go through every layer, and penalties for few small neurons.
_QUICK = {"image_size": (18, 32), "max_epochs": 3, "batch_size": 12}
_QUICK_CNN = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
_QUICK_CNN |= {"laplace": 0.1, "lr": 0.003}
_QUICK_VIT = {"patch_size": 6, "patch_stride": 4, "n_blocks": 2, "n_heads": 2, "embed_dim": 8}
_QUICK_VIT |= {"mlp_dim": 16, "core_l1": 0.01, "lr": 0.005}
_QUICK_ENSEMBLE = 3, 2

Scores = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One thing to fit: its name, the kind of model, and what to call with a seed for scores."""

    name: str
    kind: str
    run: Callable[[int], Scores]
    one_seed: bool = False  # whatever the number of seeds


class Paper:
    """The recordings of one data set, and the models of the paper on them.

    Parameters
    ----------
    dataset : {"S", "F"}
    recordings : dict of str to Dataset
        Per letter, the competition mice among them.
    franke : dict of str to Dataset
        Mice of data set F for Table A.9 on S; may be empty.
    options : argparse.Namespace
        As `parse` returns.
    """

    def __init__(
        self,
        dataset: str,
        recordings: Mapping[str, xr.Dataset],
        franke: Mapping[str, xr.Dataset],
        options: argparse.Namespace,
    ) -> None:
        self.dataset, self.options = dataset, options
        self.recordings, self.out = dict(recordings), options.output
        mice = [m for m in recordings if m not in data.COMPETITION_MICE]
        self.trials = v1.Trials({m: recordings[m] for m in mice})
        self.franke_mice = dict(franke)
        self.franke = v1.Grayscale().transform(v1.Trials(franke)) if franke else None
        # Leaving one animal out takes another.
        self.tables = [key for key in options.tables if key != "A.8" or len(mice) > 1]

    # -- models --------------------------------------------------------------------------------

    def make(self, kind: str, seed: int, **params: Any) -> Any:
        """Make an unfitted model by the recipe asked for."""
        params |= {"device": self.options.device, "random_state": seed}
        if self.options.precision is not None:
            params["precision"] = self.options.precision
        if self.options.quick:
            sizes = _QUICK_VIT if kind in ("ViT", "V1T") else _QUICK_CNN
            params = {**params, **_QUICK, **sizes}
        if self.options.recipe == "default":
            return KINDS[kind](**params)
        return KINDS[kind].from_preset("v1t2023", **params)

    def without_behavior(self) -> dict[str, str]:
        """Parameters of the models that see only the image."""
        return {"behavior_mode": "none", "shift": self.options.shift_without_behavior}

    def fitted(self, name: str, model: Any, trials: v1.Trials, core: Any = None) -> Any:
        """Fit on the train tier with the validation tier beside it, or load what was fitted.

        With `core`, a fitted model, only what belongs to the animals is trained.
        """
        path = self.out / "models" / tables.slug(name, model.random_state)
        if (path / "model.json").is_file():
            return type(model).load(path, device=self.options.device)
        train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
        if core is None:
            model.fit(train, validation=validation)
        else:
            model = core.transfer(train, validation=validation, random_state=model.random_state)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
        return model

    def scores(
        self, name: str, model: Any, cost: Mapping[str, float], mice: Sequence[str] = ()
    ) -> Scores:
        """Score a fitted model on the test tier, mouse by mouse; `cost` goes with each score."""
        test = self.trials.sel(tier="test")
        out = []
        for mouse in mice or test.mice:
            of_mouse = test.sel(mouse_id=mouse)
            recorded, predicted = of_mouse.responses.load(), model.predict(of_mouse)
            out += [
                {"model": name, "mouse": mouse, "metric": m, "value": f(recorded, predicted)} | cost
                for m, f in tables.METRICS.items()
            ]
        return out

    # -- jobs ----------------------------------------------------------------------------------

    def single(self, name: str, kind: str, **params: Any) -> Job:
        """Job of one model on all mice."""

        def run(seed: int) -> Scores:
            model = self.fitted(name, self.make(kind, seed, **params), self.trials)
            return self.scores(name, model, cost_of(model))

        return Job(name, kind, run)

    def leave_one_out(self, kind: str) -> Job:
        """Job of the fits behind Table A.8: three for every mouse."""

        def run(seed: int) -> Scores:
            out, costs = [], {f"{kind}, {way}": Counter() for way in ("direct", "transfer")}
            for mouse in self.trials.mice:
                alone = self.trials.sel(mouse_id=mouse)
                others = self.trials.sel(mouse_id=[m for m in self.trials.mice if m != mouse])
                direct = self.fitted(f"{kind}, direct {mouse}", self.make(kind, seed), alone)
                core = self.fitted(f"{kind}, all but {mouse}", self.make(kind, seed), others)
                name = f"{kind}, transfer to {mouse}"
                transfer = self.fitted(name, self.make(kind, seed), alone, core)
                out += self.scores(f"{kind}, direct", direct, {}, [mouse])
                out += self.scores(f"{kind}, transfer", transfer, {}, [mouse])
                costs[f"{kind}, direct"].update(cost_of(direct))
                costs[f"{kind}, transfer"].update(cost_of(core, transfer))
            return [score | costs[score["model"]] for score in out]

        return Job(f"{kind}, leave one out", kind, run)

    def ensemble(self, kind: str) -> Job:
        """Job of the mean of the best models by validation, of several that differ in seed."""
        name = f"{kind} ensemble"
        n_candidates, n_members = _QUICK_ENSEMBLE if self.options.quick else ENSEMBLE

        def run(_: int) -> Scores:
            candidates, reason = [], ""
            for number in range(n_candidates):
                print(f"    {kind}, candidate {number + 1} of {n_candidates}", flush=True)
                try:
                    candidates.append(self.fitted(kind, self.make(kind, number), self.trials))
                except NonFiniteLossError as error:
                    reason = str(error)
                    print(f"    left out: {reason}", flush=True)
            if len(candidates) < n_members:
                raise FloatingPointError(
                    f"{len(candidates)} of {n_candidates} candidates could be trained, {n_members} "
                    f"are needed. The last failure: {reason}"
                )
            model = ensemble_of(candidates, self.trials.sel(tier="validation"), n_members)
            return self.scores(name, model, cost_of(*candidates))

        return Job(name, kind, run, one_seed=True)

    def core_of_f(self, kind: str) -> Job:
        """Job of a core from data set F in shades of gray, with readouts of these mice."""
        name = f"{kind}, core of F"

        def run(seed: int) -> Scores:
            core = self.fitted(f"{kind}, gray F", self.make(kind, seed), self.franke)
            model = self.fitted(name, self.make(kind, seed), self.trials, core)
            return self.scores(name, model, cost_of(core, model))

        return Job(name, kind, run)

    def competition(self, mouse: str) -> Job:
        """Job of a V1T on all mice and a competition mouse, whose test responses it predicts."""
        name = f"V1T, competition {mouse}"
        trials = v1.Trials(
            {m: r for m, r in self.recordings.items() if m in (*self.trials.mice, mouse)}
        )
        # Without behaviour of its own a mouse can only be predicted from the image.
        blind = not trials.has("behaviors", mouse)

        def run(seed: int) -> Scores:
            model = self.make("V1T", seed, **(self.without_behavior() if blind else {}))
            model = self.fitted(name, model, trials)
            for tier in data.WITHHELD_TIERS:
                of_tier = trials.sel(mouse_id=mouse)
                if tier in of_tier.tiers:
                    of_tier = of_tier.sel(tier=tier)
                    path = self.out / "predictions" / f"{mouse}_{tier}-seed{seed}.csv"
                    data.write_predictions(path, of_tier, model.predict(of_tier), mouse)
                    print(f"    wrote {path}", flush=True)
            return []

        return Job(name, "V1T", run)

    def jobs(self) -> list[Job]:
        """Return the jobs behind the tables and models asked for, cheap and shared ones first."""
        blind = self.without_behavior()
        jobs = {
            "LN": self.single("LN", "LN"),
            "CNN without behaviour": self.single("CNN without behaviour", "CNN", **blind),
            "CNN": self.single("CNN", "CNN"),
            "ViT without behaviour": self.single("ViT without behaviour", "ViT", **blind),
            "ViT": self.single("ViT", "ViT"),
            "V1T": self.single("V1T", "V1T"),
            tables.CROPPED: self.single(tables.CROPPED, "V1T", crop_scale=0.8),
        }
        for tokenizer in tables.TOKENIZERS:
            for attention in tables.ATTENTIONS:
                name = tables.token_model(tokenizer, attention)
                params = {"tokenizer": tokenizer, "attention": attention}
                if tokenizer == "cct":
                    params["embed_dim"] = CCT_EMBED_DIM
                if name not in jobs:
                    jobs[name] = self.single(name, "V1T", **params)
        for name, mode in B_MLP_MODES.items():
            jobs[name] = self.single(name, "V1T", behavior_mode=mode)
        for kind in ("CNN", "V1T"):
            jobs[f"{kind}, direct"] = jobs[f"{kind}, transfer"] = self.leave_one_out(kind)
            jobs[f"{kind}, core of F"] = self.core_of_f(kind)
        for kind in ("CNN", "ViT", "V1T"):
            jobs[f"{kind} ensemble"] = self.ensemble(kind)
        known = tables.paper_tables(self.dataset)
        rows = {row for key in self.tables if key in known for row in known[key].rows}
        chosen = dict.fromkeys(job for name, job in jobs.items() if name in rows)
        if COMPETITION in self.tables:
            mice = [mouse for mouse in data.COMPETITION_MICE if mouse in self.recordings]
            chosen |= dict.fromkeys(map(self.competition, mice))
        return [job for job in chosen if job.kind in self.options.models]

    def settings(self) -> dict[str, Any]:
        """Return what the results depend on."""
        counts = data.describe(self.recordings)
        return {
            **choices(self.dataset, self.options),
            "mice": {mouse: counts.pop(mouse) for mouse in self.trials.mice},
            **counts,  # of competition mice
        } | ({} if self.franke is None else {"mice of F": data.describe(self.franke_mice)})


def choices(dataset: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the results depend on beside the recordings."""
    return {
        "data set": dataset,
        "recipe": options.recipe,
        "precision": options.precision,
        "quick": options.quick,
        "shift without behaviour": options.shift_without_behavior,
    }


def cost_of(*fits: Any) -> Counter:
    """Epochs and seconds of training, summed over fitted models."""
    seconds = sum(epoch["seconds"] for fit in fits for epoch in fit.history_)
    return Counter(epochs=sum(fit.n_iter_ for fit in fits), seconds=seconds)


def ensemble_of(
    candidates: Sequence[Any], validation: v1.Trials, n_members: int
) -> v1.EnsembleRegressor:
    """Make the ensemble of the best by validation of models that are fitted already.

    It predicts as one whose `fit` trained these candidates; they were trained one by one so that
    each is kept as soon as it is finished.
    """
    values = np.array([candidate.score(validation) for candidate in candidates])
    best = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:n_members]
    return v1.EnsembleRegressor.from_members([candidates[number] for number in best])


# -- one after the other ------------------------------------------------------------------------


def check_settings(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse to go on with other settings than those of what is there; return the latter."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"tables": []}
    changed = [name for name in settings if before.get(name, settings[name]) != settings[name]]
    if changed:
        raise ValueError(
            f"{path.parent} holds results of another run: {', '.join(changed)} differ from "
            f"{path.name}; choose another --output, or remove the folder"
        )
    return before


def keep_settings(path: Path, settings: Mapping[str, Any], asked: list[str]) -> dict[str, Any]:
    """Check settings and keep them; return all that the tables so far were made with."""
    before = check_settings(path, settings)
    together = list(dict.fromkeys([*before["tables"], *asked]))
    kept = {**before, **settings, "tables": together}
    tables.write_beside(path, json.dumps(kept, indent=1))
    return kept


def notes(settings: Mapping[str, Any], n_seeds: int) -> str:
    """Return what the tables should be read with."""
    simulated = "Simulated recordings (--quick) and small models: values mean nothing. "
    mice = "; ".join(
        f"{mouse} {count['neurons']:,}, " + " + ".join(f"{count[tier]:,}" for tier in data.TIERS)
        for mouse, count in settings["mice"].items()
    )
    first, *_, last = data.MICE[settings["data set"]]
    seeds = f"; over up to {n_seeds} seeds, ± their standard deviation" * (n_seeds > 1)
    of_f = ", ".join(settings.get("mice of F", ()))
    of_f = f" The core of Table A.9 is from mice {of_f} of data set F." * bool(of_f)
    return (
        f"{simulated * settings['quick']}Recipe: {settings['recipe']}. Means over a mouse's "
        f"neurons on the test tier, then over mice{seeds}. Published means are over mice {first} "
        f"to {last}; what was published for one mouse stands with it, in grey or brackets. Mice "
        f"here (neurons, trials for training + validation + test): {mice}.{of_f}"
    )


def write_results(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the tables of all finished jobs."""
    dataset, asked = settings["data set"], settings["tables"]
    keys = [key for key in tables.paper_tables(dataset) if key in asked]
    n_seeds = len({job["seed"] for job in tables.read_jobs(out / "jobs") if job["scores"]})
    text, of_f = notes(settings, n_seeds), list(settings.get("mice of F", ()))
    tables.write_tables(out, dataset, keys, list(settings["mice"]), text, of_f)


def run(paper: Paper) -> list[str]:
    """Run the jobs that are not finished, and write the tables after each; return failures."""
    out, options = paper.out, paper.options
    settings = keep_settings(out / "settings.json", paper.settings(), paper.tables)
    (out / "jobs").mkdir(exist_ok=True)
    jobs, failures = paper.jobs(), []
    todo = [(job, s) for s in range(options.seeds) for job in jobs if s == 0 or not job.one_seed]
    for number, (job, seed) in enumerate(todo, 1):
        path = out / "jobs" / f"{tables.slug(job.name, seed)}.json"
        head = f"[{number}/{len(todo)}] {job.name}, seed {seed}"
        if path.exists() and "failed" not in json.loads(path.read_text(encoding="utf-8")):
            print(f"{head}: finished before", flush=True)
            continue
        print(f"{head} ...", flush=True)
        start = time.perf_counter()
        record: dict[str, Any] = {"job": job.name, "seed": seed, "scores": []}
        try:
            record["scores"] = job.run(seed)
        except (FloatingPointError, ValueError) as error:
            record["failed"] = f"{type(error).__name__}: {error}"
            failures.append(f"{job.name}, seed {seed}: {record['failed']}")
            print(f"    failed: {record['failed']}", flush=True)
        tables.write_beside(path, json.dumps(record, indent=1))
        write_results(out, settings)
        seconds = time.perf_counter() - start
        for name in dict.fromkeys(score["model"] for score in record["scores"]):
            means = []
            for metric in tables.METRICS:
                of_row = [s for s in record["scores"] if s["model"] == name]
                of = [s["value"] for s in of_row if s["metric"] == metric]
                means.append(f"{metric.replace('_', ' ')} {sum(of) / len(of):.3f}")
            print(f"    {name}: {', '.join(means)}; {seconds:.0f} s", flush=True)
    write_results(out, settings)
    print(f"\n{(out / 'tables.md').read_text(encoding='utf-8')}")
    print(f"results.csv, tables.md and tables.html are in {out}/")
    return failures


def parse(dataset: str, description: str, arguments: list[str] | None = None) -> argparse.Namespace:
    """Read arguments, by default those of the command line."""
    known = [*tables.paper_tables(dataset), *([COMPETITION] if dataset == "S" else [])]
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help=f"folder with the zips of data set {dataset}")
    if dataset == "S":
        parser.add_argument("--franke", type=Path, help="folder of data set F, for Table A.9")
    default = f"paper_{dataset.lower()}"
    text = f"default {default}, with --quick {default}_quick"
    parser.add_argument("--output", type=Path, help=text)
    parser.add_argument("--tables", nargs="+", choices=known, help="default: those of the paper")
    parser.add_argument("--models", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=1, help="models per row; ensembles have one")
    parser.add_argument("--recipe", choices=["published", "default"], default="published")
    parser.add_argument(
        "--shift-without-behavior",
        choices=["none", "readout"],
        default="none",
        help="whether the pupil moves the readout of models without behaviour",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "tf32", "bfloat16"],
        help="the recipe's own if not given: TF32 as published, 'auto' of our defaults",
    )
    parser.add_argument("--quick", action="store_true", help="small models, simulated recordings")
    options = parser.parse_args(arguments)
    options.franke = getattr(options, "franke", None)
    if options.output is None:
        options.output = Path(default + "_quick" * options.quick)
    if options.quick:
        if options.data or options.franke:
            parser.error("--quick simulates its recordings: leave --data and --franke away")
        options.data = options.output / f"simulated_{dataset.lower()}"
        if dataset == "S":
            options.franke = options.output / "simulated_f"
    elif options.data is None:
        parser.error("--data is missing: the folder with the zips, or --quick to try without")
    if options.tables is None:
        options.tables = known if dataset == "S" or options.quick else ["1", "A.7"]
        if dataset == "S" and options.franke is None:
            options.tables.remove("A.9")
            print("Table A.9 is left out: it needs --franke", flush=True)
    elif "A.9" in options.tables and options.franke is None:
        parser.error("Table A.9 needs --franke, the folder of data set F")
    return options


def main(dataset: str, description: str, arguments: list[str] | None = None) -> None:
    """From the folder of recordings to the tables."""
    options = parse(dataset, description, arguments)
    check_settings(options.output / "settings.json", choices(dataset, options))
    options.output.mkdir(parents=True, exist_ok=True)
    folders = {dataset: options.data} | ({"F": options.franke} if options.franke else {})
    recordings: dict[str, dict[str, xr.Dataset]] = {"F": {}}
    for name, folder in folders.items():
        if options.quick:
            data.simulate(folder, name)
        recordings[name] = data.open_mice(folder, name, options.output / "recordings")
    paper = Paper(dataset, recordings[dataset], recordings["F"] if options.franke else {}, options)
    if paper.tables != options.tables:
        print("Table A.8 is left out: it needs two mice or more", flush=True)
    failures = run(paper)
    if failures:
        sys.exit("\n".join(["failed, and tried again by the same command:", *failures]))
