"""Run the tests, each Python in an environment of its own under .venvs, with the Django that goes with it.

    python tests/matrix.py              every test on the newest Python here, with few combinations of values
    python tests/matrix.py --all        everything, on the oldest and the newest Python; what CI runs
    python tests/matrix.py ARGUMENTS    one run of pytest with these arguments, on the newest Python

The tests say by their marks what they need: `alone`, `few`, `newest`, `also` (pyproject.toml describes them).
What could not be run is listed at the end; with FLEETCACHE_REQUIRE_ALL=1 it is a failure.  Needs nothing but the standard
library.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
DJANGO = {"3.11": "5.2.19", "3.12": "6.0.10", "3.13": "6.1.3", "3.14": "6.1.3"}
REQUIRED = ("3.11", "3.13")
NO_TEST = 5
"""pytest's exit code if no test was selected."""


def version_of(python: str) -> str:
    """Return the minor version of an interpreter, "" if it does not run."""
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        ran = subprocess.run([python, "-c", asked], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip()


def candidates() -> Iterator[str]:
    """Yield the interpreters that may be here: this one, those on PATH, and pyenv's."""
    yield sys.executable
    for version in DJANGO:
        if found := shutil.which(f"python{version}"):
            yield found
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(root.glob("versions/3.*/bin/python")))


def interpreters() -> dict[str, str]:
    """Return the interpreters by their version, those that are supported, the oldest first."""
    pythons: dict[str, str] = {}
    for python in candidates():
        version = version_of(python)
        if version in DJANGO:
            pythons.setdefault(version, python)
    return dict(sorted(pythons.items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])]))


@dataclass
class Environment:
    """An environment of a Python of this *version*."""

    version: str
    place: Path

    @classmethod
    def make(cls, version: str, python: str) -> Environment:
        """Return the environment with everything installed."""
        made = cls(version, HOME / ".venvs" / f"py{version}-django{DJANGO[version]}")
        stamp = made.place / "installed"
        requirements = HOME / "requirements/test.txt"
        wanted = requirements.read_text() + (HOME / "pyproject.toml").read_text()
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"-- making {made.place.relative_to(HOME)}", flush=True)
            subprocess.run([python, "-m", "venv", made.place], check=True)
            pip = [made.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            packages = ["--editable", f"{HOME}[all]", f"django=={DJANGO[version]}", "-r", requirements]
            subprocess.run([*pip, *packages], check=True)
            stamp.write_text(wanted)
        return made

    @property
    def python(self) -> Path:
        return self.place / "bin" / "python"

    def passes(self, *arguments: str, **variables: str) -> bool:
        """Run pytest with *arguments* and environment *variables*; return whether all went well."""
        set_to = " ".join(f"{name}={value}" for name, value in variables.items())
        print(f"\n-- Python {self.version}: {set_to} pytest {shlex.join(arguments)}", flush=True)
        command = [self.python, "-X", "dev", "-m", "pytest", *arguments]
        ran = subprocess.run(command, cwd=HOME, env={**os.environ, "COLUMNS": "120", **variables}, check=False)
        return ran.returncode in {0, NO_TEST}

    def passes_side_by_side(self, marks: str, *arguments: str, workers: int = 2, **variables: str) -> bool:
        """Run the tests that have these *marks* in some workers; a test that fails beside others runs once more, and is named."""
        # The option -n would start workers without -X dev.
        worker = f"{workers}*popen//python={shlex.quote(str(self.python))} -X dev"
        return self.passes("-m", marks, "--dist", "worksteal", "--tx", worker, "--reruns=1", *arguments, **variables)


BESIDE = 3
"""How many workers run tests side by side.  Most tests wait for servers, so that two processors have time for three."""

USUAL = {"PYTHONMALLOC": "default"}
"""Without the checks of the allocator, which take a third of the time; the other checks of Python's development mode stay."""


def sample(python: Environment) -> bool:
    """Run every test, but not with every combination of values."""
    return all(
        [
            python.passes_side_by_side("not alone", "--sample", "-q", workers=BESIDE, **USUAL),
            # Those that measure time get two workers, for the same reason; a test that fails there runs again.
            python.passes_side_by_side("alone", "--sample", "-q", **USUAL),
        ]
    )


def everything(python: Environment, *, newest: bool) -> bool:
    """Run all tests, on the newest Python also those that find the same on every one, whatever fails.

    The newest Python runs them with every combination of values, the others with few.
    """
    here, few = ("", ()) if newest else (" and not newest", ("--sample",))
    runs = [
        python.passes_side_by_side(f"not alone{here}", *few, workers=BESIDE, **USUAL),
        python.passes("-m", f"alone{here}", *few, **USUAL),
    ]
    if newest:
        again = {"workers": BESIDE, **USUAL}
        runs.append(python.passes_side_by_side("also(near=True)", FLEETCACHE_NEAR="1", **again))
        for place in ("cluster", "sentinel"):
            runs.append(python.passes_side_by_side(f"also(on='{place}')", FLEETCACHE_ON=place, **again))
        if oldest := shutil.which("redis-server"):
            there = ("-k", "cluster or sentinel")
            runs.append(python.passes_side_by_side("also(server='oldest')", *there, FLEETCACHE_SERVER=oldest, **again))
    return all(runs)


def main() -> int:
    """Run what the command line asks for, and return the exit code."""
    arguments, began = sys.argv[1:], time.monotonic()
    pythons = interpreters()
    if not pythons:
        print(f"No Python of {', '.join(DJANGO)} was found.")
        return 1
    newest = list(pythons)[-1]
    if arguments != ["--all"]:
        environment = Environment.make(newest, pythons[newest])
        passed = environment.passes(*arguments) if arguments else sample(environment)
        outcomes = {newest: "passed" if passed else "FAILED"}
    else:
        outcomes = {}
        chosen = [version for version in REQUIRED if version in pythons] or [newest]
        for version in chosen:
            passed = everything(Environment.make(version, pythons[version]), newest=version == chosen[-1])
            outcomes[version] = "passed" if passed else "FAILED"
        outcomes |= {each: f"not run, there is no python{each} here" for each in REQUIRED if each not in chosen}
    for version, outcome in outcomes.items():
        print(f"-- Python {version}, Django {DJANGO[version]}: {outcome}")
    print(f"-- {time.monotonic() - began:.0f} s")
    missing = any(outcome.startswith("not run") for outcome in outcomes.values())
    return int("FAILED" in outcomes.values() or (missing and os.environ.get("FLEETCACHE_REQUIRE_ALL") == "1"))


if __name__ == "__main__":
    sys.exit(main())
