"""``make dist`` builds the wheel and the sdist into dist/, checks them, and uses each in an empty environment.

The wheel is installed on the oldest and on the newest Python found, the sdist on the newest; each then runs `USE` outside
the checkout, against the server that its extra `server` brings.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.matrix import HOME, interpreters

DIST = HOME / "dist"

USE = """
import asyncio
from importlib.metadata import version
from importlib.resources import files

import fleetcache
from fleetcache import Cache
from fleetcache.testing import valkey_server

assert version("fleetcache") == {version!r}
assert files("fleetcache").joinpath("py.typed").is_file()
with valkey_server() as server:
    cache = Cache(server.url(0), near=True)
    assert cache.get_or_set("a", lambda: {{"b": 1}}, 60) == {{"b": 1}}
    assert asyncio.run(cache.aget("a")) == {{"b": 1}}
import django
from django.conf import settings
settings.configure(CACHES={{"default": {{"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://"}}}})
django.setup()
from django.core.cache import cache
cache.set("a", 1)
assert cache.incr("a") == 2
print("used", fleetcache.__file__)
"""

UNWANTED = (".venv", "tests/", ".ci/", "__pycache__", ".egg-info")
"""Parts of paths that no wheel may hold."""


def run(*command: str | Path, cwd: Path = HOME) -> str:
    """Run *command*, and return what it printed."""
    ran = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def build() -> tuple[Path, Path]:
    """Return the wheel and the sdist, made anew."""
    for old in DIST.glob("fleetcache-*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, HOME)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def check_contents(wheel: Path) -> None:
    """Refuse a wheel without a file of the package, or with others."""
    there = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(HOME / "src").as_posix()
        for path in (HOME / "src/fleetcache").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    missing = wanted - there
    unwanted = [name for name in there if any(part in name for part in UNWANTED)]
    if missing or unwanted:
        raise SystemExit(f"{wheel.name}: without {sorted(missing)}, and with {unwanted}")


def use(archive: Path, python: str, version: str) -> None:
    """Install *archive* with its extras into an empty environment of *python*, and run `USE` there."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        run(python, "-m", "venv", home / "venv")
        inside = home / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        run(inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{archive}[django,server]")
        said = run(inside, "-W", "error", "-c", USE.format(version=version), cwd=home)
        run(inside.with_name("fleetcache"), "--version", cwd=home)
        run(inside.with_name("fleetcache"), "docs", "settings#the-near-cache", cwd=home)
        sys.stdout.write(f"{archive.name}, {python}: {said}")


def main() -> None:
    """Build, check and use."""
    wheel, sdist = build()
    check_contents(wheel)
    version = wheel.name.split("-")[1]
    pythons = list(interpreters().values())
    for python in dict.fromkeys((pythons[0], pythons[-1])):
        use(wheel, python, version)
    use(sdist, pythons[-1], version)


if __name__ == "__main__":
    main()
