"""Use models in one process for long: ``python -m tests.soak --rounds 2000``.

A round fits, predicts, scores, saves, loads, pickles, clones, opens recordings and a damaged file.
Memory, threads and open files are printed now and then, and must not grow. Memory does so in rare
steps: when the interpreter's table of interned strings is full of strings that are no more, it is
made anew, twice as large (3.7 MiB, then 7.3 MiB). So the median of what is added between two looks
tells what each round leaves, and all of the second half has a bound, however long that is.
"""

import argparse
import ctypes
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

LIBRARY = ctypes.CDLL(None)
STATUS = Path("/proc/self/status")
MOST_KIB = 2.0  # per round of five trainings: one model that is kept takes ten times as much
MOST_LATER_KIB = 16 * 1024  # in the second half of the rounds, however many


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
        except (FileNotFoundError, NotADirectoryError):
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
    if hasattr(LIBRARY, "malloc_trim"):  # of glibc, which keeps some of what was freed
        LIBRARY.malloc_trim(0)
    told = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    n_files = len(list(Path("/proc/self/fd").iterdir()))
    return {
        "memory": int(told["RssAnon"].split()[0]),  # pages of files come and go
        "threads": int(told["Threads"]),
        "files": n_files,
    }


def slope(rounds, values):
    """Growth per round: the median between one look and the next."""
    pairs = itertools.pairwise(zip(rounds, values, strict=True))
    return statistics.median((b - a) / (n - m) for (m, a), (n, b) in pairs)


def soak(n_rounds, say=lambda text: None):
    """Run the rounds; tell what grows.

    "memory" in KiB per round, where what is made once, in the first fifth of the rounds, does not
    count; "later", memory of the second half in KiB; "threads" and "files" of the second half
    beside the most there were before.
    """
    every, seen = 4 * max(1, n_rounds // 160), []  # what a round holds repeats after four
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        for number in range(n_rounds):
            one_round(number, Path(folder))
            if number % every == 0:
                seen.append((number, state()))
                found = seen[-1][1]
                say(
                    f"round {number}: {found['memory'] / 1024:.1f} MiB, {found['threads']} "
                    f"threads, {found['files']} files, {time.process_time() - start:.0f} s"
                )
    started = [(number, found["memory"]) for number, found in seen if number >= n_rounds / 5]
    half = next(i for i, (number, _) in enumerate(seen) if number >= n_rounds / 2)
    before, after = ([found for _, found in part] for part in (seen[:half], seen[half:]))
    grown = {
        name: max(found[name] for found in after) - max(found[name] for found in before)
        for name in ("threads", "files")
    }
    later = after[-1]["memory"] - after[0]["memory"]
    return {"memory": slope(*zip(*started, strict=True)), "later": later, **grown}


def main():
    """Read the command line, and soak."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=2000)
    given = options.parse_args()
    found = soak(given.rounds, lambda text: print(text, flush=True))
    print(
        f"per round {found['memory']:+.2f} KiB of memory, in the second half "
        f"{found['later']:+} KiB, {found['threads']:+} threads, {found['files']:+} files"
    )
    sys.exit(not is_flat(found))


def is_flat(found):
    """Whether nothing grows."""
    bounded = found["memory"] <= MOST_KIB and found["later"] <= MOST_LATER_KIB
    return bounded and found["threads"] <= 0 and found["files"] <= 0


if __name__ == "__main__":
    main()
