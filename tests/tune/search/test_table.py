"""The table of a sweep: what was written is there again, whatever a kill cut off."""

from __future__ import annotations

from pathlib import Path

from tune.search.table import FAILED, FINISHED, RUNNING, Table


def test_what_was_written_is_read(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.session(2)
    table.start("a", {"lr": 0.1})
    table.start("b", {"lr": 0.2}, member=1, donor={"run": "a", "step": 5, "trial": "x"})
    table.score("a", 5, 10.0, 10.0)
    table.score("a", 10, 8.0, 8.0)
    table.end("a", FINISHED)
    table.end("b", FAILED, "no memory")
    table.close()
    for read in (table, Table(tmp_path)):
        a, b = read.trials["a"], read.trials["b"]
        assert (a.number, a.values, a.score, a.step, a.state) == (1, {"lr": 0.1}, 10.0, 10, FINISHED)
        assert (b.number, b.member, b.donor["run"], b.state, b.reason) == (2, 1, "a", FAILED, "no memory")
        assert b.score is None and read.sessions[0].slots == 2 and read.sessions[0].end >= a.ends[0] >= a.starts[0]


def test_a_second_attempt_is_the_same_trial(tmp_path: Path) -> None:
    Table(tmp_path).start("a", {"lr": 0.1})
    table = Table(tmp_path)
    assert table.trials["a"].state == RUNNING
    table.start("a", {"lr": 0.1})
    table.score("a", 5, 1.0, 1.0)
    table.score("a", 5, 1.0, 1.0)  # said again by a run that goes on
    assert len(table.trials) == 1 and len(table.trials["a"].starts) == 2 and table.trials["a"].scores == {5: 1.0}


def test_a_line_that_a_kill_cut_is_passed_over(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.start("a", {"lr": 0.1})
    table.start("b", {"lr": 0.2})
    path = tmp_path / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    again = Table(tmp_path)
    assert list(again.trials) == ["a"]
    again.score("b", 5, 1.0, 1.0)  # its first line is lost
    again.end("a", FINISHED)
    assert Table(tmp_path).trials["a"].state == FINISHED and list(Table(tmp_path).trials) == ["a"]
