"""What the documents say is true: their code runs, their links lead somewhere, their names exist."""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib
import inspect
import re
import shlex
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import docs.settings
import pytest
from benchmarks import plots
from django.test import override_settings
from studies.scaling.constants import Constants
from studies.scaling.page import MARK, written
from tests import dist, django_settings
from tests.coherence.scenarios import SCENARIOS

from fleetcache import Cache, caches, cli
from fleetcache.settings import NearOptions, Options, Settings, StatsOptions, by_name
from fleetcache.signatures import connection_options
from fleetcache.testing.servers import EmbeddedServer

django_settings.configure()

HOME = Path(__file__).resolve().parent.parent
RECIPES = sorted((HOME / "docs/recipes").glob("*.md"))
BESIDE = [HOME / "CONTRIBUTING.md", HOME / "SECURITY.md", HOME / "examples/README.md", HOME / "standin/README.md"]
PAGES = sorted([HOME / "README.md", HOME / "CHANGELOG.md", *BESIDE, *(HOME / "docs").glob("*.md")])
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]

block = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
any_block = re.compile(r"^ *```(.*?)$\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
in_line = re.compile(r"`([^`\n]+)`")
link = re.compile(r"\]\(([^)\s]+)\)")
heading = re.compile(r"^#+ (.+)$", re.MULTILINE)
server = re.compile(r"redis://127\.0\.0\.1:6379/(\d+)")
module_name = re.compile(r"# (\w+(?:/\w+)*)\.py\n")

SETTINGS = [Settings, Options, NearOptions, StatsOptions]

DATABASE = 15
"""No other test uses it; what a block writes stays for those below it on the page."""

each_page = pytest.mark.parametrize("page", PAGES + RECIPES, ids=lambda page: str(page.relative_to(HOME)))
each_with_code = pytest.mark.parametrize(
    "page", [page for page in PAGES if page != HOME / "standin/README.md"], ids=lambda page: str(page.relative_to(HOME))
)
"""Without the recipes, whose code tests/test_examples.py runs, and the stand-in's page, which tests/test_standin.py does."""


def blocks(page: Path) -> list[tuple[int, str]]:
    """Return the Python blocks of *page*, each with the number of its first line."""
    text = page.read_text()
    return [(text.count("\n", 0, found.start(1)) + 1, found[1]) for found in block.finditer(text)]


def run(page: Path, line: int, source: str, names: dict[str, Any]) -> None:
    """Run a block in the namespace *names*; at its top level it may await."""
    tree = ast.parse("\n" * (line - 1) + source, str(page))
    code = compile(tree, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, names))
    else:
        exec(code, names)


def module_of(path: str, names: dict[str, Any]) -> Iterator[ModuleType]:
    """Yield the packages and the module that *path* names, which holds *names*."""
    *packages, _ = parts = path.split("/")
    for depth in range(len(packages)):
        package = ModuleType(".".join(parts[: depth + 1]))
        package.__path__ = []
        yield package
    module = ModuleType(".".join(parts))
    vars(module).update(names)
    yield module


@each_with_code
def test_code_runs(page: Path, valkey: EmbeddedServer, monkeypatch) -> None:
    """The blocks of a page run one after another; a ``CACHES`` is the site's from there on.

    A block that begins with the name of a file is a module for those below it.
    """
    url = valkey.tcp_url(DATABASE)
    Cache(url).clear()
    for attribute in ("_entries", "_made"):
        monkeypatch.setattr(caches, attribute, getattr(caches, attribute))  # the blocks configure it
    names: dict[str, Any] = {}
    with ExitStack() as settings:
        for line, text in blocks(page):
            source = server.sub(url, text)
            path = module_name.match(source)
            own = {} if path else names
            run(page, line, source, own)
            for module in module_of(path[1], own) if path else ():
                monkeypatch.setitem(sys.modules, module.__name__, sys.modules.get(module.__name__, module))
            if configured := names.pop("CACHES", None):
                settings.enter_context(override_settings(CACHES=configured))


