"""What the kernel counts, against what is known to be used."""

import os
import subprocess
import sys
import time

from benchmarks.usage import Cores, Machine, cpu_s, memory_bytes, thread_cpu_s, turns
from tests.support.waiting import wait_for


def test_processor_time_and_memory_are_sums_over_processes() -> None:
    """A cluster is measured as a whole."""
    computes = "import sys; sum(range(10**6)); print('done', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", computes], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # from here on it uses nothing more
        once = sum(thread_cpu_s(process.pid).values())
        assert once > 0
        assert cpu_s(process.pid, process.pid) >= 2 * once
        assert memory_bytes(process.pid, process.pid) == 2 * memory_bytes(process.pid) > 0
        process.kill()


def test_machine_is_not_idle_while_something_is_computed() -> None:
    """Shares are of all cores, and what is not idle or stolen is in use."""
    machine, cores = Machine(), Cores({"own": [os.getpid()]})
    end_s = time.process_time() + 0.3
    while time.process_time() < end_s:
        pass
    assert cores.stop().keys() == {"own"}
    found = machine.stop()
    assert found["used_cores"] > 0
    assert 0 <= found["idle"] < 1
    assert 0 <= found["steal"] < 1


def test_process_that_wakes_up_often_has_many_turns() -> None:
    """A pause that ends is one more turn, but for those that are over before the core is left."""
    before = turns(os.getpid())
    wait_for(lambda: turns(os.getpid()) - before >= 50)


def test_process_that_waits_has_no_turns() -> None:
    """What nobody wakes is given no core."""
    waits = "import sys; print('done', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = 0

        def is_still() -> bool:
            nonlocal before
            last, before = before, turns(process.pid)
            time.sleep(0.05)
            return 0 < last == before

        wait_for(is_still)
        process.kill()
