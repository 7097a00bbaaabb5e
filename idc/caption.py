"""python -m idc.caption BEFORE AFTER --checkpoint DIR: one pair of images -> one sentence."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

USER_ERROR = 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{message} (see python -m {self.prog} --help)\n")


def main(arguments: Sequence[str]) -> int:
    """The command line; 0, or 2 with one line on stderr where the user has to mend something."""
    parser = _Parser(prog="idc.caption", description="Says what differs between two images.")
    parser.add_argument("before", help="image file")
    parser.add_argument("after", help="image file")
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="run folder (runs/NAME) or its model/")
    parser.add_argument("--beam", type=int, help="sentences kept while searching (default: as the run was evaluated)")
    parser.add_argument("--json", action="store_true", help="print probability and alternatives too, as JSON")
    parser.add_argument("--heat-map", metavar="PNG", help="write both images, what the sentence is about lit up")
    parser.add_argument(
        "--backbone-weights", default="", metavar="FILE", help="weights of the backbone, if not default"
    )
    options = parser.parse_args(arguments)

    from idc.captioner import Captioner  # takes seconds: not for --help

    try:
        captioner = Captioner.load(options.checkpoint, backbone_weights=options.backbone_weights)
        caption = captioner.caption(options.before, options.after, options.beam)
        if options.heat_map:
            _save(captioner.heat_map(caption, options.before, options.after), Path(options.heat_map))
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return USER_ERROR
    if not options.json:
        print(caption.text)
        return 0
    content = {
        "caption": caption.text,
        "changed_probability": round(caption.changed_probability, 4),
        "alternatives": [
            {"caption": text, "log_probability": round(log_probability, 4)}
            for text, log_probability in caption.alternatives
        ],
    }
    print(json.dumps(content | ({"heat_map": options.heat_map} if options.heat_map else {}), ensure_ascii=False))
    return 0


def _save(image, path: Path) -> None:
    try:
        image.save(path, "PNG")
    except OSError as error:
        raise ValueError(f"--heat-map {path} cannot be written ({error.strerror})") from None


def run() -> NoReturn:
    """The console script `idc-caption`."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
