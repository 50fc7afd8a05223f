"""Turn a field map into a susceptibility map: `python infer.py field.nii`."""

from qsmjax.cli.errors import end
from qsmjax.cli.main import run_command

if __name__ == "__main__":
    end(run_command("infer"))
