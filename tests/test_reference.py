"""Every public name is in the reference, and what the reference names is there, described and typed.

The pages of docs/site/ name objects in Sphinx' directives; ``make docs`` fails if one of them names nothing.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fleetcache import Cache

pytestmark = pytest.mark.newest

HOME = Path(__file__).resolve().parent.parent
PAGES = sorted((HOME / "docs/site").glob("*.md"))

MODULES = (
    "fleetcache",
    "fleetcache.client",
    "fleetcache.codec.compressors",
    "fleetcache.codec.serializers",
    "fleetcache.django",
    "fleetcache.errors",
    "fleetcache.fleet",
    "fleetcache.inspection.doctor",
    "fleetcache.inspection.keys",
    "fleetcache.stats",
    "fleetcache.testing",
)
"""The modules of which every public name is meant for users."""

NAMES = (
    "fleetcache.django.admin.register",
    "fleetcache.locks.lock.Lock",
    "fleetcache.pipeline.Pipeline",
    "fleetcache.probe.Check",
    "fleetcache.probe.Report",
    "fleetcache.probe.probe",
    "fleetcache.telemetry.datadog.install",
    "fleetcache.telemetry.datadog.uninstall",
    "fleetcache.telemetry.otel.install",
    "fleetcache.telemetry.otel_spans.install",
    "fleetcache.telemetry.otel_spans.uninstall",
    "fleetcache.telemetry.prometheus.install",
    "fleetcache.telemetry.sentry.install",
    "fleetcache.telemetry.sentry.uninstall",
    "fleetcache.telemetry.statsd.plain",
    "fleetcache.telemetry.statsd.start",
    "fleetcache.telemetry.statsd.tagged",
)
"""Those of other modules."""

INTERNAL = {
    "fleetcache.inspection.doctor.KINDS",
    "fleetcache.inspection.doctor.answers",
    "fleetcache.inspection.doctor.refused",
    "fleetcache.inspection.doctor.told_once",
}
"""What modules of ours share, and a table."""

SHOWN_ELSEWHERE = {
    "fleetcache.settings": "docs/settings.md",
    "fleetcache.testing.servers.EmbeddedServer": "what `valkey_server()` yields",
    "fleetcache.telemetry.otel_spans.FleetcacheInstrumentor": "an entry point, for programs",
    "fleetcache.core.DEFAULT_TIMEOUT": "fleetcache.DEFAULT_TIMEOUT",
}

directive = re.compile(r"^\.\. auto(\w+):: ([\w.]+)", re.MULTILINE)
imported = re.compile(r"^\s*(?:from fleetcache|import fleetcache).*$", re.MULTILINE)


def public(module: ModuleType) -> Iterator[str]:
    """Yield the public names of *module*: those in ``__all__``, or else what it defines."""
    names = getattr(module, "__all__", None)
    if names is not None:
        yield from names
        return
    for name, found in vars(module).items():
        if not name.startswith("_") and getattr(found, "__module__", "") == module.__name__ and callable(found):
            yield name


def found(path: str) -> Any:
    """Return what the dotted *path* names."""
    parts = path.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            there: Any = import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for part in parts[depth:]:
            there = getattr(there, part)
        return there
    raise AssertionError(path)


@cache
def documented() -> dict[str, str]:
    """Return the names that the reference documents, each with the kind of its directive."""
    named: dict[str, str] = {}
    for page in PAGES:
        for kind, path in directive.findall(page.read_text()):
            if kind == "module":
                named |= {f"{path}.{name}": "member" for name in public(found(path))}
            else:
                assert path not in named, f"{path} is there twice"
                named[path] = kind
    return named


def same() -> set[int]:
    """Return the identities of what is documented: an object may be importable from several modules."""
    return {id(found(path)) for path, kind in documented().items() if kind != "attribute"}


def test_every_public_name_is_in_the_reference() -> None:
    """Whatever a user may import has its place."""
    expected = {f"{module}.{name}" for module in MODULES for name in public(import_module(module))} | set(NAMES)
    there = same()
    missing = {path for path in expected - INTERNAL if id(found(path)) not in there}

    assert not missing


def shown(name: str, names: set[str]) -> str:
    """Return the name by which the reference shows *name*: an operation by its coroutine, with which it shows the other face."""
    return f"a{name}" if f"a{name}" in names else name


def test_every_name_of_a_cache_is_in_the_reference() -> None:
    """What a completion of a cache shows is there, each once."""
    cache = Cache("memory://")
    names = {name for name in dir(cache) if not name.startswith("_")}
    named = {path.removeprefix("fleetcache.Cache.") for path in documented() if path.startswith("fleetcache.Cache.")}

    assert named == {shown(name, names) for name in names}


@pytest.mark.parametrize("path", sorted(documented()))
def test_what_is_named_is_described(path: str) -> None:
    """Everything in the reference has a docstring of its own, and a function has types for all that it takes and returns."""
    if documented()[path] in {"data", "property", "attribute"}:
        return
    there = found(path)
    if not callable(there):
        return
    if path == "fleetcache.django.omit_exception" or not getattr(there, "__module__", "").startswith("fleetcache"):
        return

    assert (inspect.getdoc(there) or "").strip().endswith((".", ":", ")", "`")), path
    if not inspect.isclass(there):
        signature = inspect.signature(there)
        untyped = [each.name for each in signature.parameters.values() if each.annotation is each.empty]
        assert untyped in ([], ["self"], ["cls"])
        assert signature.return_annotation is not signature.empty


def used() -> Iterator[tuple[str, str]]:
    """Yield what the documents and examples import, each with the document."""
    places = [
        HOME / "README.md",
        *(HOME / "docs").glob("*.md"),
        *(HOME / "examples").iterdir(),
        HOME / "standin/README.md",
    ]
    for place in places:
        if place.suffix not in {".md", ".py"}:
            continue
        for line in imported.findall(place.read_text()):
            try:
                (statement,) = ast.parse(line.strip()).body
            except SyntaxError:  # prose that begins like one
                continue
            if isinstance(statement, ast.ImportFrom):
                yield from ((f"{statement.module}.{each.name}", place.name) for each in statement.names)


def test_what_documents_import_is_in_the_reference() -> None:
    """A user looks up what an example imports, and finds it."""
    there = same()
    lost = set()
    for path, place in used():
        if path in SHOWN_ELSEWHERE or path.rpartition(".")[0] in SHOWN_ELSEWHERE:
            continue
        thing = found(path)
        members = inspect.ismodule(thing) and any(name.startswith(f"{path}.") for name in documented())
        if not members and id(thing) not in there:
            lost.add((path, place))

    assert not lost


def test_every_page_is_reached() -> None:
    """The first page of the reference names all others."""
    listed = re.findall(r"^- \[.+?\]\((\w+)\.md\)", (HOME / "docs/site/reference.md").read_text(), re.MULTILINE)

    assert {*listed, "reference"} == {page.stem for page in PAGES}
