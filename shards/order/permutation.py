"""The one global order of samples, as pure functions of integers; as a command, it prints them.

    python -m shards.order DIR... --world W --workers V --global-batch B --steps S [--start P] [--mix a=2,b=1]
    python -m shards.order DIR --quality

A training run consumes an endless sequence of positions 0, 1, 2, ...; epoch e is the positions from e * size to (e +
1) * size - 1. `locate` says which sample stands at a position (of several sources, `mixture.Mixture.locate`),
`rank_positions` which positions of a step belong to a rank, `worker_positions` which of these to one of its loader
workers, and `generator` gives every random choice made for a sample. Nothing here has state, so a run that stops at
position p and starts again at p, on any number of ranks, sees the same samples and draws the same masks as one that
never stopped.

The permutation is a Feistel network over the smallest power of two that holds the data set, walked until it lands
inside (cycle walking; Black and Rogaway, "Ciphers with arbitrary finite domains", 2002), so any position is found in
O(1) time and memory. Up to 256 samples, where such a network shuffles poorly, they are ranked by their hashes instead.
The arithmetic is written out here and must never change: saved runs depend on it.
"""

from __future__ import annotations

import hashlib

import numpy as np

ROUNDS = 8
RANKED_SIZE = 256
LARGEST_SIZE = 1 << 62

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_WORD = (1 << 64) - 1


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014) on uint64 arrays: a bijection that mixes well."""
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLY_1
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLY_2
    return value ^ (value >> np.uint64(31))


def _words(value: int | np.ndarray) -> np.ndarray:
    """Integers of any sign as at least one-dimensional uint64, modulo 2^64."""
    if isinstance(value, int):
        return np.array([value & _WORD], dtype=np.uint64)
    return np.atleast_1d(np.asarray(value)).astype(np.int64).view(np.uint64)


def permute(index: int | np.ndarray, size: int, seed: int, epoch: int | np.ndarray) -> int | np.ndarray:
    """Where `index` of [0, size) goes in the shuffle of this (seed, epoch): a bijection of [0, size).

    `index` and `epoch` are integers or integer arrays that broadcast; the result is int64 of that shape (or int).
    Raises ValueError where an index lies outside [0, size) or size is not in [1, 2^62].
    """
    if not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"size is {size}: an order needs between 1 and 2^62 samples")
    scalar = np.ndim(index) == 0 and np.ndim(epoch) == 0
    indices, epochs = np.broadcast_arrays(np.asarray(index, dtype=np.int64), np.asarray(epoch, dtype=np.int64))
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise ValueError(f"index {indices.min() if indices.min() < 0 else indices.max()} is outside [0, {size})")
    shape = indices.shape
    value = _words(indices.reshape(-1))
    key = _mix(_mix(_words(seed)) ^ _words(epochs.reshape(-1)))
    shuffled = _rank(value, key, size) if size <= RANKED_SIZE else _walk(value, key, size)
    result = shuffled.astype(np.int64).reshape(shape)
    return int(result) if scalar else result


def _rank(value: np.ndarray, key: np.ndarray, size: int) -> np.ndarray:
    """The places of [0, size) in the order of their hashes under each key."""
    keys, key_number = np.unique(key, return_inverse=True)
    hashes = _mix(keys[:, None] ^ _mix(np.arange(size, dtype=np.uint64))[None, :])
    return np.argsort(hashes, axis=1, kind="stable")[key_number, value.astype(np.int64)]


def _walk(value: np.ndarray, key: np.ndarray, size: int) -> np.ndarray:
    """The Feistel network again and again, until each value is inside [0, size): twice at most on average."""
    value = value.copy()
    bits = (size - 1).bit_length()
    outside = np.arange(value.size)
    while outside.size:
        value[outside] = _feistel(value[outside], key[outside], bits)
        outside = outside[value[outside] >= np.uint64(size)]
    return value


def _feistel(value: np.ndarray, key: np.ndarray, bits: int) -> np.ndarray:
    """A bijection of [0, 2^bits): the low and the high part are mixed into one another in turn."""
    low_bits = np.uint64(bits - bits // 2)
    low_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits // 2)) - 1)
    low, high = value & low_mask, value >> low_bits
    for round_number in range(ROUNDS):
        round_key = _mix(key + np.uint64(round_number))
        if round_number % 2:
            low = low ^ (_mix(high ^ round_key) & low_mask)
        else:
            high = high ^ (_mix(low ^ round_key) & high_mask)
    return (high << low_bits) | low


def locate(position: int | np.ndarray, size: int, seed: int) -> tuple[int | np.ndarray, int | np.ndarray]:
    """(epoch, sample index) at a position of the endless sequence; arrays give arrays (int64)."""
    if size < 1:
        raise ValueError(f"size is {size}: an order needs at least one sample")
    if np.ndim(position) == 0:
        if position < 0:
            raise ValueError(f"position {position} is negative")
        epoch, offset = divmod(int(position), size)
        return epoch, permute(offset, size, seed, epoch)
    positions = np.asarray(position, dtype=np.int64)
    if positions.size and positions.min() < 0:
        raise ValueError(f"position {positions.min()} is negative")
    epochs, offsets = np.divmod(positions, size)
    return epochs, permute(offsets, size, seed, epochs)


def rank_positions(step_start: int, global_batch: int, world: int, rank: int, group: int = 1) -> np.ndarray:
    """The positions of one rank in the global batch [step_start, step_start + global_batch), int64.

    The batch is cut into groups of `group` consecutive positions and rank r takes the groups r, r + world, ...: a group
    (the unit inside which contrastive losses look for negatives) holds the same samples whatever the number of ranks.
    Ranks have one group less than others where the groups do not divide over them; with more ranks than groups, some
    have none. Raises ValueError where the batch does not divide into groups.
    """
    if group < 1 or world < 1 or global_batch < 1:
        raise ValueError(f"global batch ({global_batch}), world ({world}) and group ({group}) must each be at least 1")
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is outside [0, {world})")
    if global_batch % group:
        raise ValueError(
            f"global batch {global_batch} is not a multiple of the group size {group}: change one of the two"
        )
    groups = np.arange(rank, global_batch // group, world, dtype=np.int64)
    return (step_start + groups[:, None] * group + np.arange(group, dtype=np.int64)[None, :]).reshape(-1)


def worker_positions(positions: np.ndarray, workers: int, worker: int) -> np.ndarray:
    """Those of a rank's positions in a step that its loader worker `worker` of `workers` reads: every workers-th.

    A rank that puts what worker v has read into places v, v + workers, ... of its batch has it in order again.
    """
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} is outside [0, {workers})")
    return positions[worker::workers]


def generator(seed: int, epoch: int, position: int, stream: str) -> np.random.Generator:
    """The random generator for one purpose ("mask", "caption", ...) of one position: the same on every machine.

    Philox keyed by BLAKE2b of the four arguments; streams of different names are independent.
    """
    text = f"{int(seed)}|{int(epoch)}|{int(position)}|{stream}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
