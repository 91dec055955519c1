"""Run the tests, each Python in an environment of its own under .venvs, with the Django that goes with it.

    python tests/matrix.py              every test on the newest Python here, with few combinations of values
    python tests/matrix.py --all        everything, on the oldest and the newest Python
    python tests/matrix.py --all --after-test    the same without the cases that the first form has just passed; for CI
    python tests/matrix.py ARGUMENTS    one run of pytest with these arguments, on the newest Python

The tests say by their marks what they need: `alone`, `few`, `newest`, `also` (pyproject.toml describes them).
What could not be run is listed at the end; with FLEETCACHE_REQUIRE_ALL=1 it is a failure.  The end also says how long each
part took.  Needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
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


BESIDE = 4
"""How many workers run tests side by side.  Tests wait for a good third of their time, which two processors use for others."""

APART = 3
"""How many workers run the tests that measure time, which run again if they fail."""

FEW = 8
"""So many tests of a part may fail beside others and pass by themselves."""

ALWAYS = {"COLUMNS": "120", "PYTHONDONTWRITEBYTECODE": ""}
"""Modules are compiled once, also where the environment asks for the opposite, and not by each worker and each program that a
test starts."""

USUAL = {"PYTHONMALLOC": "default"}
"""Without the checks of the allocator, which take a third of the time; the other checks of Python's development mode stay."""

PASSED = HOME / ".cache" / "passed-test"
"""Holds the `state` of the tree in which the sample last passed."""

MADE = {"__pycache__", "build", "dist"}
"""Directories that are not the tree's."""


