"""python -m shards.check DIR...: what is wrong with packed data, on one page: DIR-check.html.

Faults are leaks (a picture in more than one split, within a folder or across folders), captions that contradict the
mark or one another, and equal pictures marked both ways. Notes are what may be meant so: copies within a split,
captions of one word, one caption for most pairs, rare types, classes without photos, pictures of strange sizes.
Exit code 1 if there is a fault, 0 if there is none, 2 for bad input. --all lists copies within a split and captions in
several splits. A sample's own images, before and after, never count against each other as copies.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from shards.checks.check_page import page
from shards.checks.findings import find, read, repeated
from shards.checks.leaks import audit, report
from shards.errors import DataError, Parser, run_main
from shards.format.whole_files import PARTIAL
from shards.reading.object_store import is_url
from shards.reading.reader import Folder


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = Parser(prog="shards.check", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="shard folders of images, or URLs of such")
    parser.add_argument("--all", action="store_true", help="list duplicates within a split and shared captions too")
    parser.add_argument(
        "--out", metavar="FILE", help="the page to write (default: DIR-check.html beside the first DIR)"
    )
    given = parser.parse_args(arguments)
    first = given.folders[0].rstrip("/")
    folder = Path(first.rpartition("/")[2]) if is_url(first) else Path(first).resolve()
    out = Path(given.out) if given.out else folder.with_name(folder.name + "-check.html")
    if out.is_dir() or not out.parent.is_dir():
        raise DataError(f"--out: {out} cannot be written: name a file in a folder that exists")
    found = audit(given.folders)
    for line in report(found, given.all):
        print(line)
    folders = [Folder.open(path) for path in given.folders]
    records = read(folders)
    findings = find(found, records)
    for finding in findings:
        print(f"{'fault' if finding.wrong else 'note'}: {finding.what}. {finding.advice}")
    text = page(folders, found, records, [*findings, *repeated(found)])
    partial = out.with_name(out.name + PARTIAL)
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
    print(f"{out}: {len(text) / 2**20:.1f} MiB")
    return 1 if any(finding.wrong for finding in findings) else 0


if __name__ == "__main__":
    run_main(main)
