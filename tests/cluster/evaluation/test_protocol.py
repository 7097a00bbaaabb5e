"""The protocol of scores.json: what it says of data, references, decoding and choice, and what tells code apart."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.evaluation.protocol import protocol, selection
from cluster.evaluation.scores import score
from cluster.launch.run_folder import code_state
from cluster.report.tables import interval_table, protocol_table
from idc.metrics.coco import CHARACTERS
from shards.reading.reader import Folder

ROOT = Path(__file__).resolve().parents[3]
CODE = {"commit": "0123456789abcdef", "dirty": True, "version": "0.1.0", "sha256": "f" * 64}
CHOSEN = {"stage": "finetune", "step": 10, "validation": {"CIDEr": 12.5, "object": None}}


def made(tiny: Any, chosen: dict | None = CHOSEN, said: str = "a", **changes: str) -> dict:
    predictions = [{"references": references, "caption": said} for references in (["a", "b", "c"], ["a"], [])]
    config = tiny.with_options(**changes)
    return protocol(config, Folder.open(tiny.shards), "test", predictions, 24, CODE, chosen)


def test_it_says_what_the_figures_are_of(tiny: Any) -> None:
    shards = Folder.open(tiny.shards)
    found = made(tiny, evaluate__tokenizer="split")
    assert found["data"] == {"name": "tiny", "manifest_sha256": shards.sha256()}
    assert found["split"] == "test" and found["pairs"] == {"scored": 2, "in_split": 16, "limit": 8}
    assert found["references"].items() >= {"min": 1, "mean": 2.0, "max": 3}.items()
    assert found["tokenizer"] == "split at white space" and found["scale"].startswith("percent")
    assert found["metrics"] == f"pycocoevalcap {importlib.metadata.version('pycocoevalcap')}"
    assert found["decoding"] == {"beam": 2, "length_penalty": 0.6, "max_length": 24}
    assert found["selection"] == {"stage": "finetune", "rule": "best", "metric": "CIDEr", "split": "val", "pairs": 4}
    unspaced = made(tiny, said="没有变化")["tokenizer"]
    assert unspaced.startswith("PTB tokenizer") and unspaced.endswith(f"; {CHARACTERS}")
    assert found["code"] == CODE and json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("select", "chosen", "expected"),
    [
        ("last", CHOSEN, {"stage": "finetune", "rule": "last"}),
        ("object", CHOSEN, {"stage": "finetune", "rule": "last"}),  # no step has that score
        ("CIDEr", CHOSEN | {"stage": "pretrain"}, {"stage": "pretrain", "rule": "last"}),
    ],
)
def test_how_the_checkpoint_was_chosen(tiny: Any, select: str, chosen: dict, expected: dict) -> None:
    assert selection(tiny.with_options(finetune__select=select), chosen) == expected
    assert selection(tiny.config, None)["rule"] is None and "no checkpoints" in selection(tiny.config, None)["reason"]


def test_the_report_shows_it_in_a_small_table(tiny: Any) -> None:
    text = protocol_table({"protocol": made(tiny)})
    for part in (
        "1 to 3 a pair, 2.0 on average",
        "commit 0123456789ab with local changes",
        "2 of its 16 pairs",
        "highest CIDEr of finetune on the first 4 pairs of the val split",
        "beam 2",
        "PTB tokenizer",
    ):
        assert part in text
    assert "run folder has no checkpoints" in protocol_table({"protocol": made(tiny, chosen=None)})
    birds = [{"references": [f"animal{i} is small"], "caption": "animal1 is small"} for i in (1, 2)]
    shown = interval_table(score(birds, tokenizer="split", time_limit=0.0))
    assert "CIDEr, all pairs" in shown and 'title="no pairs"' in shown and " to " in shown


def test_code_is_told_apart_with_and_without_git(tmp_path: Path) -> None:
    state = code_state(ROOT)
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=20)
    assert state["commit"] == (head.stdout.strip() or None) and len(state["sha256"]) == 64

    (tmp_path / "idc").mkdir()
    (tmp_path / "idc" / "one.py").write_text("A = 1\n")
    bare = code_state(tmp_path)
    assert (bare["commit"], bare["dirty"]) == (None, None) and bare == code_state(tmp_path)
    (tmp_path / "idc" / "one.py").write_text("A = 2\n")
    assert code_state(tmp_path)["sha256"] != bare["sha256"]
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True, timeout=20)
    assert code_state(tmp_path)["dirty"] is False
    (tmp_path / "idc" / "one.py").write_text("A = 3\n")
    assert code_state(tmp_path)["dirty"] is True
