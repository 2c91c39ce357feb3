"""Several real processes of one script, as torchrun starts them."""

import json
import os
import subprocess
import sys
import textwrap

# How every script begins: `tell(name=value)` is what the test sees of its process.
HEAD = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import v1tlearn as v1
from tests.processes import tell
"""


def torchrun(script, n, folder, *args, check=True):
    """Run a script in `n` processes; what each of them told."""
    path = folder / "script.py"
    path.write_text(HEAD + textwrap.dedent(script))
    for old in folder.glob("told-*.json"):
        old.unlink()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # torchrun ends the others when one died, but after they had the time to say why they end
    command += ["--monitor-interval", "5"] if not check else []
    command += ["--nproc-per-node", str(n), str(path), str(folder), *map(str, args)]
    done = _run(command)
    assert done.returncode == 0 or not check, done.stderr
    return [_told(folder, rank) for rank in range(n)]


def alone(script, folder, *args):
    """Run it in one process."""
    path = folder / "script.py"
    path.write_text(HEAD + textwrap.dedent(script))
    done = _run([sys.executable, str(path), str(folder), *map(str, args)])
    assert done.returncode == 0, done.stderr
    return _told(folder, 0)


def _run(command):
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | own, timeout=900, check=False
    )


def _told(folder, rank):
    path = folder / f"told-{rank}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def tell(**values):
    """Tell the test something, in a process that it started."""
    from pathlib import Path

    folder, rank = Path(sys.argv[1]), os.environ.get("RANK", "0")
    path = folder / f"told-{rank}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values))
