"""Whether the dataflow of this process is alive, and whether it is up to date."""

from heartwheel.http.view import ProcessView


class Health:
    """Judges what the dataflow has left for others to see."""

    def __init__(self, view: ProcessView) -> None:
        """Judge by the limits of the settings."""
        self._settings = view.settings
        self._run = view.run
        self._lanes = view.own_lanes

    def stalled(self) -> str | None:
        """Say why the process is to be restarted, or None while it is alive.

        A restore has a limit of its own, and so has a wait for Kafka, which a restart would not
        shorten. Nothing has turned yet in a process that starts, or waits for others.
        """
        if self._run.stop.is_set() or self._run.waits_for_kafka():
            return None
        limit_ms = self._settings.liveness_timeout_ms
        if any(lane.restoring for lane in self._run.running_lanes()):
            limit_ms = max(limit_ms, self._settings.restore_timeout_ms)
        still_ms = self._run.still_ms()
        if still_ms <= limit_ms:
            return None
        return f"a loop of the dataflow has not turned for {still_ms / 1000:.1f} s"

    def unready(self) -> str | None:
        """Say why the process is not up to date, or None if it is."""
        if self._run.stop.is_set():
            return "the process is being stopped"
        if (stalled := self.stalled()) is not None:
            return stalled
        if awaited := self._awaited():
            return awaited
        now_ms = self._run.clock.now_ms()
        return self._run.timestamps.suspicion(now_ms) or self._behind(now_ms)

    def _awaited(self) -> str | None:
        """Say for which of the others this process waits."""
        run = self._run
        if run.waits_for_kafka():
            return "waiting for an answer of Kafka"
        if stalled := run.stalled_output(self._settings.ready_lag_ms / 1000):
            return f"no output taken by {stalled}"
        if awaited := run.awaited_schema() or run.awaited_processes:
            return f"waiting for {awaited}"
        return None

    def _behind(self, now_ms: int) -> str | None:
        """Say which lanes of this process are not up to date."""
        lanes = {lane.lane: lane for lane in self._run.running_lanes()}
        waiting = [lane for lane in self._lanes if lane not in lanes]
        if waiting:
            return f"{_named(waiting)} not begun: no word yet from input or store"
        restoring = [number for number, lane in lanes.items() if lane.restoring]
        if restoring:
            return f"{_named(restoring)} being restored"
        lags_ms = {number: lane.lag_ms(now_ms) for number, lane in lanes.items()}
        unknown = [number for number, lag_ms in lags_ms.items() if lag_ms is None]
        if unknown:
            return f"{_named(unknown)} without a time: not every input partition has reported"
        behind = [n for n, ms in lags_ms.items() if (ms or 0) > self._settings.ready_lag_ms]
        if behind:
            worst_s = max(lag_ms or 0 for lag_ms in lags_ms.values()) / 1000
            return f"{_named(behind)} up to {worst_s:.1f} s behind the wall clock"
        return None


def _named(lanes: list[int]) -> str:
    return f"lane{'s' * (len(lanes) > 1)} {', '.join(map(str, lanes))}"
