"""The one global order of samples, as pure functions of integers. `python -m shards.order` prints it."""

from shards.order.permutation import generator, locate, rank_positions, worker_positions

__all__ = ["generator", "locate", "rank_positions", "worker_positions"]
