"""``python -m v1tlearn``, the same as the command ``v1tlearn``."""

import sys

from v1tlearn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
