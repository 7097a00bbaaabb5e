"""The page as a person uses it, in a browser; and its server as others may try to use it."""

import asyncio
import io
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import numpy as np
import pytest
from aiohttp.test_utils import TestServer
from PIL import Image
from testing.machines.browser import opened
from testing.machines.requests import ask, form
from testing.models.untrained import untrained_run

from idc import Captioner, demo
from idc.captioning.results import Caption
from idc.web.answers import familiarity, line
from idc.web.server import make_app
from idc.web.uploads import Limits

pytestmark = pytest.mark.slow  # the server loads a model, the browser starts

WAIT_S = 120
TRAVERSALS = (
    "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/examples/..%2f..%2fconfig.json", "/examples/1/../../x",
    "/page.js/../server.py", "//etc/passwd", "/examples/-1", "/examples/1e1", "/model/config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder: the calibrated model of an untrained network over a real backbone, and two examples."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    untrained_run(folder, limit=0.6)
    for side, colour in (("before", (200, 30, 30)), ("after", (20, 60, 220))):
        (folder / "examples" / side).mkdir(parents=True)
        for name, left in (("1", 10), ("2", 60)):
            image = Image.new("RGB", (128, 96), (120, 120, 120))
            image.paste(colour, (left, 20, left + 40, 60))
            image.save(folder / "examples" / side / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def captioner(run):
    return Captioner.load(run)


@pytest.fixture(scope="module")
def pairs(run):
    """The files of both examples."""
    return [tuple(run / "examples" / side / f"{name}.png" for side in ("before", "after")) for name in "12"]


@pytest.fixture(scope="module")
def address(run):
    """The command, as it is started in a terminal and ended by Ctrl-C."""
    command = [sys.executable, "-m", "idc.demo", "--checkpoint", str(run), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("open http://127.0.0.1:"), server.communicate(timeout=WAIT_S)
        yield line.split()[1]
        server.send_signal(signal.SIGINT)
        said, faults = server.communicate(timeout=WAIT_S)
        assert (server.returncode, said, faults) == (0, "", f"loading {run}\n"), "Ctrl-C ends it without another word"
    finally:
        server.kill()
        server.wait(WAIT_S)


def test_what_a_person_does(address, captioner, pairs, tmp_path):
    (before, after), example = pairs
    large = tmp_path / "large.png"
    with open(large, "wb") as file:
        file.truncate(16 * 2**20 + 1)
    (tmp_path / "notes.png").write_text("no image")

    def words(caption):
        return caption.text or "(no words)"  # untrained models may say nothing

    async def answered(page, button):
        await page.value("document.querySelector('#changed').textContent = ''")
        await page.click(button)
        await page.until("document.querySelector('#changed').textContent !== ''")

    async def use():
        async with opened(address) as page:
            await page.window(1200, 900)
            await page.until("document.querySelectorAll('#examples button').length === 2")
            assert "tiny" in await page.text("#model") and "16 MiB" in await page.text("#limits")
            await page.click("#form .main")
            assert await page.text("#fault") == "Choose the image before first."

            await page.choose("#before", before)
            await page.choose("#after", after)
            await answered(page, "#form .main")
            found = captioner.caption(before, after, maps=True)
            assert await page.text("#sentence") == words(found)
            said = await page.value(
                "[...document.querySelectorAll('#alternatives li')].map(e => e.children[0].innerText)"
            )
            assert said == [one.text for one in found.alternatives]
            assert await page.text("#changed") == f"{100 * found.changed_probability:.1f} %"
            assert await page.text("#unfamiliarity") == f"{found.unfamiliarity:.2f}"
            assert await page.text("#familiarity") == familiarity(found)

            assert await page.value("document.querySelector('#map').checked") == (found.changed_probability >= 0.5)
            box = await page.box(".frame")
            y, at = box["top"] + box["height"] / 2, "Number(document.querySelector('#divide').value)"
            await page.mouse("mousePressed", box["left"] + box["width"] / 2, y)
            await page.mouse("mouseMoved", box["left"] + box["width"] * 0.2, y)
            await page.mouse("mouseReleased", box["left"] + box["width"] * 0.2, y, pressed=False)
            await page.until(f"Math.abs({at} - 20) <= 1")
            start = await page.value(at)
            await page.press("ArrowRight")
            await page.until(f"{at} === {start + 1}")
            line = await page.box(".line")
            assert line["left"] - box["left"] == pytest.approx(box["width"] * (start + 1) / 100, abs=2)
            clipped = await page.value("getComputedStyle(document.querySelector('.side.after')).clipPath")
            assert f"{start + 1}%" in clipped
            visible = "document.querySelector('.side.after .image + .map').checkVisibility({visibilityProperty: true})"
            assert await page.value(visible) == (found.changed_probability >= 0.5)
            await page.click("#map")
            assert await page.value(visible) == (found.changed_probability < 0.5)

            await page.click("#swap")
            await answered(page, "#form .main")
            turned = captioner.caption(after, before)
            assert await page.text("#sentence") == words(turned)
            assert await page.text("#unfamiliarity") == f"{turned.unfamiliarity:.2f}"

            await answered(page, "#examples li:nth-child(2) button")
            other = captioner.caption(*example)
            assert await page.text("#sentence") == words(other)
            assert await page.text("#unfamiliarity") == f"{other.unfamiliarity:.2f}"

            await page.choose("#before", large)
            await page.until("document.querySelector('#fault').innerText !== ''")
            assert await page.text("#fault") == "large.png is too large: a file may have 16 MiB."
            await page.drop(".drop[data-role=before]", tmp_path / "notes.png", after)
            await page.click("#form .main")
            await page.until("document.querySelector('#fault').innerText.startsWith('the image before cannot be read')")
            assert await page.text("#sentence") == words(other), "what was there stays"

            await _suits_everybody(page)
            assert page.faults == [] and len(page.requests) > 5
            strangers = [one for one in page.requests if not one.startswith((address, "data:", f"blob:{address}"))]
            assert strangers == [], "nothing but this server is asked for anything"

    asyncio.run(use())


async def _suits_everybody(page):
    """Names for a screen reader, colours for the night, the width of a phone."""
    await page.call("Accessibility.enable")
    tree = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    names = {
        (node["role"]["value"], node["name"]["value"])
        for node in tree
        if node["role"]["value"] in ("button", "slider", "checkbox", "heading", "image")
    }
    assert len(names) >= 10 and all(name for _, name in names), names
    assert {"Say what changed", "Example 1: 1"} <= {name for role, name in names if role == "button"}
    colours = []
    for dark in (False, True):
        await page.window(360, 740, phone=True, dark=dark)
        assert await page.value("document.documentElement.scrollWidth") <= 360
        colours.append(await page.value("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"))
    light, dark = map(sum, colours)
    assert light > 3 * 200 and dark < 3 * 60


def png(width, height):
    """The start of a PNG that claims so many pixels."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_what_nobody_should_send_is_refused_in_one_line(address, pairs):
    images = {"before": pairs[0][0].read_bytes(), "after": pairs[0][1].read_bytes()}
    body, headers = form(**images)
    port = address.rstrip("/").rpartition(":")[2]

    def refused(status, message, path="/caption", body=body, **more):
        found, said = ask(address, path, body, **(headers | more))
        assert found == status and message in said["error"] and "\n" not in said["error"], (found, said)

    assert ask(address, "/caption", body, **headers)[0] == 200
    assert ask(address, "/caption", body, Host=f"localhost:{port}", **headers)[0] == 200
    assert ask(address, "/caption", body, Origin=address.rstrip("/"), **headers)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "", "[", "192.168.1.1"):
        refused(403, "its own machine", Host=host)
    for origin in ("http://evil.example", "null", f"http://localhost:{port}", f"https://127.0.0.1:{port}"):
        refused(403, "another site", Origin=origin)
    refused(415, "send a form", Content_Type="application/json")
    refused(400, "damaged", body=b"no form at all")
    refused(400, "damaged", Content_Type="multipart/form-data")
    refused(400, "after is missing", body=form(before=images["before"])[0])
    refused(400, "nothing else", body=form(before=b"", path=b"/etc/passwd")[0])
    refused(422, "the image after cannot be read: neither JPEG", body=form(before=images["before"], after=b"text")[0])
    for side, message in ((9000, "9000 x 9000 pixels, and at most 64 megapixels"), (60000, "more than 64 megapixels")):
        refused(422, message, body=form(before=png(side, side), after=images["after"])[0])
    refused(413, "before is too large", body=form(before=bytes(16 * 2**20 + 1), after=b"")[0])
    assert ask(address, "/caption", b"", Content_Length=str(2**40), **headers)[0] == 413, "before a byte is read"
    refused(404, "no such example", path="/examples/2", body=b"")
    for path in TRAVERSALS:
        for method in ("GET", "POST"):
            status, said = ask(address, path, method=method)
            assert status in (404, 405) and b"root:" not in said, path


def test_answers_let_nothing_else_in(address):
    with urllib.request.urlopen(address, timeout=WAIT_S) as answer:
        policy = answer.headers["Content-Security-Policy"]
        page = answer.read().decode()
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy
    assert "http://" not in page and "https://" not in page


def test_many_at_once_find_what_one_finds(address, captioner, pairs):
    orders = [pair for one in pairs for pair in (one, one[::-1])]
    alone = [captioner.caption(*pair) for pair in orders]

    def of(pair):
        body, headers = form(before=pair[0].read_bytes(), after=pair[1].read_bytes())
        return ask(address, "/caption", body, **headers)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(of, orders * 2))
    assert [status for status, _ in found] == [200] * 8
    for (_, one), caption in zip(found, alone * 2, strict=True):
        assert one["sentence"] == caption.text
        assert one["changed_probability"] == pytest.approx(caption.changed_probability, abs=1e-6)
        assert [each["text"] for each in one["alternatives"]] == [each.text for each in caption.alternatives]


def test_who_sends_slowly_keeps_nobody_out_for_ever(captioner, pairs):
    body, headers = form(before=pairs[0][0].read_bytes(), after=pairs[0][1].read_bytes())

    async def use():
        server = TestServer(make_app(captioner, "tiny", limits=Limits(waiting=2, seconds=1.0)))
        await server.start_server()
        kind = {"Content-Type": headers["Content_Type"]}
        address = str(server.make_url("/caption"))

        async def slowly():
            yield body[:100]
            await asyncio.sleep(3)

        async with aiohttp.ClientSession() as session:
            started = time.monotonic()
            slow = [asyncio.create_task(session.post(address, data=slowly(), headers=kind)) for _ in range(2)]
            await asyncio.sleep(0.3)
            async with session.post(address, data=body, headers=kind) as answer:
                said = (await answer.json())["error"]
                assert (answer.status, said) == (503, "2 pairs are waiting already: try again in a moment")
            for one in slow:
                answer = await one
                assert answer.status == 503 and "no answer within 1 s" in (await answer.json())["error"]
            assert 0.9 < time.monotonic() - started < 2.9
            async with session.post(address, data=body, headers=kind) as answer:
                assert answer.status == 200, "and their places are free again"
        await server.close()

    asyncio.run(use())


def test_the_line_begins_where_most_is_seen():
    """`before` is seen left of it, `after` right of it."""
    empty = np.zeros((10, 50), np.float32)

    def at(left, right, strength=1.0):
        where = empty.copy()
        where[4:6, left:right] = strength
        return where

    assert line(empty, empty) == 50
    assert line(at(30, 35), empty) == 78 and line(empty, at(15, 20)) == 22, "and what it is about is not cut"
    assert line(at(5, 10), at(40, 45)) == 50, "all is seen"
    assert line(at(40, 45, 0.1), at(5, 10)) <= 10, "the stronger one"
    assert line(at(45, 50), empty) == 97 and line(empty, at(0, 5)) == 3, "a part of either image stays"


def test_the_familiar_is_told_in_words():
    def words(unfamiliarity):
        return familiarity(Caption("nothing", 0.5, (), None, unfamiliarity))

    assert words(0.3).startswith("Like") and words(1.7).startswith("Unlike") and words(None).startswith("Not known")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint", "nothing"], "nothing: no such folder"),
        (["--checkpoint", "RUN", "--port", "TAKEN"], "cannot be used (another program has it)"),
        (["--checkpoint", "RUN", "--port", "70000"], "--port is 70000; it must be from 0 to 65535"),
        (["--checkpoint", "RUN", "--port", "0", "--examples", "nothing"], "nothing: give"),
        (["--checkpoint", "RUN", "--port", "0", "--examples", "BAD"], "none of its pairs can be read"),
        (["--checkpoint", "RUN", "--host", "0.0.0.0"], "--host"),
    ],
)
def test_what_cannot_be_served_is_named_in_one_line(run, tmp_path, capsys, words, message):
    (tmp_path / "bad.csv").write_text("before,after\nx.png,y.png\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        means = {"RUN": run, "TAKEN": taken.getsockname()[1], "BAD": tmp_path / "bad.csv"}
        try:
            code = demo.main([str(means.get(word, word)) for word in words])
        except SystemExit as ended:
            code = ended.code
    written = capsys.readouterr()
    assert code == 2 and written.out == "" and message in written.err.splitlines()[-1]
    told = [line for line in written.err.splitlines() if not line.startswith(("loading ", "example "))]
    assert len(told) == 1 and "Traceback" not in written.err
