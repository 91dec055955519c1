"""What a new reader is promised: a map of the package that is complete, and a reason at each ignored rule."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import fleetcache

pytestmark = pytest.mark.newest

HOME = Path(__file__).resolve().parent.parent
PACKAGE = HOME / "src" / "fleetcache"
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())
REASON = r"# noqa: [A-Z0-9, ]+ (- )?\w|# type: ignore\[[a-z-]+\]  # \S"
LAYERS = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]


def shown() -> list[str]:
    """Return the modules on the map: packages end with a slash."""
    return re.findall(r"^    ([a-z_]+/?)  +[^ ].*$", fleetcache.__doc__ or "", re.MULTILINE)


def test_every_module_is_on_the_map():
    """A new file or package has to be given its line, and one that is gone loses it."""
    files = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}

    assert sorted(shown()) == sorted(files | packages)


def test_the_map_is_in_the_order_of_the_layers():
    """A reader that goes down the map never meets a module that imports from above."""
    layer = {name.strip(): depth for depth, names in enumerate(LAYERS) for name in names.split("|")}

    depths = [layer[module.rstrip("/")] for module in shown()]

    assert depths == sorted(depths)


def test_every_ignored_rule_has_a_reason():
    """Each ``noqa``, each ``type: ignore`` and each line of the linter's settings says why."""
    lines = [line for path in PACKAGE.rglob("*.py") for line in path.read_text().splitlines()]
    ignored = [line for line in lines if re.search(r"# (noqa|type: ignore)", line)]
    settings = (HOME / "pyproject.toml").read_text().partition("\nignore = [\n")[2].partition("\n]\n")[0].splitlines()

    assert [line.strip() for line in ignored if not re.search(REASON, line)] == []
    assert [line for line in settings if " # " not in line and "  # " not in line] == []


@pytest.mark.parametrize("package", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_each_package_has_a_map(package):
    """The first lines of a package show each of its modules."""
    files = {path.stem for path in package.parent.glob("*.py")} - {"__init__"}

    assert files <= {*re.findall(r"\w+", package.read_text().split('"""')[1])}
