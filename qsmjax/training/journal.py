"""What the first process writes of a run, beside its checkpoints: rows, pictures, a page, and the network.

metrics.csv          a row for every stretch of steps
tensorboard/         the same rows and the pictures, for TensorBoard
learning_curve.png, validation.png
training.html        all of it on one page, with the config and the throughput
weights.safetensors  the network as last validated
"""

import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from qsmjax.report.figures import learning_curve, pixels, three_plane
from qsmjax.report.training import training_page
from qsmjax.training import record
from qsmjax.training.checkpoint import export_weights
from qsmjax.training.config import TrainConfig
from qsmjax.training.state import TrainState
from qsmjax.training.validation import Case

WINDOW = (-0.1, 0.1)
"""Of the maps in the picture [ppm]."""


class Journal:
    """A run's rows, and the files that show them; with `writing` false only the rows."""

    def __init__(
        self, workdir: Path, config: TrainConfig, trained_on: str, devices: int, taken: int, *, writing: bool = True
    ) -> None:
        """Take up the rows of the steps that the checkpoint knows of."""
        self.workdir, self.config, self.trained_on, self.devices = workdir, config, trained_on, devices
        self.rows = record.read_rows(workdir, taken)
        self.board = SummaryWriter(str(workdir / "tensorboard"), purge_step=taken + 1) if writing else None

    @property
    def seconds(self) -> float:
        """The time that the run had taken by its last row."""
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def add(self, row: record.Row) -> None:
        """Write a row."""
        self.rows.append(row)
        if self.board is None:
            return
        record.write_rows(self.workdir, self.rows)
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name, value, int(row["step"]))
        self.board.flush()

    def validated(
        self, state: TrainState, row: record.Row, case: Case, made: NDArray, reference: Mapping[str, float]
    ) -> None:
        """Write the network, its pictures and the page.

        Args:
          state: that was validated, a host's.
          row: the one that will be added next, with the scores.
          case: one that was validated on.
          made: what the network made of it [ppm].
          reference: TKD's scores.
        """
        if self.board is None:
            return
        scores = {name: value for name, value in row.items() if name.startswith("val_")}
        export_weights(self.workdir, state, self.config, scores, self.trained_on)
        curve, picture = self.workdir / "learning_curve.png", self.workdir / "validation.png"
        learning_curve([*self.rows, row], curve, reference=reference)
        three_plane(
            {"field": case.field, "truth": case.chi, "network": made, "TKD": case.tkd},
            picture,
            mask=case.mask,
            window=[None, WINDOW, WINDOW, WINDOW],
            voxel_size=self.config.voxel_size,
            title=f"{case.name} after {int(state.step)} steps",
        )
        self.board.add_image("validation", pixels(picture), int(state.step), dataformats="HWC")
        training_page(
            self.workdir / "training.html",
            title=f"{self.config.preset}, {int(state.step)} of {self.config.steps} steps",
            facts=self._facts([*self.rows, row]),
            pictures={"Learning curve": curve, "Validation": picture},
            rows=[r for r in [*self.rows, row] if "val_nrmse" in r],
            config=self.config.to_dict(),
        )

    def close(self) -> None:
        """Let go of the files."""
        if self.board is not None:
            self.board.close()

    def _facts(self, rows: Sequence[record.Row]) -> dict[str, str]:
        rate = rows[-1].get("steps_per_second", 0.0)
        devices = f"{self.devices} x {jax.local_devices()[0].device_kind}, {jax.process_count()} process(es)"
        return {
            "Trained on": self.trained_on,
            "Devices": devices,
            "Time": f"{rows[-1]['seconds'] / 60:.1f} min",
            "Throughput": f"{rate:.3g} steps/s, {rate * self.config.batch:.3g} samples/s",
            "Waiting for data": f"{100 * rows[-1].get('input_wait', 0.0):.1f} % of the time",
            "Peak memory": peak_memory(),
        }


def peak_memory() -> str:
    """Return the peak memory of this process and, where the device tells it, of its first device."""
    # kilobytes, but on a Mac bytes
    unit = 2**30 if sys.platform == "darwin" else 2**20
    host = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GiB"
    device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return host if device is None else f"{host} on the host, {device / 2**30:.2f} GiB on the device"
