"""Run the tests on the oldest and the newest supported Python that this machine has.

Each Python gets an environment of its own under .venvs, with the Django that goes with it.  What
could not be run is said at the end; with FLEETCACHE_REQUIRE_ALL=1 it fails.  What is the same on
every Python is run on the newest only; with FLEETCACHE_ON_ALL=1 on each.  Arguments are pytest's,
and make one plain run of it on each.  Needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
DJANGO = {"3.11": "5.2.19", "3.12": "6.0.10", "3.13": "6.1.3", "3.14": "6.1.3"}
REQUIRED = ("3.11", "3.13")
TIMED = (
    "tests/near/test_store.py",  # first: it measures memory
    "tests/faults/",
    "tests/near/test_foreign_writes.py",
    "tests/near/test_listener.py",
    "tests/near/test_servers.py",
    "tests/test_embedded.py",
    "tests/test_mixed_fleet.py",
)
"""These measure time and run by themselves; the others run two at a time."""
ON_NEWEST = (
    "tests/differential/test_mixed.py",
    "tests/faults/test_coherence.py",
    "tests/faults/test_mutants.py",
    "tests/topology/test_managed.py",
    "tests/topology/test_replicas.py",
    "tests/topology/test_sentinel.py",
)
"""These take long, and find the same on every Python."""
NEAR = ("tests/contract", "tests/differential")
"""These run once more with a near cache, on the newest Python."""
ELSEWHERE = {
    "cluster": ("tests/contract", "tests/differential/test_cases.py", "tests/differential/test_mended.py"),
    "sentinel": ("tests/contract",),
}
"""These run once more on a cluster, and under Sentinels, on the newest Python."""
FOUNDATION = ("tests/test_cache.py", "tests/test_locks.py")
"""Of these, what is on a cluster or under Sentinels runs once more with the oldest server, on the newest Python."""
REQUIRE_ALL = os.environ.get("FLEETCACHE_REQUIRE_ALL") == "1"
ON_ALL = os.environ.get("FLEETCACHE_ON_ALL") == "1"


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


def found() -> dict[str, str]:
    """Return the interpreters by their version, those that are supported."""
    pythons: dict[str, str] = {}
    for python in candidates():
        version = version_of(python)
        if version in DJANGO:
            pythons.setdefault(version, python)
    return pythons


def environment(version: str, python: str) -> Path:
    """Return the interpreter of an environment with everything installed."""
    place = HOME / ".venvs" / f"py{version}-django{DJANGO[version]}"
    inside = place / "bin" / "python"
    stamp = place / "installed"
    wanted = (HOME / "requirements/test.txt").read_text() + (HOME / "pyproject.toml").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return inside
    print(f"-- making {place.relative_to(HOME)}", flush=True)
    subprocess.run([python, "-m", "venv", place], check=True)
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--editable", f"{HOME}[all]", f"django=={DJANGO[version]}", "-r", HOME / "requirements/test.txt"],
        check=True,
    )
    stamp.write_text(wanted)
    return inside


def passed(python: Path, *arguments: str, **environment: str) -> bool:
    """Run pytest, and return whether all went well."""
    command = [python, "-X", "dev", "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=HOME, env={**os.environ, "COLUMNS": "120", **environment}).returncode == 0


def all_passed(python: Path, *, newest: bool) -> bool:
    """Run all tests, whatever fails, and return whether all went well."""
    # The option -n would start workers without -X dev.
    two_at_a_time = ("--dist", "loadfile", "--tx", f"2*popen//python={shlex.quote(str(python))} -X dev")
    everything = newest or ON_ALL
    left_out = [f"--ignore={place}" for place in ON_NEWEST if not everything]
    runs = [
        passed(python, *two_at_a_time, *left_out, *(f"--ignore={place}" for place in TIMED)),
        passed(python, *left_out, *TIMED),
    ]
    if everything:
        runs.append(passed(python, *two_at_a_time, *NEAR, FLEETCACHE_NEAR="1"))
        runs += [passed(python, *two_at_a_time, *tests, FLEETCACHE_ON=place) for place, tests in ELSEWHERE.items()]
        if oldest := shutil.which("redis-server"):
            there = ("-k", "cluster or sentinel")
            runs.append(passed(python, *two_at_a_time, *FOUNDATION, *there, FLEETCACHE_SERVER=oldest))
    return all(runs)


def failures() -> list[str]:
    """Return the tests that failed in the last run."""
    noted = HOME / ".pytest_cache/v/cache/lastfailed"
    return list(json.loads(noted.read_text())) if noted.exists() else []


def hurried(tests: list[str]) -> bool:
    """Whether *tests* are a few that measure time while servers die; on a busy machine they may run again, alone."""
    again = 0 < len(tests) <= 3 and all(test.startswith((*TIMED, "tests/topology/")) for test in tests)
    if again:
        print(f"-- once more, alone: {', '.join(tests)}", flush=True)
    return again


def main() -> int:
    """Test on each Python, and return how many runs failed."""
    pythons = found()
    if not pythons:
        print(f"No Python of {', '.join(DJANGO)} was found.")
        return 1
    chosen = [version for version in REQUIRED if version in pythons] or [max(pythons, key=_number)]
    failed = []
    for version in chosen:
        print(f"-- Python {version}, Django {DJANGO[version]}", flush=True)
        inside = environment(version, pythons[version])
        arguments = sys.argv[1:]
        went_well = passed(inside, *arguments) if arguments else all_passed(inside, newest=version == chosen[-1])
        if not went_well and not (hurried(failures()) and passed(inside, "--last-failed")):
            failed.append(version)
    missing = [version for version in REQUIRED if version not in chosen]
    for version in chosen:
        print(f"-- Python {version}, Django {DJANGO[version]}: {'FAILED' if version in failed else 'passed'}")
    for version in missing:
        print(f"-- Python {version}, Django {DJANGO[version]}: not run, there is no python{version} here")
    return len(failed) + (len(missing) if REQUIRE_ALL else 0)


def _number(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


if __name__ == "__main__":
    sys.exit(main())
