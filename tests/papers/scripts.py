"""Running scripts of papers/ as their readers do, on one core and without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_script(name, *arguments, strict=False):
    """Run ``papers.{name}``, where strict with warnings as errors."""
    flags = ["-W", "error"] if strict else []
    return subprocess.run(
        [sys.executable, *flags, "-m", f"papers.{name}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
