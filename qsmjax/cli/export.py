"""Write the learned inversion as one ONNX file, for other tools to run.

  qsmjax export learned.onnx                 the network that is shipped
  qsmjax export total.onnx --weights learned_total    the one for what the default removal of the background leaves
  qsmjax export mine.onnx --workdir W        the network that train.py left in W

Field, mask and noise go in, map and standard deviation come out, on any grid: docs/learned.md says how.
Needs onnx: pip install 'qsmjax[onnx]'.
"""

import argparse
import sys
from pathlib import Path

from qsmjax.cli.errors import UserError
from qsmjax.inference.network import read_network
from qsmjax.inference.shipped import FOLDER
from qsmjax.models.correction import Correction

SHIPPED = ("learned", "learned_total")
"""Networks that are shipped and can be exported."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument("out", metavar="OUT", help="file to write (.onnx)")
    networks = parser.add_mutually_exclusive_group()
    networks.add_argument("--weights", choices=SHIPPED, default=SHIPPED[0], help="use these (default: %(default)s)")
    networks.add_argument("--workdir", metavar="W", help="use the network of W")
    parser.add_argument("--quiet", action="store_true", help="print nothing")


def run(args: argparse.Namespace) -> int:
    """Export what the arguments say.

    Raises:
      UserError: if onnx is not installed, or the network is none that can be exported.
    """
    if not args.out.endswith(".onnx"):
        raise UserError(f"OUT must end in .onnx, got {args.out}")
    try:
        # a guest that only this command needs
        from qsmjax.export.model import learned_model, save_model
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} must be installed, got none: pip install 'qsmjax[onnx]'") from error
    file, network, variables, card = read_network(args.workdir or FOLDER / f"{args.weights}.safetensors")
    if not isinstance(network, Correction):
        name = card["network"].get("name")
        raise UserError(f"{file} must hold a learned correction, got a {name}: train one with --config learned")
    save_model(args.out, learned_model(network, variables, card))
    if not args.quiet:
        print(f"{args.out}: {Path(args.out).stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    return 0
