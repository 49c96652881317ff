"""Fixtures for all tests of the manifests: each overlay, rendered."""

import pytest

from tests.support.manifests import (
    OVERLAYS,
    Manifest,
    objects,
    render,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the YAML of every overlay."""
    folder = tmp_path_factory.mktemp("manifests")
    return {overlay: render(overlay, folder) for overlay in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Return the name of an overlay."""
    name: str = request.param
    return name


@pytest.fixture
def manifests(overlay: str, rendered: dict[str, str]) -> list[Manifest]:
    """Return the objects of an overlay."""
    return objects(rendered[overlay])
