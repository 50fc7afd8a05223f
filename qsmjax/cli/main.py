"""`qsmjax COMMAND`: the same programs as train.py and infer.py, under one name."""

import argparse
import importlib
import importlib.metadata
import io
import sys
from collections.abc import Sequence

from qsmjax.cli.errors import end, guarded

COMMANDS = {
    "infer": "a field map to a susceptibility map",
    "train": "train a network on simulated heads or on your own maps",
    "recon": "multi-coil k-space to magnitude and phase",
    "cosmos": "several orientations of one head to one susceptibility map",
    "bids": "a BIDS dataset to the maps of all its scans",
    "simulate": "make scans with their truth from label maps",
    "export": "the learned inversion as one ONNX file, for other tools",
    "study": "compare methods over subjects and head orientations",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names.

    Returns:
      Its exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="qsmjax", description="Quantitative susceptibility mapping in JAX.")
    parser.add_argument("--version", action="version", version=importlib.metadata.version("qsmjax"))
    parser.add_argument(
        "command", choices=COMMANDS, help="; ".join(f"{name}: {what}" for name, what in COMMANDS.items())
    )
    name = parser.parse_args(arguments[:1]).command
    return run_command(name, arguments[1:], prog=f"qsmjax {name}")


def program() -> None:
    """Be the program `qsmjax`."""
    end(main())


def run_command(name: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one command on its own arguments, by default the process'.

    Returns:
      Its exit status.
    """
    # imported by name, so that one command does not pay for the libraries of another
    command = importlib.import_module(f"qsmjax.cli.{name}")
    parser = argparse.ArgumentParser(
        prog=prog or f"{name}.py", description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_arguments(parser)
    args = parser.parse_args(argv)
    # whoever reads through a pipe hears a line when it is said
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    return guarded(lambda: command.run(args))
