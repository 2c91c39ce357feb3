"""Use models in one process for long: ``python -m tests.soak --rounds 2000``.

A round fits, predicts, scores, saves, loads, pickles, clones, opens recordings and a damaged file.
Memory, threads and open files are printed now and then, and must not grow: the slope of each over
the rounds, the median over pairs, tells.
"""

import argparse
import gc
import itertools
import pickle
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

from sklearn.base import clone

import v1tlearn as v1
from tests.fuzz.arguments import arrays, tiny

STATUS = Path("/proc/self/status")
MOST_KIB = 2.0  # per round of five trainings: one model that is kept takes ten times as much


def one_round(number, folder):
    """Do once what users do."""
    given = {name: arrays()[name] for name in ("stimuli", "behaviors", "responses")}
    kind = (v1.LNRegressor, v1.CNNRegressor)[number % 2]
    model = tiny(kind, random_state=number).fit(**given)
    expected = model.predict(given["stimuli"], given["behaviors"])
    model.partial_fit(**given)
    model.score(**given)
    model.save(folder / "model")
    v1.load(folder / "model", device="cpu").predict(given["stimuli"], given["behaviors"])
    pickle.loads(pickle.dumps(model)).predict(given["stimuli"], given["behaviors"])
    clone(model)
    trials = v1.Trials.from_arrays(**given)
    if number % 4 == 0:  # others open the file once more
        trials.to_netcdf(folder / "trials.nc")
    opened = v1.Trials.open(folder / "trials.nc")
    tiny(kind, warm_start=True).fit(opened).fit(opened)
    model.transfer(opened.sel(mouse_id="A"))
    for wrong in (folder / "no model", folder / "trials.nc"):
        try:
            v1.load(wrong)
        except ValueError:
            continue
        raise AssertionError(f"{wrong} was loaded")
    try:
        model.predict(given["stimuli"], given["responses"])
    except ValueError:
        return expected
    raise AssertionError("responses were taken for behaviour")


def state():
    """Memory in KiB, threads and open files of this process."""
    gc.collect()
    told = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    n_files = len(list(Path("/proc/self/fd").iterdir()))
    return {
        "memory": int(told["VmRSS"].split()[0]),
        "threads": int(told["Threads"]),
        "files": n_files,
    }


def slope(rounds, values):
    """Growth per round: the median over all pairs (Theil and Sen)."""
    pairs = itertools.combinations(zip(rounds, values, strict=True), 2)
    return statistics.median((b - a) / (n - m) for (m, a), (n, b) in pairs)


def soak(n_rounds, say=lambda text: None):
    """Run the rounds; return the slope of memory in KiB per round, of threads and of files.

    What is made once, in the first fifth of the rounds, does not count.
    """
    every, seen = max(1, n_rounds // 40), []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        for number in range(n_rounds):
            one_round(number, Path(folder))
            if number % every == 0 or number == n_rounds - 1:
                seen.append((number, state()))
                found = seen[-1][1]
                say(
                    f"round {number}: {found['memory'] / 1024:.1f} MiB, {found['threads']} "
                    f"threads, {found['files']} files, {time.process_time() - start:.0f} s"
                )
    later = [(number, found) for number, found in seen if number >= n_rounds / 5]
    rounds = [number for number, _ in later]
    return {
        name: slope(rounds, [found[name] for _, found in later])
        for name in ("memory", "threads", "files")
    }


def main():
    """Read the command line, and soak."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=2000)
    given = options.parse_args()
    found = soak(given.rounds, lambda text: print(text, flush=True))
    print(
        f"per round {found['memory']:+.2f} KiB of memory, {found['threads']:+.4f} threads, "
        f"{found['files']:+.4f} files"
    )
    sys.exit(not is_flat(found))


def is_flat(found):
    """Whether nothing grows."""
    return found["memory"] <= MOST_KIB and found["threads"] <= 0 and found["files"] <= 0


if __name__ == "__main__":
    main()
