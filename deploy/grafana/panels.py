"""Panels and rows of a dashboard, and what Grafana wants of them as JSON.

Rule: places and ids follow from the order; nothing here knows which panels there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

COLUMNS = 24
ROW_HEIGHT = 1
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RED, ORANGE, GREEN, BLUE = "red", "orange", "green", "blue"


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` are (legend, expression); `steps` are the colours from a value on."""

    title: str
    description: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    stack: bool = False
    maximum: float | None = None
    steps: Sequence[tuple[float | None, str]] = ((None, GREEN),)


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel] = field(default_factory=tuple)


def rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"


def stat(title: str, description: str, expression: str, steps: Sequence[tuple[float | None, str]], unit: str = "short") -> Panel:
    return Panel(title, description, [("", expression)], unit, kind="stat", width=4, height=4, steps=steps)


def counted(title: str, description: str, metric: str, by: str, stack: bool = False) -> Panel:
    return Panel(title, description, [(f"{{{{{by}}}}}", rate(metric, by))], unit="ops", stack=stack)


def percentiles(title: str, description: str, metric: str) -> Panel:
    return Panel(title, description, [("p50", quantile(0.5, metric)), ("p95", quantile(0.95, metric))], unit="s")


def panel_json(panel: Panel, id: int, x: int, y: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in panel.steps]},
    }
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 15 if panel.stack else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if len(panel.steps) > 1 else "off"},
        }
        options: dict[str, Any] = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        options = {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    return {
        "id": id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend or "__auto", "datasource": DATASOURCE}
            for index, (legend, expression) in enumerate(panel.queries)
        ],
    }


def row_json(row: Row, id: int, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": COLUMNS, "h": ROW_HEIGHT}
    return {"id": id, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}


def panels_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every row with its panels below it, from left to right, a new line where the next would not fit."""
    made: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        made.append(row_json(row, len(made) + 1, y))
        x, y, line = 0, y + ROW_HEIGHT, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, line = 0, y + line, 0
            made.append(panel_json(panel, len(made) + 1, x, y))
            x, line = x + panel.width, max(line, panel.height)
        y += line
    return made


def variables() -> list[dict[str, Any]]:
    pool = {
        "name": "pool",
        "label": "Pool",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": "label_values(mesh_pool_slots, pool)",
        "query": {"query": "label_values(mesh_pool_slots, pool)", "refId": "pool"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    return [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}, pool]


def dashboard(uid: str, title: str, description: str, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["mesh"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "",
        "templating": {"list": variables()},
        "annotations": {"list": []},
        "links": [],
        "panels": panels_json(rows),
    }
