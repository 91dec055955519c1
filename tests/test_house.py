"""The package keeps to its own bounds: short files, short functions, and modules that can be imported."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import fleetcache

pytestmark = pytest.mark.newest

HOME = Path(fleetcache.__file__).parent
FILES = sorted(HOME.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 600, 50
"""Lines, everything included."""


def test_no_file_is_long() -> None:
    """A file is one subject; a longer one holds two."""
    lengths = {path.relative_to(HOME).as_posix(): len(path.read_text().splitlines()) for path in FILES}

    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_long() -> None:
    """A function fits on a page, with its docstring and without its decorators."""
    lengths = {
        f"{path.relative_to(HOME)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }

    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_every_module_can_be_imported() -> None:
    """No import warns, and none needs Django's settings or a module that is not installed."""
    names = [module.name for module in pkgutil.walk_packages([str(HOME)], "fleetcache.")]
    importable = [name for name in names if not name.endswith("__main__")]
    imports = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"

    command = [sys.executable, "-W", "error", "-c", imports, *importable]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(importable) > 60
