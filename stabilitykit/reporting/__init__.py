"""Parts of the HTML report that sections use: the run's data, HTML helpers and inline SVG charts.

A section is ``render(run: RunData) -> str | None``. Everything here escapes text; nothing here loads a file from
the network or needs JavaScript. Importing this imports neither torch nor jinja2.
"""

from stabilitykit.reporting.axes import Axis
from stabilitykit.reporting.charts import Curve, Dot, dot_chart, heat_map, interval_chart, line_chart
from stabilitykit.reporting.html import (
    cards,
    details,
    kind_badge,
    measurements,
    note,
    number,
    pair_heading,
    picture,
    strip,
    table,
    tag,
)
from stabilitykit.reporting.rundata import PairData, RunData

__all__ = [
    "Axis",
    "Curve",
    "Dot",
    "PairData",
    "RunData",
    "cards",
    "details",
    "dot_chart",
    "heat_map",
    "interval_chart",
    "kind_badge",
    "line_chart",
    "measurements",
    "note",
    "number",
    "pair_heading",
    "picture",
    "strip",
    "table",
    "tag",
]
