"""Progress of a long command, in a log and in a terminal."""

from __future__ import annotations

import time

from testing.machines.terminal import on_a_terminal

from shards.progress import Progress, busy, say


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


def work() -> None:
    with Progress("packing x", 0, 3) as progress:
        progress.update(1)
        say("a word in between")
        progress.update(2)
    with busy("scoring"):
        pass


def test_a_terminal_has_one_line_in_place_and_colour_unless_it_is_not_wanted(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = on_a_terminal(monkeypatch, work)
    assert shown.count("\n") == 3, "the word, and a line each"
    assert "a word in between" in [line.rpartition("\r")[2] for line in shown.split("\n")], "it has a line to itself"
    assert "packing x: 100%" in shown and "3/3" in shown and "scoring: 00:00" in shown and "\x1b[38;2;" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38" not in on_a_terminal(monkeypatch, work)


def test_what_has_no_count_says_in_a_log_how_long_it_takes(capsys, monkeypatch) -> None:
    monkeypatch.setattr("shards.progress.LINE_EVERY", 0.05)
    with busy("scoring"):
        time.sleep(0.12)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "scoring" and others and set(others) == {"scoring: 00:00 so far"}
    with busy("a moment", announced=False):
        pass
    assert capsys.readouterr().err == ""
