"""What a caller wants of a value that is missing or old, and the decision that follows from it.

A value is *fresh* until its timeout, then *stale* as long as the caller allows, then gone.  The names of the stale
lives are those of RFC 5861.  Early renewal is XFetch (A. Vattani, F. Chierichetti, K. Lowenstein: "Optimal
Probabilistic Cache Stampede Prevention", 2015), with one change: a value is renewed at
``expiry - cost * (1 + early * Exp(1))``.  Without the "1 +", in a process that draws once for each copy, no draw may come
earlier than the load takes, and then callers wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from math import isfinite
from typing import Any, Self, TypedDict

from fleetcache.errors import SettingsError
from fleetcache.marks import DEFAULT_TIMEOUT, Timeout
from fleetcache.times import milliseconds

LEASE = 10.0
"""For how many seconds, by default, the fleet waits for one process to load a value."""

MOST_SECONDS = 1e12
"""The longest time that a policy may name, so that no sum of times is more than a server can count."""

PATIENCE = 1.0
"""How many seconds longer than a lease a caller waits by default."""


class PolicyOptions(TypedDict, total=False):
    """The fields of a `Policy`, as keyword arguments of a loading call, whose timeout is an argument of its own."""

    stale_while_revalidate: float
    stale_if_error: float
    early: float
    jitter: float
    absent_for: float | None
    lease: float
    wait: float | None
    retry_after: float
    soft_timeout: float | None
    hard_timeout: float | None
    renew: str | Callable[[Callable[[], Any]], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How long a loaded value lives, and what happens when it is old.  All times are seconds.

    - ``timeout``: how long a value is fresh; None for ever.
    - ``stale_while_revalidate``: how long after that it is still served at once, while one caller renews it.
    - ``stale_if_error``: how long after its fresh life it is served if loading a new one fails.
    - ``early``: XFetch's β: how much earlier than necessary a value is renewed; 1 is usual, 0 renews nothing early.
    - ``jitter``: the part of the timeout, 0 to 1, by which lives differ at random, so that values of one moment do not
      end in one.
    - ``absent_for``: how long the result None is kept; None: as long as any other.
    - ``lease``: for how long the fleet waits for one process to load the value.
    - ``wait``: how long a caller waits for somebody else's load before it loads by itself; None: `lease` and a second.
    - ``retry_after``: after a load failed: for how long no process tries again.
    - ``soft_timeout``: after how long a stale value is returned, if there is one, while its load goes on.
    - ``hard_timeout``: after how long a caller gives up waiting, with `TimeoutError`.
    - ``renew``: who renews a stale value in blocking code: the ``"caller"``, a ``"thread"``, under Django after the
      ``"response"``, or whatever a callable does with the function that it is given.
    """

    timeout: Timeout = DEFAULT_TIMEOUT
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    early: float = 0.0
    jitter: float = 0.0
    absent_for: float | None = None
    lease: float = LEASE
    wait: float | None = None
    retry_after: float = 0.0
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    renew: str | Callable[[Callable[[], Any]], Any] = "caller"

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense, and contradictions."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in NUMBERS and not (value is None and each.name in OPTIONAL):
                if isinstance(value, timedelta):
                    value = value.total_seconds()
                    object.__setattr__(self, each.name, value)
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    what = PLAIN.get(each.name, "a number of seconds")
                    raise TypeError(f"{each.name} has to be {what}, not {type(value).__name__}")
                if not isfinite(value) or value < 0:
                    raise ValueError(f"{each.name} has to be a finite number, 0 or more, not {value}")
                if value > MOST_SECONDS:
                    raise ValueError(f"{each.name} has to be {MOST_SECONDS:.0e} at most, 30,000 years, not {value}")
        # Django has a mark of its own for the timeout of the cache, a plain object.
        if self.timeout is not None and self.timeout is not DEFAULT_TIMEOUT and type(self.timeout) is not object:
            milliseconds(self.timeout)
        if self.jitter > 1:
            raise ValueError(f"jitter is a part of the timeout, from 0 to 1, not {self.jitter}")
        if self.lease <= 0:
            raise ValueError("lease has to be more than 0 seconds: it is how long one process may load")
        if self.soft_timeout is not None and self.hard_timeout is not None and self.hard_timeout < self.soft_timeout:
            raise ValueError(f"hard_timeout ({self.hard_timeout} s) is less than soft_timeout ({self.soft_timeout} s)")
        if not callable(self.renew) and self.renew not in RENEWERS:
            raise ValueError(
                f"renew has to be one of {', '.join(map(repr, RENEWERS))}, or a callable, not {self.renew!r}"
            )

    @classmethod
    def of(
        cls, given: Timeout | Policy, defaults: Policy, options: Mapping[str, Any], also: Iterable[str] = ()
    ) -> Policy:
        """Return the policy *given* in place of a timeout, or *defaults* with it as timeout; changed by *options*.

        *also* are further arguments of the call, one of which may be meant by an option that a policy does not have.
        """
        if callable(options.get("renew")):
            return _combined(given, defaults, **options)  # to keep it would keep alive what it refers to
        try:
            # A site has few policies, and making one takes longer than a read.
            return _known(given, defaults, **options)
        except TypeError:  # an option is refused, or has no hash
            if unknown := options.keys() - FIELDS:
                raise TypeError(_unknown(min(unknown), FIELDS, also)) from None
            return _combined(given, defaults, **options)

    @classmethod
    def read(cls, written: Any) -> Self:
        """Return the policy in OPTIONS["LOADING"]: itself, or a dict of its fields in upper or lower case.

        In a URL it is a text, such as ``early:1,jitter:0.1``.
        """
        if isinstance(written, cls):
            return written
        if isinstance(written, str):
            written = {name: _number_in(value) for name, value in words_in(written, "a Policy", "early:1,jitter:0.1")}
        if not isinstance(written, Mapping):
            raise TypeError(f"a dict or a Policy is expected, not {type(written).__name__}")
        known = {each.name for each in fields(cls)}
        if unknown := [name for name in written if str(name).lower() not in known]:
            raise SettingsError(_unknown(str(unknown[0]), {name.upper() for name in known}))
        try:
            return cls(**{str(name).lower(): value for name, value in written.items()})
        except (TypeError, ValueError) as error:  # it names the field, so the whole need not be shown
            raise SettingsError(str(error)) from error

    @property
    def stale(self) -> float:
        """How many seconds an entry is kept after its fresh life."""
        return max(self.stale_while_revalidate, self.stale_if_error)

    def kept(self, cost: float) -> float:
        """Return how many seconds an entry is kept after its fresh life if its load took *cost* seconds.

        With `early` that is longer than a renewal takes: one that began in time and ends too late still finds the entry
        that it replaces, and is stored.
        """
        return max(self.stale, 2 * cost + 1 if self.early else 0.0)

    @property
    def soft(self) -> bool:
        """Whether an entry needs metadata for it."""
        return self.stale > 0 or self.early > 0

    @property
    def patience(self) -> float:
        """How long a caller waits for somebody else's load."""
        return self.lease + PATIENCE if self.wait is None else self.wait


