"""CIDEr-D as the COCO caption tools compute it, for many predictions against the same references.

The reference vectors are made once, so that scoring one constant sentence takes milliseconds and thousands of them can
be compared. A test holds the values against pycocoevalcap's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

ORDERS = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # of the Gaussian penalty on a difference in length
NO_WEIGHTS = "every word of the references is in those of every pair, so CIDEr gives none a weight"

_Ngram = tuple[str, ...]


class Cider:
    """Scores against fixed references, split at white space. Document frequencies are those of the references; where
    they give no word a weight (`has_weights`), all scores are 0, of perfect captions as well."""

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        """`references`: key -> its sentences, at least one each. ValueError for fewer than two keys: with one, every
        word is in all documents and every score is 0."""
        if len(references) < 2:
            raise ValueError(f"CIDEr needs the references of two pairs or more, not of {len(references)}")
        self._rows: dict[str, list[int]] = {}  # key -> its sentences, as places in the list of distinct ones
        places: dict[str, int] = {}
        documents: Counter[_Ngram] = Counter()
        counts: list[Counter[_Ngram]] = []
        for key, sentences in references.items():
            if not sentences:
                raise ValueError(f"{key} has no references")
            for sentence in sentences:
                if sentence not in places:
                    places[sentence] = len(places)
                    counts.append(_ngrams(sentence))
            self._rows[key] = [places[sentence] for sentence in sentences]
            documents.update({ngram for row in self._rows[key] for ngram in counts[row]})
        self._log_keys = math.log(len(references))
        self._documents = documents
        self._similarities: dict[str, np.ndarray] = {}

        # How much each distinct sentence weighs in the score of a constant prediction.
        self._weights = np.zeros(len(places))
        for rows in self._rows.values():
            np.add.at(self._weights, rows, 1 / (len(rows) * len(self._rows)))

        vectors = [self._vector(count) for count in counts]
        self._norms = np.array([norm for _, norm, _ in vectors])
        self._lengths = np.array([length for _, _, length in vectors], dtype=float)
        postings: dict[_Ngram, tuple[list[int], list[float]]] = {}
        for row, (weights, _, _) in enumerate(vectors):
            for ngram, weight in weights.items():
                rows, values = postings.setdefault(ngram, ([], []))
                rows.append(row)
                values.append(weight)
        self._postings = {ngram: (np.array(rows), np.array(values)) for ngram, (rows, values) in postings.items()}

    def scores(self, predictions: Mapping[str, str]) -> dict[str, float]:
        """CIDEr of each key in percent. KeyError for a key without references."""
        return {key: 100 * float(self._similarity(text)[self._rows[key]].mean()) for key, text in predictions.items()}

    def score(self, predictions: Mapping[str, str]) -> float:
        """The mean over the predictions, in percent."""
        return float(np.mean(list(self.scores(predictions).values())))

    def constant(self, sentence: str) -> float:
        """The score of saying the same sentence of every key, in percent."""
        return 100 * float(self._similarity(sentence) @ self._weights)

    def _similarity(self, sentence: str) -> np.ndarray:
        """CIDEr of a sentence with each distinct reference."""
        known = self._similarities.get(sentence)
        if known is not None:
            return known
        weights, norm, length = self._vector(_ngrams(sentence))
        dots = np.zeros((len(self._lengths), ORDERS))
        for ngram, weight in weights.items():
            rows, values = self._postings.get(ngram, (None, None))
            if rows is not None:
                dots[rows, len(ngram) - 1] += np.minimum(weight, values) * values
        norms = self._norms * norm
        cosines = np.divide(dots, norms, out=dots, where=norms != 0)
        penalty = np.exp(-((length - self._lengths) ** 2) / (2 * SIGMA**2))
        similarity = 10 * cosines.mean(axis=1) * penalty
        if len(self._similarities) < 4096:  # predictions repeat; memory is bounded
            self._similarities[sentence] = similarity
        return similarity

    def _vector(self, counts: Counter[_Ngram]) -> tuple[dict[_Ngram, float], np.ndarray, int]:
        """(tf-idf weight of each n-gram, norm of each order, length as the COCO tools count it: in bigrams)."""
        weights = {
            ngram: count * (self._log_keys - math.log(max(1, self._documents[ngram])))
            for ngram, count in counts.items()
        }
        norms = np.zeros(ORDERS)
        length = 0
        for ngram, weight in weights.items():
            norms[len(ngram) - 1] += weight * weight
            if len(ngram) == 2:
                length += counts[ngram]
        return weights, np.sqrt(norms), length


def cider(references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> float | None:
    """CIDEr of predictions in percent, on words split at white space; no Java. None where it would be 0 whatever is
    said (NO_WEIGHTS). The references are those of the keys that have a prediction; ValueError for fewer than two."""
    used = {key: references[key] for key in predictions}
    scorer = Cider(used)
    return scorer.score(predictions) if has_weights(used) else None


def has_weights(references: Mapping[str, Sequence[str]]) -> bool:
    """Whether some word of the references is not in those of every pair; if not, NO_WEIGHTS. False for one pair."""
    said = ({ngram for sentence in sentences for ngram in _ngrams(sentence)} for sentences in references.values())
    first = next(said, set())
    return any(one != first for one in said)


def _ngrams(sentence: str) -> Counter[_Ngram]:
    words = sentence.split()
    return Counter(
        tuple(words[start : start + order]) for order in range(1, ORDERS + 1) for start in range(len(words) - order + 1)
    )
