"""The explorer as one file that opens from disk: the modules and the style of the page, and the points, in one text."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources

from overtone.reports.explorer import Point

_MODULES = ("dom.js", "chart.js", "explorer.js")
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_START = """
const data = JSON.parse(document.getElementById("data").textContent);
showExplorer(document.getElementById("explorer"), data);
"""
_HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '{script_hash}'; \
style-src '{style_hash}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Overtone: accuracy against cost</title>
<style>{style}</style>
<main>
<h2>Accuracy against cost</h2>
<section id="explorer"></section>
</main>
<script type="application/json" id="data">{data}</script>
<script type="module">{script}</script>
</html>
"""


def explorer_html(points: Sequence[Point]) -> str:
    """Return the page as one text that loads nothing, and may run nothing but its own script."""
    page = resources.files("overtone.serving") / "page"
    modules = "\n".join((page / name).read_text(encoding="utf-8") for name in _MODULES)
    script = _EXPORT.sub("", _IMPORT.sub("", modules)) + _START
    style = (page / "page.css").read_text(encoding="utf-8")
    # a name may hold "</script>"
    data = json.dumps(explorer_data(points)).replace("<", "\\u003c")
    return _HTML.format(script=script, style=style, data=data, script_hash=_hash(script), style_hash=_hash(style))


def explorer_data(points: Sequence[Point]) -> dict[str, object]:
    """Return what the explorer's module takes, as JSON values."""
    return {"points": [asdict(point) for point in points]}


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
