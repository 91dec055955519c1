"""The sample that `make test` runs leaves out combinations, and nothing else."""

from __future__ import annotations

import pytest

pytest_plugins = ("pytester",)

MODULE = """
import pytest

@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("face", ["blocking", "awaiting"])
def test_many(number, face): print(f"ran many {number} {face}")

@pytest.mark.few(2)
@pytest.mark.parametrize("number", range(9))
def test_few(number): print(f"ran few {number}")

def test_one(): print("ran one")
"""


@pytest.fixture
def ran(pytester: pytest.Pytester) -> list[str]:
    """The cases of ``MODULE`` that are run with ``--sample``."""
    pytester.makepyfile(MODULE)
    pytester.makeini("[pytest]\nmarkers = few(n): the first n")
    done = pytester.runpytest_inprocess(
        "--sample", "-s", "-p", "tests.selection", "-p", "no:cacheprovider", "-p", "no:randomly"
    )
    return [line.partition("ran ")[2] for line in done.outlines if "ran " in line and "deselected" not in line]


def test_each_value_is_used(ran):
    """Of nine numbers and two faces nine cases are run, in which each number and each face has its turn."""
    many = [line.split()[1:] for line in ran if line.startswith("many")]

    assert sorted(number for number, _ in many) == [str(number) for number in range(9)]
    assert {sum(face == each for _, face in many) for each in ("blocking", "awaiting")} == {4, 5}


def test_every_function_is_run(ran):
    """A function without parameters is run, and of one that wants few the first ones are."""
    assert "one" in ran
    assert [line for line in ran if line.startswith("few")] == ["few 0", "few 1"]