def _combined(given: Timeout | Policy, defaults: Policy, /, **options: Any) -> Policy:
    if unknown := options.keys() - FIELDS:
        raise TypeError(_unknown(min(unknown), FIELDS))
    if isinstance(given, Policy):
        return replace(given, **options) if options else given
    if given is DEFAULT_TIMEOUT:
        return replace(defaults, **options) if options else defaults
    return replace(defaults, **{"timeout": given, **options})


_known = lru_cache(maxsize=256, typed=True)(_combined)


def words_in(text: str, kind: str, example: str) -> list[tuple[str, str]]:
    """Return the names and values in *text*, as a URL writes a dict, such as *example*; *kind* is what it stands for."""
    parts = [tuple(map(str.strip, part.partition(":"))) for part in text.split(",")]
    if not all(colon for _, colon, _ in parts):
        raise ValueError(f"a dict or {kind} is expected, or a text such as {example!r}")
    return [(name, value) for name, _, value in parts]


def _number_in(text: str) -> Any:
    """Return the number in *text*, or *text* itself."""
    if text == "None":
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _unknown(name: str, known: AbstractSet[str], also: Iterable[str] = ()) -> str:
    """Return the message about an option *name* that a policy does not have; *also* as with `Policy.of`."""
    case = str.upper if next(iter(known)).isupper() else str.lower
    close = [case(MEANT[name.lower()])] if name.lower() in MEANT else []
    close = close or get_close_matches(case(name), {*known, *also}, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown option {name!r}.{hint} A policy has {', '.join(sorted(known))}"


RENEWERS = ("caller", "thread", "response")
PLAIN = {"early": "a number (1.0 is usual)", "jitter": "a number from 0 to 1 (0.1 is usual)"}
"""The fields that are numbers, but no times."""
OPTIONAL = {"absent_for", "wait", "soft_timeout", "hard_timeout"}
FIELDS = {each.name for each in fields(Policy)}
MEANT = {"stale": "stale_while_revalidate"}
"""What is meant by some other words; ``{% cached %}`` takes them."""
NUMBERS = FIELDS - {"timeout", "renew"}


class Decision(Enum):
    """What to do with an entry."""

    SERVE = "return it"
    RENEW = "return it, and let one caller renew it"
    LOAD = "load it, and return what was loaded"


def decide(left: float | None, cost: float, policy: Policy, draw: float) -> Decision:
    """Return what to do with an entry that has *left* seconds of fresh life, negative if it is stale; None if it is missing.

    *cost* is how many seconds its load took, *draw* a number drawn from an exponential distribution with the mean 1.
    """
    if left is None:
        return Decision.LOAD
    if left > 0:
        return Decision.RENEW if policy.early > 0 and left <= early_by(cost, policy.early, draw) else Decision.SERVE
    return Decision.RENEW if -left < policy.stale_while_revalidate else Decision.LOAD


def early_by(cost: float, early: float, draw: float) -> float:
    """Return how many seconds before its end the renewal of a value begins."""
    return cost * (1 + early * draw)
