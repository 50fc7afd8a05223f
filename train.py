"""Train a network: `python train.py --workdir W`."""

import sys

from qsmjax.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("train"))
