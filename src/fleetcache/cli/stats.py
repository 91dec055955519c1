"""``fleetcache stats``: what is the cache worth to the fleet, and what does it cost?"""

from __future__ import annotations

import re
import shutil
import time
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from typing import Any

from fleetcache.cli.calls import FINDING, FINE, UNREACHABLE, Call, WrongUse
from fleetcache.cli.parsing import Table
from fleetcache.cli.showing import count, cut, duration, moment, rate, sentences, share, size, table, visible
from fleetcache.fleet import Fleet, Period, Worker, gather, history
from fleetcache.inspection.keys import masked_key
from fleetcache.inspection.rates import FOUND, READS, Rates, added
from fleetcache.stats.top import sure

VIEWS = ("group", "command", "worker", "key")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DAY = 86400
LATELY = 1.0
"""Of how many hours the figures are that no restart of a process changes."""
LONGEST = 1000
"""The most characters of a key that are shown where no terminal is too narrow."""
FIGURE = 12
"""The columns that the figure of a key takes, with the space before it."""
NOBODY = (
    "no process has published figures under this prefix. One does so every 10 seconds if fleetcache.django is among the "
    "INSTALLED_APPS, or OPTIONS['STATS'] = {'PUBLISH': 10}; none does with OPTIONS['STATS'] = False"
)


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "stats",
        run,
        help="what is the cache worth to the fleet, and what does it cost?",
        description="Add up what all processes that use the cache have published: reads by level, loads, the seconds of loading that were "
        "saved, errors, latencies; and what they did in the last hour, whatever was restarted. Exits with 0, 1 if no process has published anything, 2 if no server answers.",
    )
    command.add_argument("--by", choices=VIEWS, default="group", help="what the table shows, by default groups of keys")
    command.add_argument(
        "--since",
        type=age,
        metavar="TIME",
        help="only the last 30m, 6h or 1d, in steps of five minutes; by group only, and without bytes",
    )
    command.add_argument("--show-keys", action="store_true", help="with --by key: show keys as they are")


