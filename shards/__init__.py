"""The data: sources packed into WebDataset shards, one deterministic global order, samples by position."""
