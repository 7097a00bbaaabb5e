"""The published code: our network beside its numbers (`parity`), and its checkpoint files read and written."""
