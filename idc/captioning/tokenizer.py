"""Captions to ids and back: sentencepiece (`tokenizer.model`) or whole words (`tokenizer.json`).

Both kinds have the ids 0 to 5 for <pad>, <bos>, <eos>, <unk>, <cls>, <mask>. The word file is
{"kind": "words", "words": [...]}, a word's id being its place in the list; text is split at white space, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from idc.model.config import BOS, EOS, MASK, PAD, UNK

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<cls>", "<mask>")
_CACHED_TEXTS = 1 << 16  # captions made from templates repeat; encoding one takes as long as a hundred look-ups


class TokenizerError(ValueError):
    """A tokenizer file that cannot be used; the message is one line with the file and the fix."""


class _Codec(Protocol):
    size: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...

    def piece(self, token: int) -> str: ...


class Tokenizer:
    """Text <-> ids. `path` is the file it was loaded from, `size` the number of ids, specials included."""

    def __init__(self, path: Path, codec: _Codec) -> None:
        self.path = path
        self.size = codec.size
        self._codec = codec
        self._ids = lru_cache(_CACHED_TEXTS)(lambda text: tuple(codec.encode(text)))

    def __reduce__(self) -> tuple:
        return load, (self.path,)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without <bos> and <eos>; words that are not known give <unk>."""
        return list(self._ids(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first <eos>; other special ids say nothing, except <unk>, which is shown."""
        pieces: list[str] = []
        known: list[int] = []
        for token in ids:
            token = int(token)
            if token == EOS:
                break
            if token == UNK:
                pieces += [self._codec.decode(known), SPECIAL[UNK]]
                known = []
            elif MASK < token < self.size:
                known.append(token)
        return " ".join(" ".join([*pieces, self._codec.decode(known)]).split())

    def pieces(self) -> list[str]:
        """The text of each id, by which two vocabularies compare: the start of a word is marked by "\u2581"."""
        return [*SPECIAL, *(self._codec.piece(token) for token in range(len(SPECIAL), self.size))]

    def batch(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """(n, max_length) int64: `<bos> ids <eos> <pad>*`; longer texts are cut and still end in <eos>."""
        rows = np.full((len(texts), max_length), PAD, dtype=np.int64)
        rows[:, 0] = BOS
        for row, text in zip(rows, texts, strict=True):
            ids = self._ids(text)[: max_length - 2]
            row[1 : 1 + len(ids)] = ids
            row[1 + len(ids)] = EOS
        return rows


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in a file, its kind told by the ending (.model or .json). TokenizerError where it is not one."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"{path} cannot be read ({error.strerror}); name the tokenizer file of a shard folder"
        ) from None
    if path.suffix not in _KINDS:
        raise TokenizerError(f"{path}: a tokenizer file ends in {' or '.join(_KINDS)}")
    codec = _KINDS[path.suffix](path, data)
    return Tokenizer(path, codec)


class _Words:
    def __init__(self, path: Path, data: bytes) -> None:
        try:
            content = json.loads(data)
            words = content["words"] if content["kind"] == "words" else None
        except (ValueError, KeyError, TypeError, RecursionError):
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise TokenizerError(
                f'{path} is not a word list {{"kind": "words", "words": [...]}}; pack the shards again'
            )
        _require_specials(path, words)
        self._words = words
        self._ids = {word: token for token, word in enumerate(words) if token >= len(SPECIAL)}
        self.size = len(words)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(word, UNK) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(self._words[token] for token in ids)

    def piece(self, token: int) -> str:
        return "\u2581" + self._words[token]


class _SentencePiece:
    def __init__(self, path: Path, data: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_proto=data)
            self.size = self._processor.get_piece_size()
        except (RuntimeError, ValueError, OSError):
            raise TokenizerError(f"{path} is not a sentencepiece model; pack the shards again") from None
        _require_specials(path, [self._processor.id_to_piece(token) for token in range(min(self.size, len(SPECIAL)))])

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def piece(self, token: int) -> str:
        return self._processor.id_to_piece(token)


_KINDS: dict[str, Callable[[Path, bytes], _Codec]] = {".model": _SentencePiece, ".json": _Words}


def _require_specials(path: Path, pieces: Sequence[str]) -> None:
    if tuple(pieces[: len(SPECIAL)]) != SPECIAL:
        raise TokenizerError(f"{path}: ids 0 to 5 must be {' '.join(SPECIAL)}, as python -m shards.pack writes them")