def age(text: str) -> float:
    """Return the seconds in *text*, such as 90s, 30m, 6h or 1d, for ``type=`` of an argument; a day at most is kept."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhd])", text)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= DAY:
        raise ArgumentTypeError(
            f"a time up to one day, with its unit, is expected, such as 30m, 6h or 1d, not {text!r}"
        )
    return seconds


def run(call: Call) -> int:
    """``fleetcache stats``."""
    if call.arguments.since is not None:
        return _since(call)
    fleet = gather(call.cache)
    if not fleet.workers:
        return _nobody(call, fleet.missing, fleet.error)
    recent = lately(call)
    call.answer({**document(call, fleet), "last_hour": recent}, shown(call, fleet, recent))
    _say_missing(call, fleet.missing)
    return FINE


def lately(call: Call) -> dict[str, Any] | None:
    """Return what the whole fleet did in the last hour, also processes that are gone; None if that is not known."""
    periods = [period for period in history(call.cache, LATELY) if period.groups or period.errors]
    if not periods:
        return None
    groups = [group for period in periods for group in period.groups.values()]
    return {**summed(groups), "errors": sum(period.errors for period in periods)}


def _nobody(call: Call, missing: Sequence[str], error: Exception | None) -> int:
    """Say that nothing was found, or that no server could be asked."""
    if missing:
        return call.unread(missing, error)
    if call.json:
        call.answer({"workers": [], "groups": {}, "commands": {}, "missing": []}, "")
    else:
        call.note(f"fleetcache: {NOBODY}")
    return FINDING


def _say_missing(call: Call, missing: Sequence[str]) -> None:
    if not call.json:
        for each in missing:
            call.note(f"fleetcache: not complete: {visible(each)}")
        call.note_rights(missing)


# --- as JSON --------------------------------------------------------------------------------------


def document(call: Call, fleet: Fleet) -> dict[str, Any]:
    """Return the figures of *fleet* for JSON."""
    totals = fleet.totals
    groups = totals.get("groups") or {}
    return {
        "at": fleet.at,
        "since": totals.get("since"),
        "totals": summed(groups.values()),
        "rates": averages(fleet),
        "groups": {name: summed([figures]) for name, figures in groups.items()},
        "commands": totals.get("commands") or {},
        "loads": totals.get("loads"),
        "errors": totals.get("errors") or {},
        "servers": totals.get("servers") or [],
        "near": totals.get("near"),
        "top": {
            what: [[_key(call, key), n, error] for key, n, error in keys]
            for what, keys in (totals.get("top") or {}).items()
        },
        "advice": totals.get("advice"),
        "audit": _audit(call, totals.get("audit")),
        "workers": [_worker_document(worker) for worker in fleet.workers],
        "missing": fleet.missing,
    }


def averages(fleet: Fleet) -> dict[str, float]:
    """Return how often something happens in a second: the sum of what each process did on average since it began.

    The sum of all figures, divided by the time since the first process began, would be too small after a deploy.
    """
    totals = Rates().pace(fleet, "start").totals
    return {name: totals.get(name, 0.0) for name in ("reads", "loads", "writes")}


def _worker_document(worker: Worker) -> dict[str, Any]:
    near = worker.part("near") or {}
    return {
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "settings": worker.digest,
        "started": worker.started,
        "at": worker.at,
        "near_state": near.get("state"),
        "near_bytes": near.get("bytes"),
        **summed((worker.part("groups") or {}).values()),
    }


def summed(groups: Any) -> dict[str, Any]:
    """Return the sums of *groups*, with their reads and the share of them that found a value."""
    sums = added({name: n for name, n in figures.items() if isinstance(n, (int, float))} for figures in groups)
    reads = sum(sums.get(level, 0) for level in READS)
    found = sum(sums.get(level, 0) for level in FOUND)
    return {**sums, "reads": reads, "hit_ratio": found / reads if reads else None}


def _audit(call: Call, audit: Any) -> Any:
    """Return *audit* with the keys of its events masked, unless they are to be shown."""
    if not audit:
        return audit
    return {**audit, "events": [{**event, "key": _key(call, str(event.get("key", "")))} for event in audit["events"]]}


def _key(call: Call, key: str) -> str:
    return key if call.arguments.show_keys else masked_key(key)


# --- for people -----------------------------------------------------------------------------------


def shown(call: Call, fleet: Fleet, recent: Mapping[str, Any] | None) -> str:
    """Return the figures of *fleet* for people; *recent* are those of the last hour."""
    totals = fleet.totals
    groups: Mapping[str, Any] = totals.get("groups") or {}
    rows = [*_reads(groups.values()), _rates(averages(fleet)), *_state(call, totals)]
    rows += [("last hour", _hour(recent))] if recent else []
    lines = [call.painted(_head(fleet), strong=True), "", table(("", ""), rows, left=2, indent="  "), ""]
    lines.append(
        {"group": _groups, "command": _commands, "worker": _workers, "key": _keys}[call.arguments.by](call, fleet)
    )
    return "\n".join(lines)


def _head(fleet: Fleet) -> str:
    """Return how many processes there are, and for how long each has counted."""
    hosts = len({worker.host for worker in fleet.workers})
    head = f"{_several(len(fleet.workers), 'process', 'processes')} on {_several(hosts, 'host', 'hosts')}"
    since = fleet.totals.get("since") or fleet.at
    ages = [max(fleet.at - (worker.part("since") or worker.started), 0.0) for worker in fleet.workers]
    shortest, longest = duration(min(ages)), duration(max(ages))
    if shortest == longest:
        return f"{head}, counted since {moment(since)}, for {duration(fleet.at - since)}"
    return f"{head}, counted for {shortest} to {longest}: each since it began, the first at {moment(since)}"


def _rates(rates: Mapping[str, float]) -> tuple[str, str]:
    """Return the row of rates."""
    return "rate", f"{rate(rates['reads'])} read, {rate(rates['loads'])} loaded, {rate(rates['writes'])} written"


def _hour(recent: Mapping[str, Any]) -> str:
    """Return what the fleet did in the last hour."""
    reads, loads = recent["reads"], recent.get("loads", 0)
    found = sum(recent.get(level, 0) for level in FOUND)
    parts = [_several(reads, "read", "reads") + (f", {share(found, reads)} found" if reads else "")]
    parts.append(f"{_several(loads, 'load', 'loads')}, {duration(recent.get('saved', 0))} saved")
    return "; ".join([*parts, _several(recent["errors"], "error", "errors"), "also of processes that are gone"])


def _several(number: float, one: str, many: str) -> str:
    return f"{count(number)} {one if number == 1 else many}"


def _reads(groups: Any) -> list[tuple[str, str]]:
    """Return the rows about reads, loads and what was saved."""
    sums = summed(groups)
    reads = sums["reads"]
    levels = ", ".join(f"{share(sums.get(level, 0), reads)} {level}" for level in READS)
    loads, seconds = sums.get("loads", 0), sums.get("load_seconds", 0)
    mean = f", {duration(seconds / loads)} each" if loads else ""
    return [
        ("reads", f"{count(reads)}: {levels}" if reads else "0"),
        (
            "loads",
            f"{count(loads)}{mean}; {count(sums.get('load_errors', 0))} failed, {count(sums.get('joined', 0))} joined",
        ),
        ("saved", _saved(sums)),
        ("writes", f"{count(sums.get('writes', 0))}, {count(sums.get('deletes', 0))} deletes"),
        ("bytes", f"{size(sums.get('bytes_read', 0))} read, {size(sums.get('bytes_written', 0))} written"),
    ]


def _saved(sums: Mapping[str, Any]) -> str:
    """Return how many seconds of loading *sums* saved, or why none."""
    if sums.get("saved"):
        return f"{duration(sums['saved'])} of loading"
    if sums.get("loads"):
        return "0 s: no loaded value was read again yet"
    return "not known: nothing was loaded by get_or_set or @cached"


def _state(call: Call, totals: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows about errors, near caches and servers."""
    errors: Mapping[str, float] = totals.get("errors") or {}
    listed = ", ".join(f"{count(n)} {visible(name)}" for name, n in sorted(errors.items(), key=lambda pair: -pair[1]))
    rows = [("errors", call.painted(listed, good=False) if listed else "0")]
    near = totals.get("near") or {}
    states = ", ".join(f"{count(n)} {visible(state)}" for state, n in (near.get("states") or {}).items())
    rows += [("near caches", states)] if states else []
    if near.get("why") and near.get("state") != "off":
        rows.append(("", visible(str(near["why"]))))
    away = [
        f"{visible(each['address'])} (for {count(each.get('away_for', 0))})"
        for each in totals.get("servers") or ()
        if each.get("away")
    ]
    rows += [("servers away", call.painted(", ".join(away), good=False))] if away else []
    if advice := totals.get("advice"):
        first, *others = sentences(str(advice["text"]))
        rows += [("near size", first), *(("", each) for each in others)]
    if audit := totals.get("audit"):
        rows.append(
            ("audit", f"{count(audit.get('compared', 0))} compared, {count(audit.get('violations', 0))} violations")
        )
    return rows


