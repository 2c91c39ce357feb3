"""Several real processes of one script, as torchrun starts them."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

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
    done = _run(_launcher(script, n, folder, *args))
    assert done.returncode == 0 or not check, done.stderr
    return [_told(folder, rank) for rank in range(n)]


def interrupted(script, n, folder, ready):
    """Run a script in `n` processes, and press Ctrl-C once a file is there."""
    process = subprocess.Popen(_launcher(script, n, folder), env=_environment())
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=300)
    finally:
        process.kill()
    return [_told(folder, rank) for rank in range(n)]


def unwatched(script, n, folder, *args):
    """Run a script in `n` processes that nothing ends when one of them has; what each told."""
    path = _written(script, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(path), str(folder), *map(str, args)]
    started = [
        subprocess.Popen(command, env=_environment() | group | {"RANK": str(rank)})
        for rank in range(n)
    ]
    try:
        for process in started:
            process.wait(timeout=900)
    finally:
        for process in started:
            process.kill()
    return [_told(folder, rank) for rank in range(n)]


def _written(script, folder):
    path = folder / "script.py"
    path.write_text(HEAD + textwrap.dedent(script))
    for old in folder.glob("told-*.json"):
        old.unlink()
    return path


def _launcher(script, n, folder, *args):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = str(_written(script, folder))
    return [*command, "--nproc-per-node", str(n), script, str(folder), *map(str, args)]


def alone(script, folder, *args):
    """Run it in one process."""
    path = _written(script, folder)
    done = _run([sys.executable, str(path), str(folder), *map(str, args)])
    assert done.returncode == 0, done.stderr
    return _told(folder, 0)


def _run(command):
    return subprocess.run(
        command, capture_output=True, text=True, env=_environment(), timeout=900, check=False
    )


def _environment():
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    return os.environ | own


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