@pytest.mark.parametrize(
    "page", [*PAGES, *RECIPES, *(HOME / "docs/site").glob("*.md")], ids=lambda page: str(page.relative_to(HOME))
)
def test_links_lead_somewhere(page: Path) -> None:
    """A link within the project names a file that is there, and a heading that it has."""
    text = any_block.sub("", page.read_text())
    for target in link.findall(text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page

        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_in_the_index() -> None:
    """docs/README.md, which is the first page of the site, leads to every page."""
    index = HOME / "docs/README.md"
    listed = {(index.parent / target).resolve() for target in link.findall(index.read_text())}

    assert {*PAGES, HOME / "docs/site/reference.md"} - {index} <= listed


@each_page
def test_what_does_not_run_says_so(page: Path) -> None:
    """A block of code is Python, which runs, or names another language."""
    found = any_block.findall(page.read_text())
    for language, text in found:
        if language == "py":
            ast.parse(text)

    assert {language for language, _ in found} <= {"python", *NO_PROGRAM}


NO_PROGRAM = {"sh", "text", "console", "ini", "json", "yaml", "toml", "promql", "html", "django", "html+django", "py"}
"""Languages of blocks that do not run; ``py`` is Python that needs what the oldest Django has not."""


@each_page
def test_commands_exist(page: Path) -> None:
    """Each ``fleetcache …`` that a page shows has a command, and options that this command takes."""
    parsers = commands(cli.parser())
    for line in command_lines(page.read_text()):
        words = shlex.split(line.split(" | ")[0], comments=True)
        if len(words) < 2:
            continue
        if words[1].startswith("-"):
            assert {words[1]} <= {"--version", "--help"}, line
            continue

        assert words[1] in parsers, line
        command = parsers[words[1]]
        if words[2:3] and words[2] in (below := commands(command)):
            command = below[words[2]]
        options = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
        assert options <= {*command._option_string_actions}, line


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands of *parser*."""
    tables = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next(tables, {})


def command_lines(text: str) -> Iterator[str]:
    """Yield the command lines in *text* that run ``fleetcache``: those of its blocks, and those within sentences."""
    shell = "\n".join(block for language, block in any_block.findall(text) if language in {"sh", "console"})
    for code in (*shell.replace("\\\n", " ").splitlines(), *in_line.findall(any_block.sub("", text))):
        if found := re.search(
            r"^(?:\$ )?(?:\w+=\S+ )*(?:python manage\.py |manage\.py |python -m )?(fleetcache (?!… |COMMAND).*)", code
        ):
            yield found[1].replace("…", "")


@each_page
def test_capital_names_exist(page: Path) -> None:
    """A name in capitals, such as that of a setting, is one that the sources have, or one of another program's."""
    words = {
        word
        for code in in_line.findall(any_block.sub("", page.read_text()))
        for word in re.findall(r"(?<![\w-])[A-Z][A-Z\d]*(?:_[A-Z\d]+)+(?![\w-])", code)
    }

    unknown = {word for word in words - known_capitals() - OF_OTHERS if not word.startswith("FLEETCACHE_URL_")}

    assert not unknown, "misspelt? If they are another program's, add them to OF_OTHERS"


@cache
def known_capitals() -> set[str]:
    """Return the words in capitals that the sources have, and the names of settings."""
    places = [*(HOME / "src").rglob("*.py"), *(HOME / "standin").rglob("*.py"), *(HOME / "examples").glob("*.py")]
    words = {word for place in places for word in re.findall(r"[A-Z][A-Z\d]*(?:_[A-Z\d]+)+", place.read_text())}
    return words | OLD_OPTIONS | {name for kind in SETTINGS for name in by_name(kind)}


def test_faults_name_their_tests() -> None:
    """Each fault that is listed names tests or scenarios that are there, or says why none is."""
    table = (HOME / "docs/guarantees.md").read_text().partition("## Faults")[2].partition("\n## ")[0]
    rows = [row.strip("|").split(" | ") for row in table.splitlines() if row.startswith("| ")][2:]
    file = ""
    for _, _, shown in rows:
        assert shown.strip()
        for name in re.findall("`([^`]+)`", shown):
            path, _, test = name.rpartition("::") if "::" in name else ("", "", name)
            if name.endswith(".py"):
                assert (HOME / name).exists(), name
            elif test.startswith("test_"):
                file = path or file
                assert f"def {test}(" in (HOME / file).read_text(), name
            elif test.islower() and "." not in test:
                assert test in SCENARIOS, name


def anchors(page: Path) -> set[str]:
    """Return what the headings of *page* are called in links: of several with the same text, all but the first are numbered."""
    found: dict[str, int] = {}
    for title in heading.findall(any_block.sub("", page.read_text())):
        plain = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", title)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[name] = found.get(name, 0) + 1
    return {f"{name}-{number}" if number else name for name, count in found.items() for number in range(count)}


@each_page
def test_names_exist(page: Path) -> None:
    """What is called ``fleetcache.….name`` is there."""
    for name in set(re.findall(r"[`\"](fleetcache(?:\.\w+)+)[`\"]", page.read_text())) - LOGGERS:
        parts = name.split(".")
        found: Any = None
        for depth in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:depth]))
            except ModuleNotFoundError:
                continue
            for part in parts[depth:]:
                found = getattr(found, part)
            break

        assert found is not None, name


