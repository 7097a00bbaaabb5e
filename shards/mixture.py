"""Several shard folders as one sequence: what a program of your own imports. The work is done in `shards.order`."""

from shards.order.mixture import Mixture, parse_weight

__all__ = ["Mixture", "parse_weight"]