def group_rows(groups: Mapping[str, Mapping[str, float]], *, sizes: bool = True) -> str:
    """Return the table of groups, those with the most reads first; with *sizes* their bytes, which the history does not keep."""
    heads = (
        "group",
        "reads",
        "found",
        "near",
        "server",
        "stale",
        "missed",
        "loads",
        "each",
        "failed",
        "saved",
        *(("read", "written") if sizes else ()),
    )
    rows = []
    for name, figures in sorted(groups.items(), key=lambda pair: -summed([pair[1]])["reads"]):
        sums = summed([figures])
        reads, loads = sums["reads"], sums.get("loads", 0)
        found = sum(sums.get(level, 0) for level in FOUND)
        rows.append(
            (
                visible(name),
                count(reads),
                share(found, reads),
                *(share(sums.get(level, 0), reads) for level in READS),
                count(loads),
                duration(sums.get("load_seconds", 0) / loads) if loads else "-",
                count(sums.get("load_errors", 0)),
                duration(sums.get("saved", 0)) if loads or sums.get("saved") else "-",
                *((size(sums.get(name, 0)) for name in ("bytes_read", "bytes_written")) if sizes else ()),
            )
        )
    return table(heads, rows)


def _groups(call: Call, fleet: Fleet) -> str:
    return group_rows(fleet.totals.get("groups") or {})


