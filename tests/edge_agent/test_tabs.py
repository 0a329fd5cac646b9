"""What several trainings at a time are charged with: each processor second once, and to whom it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing

import pytest

from mas_edge.edge_agent.account import Account
from mas_edge.edge_agent.moments import Moment
from mas_edge.edge_agent.tabs import Tab, daemons
from mas_edge.profiling.meters import open_one
from mas_edge.profiling.stopwatch import PhaseTime
from mas_edge.wire.memory import Broker
from mas_edge.wire.messages import Key


def key(group: str) -> Key:
    return Key(job="j", group=group, round=0, attempt=0, device="d1")


def said(**phases: float) -> tuple[PhaseTime, ...]:
    return tuple(PhaseTime(phase=name, wall_s=s, cpu_s=s) for name, s in phases.items())


def training(pid: int | None = None) -> Tab:
    tab = Tab()
    tab.begin(key("a"))
    tab.train(warm=False)
    tab.follow(pid)
    return tab


def burn(seconds: float) -> None:
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        pass


def test_what_a_silent_worker_uses_is_charged_at_once_and_not_again_when_it_says_so():
    tab = training(os.getpid())
    tab.heard(said(load=0.1, step=1.0))
    burn(0.05)
    (early,) = tab.silent()
    assert early.phase == "step"
    assert early.cpu_s == pytest.approx(0.05, abs=0.03)
    late = tab.heard(said(load=0.2, step=1.5))
    by_phase = {use.phase: use.cpu_s for use in late}
    assert by_phase["load"] == pytest.approx(0.1)
    assert by_phase["step"] + early.cpu_s == pytest.approx(0.5)


def test_what_was_charged_too_early_is_taken_off_as_soon_as_the_phase_comes_again():
    tab = training(os.getpid())
    tab.heard(said(step=1.0))
    burn(0.05)
    early_s = sum(use.cpu_s for use in tab.silent())
    other = tab.heard(said(step=1.0, evaluate=0.05))  # it was at something else
    rest = tab.heard(said(step=2.0, evaluate=0.05))
    assert sum(use.cpu_s for use in (*other, *rest)) + early_s == pytest.approx(1.05)


def test_a_worker_that_is_gone_or_waits_uses_nothing():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert training(gone.pid).silent() == ()
    tab = training(os.getpid())
    tab.doing = "wait"
    burn(0.01)
    assert tab.silent() == ()


def moment(own_cpu_s: float, moved_bytes: int, t_ns: int) -> Moment:
    return Moment(t_ns, t_ns, None, None, own_cpu_s, moved_bytes, 2 * moved_bytes)


def test_the_daemons_work_goes_to_whom_it_carries_for_and_no_byte_gets_lost():
    tabs = [Tab() for _ in range(4)]
    for tab, doing in zip(tabs, ("fetch", "runtime", "upload"), strict=False):
        tab.begin(key(doing))
        tab.doing = doing
    uses = {use.phase: use for use in daemons(tabs, moment(1.0, 0, 0), moment(2.0, 7, 10**9))}
    assert uses.keys() == {"fetch", "runtime", "upload"}
    assert uses["runtime"].wall_s == uses["runtime"].cpu_s == uses["runtime"].sent_bytes == 0
    assert uses["fetch"].cpu_s == uses["upload"].cpu_s == 0.5
    assert sum(use.sent_bytes for use in uses.values()) == 7
    assert sum(use.received_bytes for use in uses.values()) == 14


# --- the bill of two slots ------------------------------------------------------------------------


def an_account(path, spooled=()):
    meter = open_one("estimate:idle_w=2,max_w=10")
    return Account(path / "account.json", meter, Broker().connect("d1"), spooled, slots=2)


def both_train(account) -> None:
    for slot, group in enumerate("ab"):
        account.begin(key(group), slot)
        account.train(slot, warm=False)
        account.heard(said(forward=0.5), 8, slot=slot)


def groups(profile) -> dict[str, float]:
    """Seconds of forward by group."""
    return {row.group: row.wall_s for row in profile.rows if row.phase == "forward"}


def test_a_bill_leaves_out_what_another_slot_trains_until_that_is_answered(tmp_path):
    with closing(an_account(tmp_path)) as account:
        both_train(account)
        first = account.bill("cpu", 0)
        assert groups(first) == {"a": 0.5}
        account.heard(said(forward=0.7), slot=1)
        second = account.bill("cpu", 1)
    assert groups(second) == {"b": pytest.approx(0.7)}
    assert first.trace.t_ns[-1] <= second.trace.t_ns[0], "the host's joules count once"


def test_what_one_slot_gives_up_is_lost_and_the_other_goes_on(tmp_path):
    with closing(an_account(tmp_path)) as account:
        both_train(account)
        account.lose(slot=0)
        account.end(key("a"))
        made = account.bill("cpu", 1)
    assert {row.group for row in made.rows if row.phase == "lost"} == {"a"}
    assert groups(made) == {"b": 0.5}


def test_a_kill_loses_what_was_unfinished_in_each_slot_and_bills_nothing_twice(tmp_path):
    account = an_account(tmp_path)
    both_train(account)
    account.save()
    account.bill("cpu", 0)  # and killed before that was saved, with the answer on disk
    with closing(an_account(tmp_path, (key("a"),))) as again:
        rows = again.bill("cpu").rows
    assert {(row.group, row.phase) for row in rows} == {("b", "lost")}


def test_a_kill_after_an_answer_keeps_what_came_after_it(tmp_path):
    account = an_account(tmp_path)
    both_train(account)
    account.bill("cpu", 0)
    account.heard(said(forward=0.7), slot=1)
    account.save()
    with closing(an_account(tmp_path, (key("a"),))) as again:
        (lost,) = (row for row in again.bill("cpu").rows if row.phase == "lost")
    assert lost.group == "b"
    assert lost.wall_s >= 0.5
    assert lost.examples == 0
