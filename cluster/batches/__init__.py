"""From a step number to tensors: schedule, samples, batches, tensors on the device ahead of time; cached features."""
