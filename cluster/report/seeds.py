"""seeds.html: mean and spread over training seeds, what they are of, and where each seed's own report is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from cluster.evaluation.seed_scores import differing_code, head, rows
from cluster.report.page import data_table, page
from cluster.report.tables import protocol_table

NOTE = (
    "Mean and standard deviation (n - 1) over training seeds: first weights, order of samples, masks and dropout "
    "differ, data and features are the same. How sure a figure is with these pairs is in each seed’s report."
)


def seeds_page(found: Mapping[str, Any], reports: Mapping[int, str]) -> str:
    """A whole HTML document. found: as of `cluster.evaluation.seed_scores.summarize`, and "name"; reports: links."""
    title = f"{found['name']}: {len(found['seeds'])} seeds"
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in rows(found)]
    links = ", ".join(f'<a href="{escape(place, quote=True)}">seed {seed}</a>' for seed, place in reports.items())
    code = differing_code(found)
    first = found["code"][str(found["seeds"][0])]
    body = (
        f"<h1>{escape(title)}</h1><p class='lead'>{found['n']['total']:,} pairs. Reports: {links}.</p>"
        f"<h2>Scores</h2><p class='note'>{NOTE}</p>"
        + data_table("".join(f"<th>{escape(cell)}</th>" for cell in head(found)), lines)
        + (f"<p class='note'>{escape(code)}</p>" if code else "")
        + f"<h2>Protocol</h2>{protocol_table({'protocol': {**found['protocol'], 'code': first}})}"
    )
    return page(title, body)
