"""What the tests of deployment need."""

import pytest

from tests.deploy.container import require_namespaces


@pytest.fixture
def containers() -> None:
    """Skip, or fail in CI, where no container can be made."""
    require_namespaces()
