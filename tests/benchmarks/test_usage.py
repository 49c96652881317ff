"""What the kernel counts, against what is known to be used."""

import os
import time

from benchmarks.usage import Cores, Machine, cpu_s, memory_bytes, thread_cpu_s


def test_processor_time_and_memory_are_sums_over_processes() -> None:
    """A cluster is measured as a whole."""
    own = os.getpid()
    once = sum(thread_cpu_s(own).values())
    assert 2 * once <= cpu_s(own, own) <= 2 * cpu_s(own)
    assert memory_bytes(own, own) > 1.9 * memory_bytes(own) > 0


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
