"""How far to trust a model: which kinds of change it takes for which, whether P(changed) is what happens, and how well
it does on pairs that are unlike its training pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cluster.evaluation.scores import can_judge, change_of, claim_of, is_unread_reference, says
from cluster.report.charts import drawing, grid
from cluster.report.gallery import Shown
from cluster.report.page import data_table, number
from cluster.report.tables import kind_name

UNREAD, SILENT = "no kind that can be read", "no sentence"
NO_PAIRS = "there are no such pairs with references"
SIZE, LEFT, TOP, BOTTOM, RIGHT = 320, 46, 34, 46, 20


def confusion_table(shown: Sequence[Shown]) -> str:
    """Kinds of change down, what the sentences claim across; "" if no kind of change is known that can be read."""
    judged = [one for one in shown if one.kind == "none" or (one.kind and can_judge(one.prediction))]
    kinds = sorted({one.kind for one in judged if one.kind}, key=lambda kind: (kind == "none", kind))
    if not set(kinds) - {"none"}:
        return ""
    counts = Counter((one.kind, _claimed(one)) for one in judged)
    claimed = [*kinds, *sorted({said for _, said in counts} - {*kinds, UNREAD, SILENT})]
    claimed += [said for said in (UNREAD, SILENT) if any(column == said for _, column in counts)]
    rows = []
    for kind in kinds:
        of = sum(counts[kind, said] for said in claimed)
        cells = "".join(_cell(counts[kind, said], of, said == kind) for said in claimed)
        rows.append(f"<tr><td>{escape(kind_name(kind))}</td><td>{of}</td>{cells}</tr>")
    head = "".join(f"<th>{escape(kind_name(said))}</th>" for said in claimed)
    return data_table(f"<th>is</th><th>pairs</th>{head}", rows)


def _claimed(one: Shown) -> str:
    claims = says(one.prediction)
    if not claims:
        return SILENT if claims is None else "none"
    if one.kind and is_unread_reference(one.prediction):
        return one.kind
    claim = claim_of(one.prediction)
    return UNREAD if claim is None or claim.type == "none" else claim.type


def _cell(count: int, of: int, right: bool) -> str:
    if not count:
        return "<td>·</td>"
    share = round(100 * count / of)
    return f'<td><span class="cell {"right" if right else "wrong"}" style="--share:{share}%">{count}</span></td>'


def reliability_chart(calibration: Mapping[str, Any]) -> str:
    """Of pairs with about the same P(changed), how many have changed: on the diagonal if P is right; "" for no pairs.

    calibration: of scores.json (`cluster.evaluation.calibrating.reliability`). A dot's area goes by its pairs.
    """
    bins = [one for one in calibration.get("bins", ()) if one["n"]]
    if not bins:
        return ""

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (SIZE - LEFT - RIGHT) * x, SIZE - BOTTOM - (SIZE - TOP - BOTTOM) * y

    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    parts = [f'<text x="{LEFT}" y="15" class="chart-title">share that changed</text>']
    parts += grid({tick: place(0, tick)[1] for tick in ticks}, LEFT, SIZE - RIGHT)
    for tick in ticks:
        anchor = "end" if tick == 1 else "middle" if tick else ""
        parts.append(f'<text x="{place(tick, 0)[0]:.1f}" y="{SIZE - 26}" class="tick {anchor}">{tick:g}</text>')
    parts.append(f'<text x="{SIZE - RIGHT}" y="{SIZE - 6}" class="tick end">P(changed)</text>')
    (x0, y0), (x1, y1) = place(0, 0), place(1, 1)
    parts.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="diagonal"/>')
    points = [place(one["probability"], one["changed"]) for one in bins]
    most = max(one["n"] for one in bins)
    for one, (x, y) in zip(bins, points, strict=True):
        radius = 3 + 8 * (one["n"] / most) ** 0.5
        said = f"{one['n']} pairs: P(changed) {one['probability']:.2f}, {one['changed']:.0%} changed"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="dot"><title>{escape(said)}</title></circle>'
        )
    label = f"share that changed by P(changed), {len(bins)} bins of {calibration['n']} pairs"
    return drawing(SIZE, SIZE, label, "chart", parts)


def reliability_note(calibration: Mapping[str, Any]) -> str:
    """The same in words."""
    if calibration.get("ece") is None:
        return calibration.get("reasons", {}).get("ece", "")
    note = (
        "Pairs with about the same P(changed), and how many of them changed: on the diagonal, the model knows how sure "
        f"it may be. The mean distance from it (expected calibration error) is {calibration['ece']:.3f}, of "
        f"{calibration['n']:,} pairs. A dot's area goes by its pairs."
    )
    return note


def familiarity_table(shown: Sequence[Shown]) -> str:
    """Pairs like the training pairs and pairs unlike them, and how right the sentences on each are; "" if not known."""
    if all(one.unfamiliar is None for one in shown):
        return ""
    rows = []
    for name, far in (("like the training pairs", False), ("unlike them", True)):
        group = [one for one in shown if one.unfamiliar is far]
        scored = [one.cider for one in group if one.cider is not None]
        judged = [one for one in group if change_of(one.prediction) is not None]
        told = sum(says(one.prediction) == change_of(one.prediction) for one in judged)
        cells = (
            number(100 * told / len(judged) if judged else None, NO_PAIRS, 0),
            number(sum(scored) / len(scored) if scored else None, NO_PAIRS, 0),
        )
        rows.append(f"<tr><td>{name}</td><td>{len(group)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "<th>pairs that are</th><th>pairs</th><th>says rightly whether it changed, %</th><th>mean CIDEr</th>"
    return data_table(head, rows)
