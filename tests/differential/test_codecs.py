"""Every case that carries values, for each serializer and compressor."""

from __future__ import annotations

import pytest

from . import counting, structures, values
from .setups import COMPRESSORS, SERIALIZERS
from .sides import Case, agreeing
from .test_cases import CASES

pytestmark = pytest.mark.also(near=True)

FORMATS = ("pickle", "json", "msgpack")
COMBINATIONS = [f"{serializer}/{compressor}" for serializer in FORMATS for compressor in COMPRESSORS]
PROTOCOLS = [f"{serializer}/identity" for serializer in SERIALIZERS if serializer not in FORMATS]

CARRYING = {
    values.every_value,
    values.every_value_added,
    values.every_value_at_once,
    values.a_stored_none_beats_the_default,
    values.encoding,
    values.only_if_old,
    counting.counting,
    counting.counting_floats,
    counting.counting_huge_numbers,
    counting.counting_what_is_no_number,
    counting.counting_keeps_the_time_to_live,
    counting.moving_to_another_version,
    structures.members_of_every_kind,
    structures.members_read,
    structures.sets,
    structures.scanning_members_by_pattern,
    structures.combining_sets,
    structures.storing_combined_sets,
    structures.moving_members,
    structures.fields_of_every_kind,
    structures.hashes,
    structures.scored_members_of_every_kind,
    structures.adding_scores,
    structures.asking_for_scores,
    structures.ranges_by_rank,
    structures.ranges_by_score,
    structures.removing_scores,
    structures.popping_scores,
}
"""The cases in which a value, or a member, becomes bytes or comes of them."""

VALUED = [case for case in CASES if case.script in CARRYING]

AWAITED = {"json/zlib", "msgpack/zstd"}
"""Values become bytes before the faces part, so that a few combinations show that they do."""

FACES = [
    (name, face)
    for name in (*COMBINATIONS, *PROTOCOLS)
    for face in ("blocking", "awaiting")
    if face == "blocking" or name in AWAITED
]


@pytest.mark.parametrize("case", VALUED, ids=lambda case: case.name)
@pytest.mark.parametrize(("name", "face"), FACES)
def test_codec(name: str, case: Case, face: str, setups, faces, expected) -> None:
    """Values read back as the same, from the same bytes."""
    setup = setups[name]

    theirs = expected.of(setup, case)
    ours = setup.run(case.script, setup.ours(), face=faces[face])

    agreeing(theirs, ours)