@dataclass
class Environment:
    """An environment of a Python of this *version*."""

    version: str
    place: Path
    times: list[tuple[str, float]] = field(default_factory=list)
    """What has been run here, and for how many seconds."""
    apart: list[str] = field(default_factory=list)
    """The tests that passed only by themselves."""

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
            # Of all that pip would compile, which takes longer than the rest, tests import a part.
            pip = [made.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
            packages = ["--editable", f"{HOME}[all]", f"django=={DJANGO[version]}", "-r", requirements]
            subprocess.run([*pip, *packages], check=True)
            stamp.write_text(wanted)
        return made

    @property
    def cache(self) -> Path:
        """Where pytest notes which tests failed."""
        return HOME / ".cache" / f"pytest-{self.version}"

    @property
    def python(self) -> Path:
        return self.place / "bin" / "python"

    def passes(self, *arguments: str, **variables: str) -> bool:
        """Run pytest with *arguments* and environment *variables*; return whether all went well."""
        set_to = " ".join(f"{name}={value}" for name, value in variables.items())
        print(f"\n-- Python {self.version}: {set_to} pytest {shlex.join(arguments)}", flush=True)
        command = [self.python, "-X", "dev", "-m", "pytest", *arguments]
        ran = subprocess.run(command, cwd=HOME, env={**os.environ, **ALWAYS, **variables}, check=False)
        return ran.returncode in {0, NO_TEST}

    def part(self, marks: str, *arguments: str, workers: int = BESIDE, mark: str = "", **variables: str) -> bool:
        """Run the tests that have these *marks* in some workers; a test that fails beside others runs once more, and is named.

        If it fails again, it has a last chance when all others are done, see `alone`.  Only files in which *mark* is
        written are looked into.
        """
        began = time.monotonic()
        # The option -n would start workers without -X dev.
        worker = f"{workers}*popen//python={shlex.quote(str(self.python))} -X dev"
        beside = ("--dist", "worksteal", "--tx", worker, "--reruns=1")
        cache = f"cache_dir={self.cache}"
        chosen, variables = ("-m", marks, *arguments, "-o", cache, *files(mark)), {**USUAL, **variables}
        passed = self.passes(*chosen, "--cache-clear", *beside, **variables) or self.alone(*chosen, **variables)
        unusual = (f"{name}={value}" for name, value in variables.items() if name not in USUAL)
        self.times.append((" ".join([marks, *arguments, *unusual]), time.monotonic() - began))
        return passed

    def alone(self, *chosen: str, **variables: str) -> bool:
        """Run the tests that failed last of those *chosen* with nothing beside them; return whether all pass.

        A machine that was too slow for a moment fails single tests; more than `FEW` have another cause.
        """
        failed = self.failed()
        if not 0 < len(failed) <= FEW:
            return False
        if not self.passes(*chosen, "--last-failed", "--last-failed-no-failures", "none", **variables):
            return False
        # A test that was not found was not run, and has failed still.
        if self.failed():
            return False
        self.apart += failed
        return True

    def failed(self) -> list[str]:
        """Return the tests that failed when they ran last, as pytest notes them."""
        last = self.cache / "v" / "cache" / "lastfailed"
        return list(json.loads(last.read_text())) if last.exists() else []


def files(mark: str) -> list[str]:
    """Return the test files in which this *mark* is written; to read all of them takes pytest 20 s."""
    if not mark:
        return []
    found = (path for path in sorted((HOME / "tests").rglob("test_*.py")) if f"pytest.mark.{mark}" in path.read_text())
    return [str(path.relative_to(HOME)) for path in found]


def sample(python: Environment) -> bool:
    """Run every test, but not with every combination of values, and note it if all is well."""
    PASSED.unlink(missing_ok=True)
    before = state(python)
    passed = all(
        [
            python.part("not alone", "--sample", "-q"),
            python.part("alone", "--sample", "-q", workers=APART, mark="alone"),
        ]
    )
    if passed and before == state(python):
        PASSED.parent.mkdir(exist_ok=True)
        PASSED.write_text(before)
    return passed


def everything(python: Environment, *, newest: bool, after_test: bool) -> bool:
    """Run all tests, on the newest Python also those that find the same on every one, whatever fails.

    The newest Python runs them with every combination of values, the others with few.  With *after_test* it leaves out
    what `sample` has passed in this very tree.
    """
    if not newest:
        here, cases = " and not newest", ["--thin"]
    elif after_test and PASSED.exists() and PASSED.read_text() == state(python):
        here, cases = "", ["--rest"]
        print("\n-- `make test` has passed in this tree: its cases are left out on the newest Python", flush=True)
    else:
        here, cases = "", []
    runs = [
        python.part(f"not alone{here}", *cases),
        python.part(f"alone{here}", *cases, workers=APART, mark="alone"),
    ]
    if newest:
        runs.append(python.part("also(near=True)", mark="also(near", FLEETCACHE_NEAR="1"))
        for place in ("cluster", "sentinel"):
            runs.append(python.part(f"also(on='{place}')", mark=f'also(on="{place}"', FLEETCACHE_ON=place))
        if oldest := shutil.which("redis-server"):
            there = ("-k", "cluster or sentinel")
            runs.append(python.part("also(server='oldest')", *there, mark="also(server", FLEETCACHE_SERVER=oldest))
    return all(runs)


def state(python: Environment) -> str:
    """Return a digest of all that decides what tests find: the tree, the environment and its variables."""
    found = hashlib.sha256(f"{python.version} {DJANGO[python.version]}".encode())
    for name in sorted(name for name in os.environ if name.startswith("FLEETCACHE_")):
        found.update(f"{name}={os.environ[name]}\n".encode())
    for directory, below, names in os.walk(HOME):
        below[:] = sorted(
            name for name in below if not name.startswith(".") and name not in MADE and not name.endswith(".egg-info")
        )
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and path.suffix not in {".pyc", ".so"}:
                found.update(f"{path.relative_to(HOME)} {path.stat().st_size}\n".encode())
                found.update(path.read_bytes())
    return found.hexdigest()


def main() -> int:
    """Run what the command line asks for, and return the exit code."""
    arguments, began = sys.argv[1:], time.monotonic()
    pythons = interpreters()
    if not pythons:
        print(f"No Python of {', '.join(DJANGO)} was found.")
        return 1
    newest = list(pythons)[-1]
    whole = "--all" in arguments
    chosen = [version for version in REQUIRED if version in pythons] if whole else []
    environments = []
    outcomes = {}
    for version in chosen or [newest]:
        environment = Environment.make(version, pythons[version])
        environments.append(environment)
        if whole:
            last = version == (chosen or [newest])[-1]
            passed = everything(environment, newest=last, after_test="--after-test" in arguments)
        else:
            passed = environment.passes(*arguments) if arguments else sample(environment)
        outcomes[version] = "passed" if passed else "FAILED"
    if whole:
        outcomes |= {each: f"not run, there is no python{each} here" for each in REQUIRED if each not in outcomes}
    print()
    for environment in environments:
        for what, seconds in environment.times:
            print(f"-- {seconds:5.0f} s  Python {environment.version}  {what}")
        for name in environment.apart:
            print(f"-- passed only by itself, on Python {environment.version}: {name}")
    for version, outcome in outcomes.items():
        print(f"-- Python {version}, Django {DJANGO[version]}: {outcome}")
    print(f"-- {time.monotonic() - began:.0f} s")
    missing = any(outcome.startswith("not run") for outcome in outcomes.values())
    return int("FAILED" in outcomes.values() or (missing and os.environ.get("FLEETCACHE_REQUIRE_ALL") == "1"))


if __name__ == "__main__":
    sys.exit(main())
