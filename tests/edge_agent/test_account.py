"""The bill of an agent: what is charged to whom when answers are late and workers are new."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.account import DAYS, Account, spend, training_j
from mas_edge.profiling import ledger as books
from mas_edge.profiling.ledger import Ledger, Slice
from mas_edge.profiling.meters import open_one
from mas_edge.profiling.stopwatch import PhaseTime
from mas_edge.wire.memory import Broker
from mas_edge.wire.messages import Key


def key(round_: int) -> Key:
    return Key(job="j", group="a", round=round_, attempt=0, device="d1")


def worked(wall_s: float) -> tuple[PhaseTime, ...]:
    return (PhaseTime(phase="forward", wall_s=wall_s, cpu_s=wall_s),)


@contextmanager
def an_account(path):
    account = Account(path / "account.json", open_one("estimate:idle_w=2,max_w=10"), Broker().connect("d1"))
    try:
        yield account
    finally:
        account.close()


def forward_s(profile, round_: int) -> float:
    return sum(row.wall_s for row in profile.rows if (row.phase, row.round) == ("forward", round_))


def test_an_answer_that_is_stored_late_does_not_end_the_bill_of_the_next_training(tmp_path):
    with an_account(tmp_path) as account:
        account.begin(key(0))
        account.bill("cpu")
        account.begin(key(1))
        account.train(warm=True)
        account.end(key(0))
        account.heard(worked(0.5), examples=8)
        made = account.bill("cpu")
    assert forward_s(made, 1) == 0.5
    assert sum(row.examples for row in made.rows) == 8


def test_a_new_worker_counts_from_zero(tmp_path):
    with an_account(tmp_path) as account:
        account.begin(key(0))
        account.train(warm=False)
        account.heard(worked(3.0))
        account.bill("cpu")
        account.begin(key(1))
        account.train(warm=False)
        account.heard(worked(0.5))
        assert forward_s(account.bill("cpu"), 1) == 0.5


def test_a_warm_worker_is_charged_by_what_it_used_since(tmp_path):
    with an_account(tmp_path) as account:
        account.begin(key(0))
        account.train(warm=False)
        account.heard(worked(3.0))
        account.begin(key(1))
        account.train(warm=True)
        account.heard(worked(3.5))
        assert forward_s(account.bill("cpu"), 1) == 0.5


def test_the_time_between_two_trainings_is_nobodys_and_that_before_the_next_one_is_the_first_ones(tmp_path):
    with an_account(tmp_path) as account:
        account.begin(key(0))
        account.end(key(0))
        time.sleep(0.05)
        account.begin(key(0))
        time.sleep(0.02)
        account.begin(key(1))
        made = account.bill("cpu")
    assert 0.02 <= sum(row.wall_s for row in made.rows if row.round == 0) < 0.05


def test_what_an_unfinished_training_used_is_lost_and_not_gone_after_a_kill(tmp_path):
    with an_account(tmp_path) as account:
        account.begin(key(0))
        account.train(warm=False)
        account.heard(worked(3.0), examples=8)
    with an_account(tmp_path) as again:
        made = again.bill("cpu")
    assert {row.phase for row in made.rows} == {"lost"}
    assert sum(row.wall_s for row in made.rows) >= 3.0
    assert sum(row.examples for row in made.rows) == 0


def a_killed_account(path) -> None:
    """One that had a training in hand, on disk, when it was killed; its bill is made and not saved."""
    account = Account(path / "account.json", open_one("estimate:idle_w=2,max_w=10"), Broker().connect("d1"))
    account.begin(key(0))
    account.train(warm=True)
    account.heard(worked(0.5))
    account.save()
    account.bill("cpu")


def test_a_training_that_a_kill_interrupted_is_billed_as_lost(tmp_path):
    a_killed_account(tmp_path)
    with an_account(tmp_path) as account:
        rows = account.bill("cpu").rows
    assert {row.phase for row in rows} == {"lost"}
    assert sum(row.wall_s for row in rows) >= 0.5


def test_a_training_whose_answer_was_spooled_before_the_kill_is_not_billed_twice(tmp_path):
    a_killed_account(tmp_path)
    account = Account(
        tmp_path / "account.json", open_one("estimate:idle_w=2,max_w=10"), Broker().connect("d1"), (key(0),)
    )
    assert account.bill("cpu").rows == ()
    account.close()


class Calendar:
    """A date that the test turns."""

    def __init__(self, date: str) -> None:
        self.date = date

    def __call__(self) -> str:
        return self.date


@contextmanager
def dated(path, calendar):
    meter, bus = open_one("estimate:idle_w=2,max_w=10"), Broker().connect("d1")
    account = Account(path / "account.json", meter, bus, today=calendar)
    try:
        yield account
    finally:
        account.close()


def train(account) -> float:
    """Some joules of training; how many the account says."""
    before_j = account.energy_today_j
    account.begin(key(0))
    account.train(warm=False)
    burn()
    account.heard(worked(0.05))
    account.lose()
    account.end(key(0))
    return account.energy_today_j - before_j


def burn() -> None:
    end_s = time.process_time() + 0.05
    while time.process_time() < end_s:
        pass


def test_joules_are_counted_by_the_day_and_kept_over_a_restart(tmp_path):
    calendar = Calendar("2026-11-22")
    with dated(tmp_path, calendar) as account:
        assert account.energy_today_j == 0.0
        spent_j = train(account)
        assert spent_j > 0
    with dated(tmp_path, calendar) as account:
        assert account.energy_today_j == pytest.approx(spent_j)
        calendar.date = "2026-11-23"
        assert account.energy_today_j == 0.0


def test_joules_that_went_into_an_update_on_disk_count_for_their_day(tmp_path):
    calendar = Calendar("2026-11-22")
    with dated(tmp_path, calendar) as account:
        spent_j = train(account)
        account.begin(key(1))
    meter, bus = open_one("estimate:idle_w=2,max_w=10"), Broker().connect("d1")
    account = Account(tmp_path / "account.json", meter, bus, (key(1),), today=calendar)
    assert account.energy_today_j == pytest.approx(spent_j, rel=0.2)
    account.close()


DATES = st.sampled_from(["1970-01-01", "2026-11-21", "2026-11-22", "2026-11-23", "2099-12-31"])


@given(st.lists(st.tuples(DATES, st.floats(0, 1e6)), max_size=60))
def test_a_clock_that_jumps_neither_forgets_nor_invents_joules_of_a_day(spent):
    days: tuple[tuple[str, float], ...] = ()
    for date, energy_j in spent:
        days = spend(days, date, energy_j)
    for date, sum_j in days:
        assert sum_j == pytest.approx(sum(energy_j for day, energy_j in spent if day == date))
    assert {date for date, _ in days} == {date for date, _ in spent}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_only_the_last_days_are_kept_and_today_is_one_of_them(numbers):
    days: tuple[tuple[str, float], ...] = ()
    for number in numbers:
        days = spend(days, str(number), 1.0)
    assert len(days) <= DAYS
    assert days[-1][0] == str(numbers[-1])


def test_what_is_measured_but_cannot_be_shared_counts_whole():
    ledger = books.charge(Ledger(), Slice(t0_ns=0, t1_ns=10**9, energy_j=5.0), None)
    assert training_j(ledger) == 5.0
    known = books.charge(Ledger(), Slice(t0_ns=0, t1_ns=10**9, energy_j=5.0, busy_s=1.0), 2.0)
    assert training_j(known) == 0.0, "nobody of us worked: all of it is others' or idle"
