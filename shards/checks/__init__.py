"""The work behind `shards.verify`, `shards.check` and `shards.show`."""
