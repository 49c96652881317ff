"""Fixtures for all tests of recovery stores."""

import shutil
from pathlib import Path

import pytest

from session_logic import journal
from tests.support.stores import Command, make


@pytest.fixture(scope="session")
def intact_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with two parts; it must not be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SEGMENT_BYTES", 150)
        return make(tmp_path_factory.mktemp("whole") / "store", 2, 40)


@pytest.fixture
def store(intact_store: Path, tmp_path: Path) -> Path:
    """Return a copy of the store to do harm to."""
    return Path(shutil.copytree(intact_store, tmp_path / "store"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return the command."""
    return Command(monkeypatch, capsys)
