"""``python -m docs.cli`` writes the reference in docs/cli.md from the parser of the command line.

With ``--check`` it only compares it, and exits with 1 if it differs.  With ``--run`` it also runs the commands in the page, against a
server with a small shop in it, and writes what they print.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fleetcache import Cache, cli
from fleetcache.fleet.publishing import Publisher
from fleetcache.testing import valkey_server

PAGE = Path(__file__).with_name("cli.md")
MARK = "<!-- From here on this page is made by `python -m docs.cli`. -->\n"
CONSOLE = re.compile(r"^```console\n\$ ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHARED = ("help", "place", "url", "alias", "settings", "json")
"""The arguments that are explained once for all commands."""

WIDTH = 110
"""How many characters a line of a transcript may have; the site shows as many (docs/site/static/site.css)."""

SHOP = """
import time
from fleetcache import cached

@cached(3600, key="profile:{user}")
def profile(user):
    time.sleep(0.01)
    if user == 13:
        raise LookupError("there is no user 13")
    return {"user": user}
"""


# --- the reference --------------------------------------------------------------------------------


def reference() -> str:
    """Return the reference of all commands."""
    parts = ["## Reference\n"]
    parts += ["Options of all commands that ask a cache:\n", _options(cli.parsing.Parser(), shared=True)]
    for name, command in _commands(cli.parser(), "fleetcache"):
        parts += [f"### {name}\n", f"    {_usage(name, command)}\n", f"{command.description}\n"]
        if table := _options(command):
            parts.append(table)
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the commands of *parser*, and theirs, each with its name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, command in action.choices.items():
                inner = list(_commands(command, f"{name} {word}"))
                yield from inner or [(f"{name} {word}", command)]


def _own(command: argparse.ArgumentParser, *, shared: bool = False) -> list[argparse.Action]:
    return [action for action in command._actions if (action.dest in SHARED) == shared and action.dest != "help"]


def _usage(name: str, command: argparse.ArgumentParser) -> str:
    places = [action for action in command._actions if not action.option_strings]
    words = [f"[{_word(action)}]" if action.nargs in {"?", "*"} else _word(action) for action in places]
    return " ".join([name, "[OPTION…]", *words])


def _word(action: argparse.Action) -> str:
    word = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper())
    return f"{word}…" if action.nargs in {"*", "+"} else str(word)


def _options(command: argparse.ArgumentParser, *, shared: bool = False) -> str:
    if shared:
        cli.parsing.add_place(command)
        command.add_argument("--json", action="store_true", help=cli.parsing.JSON)
    rows = []
    for action in _own(command, shared=shared):
        takes = "" if action.nargs == 0 else _word(action)
        written = f"{action.option_strings[0]} {takes}".strip() if action.option_strings else takes
        rows.append(f"| `{written}` | {_sentence(action.help or '')} |\n")
    return "".join(["| argument | meaning |\n| --- | --- |\n", *rows]) if rows else ""


def _sentence(text: str) -> str:
    text = text.replace("%%", "%").replace("|", "\\|")
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


# --- the transcripts ------------------------------------------------------------------------------


@contextmanager
def shop() -> Iterator[dict[str, Any]]:
    """A server with entries of a shop and the figures of a process; yield how to run commands on it."""
    with valkey_server() as server, TemporaryDirectory() as home:
        url = f"{server.tcp_url()}?key_prefix=shop"
        fill(server.tcp_url())
        (Path(home) / "shop.py").write_text(SHOP, encoding="utf-8")
        lines = "".join(f"{user}\n" for user in range(1, 21))
        (Path(home) / "users.jsonl").write_text(lines, encoding="utf-8")
        source = str(Path(cli.__file__).parents[2])
        env = {**os.environ, "FLEETCACHE_URL": url, "PYTHONPATH": source, "COLUMNS": str(WIDTH), "TZ": "UTC"}
        env.pop("DJANGO_SETTINGS_MODULE", None)
        yield {"cwd": home, "env": env, "port": server.port}


def fill(url: str) -> None:
    """Use a cache as a process of the shop does, and publish what it has counted."""
    cache = Cache(url, {"KEY_PREFIX": "shop", "OPTIONS": {"NEAR": True, "STATS": {"PUBLISH": 0}}})

    def load(value: Any) -> Any:
        time.sleep(0.004)
        return value

    for turn in range(400):
        user = turn % 20
        cache.get_or_set(f"user:{user}", lambda user=user: load({"name": f"User {user}"}), 3600, tags=["users"])
        cache.get_or_set(
            f"page:{'home' if turn % 4 else 'news'}", lambda: load("<html>" * 50), 300, stale_while_revalidate=60
        )
        if turn % 10 == 0:
            cache.set(f"basket:{user}", [turn, turn + 1], 1800)
        cache.get(f"basket:{turn % 40}")
    cache.set("article:1", "text", 3600, tags=["articles", "front page"])
    time.sleep(1)
    publisher = Publisher(cache._common)
    publisher.given = 600.0
    publisher.publish()
    assert cache.near is not None
    cache.near.close()


def ran(command: str, where: dict[str, Any]) -> str:
    """Return what *command* writes, with the port that everybody uses in place of the server's."""
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(
        words, cwd=where["cwd"], env=where["env"], capture_output=True, text=True, check=False, timeout=60
    )
    text = (done.stdout + done.stderr).replace(f":{where['port']}", ":6379")
    text = text.replace(f"{Path(sys.executable).name} -m fleetcache", "fleetcache")
    return text + (f"exit code {done.returncode}\n" if done.returncode else "")


def rerun(text: str) -> str:
    """Return the page *text* with new transcripts."""
    with shop() as where:
        return CONSOLE.sub(lambda found: f"```console\n$ {found[1]}\n{ran(found[1], where)}```", text)


# --- writing --------------------------------------------------------------------------------------


def page(text: str) -> str:
    """Return the page *text* with a new reference."""
    return f"{text.partition(MARK)[0].rstrip()}\n\n{MARK}\n{reference()}"


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it; return the exit code."""
    text = PAGE.read_text(encoding="utf-8")
    made = page(text)
    if "--check" in arguments:
        if made != text:
            sys.stderr.write(f"{PAGE.name} is out of date: run `make docs`\n")
        return int(made != text)
    PAGE.write_text(rerun(made) if "--run" in arguments else made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
