"""What a check for a move finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

State: TypeAlias = Literal["moves", "done", "refused", "other"]
Result: TypeAlias = Literal["read", "passed on", "no effect", "translated", "refused"]


@dataclass(frozen=True, kw_only=True)
class Note:
    """One thing that is worth knowing."""

    text: str
    docs: str = ""
    """The page that says more."""
    todo: bool = False
    """Whether something has to be done about it."""


@dataclass(frozen=True, kw_only=True)
class OptionReport:
    """What becomes of one option."""

    name: str
    result: Result
    """``read``: it means the same; ``passed on``, to redis-py's connections; ``no effect``, as before; ``translated``: it is
    written in another way; ``refused``: it is an error."""
    note: str = ""


@dataclass(kw_only=True)
class AliasReport:
    """What becomes of one cache."""

    alias: str
    backend: str
    """The dotted path in ``BACKEND``."""
    origin: str = ""
    """The package that the backend is from; "" if it is none that fleetcache replaces."""
    state: State = "other"
    """``moves``: its settings are read; ``refused``: they are not, until something is changed; ``done``: it is fleetcache's
    already; ``other``: it stays as it is."""
    changes: list[str] = field(default_factory=list)
    """The lines of settings to change."""
    options: list[OptionReport] = field(default_factory=list)
    differences: list[Note] = field(default_factory=list)
    """What behaves differently."""
    problems: list[Note] = field(default_factory=list)
    entries: dict[str, Any] | None = None
    """What a sample of its entries on the servers shows; None if none was taken."""


@dataclass(kw_only=True)
class Report:
    """What becomes of a site."""

    module: str
    caches: list[AliasReport] = field(default_factory=list)
    settings: list[Note] = field(default_factory=list)
    """Settings of the project beside ``CACHES``."""
    packages: list[Note] = field(default_factory=list)
    """Installed packages, and the site's own code, that depend on another backend."""
    tools: list[Note] = field(default_factory=list)
    """Tools that watch caches."""

    @property
    def todo(self) -> bool:
        """Whether something has to be done."""
        if any(each.state in {"moves", "refused"} or any(note.todo for note in each.problems) for each in self.caches):
            return True
        return any(note.todo for note in (*self.settings, *self.packages, *self.tools))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as ``--json`` prints it."""
        return {**asdict(self), "todo": self.todo}
