"""The tests of Django and of django-redis, which are in their source distributions only."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

KEPT_IN = Path(__file__).parents[2] / ".cache"

# Before pip keeps a source distribution it asks its build backend for the metadata.  Only the
# file is wanted, so this stands in for setuptools, which need not be there then.
BACKEND = """\
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder, "{name}-{version}.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return info.name
"""


def django_tests() -> Path:
    """Return the folder ``tests`` of the installed Django's source."""
    return unpacked("django") / "tests"


def unpacked(name: str) -> Path:
    """Return the source of the installed distribution *name*, of which only the tests are kept, downloaded if it is new."""
    release = version(name)
    source = KEPT_IN / f"{name}-{release}"
    if not source.is_dir():
        KEPT_IN.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=KEPT_IN) as scratch:
            found = _unpack(_download(name, release, Path(scratch)), Path(scratch, "unpacked"))
            try:
                found.rename(source)
            except OSError:
                # Another process was faster.
                if not source.is_dir():
                    raise
    return source


def _download(name: str, release: str, folder: Path) -> Path:
    """Have pip fetch the archive from wherever it is configured to look."""
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(BACKEND.format(name=name.replace("-", "_"), version=release))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", name, "--no-build-isolation"]
    command += ["--dest", str(folder), f"{name}=={release}"]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(backend.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pip could not fetch the source of {name} {release}:\n{done.stderr}")
    (archive,) = folder.glob("*.tar.gz")
    return archive


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the tests of an *archive*, and return its only top-level folder."""
    with tarfile.open(archive) as tar:
        tests = (member for member in tar if "/tests/" in member.name)
        tar.extractall(folder, tests, filter="data")
    (top,) = folder.iterdir()
    return top
