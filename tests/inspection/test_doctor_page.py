"""docs/doctor.md describes every finding, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleetcache.inspection.doctor import KINDS

pytestmark = pytest.mark.newest

PAGE = Path(__file__).resolve().parents[2] / "docs/doctor.md"
SECTION = re.compile(r"^### (\S+)\n\n(\w+)", re.MULTILINE)


def test_page_describes_every_finding():
    """Each kind has a section, which begins with its severity."""
    found = {name: severity.lower() for name, severity in SECTION.findall(PAGE.read_text())}

    assert found == {name: kind.severity for name, kind in KINDS.items()}
