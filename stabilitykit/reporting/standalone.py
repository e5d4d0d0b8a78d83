"""The colours of charts, and a chart as a file of its own that follows light and dark mode too."""

from __future__ import annotations

from markupsafe import Markup

LIGHT = ("#2563c9", "#cf4a12", "#14805a", "#9a35b0", "#9a7400", "#0b7f97", "#c01f59", "#5f656e", "#7a5230", "#5546d8")
DARK = ("#7db0ff", "#ff9a6e", "#55d6a1", "#da98f4", "#e6c252", "#5fd3ea", "#ff85b0", "#b0b7c1", "#d6a884", "#aea3ff")

CHART_CSS = """
.chart{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
.chart text{fill:var(--ink)}
.chart .soft{fill:var(--muted)}
.chart .small{font-size:11px}
.chart .grid{stroke:var(--line);stroke-width:1;fill:none}
.chart .axis{stroke:var(--muted);stroke-width:1;fill:none}
.chart .curve{fill:none;stroke-width:2.2;stroke-linejoin:round}
.chart .area{stroke:none;opacity:.16}
.chart .l1{stroke-dasharray:12 3}
.chart .l2{stroke-dasharray:2.5 3}
.chart .l3{stroke-dasharray:12 3 2.5 3}
.chart .l4{stroke-dasharray:7 2 2 2 2 2}
.chart .dashed{stroke-dasharray:5 5;stroke-width:1.5}
.chart .heat{fill:var(--heat)}
.chart .empty{fill:var(--line);opacity:.45}
""" + "".join(f".chart .s{i}{{stroke:var(--c{i})}}.chart .f{i}{{fill:var(--c{i})}}\n" for i in range(len(LIGHT)))


def _variables(colours: tuple[str, ...], ink: str, muted: str, line: str, heat: str, paper: str) -> str:
    named = "".join(f"--c{i}:{c};" for i, c in enumerate(colours))
    return f"{named}--ink:{ink};--muted:{muted};--line:{line};--heat:{heat};--paper:{paper};"


LIGHT_VARIABLES = _variables(LIGHT, "#1c2127", "#5b636d", "#dde1e6", "#d9601a", "#ffffff")
DARK_VARIABLES = _variables(DARK, "#e8eaed", "#a5adb8", "#363d47", "#ff8a3d", "#15181d")


def standalone(svg: Markup) -> str:
    """An ``<svg>`` of this package as the text of an .svg file: XML header, colours and background inside."""
    style = (
        f"<style>svg{{{LIGHT_VARIABLES}background:var(--paper)}}"
        f"@media (prefers-color-scheme:dark){{svg{{{DARK_VARIABLES}}}}}{CHART_CSS}</style>"
    )
    text = str(svg)
    if not text.startswith("<svg "):
        return text
    head, _, rest = text.partition(">")
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}>{style}{rest}\n'
