"""Train a network: `python train.py --workdir W`."""

from qsmjax.cli.errors import end
from qsmjax.cli.main import run_command

if __name__ == "__main__":
    end(run_command("train"))
