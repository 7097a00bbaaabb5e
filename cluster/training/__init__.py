"""The loop of a worker: `worker` runs stages, `stage` loops, `step` is one optimiser step, `engine` is DeepSpeed."""
