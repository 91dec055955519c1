"""Django's tests, which are in its source distribution only."""

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
    info = Path(folder, "django-{version}.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: django\\nVersion: {version}\\n")
    return info.name
"""


def django_tests() -> Path:
    """Return the folder ``tests`` of the installed Django's source, downloaded if it is new."""
    release = version("django")
    source = KEPT_IN / f"django-{release}"
    if not source.is_dir():
        KEPT_IN.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=KEPT_IN) as scratch:
            unpacked = _unpack(_download(release, Path(scratch)), Path(scratch, "unpacked"))
            try:
                unpacked.rename(source)
            except OSError:
                # Another process was faster.
                if not source.is_dir():
                    raise
    return source / "tests"


def _download(release: str, folder: Path) -> Path:
    """Have pip fetch the archive from wherever it is configured to look."""
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(BACKEND.format(version=release))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", "django", "--no-build-isolation"]
    command += ["--dest", str(folder), f"django=={release}"]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(backend.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pip could not fetch the source of Django {release}:\n{done.stderr}")
    (archive,) = folder.glob("*.tar.gz")
    return archive


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the tests of an *archive*, and return its only top-level folder."""
    with tarfile.open(archive) as tar:
        tests = (member for member in tar if "/tests/" in member.name)
        tar.extractall(folder, tests, filter="data")
    (top,) = folder.iterdir()
    return top
