"""python -m shards.check DIR...: what is wrong with packed data, on one page: DIR-check.html.

Faults are leaks (a picture in more than one split, within a folder or across folders), captions that contradict the
mark or one another, and equal pictures marked both ways. Notes are what may be meant so: copies within a split,
captions of one word, one caption for most pairs, rare types, classes without photos, pictures of strange sizes.
Exit code 1 if there is a fault, 0 if there is none, 2 for bad input. --all lists copies within a split and captions in
several splits. A sample's own images, before and after, never count against each other as copies.
"""

from __future__ import annotations

from collections.abc import Sequence

from shards.checks.check_page import page
from shards.checks.findings import find, read, repeated
from shards.checks.leaks import audit, report
from shards.checks.page_file import page_place, write_page
from shards.errors import Parser, run_main
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
    out = page_place(given.folders[0], given.out, "-check.html")
    found = audit(given.folders)
    for line in report(found, given.all):
        print(line)
    folders = [Folder.open(path) for path in given.folders]
    records = read(folders)
    findings = find(found, records)
    for finding in findings:
        print(f"{'fault' if finding.wrong else 'note'}: {finding.what}. {finding.advice}")
    text = page(folders, found, records, [*findings, *repeated(found)])
    write_page(out, text)
    return 1 if any(finding.wrong for finding in findings) else 0


if __name__ == "__main__":
    run_main(main)
