"""Runs of cluster/train.py that bench/faults.py disturbs."""
