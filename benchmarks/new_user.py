"""A new user's first minutes: clone, the README's command, the report in a browser; timed, typed commands counted.

    python benchmarks/new_user.py                                   print the times
    python benchmarks/new_user.py --picture docs/images/report.png  and keep a picture of the report
    python benchmarks/new_user.py --page FILE.html --picture OUT    only take the picture of a report that is there

Needs Chromium for the last step. The environment is new: only pip's download cache, if there is one, is kept. Beside
the seconds stand those of CPU, user and system: on a machine that does other work too they say what a quiet one needs.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "report"))
# the browser of the tests
from browser import browser  # noqa: E402

HEIGHT = 1500
"""Of the picture: what a reader sees first."""


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.page:
            look(args.page, Path(folder), args.picture)
            return
        clone = Path(folder) / "qsmjax"
        line = next(
            block for block in re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
        )
        opened = clone / "examples" / "field_Chimap.html"
        steps = {
            f"git clone {ROOT.name} && cd {ROOT.name}": lambda: timed(
                "git", "clone", "--quiet", str(ROOT), str(clone), cwd=folder
            ),
            line.strip(): lambda: timed("bash", "-euo", "pipefail", "-c", line, cwd=clone),
            "(the page opened)": lambda: look(opened, Path(folder), args.picture),
        }
        print("   all     CPU")
        times = []
        for command, step in steps.items():
            times.append(step())
            print("{:6.1f} s{:6.1f} s".format(*times[-1]), command, sep="  ", flush=True)
    seconds, cpu = (sum(part) for part in zip(*times))
    print(
        f"{seconds:6.1f} s{cpu:6.1f} s  in all (bar 180), {len(times)} commands (bar 3), load {os.getloadavg()[1]:.1f}"
    )


def timed(*words: str, cwd: str | Path) -> tuple[float, float]:
    """Run a command as in a new shell, and return its seconds and those of CPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON", "JAX"))}
    started, used = time.perf_counter(), cpu_of_children()
    subprocess.run(words, cwd=cwd, check=True, env=kept)
    return time.perf_counter() - started, cpu_of_children() - used


def cpu_of_children() -> float:
    """Return the seconds of CPU that processes took which this one started, and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def look(page: Path, folder: Path, picture: Path | None) -> tuple[float, float]:
    """Open a report until its viewer has drawn, and return the seconds that took, and those of CPU."""
    started, used = time.perf_counter(), cpu_of_children()
    with browser(folder / "profile") as opened:
        opened.open(page)
        opened.wait_for("document.body?.dataset.viewer == 'ready'", 90)
        opened.screenshot()
        seconds = time.perf_counter() - started
        if picture:
            # at three quarters of its size, which is as sharp as a reader of the README needs it
            clip = {"x": 100, "y": 0, "width": 1000, "height": HEIGHT, "scale": 0.75}
            opened.screenshot(picture, clip)
    return seconds, cpu_of_children() - used


if __name__ == "__main__":
    main()
