"""A page in a real browser: everything is drawn, switches and hovering work, nothing overflows, nothing goes wrong."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from paging import FAST, people

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium")

# Runs behind the page's own scripts; what it found stands in the document that the browser prints. Errors of the page itself are
# caught by a script in front of them.
BEFORE = """<script>
const faults = [];
window.addEventListener("error", (event) => faults.push(String(event.message)));
document.addEventListener("securitypolicyviolation", (event) => faults.push("asked for " + event.blockedURI));
console.error = (...words) => faults.push(words.join(" "));
</script>"""
BEHIND = """<script>{
const looked = {
  drawn: [...document.querySelectorAll("[data-chart]")].map((c) => [c.dataset.chart, c.querySelectorAll("svg *").length]),
  wide: document.documentElement.scrollWidth, room: document.documentElement.clientWidth,
  theme: [document.documentElement.dataset.theme || ""], paper: [getComputedStyle(document.body).backgroundColor],
};
const place = document.querySelector('[data-chart="loss"]');
const before = place.innerHTML;
const switches = [...document.querySelectorAll("button")].filter((b) => b.textContent === "log scale");
looked.switches = switches.length;
switches[0].click();
looked.switched = document.querySelector('[data-chart="loss"]').innerHTML !== before;
document.getElementById("theme").click();
looked.theme.push(document.documentElement.dataset.theme || "");
looked.paper.push(getComputedStyle(document.body).backgroundColor);
const drawn = document.querySelector('[data-chart="loss"] svg');
const box = drawn.getBoundingClientRect();
const at = { bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
const said = document.body.innerText;
for (const kind of ["pointerenter", "pointermove", "mousemove"]) drawn.dispatchEvent(new PointerEvent(kind, at));
looked.hovered = document.body.innerText !== said;
looked.faults = faults;
parent.postMessage(JSON.stringify(looked), "*");
}</script>"""
AROUND = """<!doctype html><script>
addEventListener("message", (event) => document.documentElement.dataset.looked = event.data);
</script><iframe src="asked.html" width="{width}" height="900" style="border: 0"></iframe>"""


def look(page, width, folder):
    """What the script above finds on a page that is so wide: in a frame, as no window of Chromium is narrower than 500 pixels."""
    text = Path(page).read_text(encoding="utf-8")
    assert text.count("<head>") == text.count("</body>") == 1
    text = text.replace("<head>", f"<head>{BEFORE}").replace("</body>", f"{BEHIND}</body>")
    Path(folder, "asked.html").write_text(text, encoding="utf-8")
    around = Path(folder, "around.html").resolve()
    around.write_text(AROUND.format(width=width), encoding="utf-8")
    printed = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={Path(folder, 'profile').resolve()}",
            f"--window-size={width + 100},1000", "--virtual-time-budget=2000", "--dump-dom", around.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    (found,) = re.findall(r'data-looked="([^"]*)"', printed)
    return json.loads(html.unescape(found))


@pytest.mark.parametrize(
    ("target", "options", "charts"),
    [
        (
            "tall",
            ["--health"],
            {"loss", "rate", "confusion", "roc", "calibration", "importance", "health-update_ratio"},
        ),
        ("weight", ["--folds", 2], {"loss", "predicted-0", "residuals-0", "errors-0", "importance"}),
    ],
)
def test_in_a_browser(run, tmp_path, target, options, charts):
    people().drop("weight" if target == "tall" else "tall").write_csv("people.csv")
    assert run("train", "people.csv", "--target", target, *FAST, *options, "--out", "r").code == 0
    for width in (360, 1400):
        found = look("r/report.html", width, tmp_path)
        drawn = dict(found["drawn"])
        assert charts <= set(drawn)
        assert min(drawn.values()) > 3
        assert found["wide"] <= found["room"] <= width
        assert found["switches"] >= 1
        assert found["switched"]
        assert found["hovered"]
        assert found["theme"][0] != found["theme"][1]
        assert found["paper"][0] != found["paper"][1]
        assert found["faults"] == []
