"""python -m idc.caption BEFORE AFTER --checkpoint DIR: says what differs; of one pair, of folders or of a table."""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from idc.captioning.pair_lists import Listed, list_pairs

if TYPE_CHECKING:
    from idc.captioner import Caption, Captioner

SOME_LOST, USER_ERROR, INTERRUPTED = 1, 2, 130
LINE_EVERY = 15.0  # seconds between lines of progress where stderr is no terminal
FIELDS = ("before", "after", "caption", "changed_probability", "unfamiliarity", "familiar", "error")
Told = Callable[[Listed, "Caption | None", str], None]


class Parser(argparse.ArgumentParser):
    """Mistakes in options take one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{message} (see python -m {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(
        prog="idc.caption",
        description="Says what differs between two images.",
        epilog="Exit code: 0, all pairs have a caption; 1, some have none, each named; 2, nothing was done.",
    )
    parser.add_argument("before", help="image or folder; alone: a folder with before/ and after/, or a table")
    parser.add_argument("after", nargs="?", help="image or folder; images of folders are paired by name")
    add_model_options(parser)
    parser.add_argument("--beam", type=int, help="sentences kept while searching (default: as the run was evaluated)")
    parser.add_argument("--json", action="store_true", help="print all that is known, a JSON line a pair")
    parser.add_argument("--csv", metavar="FILE", help="write a table of the captions")
    parser.add_argument("--html", metavar="FILE", help="write a page with images, captions and maps")
    parser.add_argument("--heat-map", metavar="PNG", help="of one pair: both images, what the sentence is about lit up")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pairs at once (default: %(default)s)")
    parser.add_argument("--urls", action="store_true", help="images may be http and https addresses")
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and where it runs."""
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="run folder (runs/NAME) or its model/")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--backbone-weights", default="", metavar="FILE", help="weights of the backbone, if not default"
    )


def main(arguments: Sequence[str]) -> int:
    """The command line; its exit code, with one line on stderr for each thing that the user has to mend."""
    options = make_parser().parse_args(arguments)
    try:
        pairs = list_pairs(options.before, options.after)
        if options.heat_map and len(pairs) > 1:
            raise ValueError("--heat-map is of one pair; --html draws the maps of many")
        if options.batch_size < 1:
            raise ValueError(f"--batch-size is {options.batch_size}; it must be at least 1")
        from idc.captioner import Captioner  # takes seconds: not for --help

        captioner = Captioner.load(
            options.checkpoint, options.device, backbone_weights=options.backbone_weights, urls=options.urls
        )
        return _caption(captioner, pairs, options)
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted: captions that were printed are whole, files were not written", file=sys.stderr)
        return INTERRUPTED


def _caption(captioner: Captioner, pairs: list[Listed], options: argparse.Namespace) -> int:
    lost = 0
    if len(pairs) > 1:
        gc.enable()  # see `run`
    with contextlib.ExitStack() as open_files:
        progress = open_files.enter_context(contextlib.closing(_Progress(len(pairs))))
        told: list[Told] = [_printer(len(pairs) > 1, options, progress)]
        if options.csv:
            told.append(_table(open_files.enter_context(_whole(Path(options.csv), "--csv"))))
        if options.html:
            told.append(_page(open_files.enter_context(_whole(Path(options.html), "--html")), captioner, open_files))
        for pair, caption, fault in _each(captioner, pairs, options, progress):
            lost += caption is None
            if caption is None and len(pairs) == 1:
                raise ValueError(fault)
            if caption is None:
                progress.print(f"{pair.place}: {fault}", sys.stderr)
            elif options.heat_map:
                _save(captioner.heat_map(caption, pair.before, pair.after), Path(options.heat_map))
            for tell in told:
                tell(pair, caption, fault)
        if lost == len(pairs):
            raise ValueError(f"none of the {lost} pairs has a caption, and no file was written")
    return SOME_LOST if lost else 0


