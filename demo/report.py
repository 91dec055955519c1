"""The report: one HTML file with all that it needs, which opens without a server and without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from findings import Outcome

REPORT = Path(__file__).parent.parent / "build" / "demo" / "report.html"
WIDE = ("outage",)
"""Scenes whose plot needs the whole width."""

KINDS = {True: "ok", False: "not", None: "unjudged"}
"""Whether a claim holds -> its class."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2330; --soft: #667085; --rule: #e3e7ee;
  --old: #c2703d; --new: #2563c9; --third: #158a6b; --band: #f3e3e0; --bandtext: #a4412c; --code: #f3f5f8; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --page: #12161d; --card: #1a202a; --ink: #e6eaf1; --soft: #9aa5b5;
  --rule: #2c3543; --old: #e29a68; --new: #7aaaf7; --third: #4fc7a2; --band: #3a2422; --bandtext: #f0a596;
  --code: #11161e; --bad: #ff9a8d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 26px 24px 40px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -.01em; }
.under { color: var(--soft); margin: 0 0 20px; }
.cards { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
article { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 15px 20px 12px; min-width: 0;
  display: flex; flex-direction: column; }
article.wide { grid-column: 1 / -1; }
h2 { font-size: 15px; font-weight: 600; margin: 0; color: var(--soft); }
h2 b { color: var(--ink); font-weight: 600; }
.number { font-size: 34px; font-weight: 700; line-height: 1.2; letter-spacing: -.02em; margin-right: 8px; white-space: nowrap; }
.figure { margin: 2px 0 6px; }
.claims { list-style: none; margin: 0 0 8px; padding: 0; }
.claims li { padding-left: 22px; position: relative; }
.claims li::before { content: "✓"; position: absolute; left: 2px; color: var(--third); font-weight: 700; }
.claims li.not::before { content: "✗"; color: var(--bad); }
.claims li.unjudged { color: var(--soft); } .claims li.unjudged::before { content: "–"; color: var(--soft); }
.fault { color: var(--bad); overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; margin: 4px 0; font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
svg text { fill: var(--ink); } svg .tick, svg .axis { fill: var(--soft); } svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; } svg .label { font-weight: 600; font-size: 13px; } svg .value { font-size: 12px; }
svg .halo { paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }
svg .grid { stroke: var(--rule); fill: none; } svg .band { fill: var(--band); } svg text.bandtext { fill: var(--bandtext); font-weight: 600; }
.old { --kind: var(--old); } .new { --kind: var(--new); } .third { --kind: var(--third); }
svg .line { stroke: var(--kind); fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .line.thin { stroke-width: 1; stroke-dasharray: 3 3; } svg .area { fill: var(--kind); opacity: .14; }
svg .dot { fill: var(--kind); } svg .dot.ring { fill: none; stroke: var(--kind); stroke-width: 1.5; } svg .dot.faint { opacity: .55; } svg .run { stroke: var(--kind); stroke-width: 2; }
svg .fill { fill: var(--kind); } svg text.label, svg text.value { fill: var(--kind); } svg text.inside { fill: var(--card); font-weight: 600; }
.caption { color: var(--soft); font-size: 13px; margin: 0 0 8px; }
details { border-top: 1px solid var(--rule); margin-top: auto; padding-top: 8px; }
summary { cursor: pointer; color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; margin: 10px 0; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: right; padding: 3px 0 3px 14px; border-bottom: 1px solid var(--rule); font-weight: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } thead th { color: var(--soft); }
pre { background: var(--code); border-radius: 6px; padding: 10px 12px; overflow-x: auto; font-size: 12.5px; line-height: 1.45; margin: 10px 0; }
details p { margin: 6px 0; font-size: 14px; }
footer { color: var(--soft); margin-top: 18px; font-size: 13px; }
@media (max-width: 800px) { .cards { grid-template-columns: 1fr; } }
@media print { details > * { display: block; } }
"""


def page(outcomes: Sequence[Outcome], environment: Sequence[str], errors: Sequence[tuple[str, str]] = ()) -> str:
    """Return the report; *environment* says where it was measured, *errors* which scenes could not be played, and why."""
    under = " · ".join(escape(part) for part in environment)
    cards = "".join(card(place, outcome) for place, outcome in enumerate(outcomes, 1))
    cards += "".join(
        f'<article><h2>{escape(scene)}</h2><p class="fault">This scene ended with an error:</p><pre>{escape(text)}</pre></article>'
        for scene, text in errors
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>fleetcache: the demo's report</title><style>{STYLE}</style></head>\n<body><main>\n"
        f'<h1>The same Django site on django-redis and on fleetcache</h1>\n<p class="under">{under}</p>\n'
        f'<div class="cards">\n{cards}</div>\n'
        "<footer>Everything here was measured in this run of <code>make demo</code>. "
        "On a machine with few cores, compare ratios and counts, not times.</footer>\n</main></body></html>\n"
    )


def card(place: int, outcome: Outcome) -> str:
    """Return what a scene found."""
    claims = "".join(f'<li class="{KINDS[claim.holds]}">{escape(claim.text)}</li>' for claim in outcome.claims)
    faults = "".join(f'<p class="fault">{escape(fault)}</p>' for fault in outcome.faults[:8])
    caption = f'<p class="caption">{escape(outcome.caption)}</p>\n' * bool(outcome.caption)
    notes = "".join(f"<p>{escape(note)}</p>" for note in outcome.notes)
    return (
        f'<article id="{outcome.scene}" class="{"wide" if outcome.scene in WIDE else "one"}">\n'
        f"<h2>{place}. {escape(outcome.question)}</h2>\n"
        f'<p class="figure"><span class="number">{escape(outcome.number)}</span>{escape(outcome.meaning)}</p>\n'
        f'<ul class="claims">{claims}</ul>{faults}\n{outcome.plot}\n{caption}'
        f"<details><summary>Figures, settings, how it was measured</summary>\n{_table(outcome.table)}\n"
        f"<pre>{escape(outcome.setup)}</pre>\n{notes}</details>\n</article>\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def write(text: str, path: Path = REPORT) -> Path:
    """Write the report; return where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
