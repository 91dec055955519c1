"""docs/metrics.md, the dashboard and the alert rules name metrics and labels that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fleetcache.telemetry.metrics import METRICS
from fleetcache.telemetry.prometheus import LABELS, name_of

pytestmark = pytest.mark.newest

DOCS = Path(__file__).resolve().parents[2] / "docs"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
SERIES = {name_of(metric) + suffix: metric for metric in METRICS for suffix in SUFFIXES[metric.kind]}


def labels_of(metric):
    """Return the labels that the series of *metric* have in Prometheus."""
    return {"cache", "worker", *(LABELS.get(label, label) for label in metric.labels)} | (
        {"le"} if metric.kind == "histogram" else set()
    )


def dashboard():
    return json.loads((DOCS / "grafana" / "fleetcache.json").read_text())


def queries():
    return [(panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel["targets"]]


def rules():
    """Return the alert rules: each is a dict of its lines."""
    text = (DOCS / "grafana" / "alerts.yml").read_text()
    assert "\ngroups:\n  - name: fleetcache\n    rules:\n" in text
    found = []
    for part in text.split("      - alert: ")[1:]:
        name, _, rest = part.partition("\n")
        expression = re.search(r"        expr: (?:\|\n((?:          .*\n)+)|(.*)\n)", rest)
        severity = re.search(r"^        labels: \{severity: (critical|warning|info)\}$", rest, re.MULTILINE)
        summary = re.search(r'^          summary: "(.+)"$', rest, re.MULTILINE)
        assert expression and severity and summary, name
        found.append((name, expression[1] or expression[2], summary[1]))
    return found


def test_the_table_has_every_metric_with_its_sentence():
    """As the code has them, in this order."""
    rows = [line for line in (DOCS / "metrics.md").read_text().splitlines() if line.startswith("| `cache.")]

    expected = []
    for metric in METRICS:
        name = name_of(metric) + ("_total" if metric.kind == "counter" else "")
        labels = " ".join(f"`{label}`" for label in metric.labels) or "-"
        expected.append(
            f"| `{metric.name}` | `{name}` | {metric.meaning} | {labels} | {metric.kind}, `{metric.unit}` |"
        )
    assert rows == expected


def test_the_page_names_the_labels_of_prometheus():
    """Each label that has another name there."""
    text = (DOCS / "metrics.md").read_text().replace("\n", " ")

    assert [label for label, name in LABELS.items() if f"`{name}` (`{label}`)" not in text] == []


@pytest.mark.parametrize(
    ("where", "expression"),
    [*queries(), *((name, expression) for name, expression, _ in rules())],
)
def test_every_query_is_about_metrics_and_labels_that_exist(where, expression):
    """Names, the labels that choose, and those by which sums are made."""
    used = re.findall(r"fleetcache_\w+", expression)
    assert used
    assert [name for name in used if name not in SERIES] == []
    for name, chosen in re.findall(r"(fleetcache_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)(?:=~|!=|=)", chosen)) <= labels_of(SERIES[name])
    by = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
    assert by <= set.union(*(labels_of(SERIES[name]) for name in used))
    assert expression.count("(") == expression.count(")")
    assert re.sub(r"\[(\d+[mhd]|\$__rate_interval)\]", "", expression).count("[") == 0


def test_counters_are_read_as_rates():
    """The value of a counter itself means nothing: only how fast it grows, or its share of another sum since the start."""
    for _, expression in [*queries(), *((name, expression) for name, expression, _ in rules())]:
        if "/ (sum by (cache, group) (fleetcache_requests_total" in expression:
            assert "fleetcache_time_saved_seconds" in expression  # a mean
            continue
        for name in re.findall(r"(fleetcache_\w+(?:_total|_bucket))(?:\{[^}]*\})?(?!\w)(?!.{0,40}\[)", expression):
            pytest.fail(f"{name} without a range: {expression}")


def test_the_dashboard_can_be_imported():
    """It has what Grafana insists on: panels that do not overlap, each with its own id, and variables."""
    board = dashboard()

    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= board.keys()
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "cache"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 15
    cells = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert grid["x"] + grid["w"] <= 24
        assert not own & cells
        cells |= own
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"


def test_every_metric_of_weight_is_on_the_dashboard():
    """A metric that no panel shows has its reason here."""
    shown = {SERIES[name].name for _, expression in queries() for name in re.findall(r"fleetcache_\w+", expression)}
    apart = {
        "cache.loads",  # a panel shows how long they take together
        "cache.written",
        "cache.owed_tags",  # an alert tells of it
    }

    assert {metric.name for metric in METRICS} - shown == apart


def test_the_rules_say_what_happened():
    """Each has an expression, a severity and a summary, whose labels are those of the expression."""
    found = rules()

    assert len(found) == len({name for name, _, _ in found}) == 11
    for _, expression, summary in found:
        by = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
        assert set(re.findall(r"\$labels\.(\w+)", summary)) <= by
