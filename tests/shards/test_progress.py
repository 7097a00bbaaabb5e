"""Progress of a long command, in a log."""

from __future__ import annotations

from shards.progress import Progress


def test_progress_in_a_log_counts_what_is_left_at_the_speed_of_this_run(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("shards.progress.time.monotonic", lambda: now[0])
    with Progress("packing x", 900, 1000) as progress:  # 900 were there
        for _ in range(10):
            now[0] += 4
            progress.update(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "packing x: 940 of 1000 samples, 2.5 a second, 00:24 left",
        "packing x: 980 of 1000 samples, 2.5 a second, 00:08 left",
        "packing x: 1000 of 1000 samples, 2.5 a second, 00:00 left",
    ]