OF_OTHERS = {
    # Django's settings, and those of packages
    "CACHE_MIDDLEWARE_SECONDS",
    "DEBUG_TOOLBAR_CONFIG",
    "USE_I18N",
    "DEFAULT_THROTTLE_CLASSES",
    "DEFENDER_REDIS_NAME",
    "ENABLE_STACKTRACES",
    "LANGUAGE_CODE",
    "NUM_PROXIES",
    "Q_CLUSTER",
    "SESSION_CACHE_ALIAS",
    "SESSION_ENGINE",
    "USE_REDIS_CACHE",
    # variables of the environment
    "DD_DJANGO_INSTRUMENT_CACHES",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    "PROMETHEUS_MULTIPROC_DIR",
    "CACHE_PASSWORD",
    # of operating systems
    "MADV_WIPEONFORK",
    "SO_RCVTIMEO",
    "SO_SNDTIMEO",
    # a misspelt one
    "SOCKET_TIMOUT",
}

LOGGERS = {
    "fleetcache.server",
    "fleetcache.codec",
    "fleetcache.near",
    "fleetcache.tags",
    "fleetcache.E001",
    "fleetcache.E002",
    "fleetcache.W001",
    "fleetcache.W002",
}


@each_page
def test_targets_exist(page: Path) -> None:
    """``make`` is only asked for what the Makefile has."""
    text = page.read_text()
    targets = re.findall(r"^([a-z][a-z-]*):", (HOME / "Makefile").read_text(), re.MULTILINE)
    asked = {*re.findall(r"`make ([a-z-]+)", text), *re.findall(r"^(?:\$ )?make ([a-z-]+)", text, re.MULTILINE)}

    assert asked <= {*targets}


def test_versions() -> None:
    """README names the versions that pyproject.toml does."""
    said = (HOME / "README.md").read_text()
    classifiers = "\n".join(PROJECT["classifiers"])
    (redis,) = (need for need in PROJECT["dependencies"] if need.startswith("redis"))
    (django,) = PROJECT["optional-dependencies"]["django"]

    for what, needed in (("Python", PROJECT["requires-python"]), ("Django", django)):
        listed = re.findall(rf"{what} :: (\d+\.\d+)$", classifiers, re.MULTILINE)
        assert f"{what} {listed[0]} to {listed[-1]}" in said
        assert f">={listed[0]}" in needed
    oldest, below = re.fullmatch(r"redis>=([\d.]+),<(\d+)", redis).groups()
    assert f"redis-py {oldest} to {int(below) - 1}" in said
    for extra in PROJECT["optional-dependencies"]:
        assert f"`{extra}`" in said


EXTRAS = {*PROJECT["optional-dependencies"]}


@each_page
def test_extras_exist(page: Path) -> None:
    """Each extra that a page installs is one of pyproject.toml's, and `make dist` uses it."""
    named = re.findall(r"(?:fleetcache|['\"]\.)\[([\w,]+)\]|extra `(\w+)`", page.read_text())

    assert {extra for pair in named for text in pair if text for extra in text.split(",")} <= EXTRAS
    assert {*dist.EXTRAS} == EXTRAS


def test_messages_name_extras() -> None:
    """So is each that a message names."""
    texts = [path.read_text() for path in (HOME / "src").rglob("*.py")]
    named = {extra for text in texts for extra in re.findall(r"'\.\[(\w+)\]'", text)}

    assert named
    assert named <= EXTRAS


