"""Where the server listens, and what it refuses before anything starts."""

import os
import subprocess
import sys

import pytest

from dataflows.settings import Settings
from dataflows.settings_sources import environment, load_settings
from heartwheel.http.listener import bind
from session_logic.errors import ConfigError
from tests.support.broker import ROOT
from tests.support.ports import free_port
from tests.support.serving import TOKEN, Client


def test_port_in_use_is_one_line_before_anything_starts(
    client: Client, tmp_path: os.PathLike[str]
) -> None:
    """Exit code 2, and no recovery directory made."""
    done = subprocess.run(
        [sys.executable, "-m", "heartwheel.cli", "run"],
        env=environment()
        | {
            "HEARTWHEEL_HTTP_PORT": str(client.settings.http_port),
            "HEARTWHEEL_RECOVERY_DIR": f"{tmp_path}/recovery",
            "HEARTWHEEL_LOG_FORMAT": "text",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("heartwheel: HEARTWHEEL_HTTP_HOST and HEARTWHEEL_HTTP_PORT: ")
    assert "in use" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["host.invalid", "192.0.2.1", "2001:db8::1", "a b"])
def test_host_that_is_not_of_this_machine_is_one_line(host: str) -> None:
    """A name that nobody knows, and addresses of others."""
    settings = Settings(http_host=host, http_port=free_port(), http_token=TOKEN)
    with pytest.raises(ConfigError) as error:
        bind(settings)
    assert "\n" not in str(error.value)
    assert host in str(error.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "myhost"])  # noqa: S104
def test_beyond_loopback_a_token_is_required(host: str, tmp_path: os.PathLike[str]) -> None:
    """Or no server; the token can come from a file, and is never shown."""
    variables = {"HEARTWHEEL_HTTP_HOST": host}
    with pytest.raises(ConfigError, match="HEARTWHEEL_HTTP_TOKEN"):
        load_settings(variables)
    assert load_settings(variables | {"HEARTWHEEL_HTTP_PORT": "0"}).http_port == 0
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    settings = load_settings(variables | {"HEARTWHEEL_HTTP_TOKEN_FILE": str(secret)})
    assert settings.http_token == TOKEN
    assert TOKEN not in repr(settings)
    assert list(settings.masked().values()).count("***") == 1


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "\xe4", "\x00"])
def test_token_that_no_header_can_hold_is_one_line(token: str) -> None:
    """It is not shown in the error."""
    with pytest.raises(ConfigError, match="HEARTWHEEL_HTTP_TOKEN") as error:
        load_settings({"HEARTWHEEL_HTTP_TOKEN": token})
    assert token not in str(error.value)


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_port_that_is_none_is_one_line(port: str) -> None:
    """As any other setting."""
    with pytest.raises(ConfigError, match="HEARTWHEEL_HTTP_PORT"):
        load_settings({"HEARTWHEEL_HTTP_PORT": port})
