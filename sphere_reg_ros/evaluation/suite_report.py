"""Writes what a suite leaves behind: tables, figures and a report that needs no other file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from sphere_reg_ros.evaluation.plots import write_plots
from sphere_reg_ros.evaluation.report import STYLE
from sphere_reg_ros.evaluation.rows import Row
from sphere_reg_ros.evaluation.tables import DEFINITIONS, HEADER, cells, latex, lines_of, markdown


def write_suite(rows: Sequence[Row], folder: Path, title: str) -> None:
    """``tables.md``, ``tables.tex``, ``plots/*.png`` and ``report.html`` of some rows."""
    lines = lines_of(rows)
    (folder / "tables.md").write_text(markdown(lines), encoding="utf-8")
    (folder / "tables.tex").write_text(latex(lines), encoding="utf-8")
    parts = [f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title><style>{STYLE}"]
    parts.append(f"img{{width:40rem}}</style><h1>{html.escape(title)}</h1>")
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(line)) + "</tr>" for line in lines)
    parts.append("<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in HEADER) + f"</tr>{body}</table><ul>")
    parts.append("".join(f"<li>{html.escape(text)}</li>" for text in DEFINITIONS) + "</ul>")
    for path in write_plots(rows, folder / "plots"):
        encoded = base64.b64encode(path.read_bytes()).decode()
        parts.append(f"<figure><img src='data:image/png;base64,{encoded}' alt='{path.stem}'></figure>")
    parts.append("<p>Research use only. Not a medical device.</p></html>")
    (folder / "report.html").write_text("\n".join(parts), encoding="utf-8")
