"""What a run tells of itself: metrics.jsonl and W&B, speed, every worker's log. Knows nothing of training."""
