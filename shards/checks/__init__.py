"""The work behind `shards.verify`, `shards.audit` and `shards.show`."""
