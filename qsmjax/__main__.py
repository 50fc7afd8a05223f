"""`python -m qsmjax`: the program `qsmjax`."""

from qsmjax.cli.main import program

if __name__ == "__main__":
    program()
