"""A contact sheet of captioned pairs: one HTML file that loads nothing, for a desk and for a phone."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

from idc.captioning.results import Caption

WIDTH = 720  # pixels of the two images side by side
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Captions</title><style>
:root { color-scheme: light dark }
body { font: 16px/1.4 system-ui, sans-serif; margin: 0 auto; max-width: 1500px; padding: 1rem }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)) }
article { border: 1px solid #8886; border-radius: 8px; overflow: hidden }
img { display: block; width: 100%; height: auto }
p { margin: .5rem .75rem } .names, .facts { color: #777; font-size: .85rem; overflow-wrap: anywhere }
.far { color: #b5540a; font-weight: 600 } .fault { color: #c33 }
</style></head><body><h1>Captions</h1>
<p class="facts">Before, then after; what a sentence is about is red. P(changed) is the probability of a change.
Above an unfamiliarity of 1 a pair is unlike the training pairs.</p><main>
"""
TAIL = "</main></body></html>\n"


def card(before: str, after: str, caption: Caption, drawn: Image.Image) -> str:
    """A pair with its sentence; drawn: both images side by side, with the map."""
    drawn = drawn.copy()
    drawn.thumbnail((WIDTH, WIDTH))
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=80)
    image = base64.b64encode(buffer.getvalue()).decode()
    facts = f"P(changed) {caption.changed_probability:.2f}"
    far = ""
    if caption.unfamiliarity is not None:
        facts += f", unfamiliarity {caption.unfamiliarity:.2f}"
        far = "" if caption.familiar else '<p class="far">Unlike the training pairs: a guess</p>'
    return (
        f'<article><img loading="lazy" alt="before and after" src="data:image/jpeg;base64,{image}">'
        f"<p>{html.escape(caption.text)}</p>{far}"
        f'<p class="facts">{facts}</p><p class="names">{html.escape(before)} → {html.escape(after)}</p></article>\n'
    )


def fault_card(before: str, after: str, fault: str) -> str:
    """A pair that could not be captioned."""
    return (
        f'<article><p class="fault">{html.escape(fault)}</p>'
        f'<p class="names">{html.escape(before)} → {html.escape(after)}</p></article>\n'
    )