def test_the_newest_release_is_in_the_changelog() -> None:
    """The first release that CHANGELOG.md describes is that of pyproject.toml, with a date, below what is not released."""
    titles = re.findall(r"^## (.+)$", (HOME / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert titles[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(PROJECT['version'])} - \d{{4}}-\d\d-\d\d", titles[1])


def test_readme_is_short() -> None:
    """README leads a newcomer to two commands, within 150 lines."""
    lines = (HOME / "README.md").read_text().splitlines()

    assert len(lines) < 150
    assert lines[2].endswith(".")
    assert [line.split("#")[0].strip() for line in lines[5:7]] == ["make demo", "make test"]


def test_settings_page_is_up_to_date() -> None:
    """docs/settings.md is what ``make docs`` would write."""
    assert docs.settings.PAGE.read_text() == docs.settings.page()


@pytest.mark.newest
def test_scaling_page_is_up_to_date() -> None:
    """The tables of docs/scaling.md are what the model makes of the constants that are kept."""
    page = (HOME / "docs/scaling.md").read_text()

    assert page.partition(MARK)[2] == written(Constants.load())


def test_plots_show_the_tables() -> None:
    """The plots of docs/performance.md bear the figures that its tables have; ``python -m benchmarks.plots`` draws them again."""
    page = plots.PAGE.read_text()

    assert plots.SECTION in page
    for name, labels in plots.labels(plots.tables(page)).items():
        drawn = Counter(re.findall(r">([^<>]+)</text>", plots.PAGE.with_name(f"{name}.svg").read_text()))
        assert Counter(labels) <= drawn, name


def test_connection_options_exist() -> None:
    """The selection of redis-py's options on the page consists of options that are passed on."""
    named = {name for names in docs.settings.CONNECTION for name in names.split(", ")}

    assert named <= connection_options()


def test_migration_names_every_option_of_django_redis() -> None:
    """The tables of migration.md have every option and setting that django-redis and Django read."""
    named = {*re.findall(r"`(\w+)`", (HOME / "docs/migration.md").read_text())}

    assert named >= OLD_OPTIONS


OLD_OPTIONS = {
    *("serializer", "pool_class", "parser_class"),
    *("CLIENT_CLASS", "IGNORE_EXCEPTIONS", "REPLICA_READ_ONLY", "SERIALIZER", "COMPRESSOR", "CLOSE_CONNECTION"),
    *("PICKLE_VERSION", "CONNECTION_FACTORY", "CONNECTION_POOL_CLASS", "CONNECTION_POOL_KWARGS", "REDIS_CLIENT_CLASS"),
    *("REDIS_CLIENT_KWARGS", "USERNAME", "PASSWORD", "SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT", "PARSER_CLASS"),
    *("SENTINELS", "SENTINEL_KWARGS", "DJANGO_REDIS_IGNORE_EXCEPTIONS", "DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS"),
    *("DJANGO_REDIS_LOGGER", "DJANGO_REDIS_SCAN_ITERSIZE", "DJANGO_REDIS_CLOSE_CONNECTION"),
    *("DJANGO_REDIS_CONNECTION_FACTORY", "CACHE_HERD_TIMEOUT", "TIMEOUT", "KEY_PREFIX", "VERSION", "KEY_FUNCTION"),
    *("REVERSE_KEY_FUNCTION", "MAX_ENTRIES", "CULL_FREQUENCY"),
}


def test_outages_page_names_every_operation() -> None:
    """The table of fallback values has every operation, and gives what is returned."""
    text = (HOME / "docs/outages.md").read_text()
    named = {*re.findall(r"\b[a-z_]+\b", " ".join(text.split("`")[1::2]))}
    operations = {name for name in dir(Cache) if inspect.iscoroutinefunction(getattr(Cache, f"a{name}", None))}

    assert operations - named <= {"close", "zrangebyscore", "zrevrange", "zrevrangebyscore"}


@pytest.mark.parametrize("kind", SETTINGS)
def test_everything_is_described(kind: type) -> None:
    """Each setting and option has a meaning, which is a sentence."""
    for option in fields(kind):
        assert docs.settings.meaning(kind, option).endswith("."), option.name
