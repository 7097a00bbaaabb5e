"""The metrics that need Java, run in a process of their own: `python -m idc.metrics.java REQUEST.json ANSWER.json`.

pycocoevalcap talks to Java through pipes without a time limit, and a Java process that dies or stalls leaves its
caller waiting for ever. Whoever needs these numbers starts this program with a time limit and kills its whole process
group at the end of it (`idc.metrics.java_process`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pycocoevalcap import spice as spice_package
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer import ptbtokenizer

from idc.metrics.java_process import said


class _CachedMeteor(Meteor):
    """One Java process for any number of scorings; what was aligned once is not aligned again."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple, str] = {}

    def _stat(self, hypothesis_str: str, reference_list: list[str]) -> str:
        key = (hypothesis_str, *reference_list)
        if key not in self._known:
            try:
                statistics = super()._stat(hypothesis_str, reference_list)
            except OSError:  # the pipe is broken
                statistics = ""
            if not statistics:
                self.meteor_p.kill()  # so that reading what it said last cannot wait
                heard = said(self.meteor_p.stderr.read().decode(errors="replace"))
                raise RuntimeError(f"METEOR's Java process ended: {heard}")
            self._known[key] = statistics
        return self._known[key]


def tokenize(texts: list[str]) -> list[str]:
    """PTB tokens of each text, punctuation dropped, joined by blanks: what PTBTokenizer of pycocoevalcap gives.

    Its own method does not look at how Java ended, and writes into the package's folder.
    """
    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    done = subprocess.run(
        ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"],
        input="\n".join(texts).encode(), capture_output=True,
    )  # fmt: skip
    if done.returncode:
        heard = said(done.stderr.decode(errors="replace"))
        raise RuntimeError(f"the PTB tokenizer's Java ended with code {done.returncode}: {heard}")
    lines = done.stdout.decode().split("\n")[: len(texts)]
    if len(lines) != len(texts):
        heard = said(done.stderr.decode(errors="replace"))
        raise RuntimeError(f"the PTB tokenizer answered {len(lines)} of {len(texts)} sentences: {heard}")
    dropped = set(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.rstrip().split(" ") if word not in dropped) for line in lines]


def meteor(sets: list[dict]) -> list[float]:
    """METEOR (0 to 1) of each {"references": [[sentence, ...], ...], "predictions": [sentence, ...]}, tokenized."""
    scorer = _CachedMeteor()
    scores = []
    for one in sets:
        references = dict(enumerate(one["references"]))
        predictions = {number: [text] for number, text in enumerate(one["predictions"])}
        scores.append(scorer.compute_score(references, predictions)[0])
    return scores


def spice(pairs: list[dict], folder: Path) -> list[float]:
    """SPICE (0 to 1) of each {"image_id", "test": sentence, "refs": [sentence, ...]}; `folder` takes its files.

    Its jar is called here and not by pycocoevalcap, which downloads what is missing and writes beside the jar.
    """
    asked, answer = folder / "spice-request.json", folder / "spice-answer.json"
    asked.write_text(json.dumps(pairs))
    jar = Path(spice_package.__file__).parent / "spice-1.0.jar"
    done = subprocess.run(
        ["java", "-Xmx8G", "-jar", str(jar), str(asked), "-out", str(answer), "-subset", "-silent"],
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    if done.returncode or not answer.is_file():
        heard = said(done.stderr.decode(errors="replace"))
        raise RuntimeError(f"SPICE's Java ended with code {done.returncode}: {heard}")
    found = {one["image_id"]: one["scores"]["All"]["f"] for one in json.loads(answer.read_text())}
    return [float(found[pair["image_id"]]) for pair in pairs]


def main(request: Path, answer: Path) -> None:
    """Answers {"tokenize": [...]}, {"meteor": [...]} or {"spice": [...]} in a file."""
    asked = json.loads(request.read_text())
    made: list
    if "spice" in asked:
        made = spice(asked["spice"], answer.parent)
    else:
        made = tokenize(asked["tokenize"]) if "tokenize" in asked else meteor(asked["meteor"])
    partial = answer.with_suffix(".partial")
    partial.write_text(json.dumps(made))
    os.replace(partial, answer)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        # An orderly end would run Meteor.__del__, which waits for ever for a lock that the failed call still holds.
        os._exit(1)
