"""How late a thread may be woken up, as Linux tells it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from dataflows import timer_slack
from dataflows.timer_slack import DEFAULT_US, LATE_US, set_timer_slack
from tests.support.threads import slack_ns


def test_slack_is_that_of_the_calling_thread_and_of_those_it_makes() -> None:
    """A thread sets its own; one made by it has it as well, until it sets another; ours stays."""

    def in_thread() -> tuple[int, int, int]:
        set_timer_slack(LATE_US)
        with ThreadPoolExecutor(1) as made:
            inherited = made.submit(slack_ns).result()
            made.submit(set_timer_slack, DEFAULT_US).result()
            return slack_ns(), inherited, made.submit(slack_ns).result()

    before = slack_ns()
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(in_thread).result() == (1_000_000, 1_000_000, 50_000)
    assert slack_ns() == before


def test_system_without_such_a_setting_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread whose file is not there runs as it would have."""
    before = slack_ns()
    monkeypatch.setattr(timer_slack, "get_native_id", lambda: 2**31)
    set_timer_slack(LATE_US)
    assert slack_ns() == before
