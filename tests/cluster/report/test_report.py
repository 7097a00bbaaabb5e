import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cluster.evaluation.calibrating import reliability
from cluster.evaluation.predict import write_predictions
from cluster.evaluation.scores import score, type_of, write_scores
from cluster.report.charts import line_chart, running_mean, skill_scale
from cluster.report.examples import COUNT, write_examples
from cluster.report.gallery import extremes, judge, verdict
from cluster.report.report import write_report
from cluster.report.tables import kind_name
from cluster.report.trust import confusion_table, familiarity_table, reliability_chart, reliability_note
from idc.backbone.canvas import Canvas
from idc.captioning.pair_lists import list_pairs
from shards.blocks.grammar import say
from shards.errors import DataError
from shards.reading.reader import Folder

CANVAS = Canvas((48, 64), (48, 64))
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Checks that tags are closed in order; collects text, links and images."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_startendtag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_data(self, data):
        self.text.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Path:
    """A run folder with predictions for the tiny test split: half of them true, the others not, one hostile."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    stream = Folder.open(tiny.shards).stream("pair", "test")
    predictions = []
    for i in range(len(stream)):
        record = stream.metadata(i)
        said = say(record["truth"]) if i % 2 else "there is no change"
        predictions.append(
            {"index": i, "key": stream.keys[i], "caption": said, "log_probability": -1.0, "changed_probability": 0.5,
             "references": record["captions"], "changed": record["changed"], "change_type": record["change_type"],
             "truth": record["truth"]}
        )  # fmt: skip
    predictions[0]["caption"] = "<script>alert(1)</script> & more"
    write_predictions(folder / "predictions.jsonl", predictions)
    scores = score(predictions, tokenizer="split", time_limit=0.0, checkpoint="checkpoints/finetune/step_00000010")
    write_scores(folder / "scores.json", scores)
    lines = [
        {"stage": "pretrain", "step": 1, "task": "classify", "loss": {"class": 2.0, "match": None}, "lr": 1e-3},
        {
            "stage": "finetune",
            "step": 5,
            "task": "finetune",
            "loss": {"caption": 1.5},
            "lr": 1e-3,
            "samples_per_s": 90.0,
        },
        {"stage": "finetune", "step": 10, "validation": {"CIDEr": 41.5, "METEOR": None}},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text("name: <tiny>\n")
    return folder


def test_one_file_that_needs_nothing_else(tiny, run):
    path = write_report(run, run, Folder.open(tiny.shards), CANVAS, "test")
    assert path == run / "report.html"
    reader = read(path)
    text = " ".join(reader.text)
    assert reader.sources and all(source.startswith("data:image/jpeg;base64,") for source in reader.sources)
    assert not re.search(r"https?://|@import|url\(", path.read_text())
    for expected in ("skill, all pairs", "oracle: the truth in fixed words", "validation CIDEr", "caption loss",
                     "classify · class loss", "change missed", "name: <tiny>", "Drawn at random"):  # fmt: skip
        assert expected in text
    assert "<script>alert" not in path.read_text()
    assert 'class="ring"' in path.read_text(), "the chosen checkpoint is marked"


def test_without_skill_the_first_figures_are_cider(tiny, run, tmp_path):
    """The truth in fixed words is known of few data sets: of others two dashes would come first."""
    own = shutil.copytree(run, tmp_path / "own")
    scores = json.loads((own / "scores.json").read_text())
    first = []
    for skill in (scores["skill"], {"total": None, "changed": None}):
        write_scores(own / "scores.json", scores | {"skill": skill})
        page = write_report(own, own, Folder.open(tiny.shards), CANVAS, "test").read_text()
        first.append(page.partition("<h2>Scores")[0])
    assert "skill, all pairs" in first[0] and "CIDEr, all pairs" not in first[0]
    assert "skill, all pairs" not in first[1] and "CIDEr, all pairs" in first[1]


def test_how_far_to_trust_it_is_drawn_of_what_is_known(tiny, run, tmp_path):
    """Of pairs whose sentences are all right, all false, or none: a confusion of kinds, and the diagram."""
    stream = Folder.open(tiny.shards).stream("pair", "test")
    records = [stream.metadata(i) for i in range(len(stream))]
    changed = next(record["truth"] for record in records if record["changed"])
    predictions = [
        {"index": i, "key": stream.keys[i], "caption": say(changed), "references": record["captions"],
         "changed": record["changed"], "change_type": record["change_type"], "truth": record["truth"],
         "changed_probability": 0.75 if i % 2 else 0.25, "unfamiliarity": 1.5 if record["changed"] else 0.5}
        for i, record in enumerate(records)
    ]  # fmt: skip
    shown = judge(predictions)
    rows = confusion_table(shown).split("<tr>")[2:]
    kinds = {record["change_type"] if record["changed"] else "none" for record in records}
    assert len(rows) == len(kinds) > 2
    right = [row for row in rows if 'class="cell right" style="--share:100%"' in row]
    assert len(right) == 1 and kind_name(changed["type"]) in right[0], "the one kind that is always said"
    wrong = [row for row in rows if 'class="cell wrong" style="--share:100%"' in row]
    assert len(wrong) == len(rows) - 1 and "·" in wrong[0]
    unread = judge([one | {"caption": "it is so"} for one in predictions])
    assert confusion_table(unread).count("no kind that can be read") + confusion_table(unread).count("no sentence") == 1

    calibration = reliability(predictions)
    chart = reliability_chart(calibration)
    ElementTree.fromstring(chart)
    assert chart.count('class="dot"') == 2 and "P(changed) 0.75" in chart and 'class="diagonal"' in chart
    assert f"{calibration['ece']:.3f}" in reliability_note(calibration)

    familiar, strange = familiarity_table(shown).split("<tr>")[2:]
    assert "<td>0</td>" in familiar and "<td>100</td>" in strange, "of the changed, which are all said to be changed"
    for drawn in (reliability_chart(reliability([])), confusion_table([]), familiarity_table([])):
        assert drawn == ""
    write_predictions(tmp_path / "predictions.jsonl", predictions)
    scores = score(predictions, tokenizer="split", time_limit=0.0) | {"calibration": calibration}
    write_scores(tmp_path / "scores.json", scores)
    text = " ".join(read(write_report(run, tmp_path, Folder.open(tiny.shards), CANVAS, "test")).text)
    for expected in ("What is taken for what", "How sure it may be", "Familiar and not", "Least like the training"):
        assert expected in text
    assert "unlike the training pairs" in text and "unfamiliarity 1.50" in text
    write_scores(tmp_path / "scores.json", score(predictions, tokenizer="split", time_limit=0.0))
    text = " ".join(read(write_report(run, tmp_path, Folder.open(tiny.shards), CANVAS, "test")).text)
    assert "How sure it may be" not in text, "scores of an earlier version have no calibration"


def test_another_data_set_without_truth_or_curves(tiny, run, tmp_path):
    results = tmp_path / "other"
    results.mkdir()
    keys = Folder.open(tiny.shards).stream("pair", "test").keys[:3]
    birds = [
        {"index": i, "key": key, "caption": "animal1 is bigger", "references": [f"animal2 has {i} longer wings"]}
        for i, key in enumerate(keys)
    ]
    write_predictions(results / "predictions.jsonl", birds)
    write_scores(results / "scores.json", score(birds, tokenizer="split", time_limit=0.0))
    (tmp_path / "run").mkdir()
    text = " ".join(read(write_report(tmp_path / "run", results, Folder.open(tiny.shards), CANVAS, "test")).text)
    assert "trained in the run run" in text and "No oracle" in text and "animal1 is bigger" in text


def test_accuracies_say_of_how_many_pairs_and_nothing_of_what_cannot_be_read(tiny, run, tmp_path):
    keys = Folder.open(tiny.shards).stream("pair", "test").keys[:3]
    known = {"references": ["the photo is brighter"], "changed": True, "change_type": "bright"}
    captions = ("the photo is brighter", "all is brighter", "")
    edits = [
        known | {"index": i, "key": key, "caption": caption}
        for i, (key, caption) in enumerate(zip(keys, captions, strict=True))
    ]
    write_predictions(tmp_path / "predictions.jsonl", edits)
    write_scores(tmp_path / "scores.json", score(edits, tokenizer="split", time_limit=0.0))
    reader = read(write_report(run, tmp_path, Folder.open(tiny.shards), CANVAS, "test"))
    text = " ".join(reader.text)
    assert "of 3 changed pairs: says that something changed" in text and "says nothing" in text
    table = (tmp_path / "report.html").read_text().split("By kind of change")[1].split("</table>")[0]
    assert table.count("cannot be read") == 2 and "67 %" in table


def test_missing_results_are_named(tiny, tmp_path):
    with pytest.raises(DataError, match="scores.json"):
        write_report(tmp_path, tmp_path, Folder.open(tiny.shards), CANVAS, "test")


CUBE = {"size": "large", "color": "red", "material": "metal", "shape": "cube"}


@pytest.mark.parametrize(
    "kind, caption, expected",
    [
        ("drop", "the red cube is gone", "right"),
        ("drop", "the blue cube is gone", "partly"),
        ("drop", "the red cube has been added", "wrong"),
        ("drop", "nothing has changed", "missed"),
        ("none", "nothing has changed", "right"),
        ("none", "the red cube is gone", "alarm"),
    ],
)
def test_verdicts(kind, caption, expected):
    truth = {"type": kind, "object": None if kind == "none" else CUBE, "to": None}
    pair = {"caption": caption, "references": [say(truth)], "changed": kind != "none", "truth": truth}
    assert verdict(pair) == expected
    assert verdict({"caption": caption, "references": ["a bird sings"]}) is None


def test_best_and_worst_are_of_their_type_and_not_the_same():
    pairs = []
    for i, said in enumerate(["the red cube is gone", "the cube", "a bird", "the red cube is gone now", "cube red"]):
        truth = {"type": "drop", "object": CUBE, "to": None}
        pairs.append({"key": str(i), "caption": said, "references": ["the red cube is gone", f"gone {i}"],
                      "changed": True, "change_type": "drop", "truth": truth})  # fmt: skip
    pairs.append({"key": "5", "caption": "x", "references": ["there is no change"], "changed": False, "truth": None})
    found = extremes(judge(pairs))
    assert list(found) == ["drop", "none"]
    best, worst = ([one.prediction["key"] for one in group] for group in found["drop"])
    assert best[0] == "0" and worst[0] == "2" and not set(best) & set(worst)


def test_charts_are_drawings_that_hold_their_points():
    points = [(float(step), 100 / step) for step in range(1, 2000)]
    svg = ElementTree.fromstring(line_chart("a < b", points, smooth=True, mark=10.0))
    _, _, width, height = map(float, svg.get("viewBox").split())
    for line in svg.iter("polyline"):
        places = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        assert 2 <= len(places) <= 402
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    assert line_chart("nothing", []) == ""
    assert ElementTree.fromstring(line_chart("one", [(5.0, 3.0)])) is not None
    assert running_mean([(0.0, 1.0)] * 30) == [(0.0, 1.0)] * 30
    scale = ElementTree.fromstring(
        skill_scale("CIDEr", 90.0, 210.0, [("model", 150.0, "model"), ("others", 20.0, "plain")])
    )
    marks = {circle.get("class"): float(circle.get("cx")) for circle in scale.iter("circle")}
    assert marks["mark model"] == pytest.approx((16 + 680 * 90 / 218.4 + 16 + 680 * 210 / 218.4) / 2, abs=0.2)


def test_examples_are_the_test_splits_own_files(tiny, run):
    stream = Folder.open(tiny.shards).stream("pair", "test")
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    for _ in range(2):  # in place of earlier ones
        folder = write_examples(run, predictions, stream)
    packed = []
    for i in range(len(stream)):
        images = {suffix.partition(".")[0]: data for suffix, data in stream.read(i).items()}
        packed.append((images["before"], images["after"]))
    listed = list_pairs(str(folder), None)
    assert len(listed) == min(COUNT, len(stream)) and not any(pair.fault for pair in listed)
    places = [packed.index((Path(pair.before).read_bytes(), Path(pair.after).read_bytes())) for pair in listed]
    kinds = [type_of(predictions[place]) for place in places]
    first = len(set(map(type_of, predictions)))
    assert len(set(kinds[:first])) == min(first, COUNT), "of each kind one, before a second of any"
