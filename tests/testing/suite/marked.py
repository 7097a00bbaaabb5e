"""What starts processes asks here whether the test that needs it says so: `make quick` leaves tests out by markers."""

from __future__ import annotations

import pytest

_running: list[pytest.Item] = []


def began(test: pytest.Item) -> None:
    """The conftest's word on which test is running."""
    _running[:] = [test]


def needs(marker: str) -> None:
    """Fails the running test unless it has the marker."""
    for test in _running:
        assert test.get_closest_marker(marker), f"{test.nodeid} needs @pytest.mark.{marker}"
