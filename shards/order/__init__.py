"""The one global order of samples, as pure functions of integers. `python -m shards.order` prints it."""
