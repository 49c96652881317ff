"""How the tests look at errors."""

import pytest

from session_logic.errors import HeartwheelError


def one_line(error: pytest.ExceptionInfo[HeartwheelError], *words: str) -> None:
    """Check that the error is one line with these words in it."""
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
