"""Errors that a user reads: one line each, which says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.errors import ConfigError


@contextmanager
def refused(said: str, kind: type[ValueError] = ConfigError) -> Iterator[None]:
    """What is done inside raises an error of this kind, and its message is one line with `said` in it."""
    with pytest.raises(kind, match=r"^[^\n]+$") as caught:
        yield
    assert said in str(caught.value), caught.value