def _commands(call: Call, fleet: Fleet) -> str:
    commands: Mapping[str, Any] = fleet.totals.get("commands") or {}
    rows = []
    for name, each in sorted(commands.items(), key=lambda pair: -pair[1].get("calls", 0)):
        latency = each.get("latency") or {}
        times = (duration(latency.get(word)) for word in ("p50", "p95", "p99"))
        counts = (each.get("calls", 0), each.get("errors", 0), latency.get("count", 0))
        rows.append((visible(name), *map(count, counts), *times))
    return table(("command", "calls", "errors", "timed", "p50", "p95", "p99"), rows)


def _workers(call: Call, fleet: Fleet) -> str:
    rows = []
    for worker in fleet.workers:
        each = _worker_document(worker)
        reads = each["reads"]
        rows.append(
            (
                f"{visible(worker.host)}:{worker.pid}",
                visible(worker.version),
                visible(worker.digest[:8]),
                visible(str(each["near_state"] or "-")),
                duration(worker.at - worker.started),
                f"{duration(max(time.time() - worker.at, 0))} ago",
                count(reads),
                share(sum(each.get(level, 0) for level in FOUND), reads),
                size(each["near_bytes"]),
            )
        )
    heads = ("process", "version", "settings", "near", "counted for", "seen", "reads", "found", "copies")
    return table(heads, rows, left=4)


def _keys(call: Call, fleet: Fleet) -> str:
    top: Mapping[str, Any] = fleet.totals.get("top") or {}
    # A table that is wider than the terminal cannot be read; a program, or a file, gets all there is.
    longest = max(shutil.get_terminal_size().columns - FIGURE, 20) if call.on_terminal else LONGEST
    write = {"hits": count, "bytes": size, "seconds": duration}
    parts = []
    for what, title in (("hits", "most hits"), ("bytes", "most bytes"), ("seconds", "most seconds of loading")):
        rows = [
            (cut(visible(_key(call, key)), longest), write[what](figure), f"± {write[what](error)}" if error else "")
            for key, figure, error in sure(top.get(what) or ())
        ]
        parts.append(table((f"keys with the {title}", "", ""), rows) if rows else f"keys with the {title}: none yet")
    return "\n\n".join(parts)


# --- the last hours -------------------------------------------------------------------------------


def _since(call: Call) -> int:
    """Show what the fleet did in the last hours."""
    if call.arguments.by != "group":
        raise WrongUse("--since goes with --by group only: nothing else is kept over time")
    periods = history(call.cache, call.arguments.since / 3600)
    missing = list(dict.fromkeys(period.missing for period in periods if period.missing))
    known = [period for period in periods if period.groups or period.errors]
    if not known:
        return _nobody(call, missing, next((period.error for period in periods if period.error), None))
    groups: dict[str, dict[str, float]] = {}
    for period in known:
        for name, figures in period.groups.items():
            groups[name] = added((groups.get(name, {}), figures))
    errors = sum(period.errors for period in known)
    facts = {
        "since": periods[0].at,
        "at": time.time(),
        "totals": summed(groups.values()),
        "groups": {name: summed([figures]) for name, figures in groups.items()},
        "errors": errors,
        "periods": [_period(period) for period in periods],
        "missing": missing,
    }
    rows = [row for row in _reads(groups.values()) if row[0] != "bytes"]
    rows.append(("errors", call.painted(count(errors), good=False) if errors else "0"))
    head = call.painted(f"Since {moment(periods[0].at)}", strong=True)
    call.answer(
        facts, "\n".join([head, "", table(("", ""), rows, left=2, indent="  "), "", group_rows(groups, sizes=False)])
    )
    _say_missing(call, missing)
    return UNREACHABLE if missing else FINE


def _period(period: Period) -> dict[str, Any]:
    return {"at": period.at, "errors": period.errors, **summed(period.groups.values())}
