"""Settings: one clear line for whatever is wrong, before anything starts."""

from pathlib import Path

import pytest

from dataflows.settings import Settings, load_settings
from session_logic.errors import ConfigError

WRONG = {
    "unknown name": (
        {"HEARTWHEEL_LANE": "4"},
        "HEARTWHEEL_LANE is not a setting of Heartwheel; did you mean HEARTWHEEL_LANES?",
    ),
    "name like no other": (
        {"HEARTWHEEL_Q": "4"},
        "HEARTWHEEL_Q is not a setting of Heartwheel; s",
    ),
    "no number": ({"HEARTWHEEL_LANES": "four"}, "HEARTWHEEL_LANES"),
    "no power of two": ({"HEARTWHEEL_LANES": "6"}, "power of two"),
    "too many lanes": ({"HEARTWHEEL_LANES": "512"}, "power of two"),
    "zero": ({"HEARTWHEEL_HEARTBEAT_MS": "0"}, "HEARTWHEEL_HEARTBEAT_MS"),
    "session shorter than beat": ({"HEARTWHEEL_MAX_SESSION_MS": "100"}, "max_session_ms"),
    "tick": ({"HEARTWHEEL_TICK_MS": "7"}, "must divide"),
    "policy": (
        {"HEARTWHEEL_CATCH_UP": "typo"},
        "HEARTWHEEL_CATCH_UP: Invalid enum value 'typo'; it must be latest or all",
    ),
    "start": ({"HEARTWHEEL_START": "End"}, "it must be earliest or latest"),
    "topics": ({"HEARTWHEEL_INPUT_TOPICS": "a,b"}, "topic=platform"),
    "same topic twice": ({"HEARTWHEEL_OUTPUT_TOPIC": "pc-events"}, "no topic twice"),
    "no file": ({"HEARTWHEEL_CONFIG": "/nowhere.toml"}, "cannot be read"),
    "no secret": ({"HEARTWHEEL_KAFKA_SASL_PASSWORD_FILE": "/nowhere"}, "cannot be read"),
    "bare table": ({"HEARTWHEEL_KAFKA": "x"}, "variable of its own"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_setting_is_one_clear_line(name: str) -> None:
    """The error names the setting and has no line break."""
    variables, text = WRONG[name]
    with pytest.raises(ConfigError) as error:
        load_settings(variables)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_defaults_are_the_documented_ones() -> None:
    """Without any variable the settings are those of the README."""
    settings = load_settings({})
    assert settings == Settings()
    assert settings.input_topics == {"console-events": "console", "pc-events": "pc"}
    assert (settings.heartbeat_ms, settings.max_session_ms) == (30_000, 28_800_000)
    assert (settings.snapshot_ms, settings.catch_up) == (250, "latest")


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    """A TOML file sets everything, a variable one thing; secrets come from files."""
    (tmp_path / "password").write_text("hunter2\n")
    config = tmp_path / "heartwheel.toml"
    config.write_text(
        'lanes = 8\nheartbeat_ms = 2000\n[input_topics]\nxbox = "console"\n'
        '[kafka]\n"security.protocol" = "SASL_SSL"\n'
        f'sasl.password = {{file = "{tmp_path}/password"}}\n'
    )
    settings = load_settings(
        {
            "HEARTWHEEL_CONFIG": str(config),
            "HEARTWHEEL_LANES": "16",
            "HEARTWHEEL_PRODUCER_LINGER_MS": "7",
            "HEARTWHEEL_PRODUCER_LOG__LEVEL": "0",
            "OTHER": "x",
        }
    )
    assert (settings.lanes, settings.heartbeat_ms) == (16, 2000)
    assert settings.input_topics == {"xbox": "console"}
    assert settings.kafka == {"security.protocol": "SASL_SSL", "sasl.password": "hunter2"}
    assert settings.producer == {"linger.ms": "7", "log_level": "0"}
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.masked())


def test_unknown_key_in_the_file_suggests_the_nearest(tmp_path: Path) -> None:
    """The line names file and key."""
    config = tmp_path / "heartwheel.toml"
    config.write_text("lanes = 4\nheartbeat = 5\n")
    with pytest.raises(ConfigError) as error:
        load_settings({}, str(config))
    assert f"heartbeat in {config}" in str(error.value)
    assert "did you mean heartbeat_ms?" in str(error.value)


def test_monitoring_group_that_holds_the_lease_is_refused() -> None:
    """Its offsets would be taken for the lease."""
    with pytest.raises(ConfigError) as error:
        load_settings({"HEARTWHEEL_MONITOR_GROUP": "heartwheel-session-events"})
    assert "HEARTWHEEL_MONITOR_GROUP" in str(error.value)
    assert load_settings({"HEARTWHEEL_MONITOR_GROUP": ""}).monitor_group == ""