def _each(
    captioner: Captioner, pairs: list[Listed], options: argparse.Namespace, progress: _Progress
) -> Iterator[tuple[Listed, Caption | None, str]]:
    """Every pair with its caption, or None and why. One image that cannot be used costs its batch a second try."""
    from idc.captioner import ImageError

    maps = bool(options.html or options.heat_map)
    for start in range(0, len(pairs), options.batch_size):
        batch = pairs[start : start + options.batch_size]
        good = [pair for pair in batch if pair.fault is None]
        found: dict[int, tuple[Caption | None, str]] = {}
        for some in (good, *([pair] for pair in good)):
            if some and id(some[0]) not in found:
                try:
                    made = captioner.captions(
                        [(pair.before, pair.after) for pair in some], options.beam, None, maps, options.batch_size
                    )
                    found |= {id(pair): (caption, "") for pair, caption in zip(some, made, strict=True)}
                except ImageError as error:
                    if len(some) == 1:
                        found[id(some[0])] = None, str(error)
        for pair in batch:
            yield pair, *found.get(id(pair), (None, pair.fault or ""))
        progress.update(len(batch))


def _printer(many: bool, options: argparse.Namespace, progress: _Progress) -> Told:
    def tell(pair: Listed, caption: Caption | None, fault: str) -> None:
        names = {"before": pair.before, "after": pair.after} if many else {}
        if caption is None:
            if options.json and many:
                progress.print(json.dumps(names | {"error": fault}, ensure_ascii=False))
            return
        if not options.json:
            progress.print(f"{pair.before}\t{pair.after}\t{caption.text}" if many else caption.text)
            return
        content = names | {
            "caption": caption.text,
            "changed_probability": round(caption.changed_probability, 4),
            "unfamiliarity": None if caption.unfamiliarity is None else round(caption.unfamiliarity, 3),
            "familiar": caption.familiar,
            "alternatives": [
                {"caption": text, "log_probability": round(log_probability, 4)}
                for text, log_probability in caption.alternatives
            ],
        }
        progress.print(
            json.dumps(content | ({"heat_map": options.heat_map} if options.heat_map else {}), ensure_ascii=False)
        )

    return tell


def _table(file: IO[str]) -> Told:
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()

    def tell(pair: Listed, caption: Caption | None, fault: str) -> None:
        row: dict[str, Any] = {"before": pair.before, "after": pair.after, "error": fault}
        if caption is not None:
            row |= {"caption": caption.text, "changed_probability": round(caption.changed_probability, 4),
                    "unfamiliarity": caption.unfamiliarity, "familiar": caption.familiar}  # fmt: skip
        writer.writerow(row)

    return tell


def _page(file: IO[str], captioner: Captioner, at_end: contextlib.ExitStack) -> Told:
    from idc.captioning import sheet

    file.write(sheet.HEAD)

    def tell(pair: Listed, caption: Caption | None, fault: str) -> None:
        if caption is None:
            file.write(sheet.fault_card(pair.before, pair.after, fault))
        else:
            drawn = captioner.heat_map(caption, pair.before, pair.after)
            file.write(sheet.card(pair.before, pair.after, caption, drawn))

    at_end.callback(file.write, sheet.TAIL)
    return tell


@contextlib.contextmanager
def _whole(path: Path, option: str) -> Iterator[IO[str]]:
    """A file that is there when all of it is."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)


class _Progress:
    """How many pairs are done, on stderr: one line that changes in a terminal, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._started = self._printed = time.monotonic()
        self._bar = None
        if total > 1 and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="pair")

    def print(self, text: str, out: IO[str] | None = None) -> None:
        """A line of the command's own, above the one that changes; out: stdout if it is not said."""
        if self._bar is None:
            print(text, file=out or sys.stdout)
        else:
            self._bar.write(text, file=out or sys.stdout)

    def update(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(count)
        elif self._total > 1 and now - self._printed >= LINE_EVERY:
            self._printed = now
            left = (now - self._started) / self._done * (self._total - self._done)
            print(f"{self._done} of {self._total} pairs, {left:.0f} s left", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the line as it is."""
        if self._bar is not None:
            self._bar.close()


def _save(image: Any, path: Path) -> None:
    try:
        image.save(path, "PNG")
    except OSError as error:
        raise ValueError(f"--heat-map {path} cannot be written ({error.strerror})") from None


def run() -> NoReturn:
    """The console script `idc-caption`."""
    # One pair, then the process ends: looking for garbage, in what imports make, would take a third of its time.
    gc.disable()
    code = main(sys.argv[1:])
    gc.freeze()  # nor at the end
    sys.exit(code)


if __name__ == "__main__":
    run()
