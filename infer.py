"""Turn a field map into a susceptibility map: `python infer.py field.nii`."""

import sys

from qsmjax.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("infer"))
