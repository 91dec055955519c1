"""Each recipe works as it is printed: its files, and no others, are put into a directory, where its commands print what it says."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs.examples import EXAMPLES, HOME, RECIPES, files, refreshed

from fleetcache import Cache

pytestmark = pytest.mark.newest

PAGES = sorted(path for path in RECIPES.glob("*.md") if path.name != "README.md")
DATABASE = 11
LONGEST = 75
"""Lines of an example."""

PATIENCE = 180
"""Seconds that the commands of a page may take."""

python_block = re.compile(r"^```python\n(.*)$", re.MULTILINE)
session = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVER, PORTS = "redis://127.0.0.1:6379/0", ("8000", "8001")
"""What stands in the text for the server and the ports that a run gets."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def commands(page: str) -> list[tuple[str, str]]:
    """Return the commands of *page* in order, each with the output that it says; ``\\`` continues a command."""
    found: list[tuple[str, str]] = []
    for block in session.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = re.sub(r"\\\n", "", part).partition("\n")
            found.append((command, output))
    return found


def missing(page: str) -> str:
    """Return the first package or program that *page* needs and that is not here, or nothing."""
    here = files(page)
    for name, text in here.items():
        if not name.endswith(".py"):
            continue
        imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
        modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
        for module in {module.partition(".")[0] for module in modules}:
            if f"{module}.py" not in here and find_spec(module) is None:
                return module
    for command, _ in commands(page):
        program = next(word for word in command.split() if "=" not in word)
        if program not in ("export", "kill", "sleep") and not shutil.which(program, path=PATH):
            return program
    return ""


PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


class Shell:
    """A shell in *directory* that runs the commands of a page one by one."""

    def __init__(self, directory: Path) -> None:
        variables = {"PYTHONPATH": f"{HOME}/src", "PATH": PATH, "HOME": str(directory), "PYTHONWARNINGS": "default"}
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env={**variables, "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.log = directory / "background.log"

    def run(self, command: str) -> str:
        """Return what *command* prints; a server that it starts in the background is waited for, and prints to a file."""
        if background := command.endswith("&"):
            command = f"{command[:-1]} >>{self.log} 2>&1 &"
        self.process.stdin.write(f"{command}\necho $'\\x1e'\n")
        self.process.stdin.flush()
        printed = ""
        while not printed.endswith("\x1e\n"):
            line = self.process.stdout.readline()
            assert line, f"the shell ended: {printed}"
            printed += line
        if background and (port := re.search(r"--port (\d+)|127\.0\.0\.1:(\d+)", command)):
            self.wait_for(int(port[1] or port[2]))
        return printed[:-2]

    def wait_for(self, port: int) -> None:
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"nothing listens: {self.logged()}")

    def logged(self) -> str:
        """Return what the background has printed."""
        return self.log.read_text() if self.log.exists() else ""

    def end(self) -> None:
        """End the shell, and all that it has started."""
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        finally:
            os.killpg(self.process.pid, signal.SIGKILL) if self.process.poll() is None else None
            self.process.stdin.close()
            self.process.stdout.close()


def free_port() -> str:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return str(tried.getsockname()[1])


def fits(printed: str, said: str) -> bool:
    """Whether *printed* is what the page says; ``…`` stands for any text within a line, alone in a line for any lines."""
    lines = ["(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in said.splitlines()]
    return re.fullmatch("".join(lines), printed and printed.removesuffix("\n") + "\n") is not None


@each_page
def test_a_recipe_does_what_it_says(page, valkey, tmp_path):
    """On a real server, with real processes."""
    text = page.read_text()
    if absent := missing(text):
        pytest.skip(f"{absent} is not installed")
    url = valkey.tcp_url(DATABASE)
    Cache(url).clear()
    put = {SERVER: url, **{port: free_port() for port in PORTS}}

    def here(text: str) -> str:
        return re.sub("|".join(put), lambda found: put[found[0]], text)

    for name, source in files(text).items():
        (tmp_path / name).write_text(here(source))

    shell = Shell(tmp_path)
    watchdog = threading.Timer(PATIENCE, shell.end)
    watchdog.start()
    try:
        for command, said in commands(text):
            printed = shell.run(here(command))
            assert fits(printed, here(said)), f"$ {command}\n{printed}\n--- background:\n{shell.logged()}"
    finally:
        watchdog.cancel()
        shell.end()


@each_page
def test_a_recipe_shows_its_examples(page):
    """Its Python code is files of examples/, and it says how to see that they work."""
    text = page.read_text()

    assert text == refreshed(text), "python -m docs.examples"
    assert len(python_block.findall(text)) == sum(name.endswith(".py") for name in files(text))
    assert commands(text)


def test_every_example_is_in_a_recipe_and_short():
    """And each says in its first lines how it is started."""
    here = {path.name: path.read_text() for path in EXAMPLES.iterdir() if path.suffix != ".md" and path.is_file()}
    shown = {name for page in PAGES for name in files(page.read_text())}

    assert here.keys() == shown
    assert {name: text.count("\n") for name, text in here.items() if text.count("\n") > LONGEST} == {}


def test_the_alert_is_one_of_the_rules():
    """The recipe shows the first of the rules that Grafana's directory has."""
    rule = (EXAMPLES / "alert.yml").read_text().partition("rules:\n")[2].strip()

    assert rule in (HOME / "docs/grafana/alerts.yml").read_text()


def test_the_list_has_every_recipe():
    """README.md of docs/recipes links each page."""
    listed = (RECIPES / "README.md").read_text()

    assert [page.name for page in PAGES if f"]({page.name})" not in listed] == []


@pytest.mark.parametrize(
    ("printed", "said", "well"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("took 12 ms\n", "took … ms\n", True),
        ("took 12 s\n", "took … ms\n", False),
        ("one\ntwo\nthree\nfour\n", "one\n…\nfour\n", True),
        ("one\nfour\n", "one\n…\nfour\n", True),
        ("one\ntwo\n", "one\n…\nfour\n", False),
    ],
)
def test_what_is_printed_is_compared(printed, said, well):
    """An ellipsis stands for what changes from run to run, and for nothing else."""
    assert fits(printed, said) is well
