"""Shard folders, by name: what a program of your own imports to read them. The work is done in `shards.reading`."""

from shards.reading.reader import Folder, Prefetcher, Stream

__all__ = ["Folder", "Prefetcher", "Stream"]
