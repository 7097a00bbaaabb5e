"""python -m idc.demo --checkpoint DIR: a page on this machine; two images in, the sentence and its place out."""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from idc.caption import INTERRUPTED, USER_ERROR, Parser, add_model_options

ADDRESS, PORT = "127.0.0.1", 7860
END_S = 3.0  # for requests that are being answered when the server is told to end


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(
        prog="idc.demo",
        description="A page on this machine that says what differs between two images. Ctrl-C ends it.",
        epilog=f"It listens on {ADDRESS} alone. From elsewhere: ssh -L 7860:127.0.0.1:7860 HOST, then open it here.",
    )
    add_model_options(parser)
    parser.add_argument(
        "--examples", metavar="PATH",
        help="pairs to choose from: a folder with before/ and after/, or a table (default: examples/ of the run)",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=PORT, help="0 takes a free one (default: %(default)s)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line; its exit code, with one line on stderr for what the user has to mend."""
    options = make_parser().parse_args(arguments)
    try:
        if find_spec("aiohttp") is None:
            raise ValueError("idc.demo needs aiohttp: pip install 'image-difference-captioning[demo]'")
        with _listening(options.port) as listener:
            _serve(listener, options)
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:  # before there was a server, which ends by it
        return INTERRUPTED
    return 0


def _listening(port: int) -> socket.socket:
    """A socket on the loopback address, taken before the model is loaded. ValueError: the port cannot be had."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; it must be from 0 to 65535")
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        why = "another program has it" if error.errno == errno.EADDRINUSE else error.strerror
        raise ValueError(f"--port {port} cannot be used ({why}): give another one, or 0 for a free one") from None


def _serve(listener: socket.socket, options: argparse.Namespace) -> None:
    """Answers until Ctrl-C or SIGTERM."""
    print(f"loading {options.checkpoint}", file=sys.stderr, flush=True)
    from aiohttp import web  # takes seconds, as does torch: not for --help

    from idc.captioner import Captioner
    from idc.web.examples import load
    from idc.web.server import make_app

    folder = Path(options.checkpoint)
    run = folder.parent if folder.name == "model" else folder
    examples = load(options.examples, run)
    captioner = Captioner.load(options.checkpoint, options.device, backbone_weights=options.backbone_weights)
    app = make_app(captioner, run.resolve().name, examples)
    print(f"open http://{ADDRESS}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    web.run_app(
        app, sock=listener, print=None, access_log=None, shutdown_timeout=END_S, handler_cancellation=True
    )  # fmt: skip


def run() -> NoReturn:
    """The console script `idc-demo`."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
