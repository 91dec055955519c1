"""docs/doctor.md describes every finding, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleetcache.inspection.doctor import KINDS
from fleetcache.inspection.doctor.findings import NOUNS

pytestmark = pytest.mark.newest

PAGE = Path(__file__).resolve().parents[2] / "docs/doctor.md"
SECTION = re.compile(r"^### (\S+)\n\n(\w+)", re.MULTILINE)


def test_page_describes_every_finding():
    """Each kind has a section, which begins with its severity."""
    found = {name: severity.lower() for name, severity in SECTION.findall(PAGE.read_text())}

    assert found == {name: NOUNS[kind.severity] for name, kind in KINDS.items()}


def test_every_finding_is_provoked():
    """Each kind is named in a test of the doctor."""
    here = Path(__file__).parent
    texts = "\n".join(path.read_text() for path in here.glob("test_doctor_*.py") if path.name != Path(__file__).name)

    assert [name for name in KINDS if name not in texts] == []
