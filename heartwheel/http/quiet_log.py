"""What the HTTP server logs, of which whoever can connect could make any amount."""

import logging
from math import inf

# How long the same words are not said again.
LINE_S = 30.0


class Quiet(logging.Filter):
    """Shows the same words once in a while, with how often they were left out; others at once."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        super().__init__()
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is shown; the arguments in it do not make it another one."""
        said_s, left_out = self._said.get(record.msg, (-inf, 0))
        if 0 <= record.created - said_s < LINE_S:
            self._said[record.msg] = said_s, left_out + 1
            return False
        self._said[record.msg] = record.created, 0
        if left_out:
            record.msg += f" ({left_out} times more since it was last said here)"
        return True
