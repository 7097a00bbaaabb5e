"""Bytes on disk: tars, their index, the manifest, the schema of a sample, arrays."""
