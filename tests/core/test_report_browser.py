"""The report in a real browser: no errors on its console, every section there, nothing wider than the screen."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stabilitykit.reporting.page import write_report
from tests.core.report_runs import HOSTILE, make_run

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return found


def browse(chromium: str, page: Path, profile: Path, *flags: str) -> tuple[str, str]:
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def console(text: str) -> list[str]:
    return [line for line in text.splitlines() if "CONSOLE" in line]


def test_no_console_errors_and_all_sections(chromium: str, tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run", classes=HOSTILE, models=("<script>alert(3)</script>", "resnet50")))
    dom, errors = browse(chromium, page, tmp_path / "profile", "--dump-dom")
    assert console(errors) == []
    sections = re.findall(r'<section id="([^"]+)"', dom)
    assert {
        "most-confusable",
        "summary",
        "failures",
        "depth",
        "figures-2-3",
        "class-pairs",
        "table-3",
        "provenance",
    } <= set(sections)
    assert dom.lower().count("<script") == 1


def test_fits_a_phone(chromium: str, tmp_path: Path) -> None:
    """Measured inside a frame of 390 pixels: headless windows do not get that narrow."""
    page = write_report(make_run(tmp_path / "run", models=("resnet18", "resnet50:stem=patch,grouping=all")))
    # The copy carries a measuring script, so it drops the page's own ban on scripts.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    measure = "<script>parent.postMessage('WIDTH' + document.documentElement.scrollWidth, '*')</script>"
    (tmp_path / "inner.html").write_text(text.replace("</body>", measure + "</body>"), encoding="utf-8")
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<body><script>onmessage=e=>{document.body.append(e.data)}</script>"
        "<iframe src='inner.html' width='390' height='800' style='border:0'></iframe></body>"
    )
    dom, _ = browse(chromium, outer, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=4000")
    (width,) = re.findall(r"WIDTH(\d+)", dom)
    assert int(width) <= 390


@pytest.mark.parametrize("dark", [False, True])
def test_screenshot_follows_light_and_dark(chromium: str, tmp_path: Path, dark: bool) -> None:
    import numpy as np
    from PIL import Image

    page = write_report(make_run(tmp_path / "run"))
    shot = tmp_path / "shot.png"
    mode = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    browse(chromium, page, tmp_path / "profile", f"--screenshot={shot}", "--window-size=1200,1600", *mode)
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=float)
    assert pixels.shape == (1600, 1200)
    background = np.median(pixels)
    assert background < 60 if dark else background > 240
    assert pixels.std() > 10  # something is drawn on it


def with_script(page: Path, script: str) -> Path:
    """A copy of the page that runs ``script`` when it has loaded, without the ban on scripts of others."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    copy = page.with_name("scripted.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return copy


def told(dom: str) -> object:
    """What a script left as JSON in ``document.documentElement.dataset.told``."""
    found = re.search(r'data-told="([^"]*)"', dom)
    assert found, dom[-500:]
    return json.loads(html.unescape(found.group(1)))


def test_tables_are_sorted_by_number_and_filtered_by_words(chromium: str, tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run"))
    script = """
      const table = [...document.querySelectorAll("table")].find((t) => t.tBodies[0].rows.length > 20
        && [...t.tHead.rows[0].cells].some((c) => c.textContent === "distance"));
      for (let part = table.parentElement; part; part = part.parentElement) if (part.open === false) part.open = true;
      const heads = [...table.tHead.rows[0].cells];
      const at = heads.findIndex((c) => c.textContent === "distance");
      const column = () => [...table.tBodies[0].rows].map((r) => r.cells[at].textContent);
      heads[at].querySelector("button").click();
      const up = column();
      heads[at].querySelector("button").click();
      const down = column();
      const input = table.parentElement.querySelector("input[type=search]");
      input.value = table.tBodies[0].rows[3].cells[at].textContent;
      input.dispatchEvent(new Event("input"));
      const left = [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[at].textContent);
      document.documentElement.dataset.told = JSON.stringify(
        { up, down, left, wanted: input.value, aria: heads[at].getAttribute("aria-sort") });
    """
    dom, errors = browse(chromium, with_script(page, script), tmp_path / "profile", "--dump-dom")
    assert console(errors) == []
    found = told(dom)
    values = [float(text.replace("\u2212", "-")) for text in found["up"]]
    assert values == sorted(values) and len(set(values)) > 10
    assert [float(t.replace("\u2212", "-")) for t in found["down"]] == sorted(values, reverse=True)
    assert found["wanted"] in found["left"] and len(found["left"]) < len(values) and found["aria"] == "descending"


@pytest.mark.parametrize("classes,dark", [(10, False), (10, True), (100, False)])
def test_accessible(chromium: str, tmp_path: Path, classes: int, dark: bool) -> None:
    """axe-core, all its rules of WCAG 2 A and AA, everything folded opened."""
    found = importlib.util.find_spec("axe_core_python")
    if found is None or found.origin is None:
        pytest.skip("no axe-core here; pip install -e .[browser]")
    axe = (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    names = tuple(f"class {k}" for k in range(classes))
    page = write_report(make_run(tmp_path / "run", classes=names, models=("resnet18", "resnet50")))
    script = (
        axe
        + """
      for (const part of document.querySelectorAll("details")) part.open = true;
      const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];
      axe.run({ runOnly: { type: "tag", values: tags } }).then((r) => {
        document.documentElement.dataset.told = JSON.stringify({
          passes: r.passes.length,
          violations: r.violations.map((v) => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200)]),
        });
      });
    """
    )
    mode = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    dom, _ = browse(
        chromium, with_script(page, script), tmp_path / "profile", "--dump-dom", "--virtual-time-budget=60000", *mode
    )
    result = told(dom)
    assert result["violations"] == [] and result["passes"] > 10
