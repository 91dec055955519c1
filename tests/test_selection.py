"""The sample that `make test` runs leaves out combinations, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest_plugins = ("pytester",)

QUICK = [word for name in ("tests.selection", "no:cacheprovider", "no:randomly", "no:ddtrace") for word in ("-p", name)]

MODULE = """
import pytest

@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("face", ["blocking", "awaiting"])
def test_many(number, face): print(f"ran many {number} {face}")

@pytest.mark.few(2)
@pytest.mark.parametrize("number", range(9))
def test_few(number): print(f"ran few {number}")

@pytest.mark.parametrize("url", range(3))
@pytest.mark.parametrize("size", range(2))
def test_on(url, size): print(f"ran on {url} {size}")

def test_one(): print("ran one")
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[[str], list[str]]:
    """Run ``MODULE`` with an option, and return the cases that were run."""
    pytester.makepyfile(MODULE)
    pytester.makeini("[pytest]\nmarkers = few(n): the first n")

    def run(*options: str) -> list[str]:
        done = pytester.runpytest_inprocess(*options, "-s", *QUICK)
        return [line.partition("ran ")[2] for line in done.outlines if "ran " in line and "deselected" not in line]

    return run


@pytest.fixture
def ran(run: Callable[..., list[str]]) -> list[str]:
    """The cases that are run with ``--sample``."""
    return run("--sample")


def test_each_value_is_used(ran):
    """Of nine numbers and two faces nine cases are run, in which each number and each face has its turn."""
    many = [line.split()[1:] for line in ran if line.startswith("many")]

    assert sorted(number for number, _ in many) == [str(number) for number in range(9)]
    assert {sum(face == each for _, face in many) for each in ("blocking", "awaiting")} == {4, 5}


def test_every_function_is_run(ran):
    """A function without parameters is run, and of one that wants few the first ones are."""
    assert "one" in ran
    assert [line for line in ran if line.startswith("few")] == ["few 0", "few 1"]


def test_the_rest_is_what_the_sample_leaves_out(run, ran):
    """No case is run by both, and none by neither."""
    rest = run("--rest")

    assert sorted(ran + rest) == sorted(run())
    assert len(rest) == 9 + 7 + 3


def test_a_thin_sample_spares_transports(run, ran):
    """Each value of the other parameters is used all the same."""
    thin = run("--thin")

    assert [line for line in thin if not line.startswith("on ")] == [line for line in ran if not line.startswith("on ")]
    assert sorted(line.split()[2] for line in thin if line.startswith("on ")) == ["0", "1"]
    assert len([line for line in ran if line.startswith("on ")]) == 3


def test_one_selection_at_a_time(pytester):
    """Two options that choose are an error."""
    done = pytester.runpytest_inprocess("--sample", "--rest", *QUICK)

    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--sample and --rest exclude each other*"])
