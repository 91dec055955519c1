"""Every case, in every client of django-redis and through both faces of fleetcache."""

from __future__ import annotations

import pytest

from . import counting, keys, structures, values
from .setups import CLIENTS, VARIANTS
from .sides import Case, agreeing

pytestmark = [pytest.mark.also(near=True), pytest.mark.also(on="cluster")]

CASES = [*values.case, *counting.case, *keys.case, *structures.case]


RUNS = [
    pytest.param(name, case, id=f"{name}-{case.name}")
    for name in (*CLIENTS, *VARIANTS)
    for case in CASES
    if name not in case.but  # MENDED tells why
]


@pytest.mark.parametrize("face", ["blocking", "awaiting"])
@pytest.mark.parametrize(("name", "case"), RUNS)
def test_case(name: str, case: Case, face: str, setups, faces, expected) -> None:
    """What django-redis returns, raises and leaves on the server is what fleetcache does."""
    setup = setups[name]

    theirs = expected.of(setup, case)
    ours = setup.run(case.script, setup.ours(), face=faces[face])

    agreeing(theirs, ours)
