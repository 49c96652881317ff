"""The command line: help, completion, exit codes, and one line for whatever goes wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from dataflows.settings import Settings
from dataflows.settings_sources import load_settings, settings_sources
from heartwheel.cli import app
from heartwheel.commands.shared import (
    duration_ms,
    moment_ms,
)
from session_logic.errors import ConfigError
from tests.support.broker import ROOT
from tests.support.command import command, one_line, python

SECRET = "hunter2"  # noqa: S105  # of nobody


def commands() -> list[tuple[str, ...]]:
    """Return every command and group of commands."""
    root = typer.main.get_command(app)
    names: list[tuple[str, ...]] = [()]
    for name, inner in root.commands.items():  # type: ignore[attr-defined]
        names += [(name,), *((name, below) for below in getattr(inner, "commands", ()))]
    return names


def test_every_command_and_option_has_a_help_that_says_something() -> None:
    """No option without a word, and no command without a sentence."""
    root = typer.main.get_command(app)
    for name, *below in commands()[1:]:
        inner = root.commands[name]  # type: ignore[attr-defined]
        if below:
            inner = inner.commands[below[0]]
        assert inner.help, name
        for option in inner.params:
            assert getattr(option, "help", None), (name, below, option.name)


def test_help_shows_exit_codes_and_exits_with_0() -> None:
    """What a script needs to know is on the first page."""
    done = command("--help")
    assert done.returncode == 0
    assert "0 done, 1 failed or a fault found, 2 wrong settings or arguments" in done.stdout
    for name in ("run", "topics", "config", "dead-letters", "store", "load"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [("heartwheel dead", "dead-letters"), ("heartwheel topics c", "create"),
     ("heartwheel dead-letters list --reason not", "not_json")],
)  # fmt: skip
def test_shell_completes_commands_and_reasons(words: str, found: str) -> None:
    """What the completion of bash asks for is answered."""
    done = python(
        "-c",
        "import sys; sys.argv = ['heartwheel']; from heartwheel.cli import main; main()",
        _HEARTWHEEL_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(words.count(" ")),
    )
    assert found in done.stdout.split(), done


@pytest.mark.parametrize(
    "arguments",
    [("nothing",), ("run", "--nothing"), ("load", "--rate", "0"), ("store", "copy"),
     ("topics", "create", "--timestamps", "never")],
)  # fmt: skip
def test_wrong_arguments_exit_with_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    """As the settings do."""
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("asked", [("--traceback",), ()])
def test_traceback_comes_only_when_asked_for(asked: tuple[str, ...]) -> None:
    """By option or by variable; the line and the exit code are the same."""
    arguments = (*asked, "config", "check", "--config", "/nowhere.toml")
    plain = command("config", "check", "--config", "/nowhere.toml")
    one_line(plain, 2, "/nowhere.toml")
    done = command(*arguments, **({} if asked else {"HEARTWHEEL_TRACEBACK": "1"}))
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith(plain.stderr)


def test_unknown_reason_exits_with_2_and_names_them_all() -> None:
    """Before Kafka is asked: a typo must not look like an empty topic."""
    for name in ("list", "requeue"):
        one_line(
            command("dead-letters", name, "--reason", "nonsense"),
            2,
            "no such reason nonsense; one of empty, not_json, not_an_event, in_the_future, "
            "no_timestamp, too_large",
        )


def test_unexpected_error_is_one_line_and_exit_code_1() -> None:
    """Even a fault of our own; the line says how to learn more."""
    code = (
        "import sys, heartwheel.commands.config as c\n"
        "def fail(*_): raise ValueError('two\\nlines')\n"
        "c.load_settings = fail\n"
        "sys.argv = ['heartwheel', 'config', 'show']\n"
        "from heartwheel.cli import main; main()"
    )
    one_line(python("-c", code), 1, "unexpected ValueError: two lines", "--traceback")


@pytest.mark.parametrize("arguments", [["config", "show"], ["config", "show", "--json"]])
def test_standard_output_on_a_full_disk_is_one_line(arguments: list[str]) -> None:
    """It is no fault of ours, and the line says what to do."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "heartwheel.cli", *arguments],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "heartwheel: standard output, or a file, cannot be written (No space left on device); "
        "make room on its disk\n"
    )


@pytest.mark.parametrize("offset", ["", "x", "-1", "\u0663", "1" * 23, "1" * 5000])
def test_offset_that_kafka_has_not_is_refused_before_the_store_is_opened(
    tmp_path: Path, offset: str
) -> None:
    """A store that has such an offset would be refused by the next start."""
    skipped = command("store", "skip", str(tmp_path), "--to", f"pc-events/0={offset}")
    one_line(skipped, 2, "write it as TOPIC/PARTITION=OFFSET")


def test_schemas_go_to_no_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Such as one with the name of a file."""
    (tmp_path / "file").write_text("mine")
    one_line(command("schemas", str(tmp_path / "file")), 2, str(tmp_path / "file"), "File exists")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", ["mine", "[]", '{"title": "mine"}', '{"info": {"title": 1}}'])
def test_schemas_replace_their_older_ones_and_no_other_file(tmp_path: Path, content: str) -> None:
    """An AsyncAPI document of any service may have that name: nothing is written then."""
    assert command("schemas", str(tmp_path)).returncode == 0
    output, foreign = tmp_path / "output.schema.json", tmp_path / "asyncapi.json"
    whole = output.read_text()
    output.write_text(json.dumps({"title": json.loads(whole)["title"]}))
    foreign.write_text(content)
    one_line(command("schemas", str(tmp_path)), 2, str(foreign), "none of Heartwheel's")
    assert foreign.read_text() == content
    assert output.read_text() != whole
    foreign.unlink()
    assert command("schemas", str(tmp_path)).returncode == 0
    assert output.read_text() == whole


def test_config_shows_values_sources_and_no_secret(tmp_path: Path) -> None:
    """From the file, from variables, from a secret's file, or by default."""
    (tmp_path / "secret").write_text(SECRET)
    config = tmp_path / "heartwheel.toml"
    config.write_text(f'lanes = 8\n[kafka]\nsasl.password = "{SECRET}"\nclient.id = "x"\n')
    variables = {
        "HEARTWHEEL_CONFIG": str(config),
        "HEARTWHEEL_TICK_MS": "10",
        "HEARTWHEEL_PRODUCER_SASL_PASSWORD_FILE": str(tmp_path / "secret"),
    }
    done = command("config", "show", "--json", **variables)
    shown = json.loads(done.stdout)
    assert shown["lanes"] == {"value": 8, "from": str(config)}
    assert shown["tick_ms"] == {"value": 10, "from": "HEARTWHEEL_TICK_MS"}
    assert shown["start"] == {"value": "earliest", "from": "default"}
    assert shown["kafka.client.id"] == {"value": "x", "from": str(config)}
    assert shown["kafka.sasl.password"] == {"value": "***", "from": str(config)}
    assert shown["producer.sasl.password"]["value"] == "***"
    assert str(tmp_path / "secret") in shown["producer.sasl.password"]["from"]
    assert shown.keys() >= set(Settings.__struct_fields__) - {
        "kafka",
        "consumer",
        "producer",
        "inputs",
    }
    table = command("config", "show", **variables)
    checked = command("config", "check", **variables | {"HEARTWHEEL_PRODUCER_DEBUG": "all"})
    assert checked.returncode == 0, checked
    for output in (done, table, checked):
        assert SECRET not in output.stdout + output.stderr


def test_config_shows_and_checks_input_tables(tmp_path: Path) -> None:
    """Each key that is given has a row, with the file; what is wrong is one line with its place."""
    config = tmp_path / "heartwheel.toml"
    text = (
        '[inputs."prod.pc"]\nplatform = "pc"\ntype = "kind"\nstart = ["on"]\nend = "off"\n'
        'device = "id"\nsession = "sid"\ncarry = {account = ["a", "b"]}\n'
    )
    config.write_text(text)
    shown = json.loads(command("config", "show", "--json", "--config", str(config)).stdout)
    tables = {name: row for name, row in shown.items() if name.startswith("inputs.")}
    assert {row["from"] for row in tables.values()} == {str(config)}
    assert {name.removeprefix("inputs.prod.pc."): row["value"] for name, row in tables.items()} == {
        "platform": "pc", "type": "kind", "start": ["on"], "end": "off", "device": "id",
        "session": "sid", "carry": {"account": ["a", "b"]},
    }  # fmt: skip
    assert shown["input_topics"] == {"value": "", "from": str(config)}
    table = command("config", "show", "--config", str(config)).stdout
    assert '{"account": ["a", "b"]}' in table
    assert command("config", "check", "--config", str(config)).returncode == 0
    config.write_text(text.replace('"id"', '"id."'))
    done = command("config", "check", "--config", str(config))
    one_line(done, 2, f"inputs.prod.pc.device in {config} is 'id.'", "see docs/events.md")


def test_every_top_level_secret_is_masked() -> None:
    """By its name, whatever settings there will be."""

    class Other(Settings, frozen=True, kw_only=True):
        """Settings with secrets of their own."""

        http_token: str = SECRET
        some_password: str = SECRET
        empty_token: str = ""

    masked = Other().masked()
    assert (masked["http_token"], masked["some_password"]) == ("***", "***")
    assert masked["empty_token"] == ""


def test_secret_given_twice_is_refused(tmp_path: Path) -> None:
    """Which of the two counts would depend on the order of the environment."""
    (tmp_path / "secret").write_text(SECRET)
    variables = {
        "HEARTWHEEL_KAFKA_SASL_PASSWORD": SECRET,
        "HEARTWHEEL_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "secret"),
    }
    with pytest.raises(ConfigError, match="set the same thing") as error:
        load_settings(variables)
    assert SECRET not in str(error.value)
    assert settings_sources({"HEARTWHEEL_LANES": "4"}) == {"lanes": "HEARTWHEEL_LANES"}


def test_times_in_words_are_read() -> None:
    """Durations, moments, and what is neither."""
    assert duration_ms("x", "7d") == 604_800_000
    assert duration_ms("x", "forever") == -1
    assert moment_ms("x", "2026-11-23T10:00:00Z") == moment_ms("x", "1795428000000")
    for text in ("", "7", "7 days", "-1s", "99999999999d"):
        with pytest.raises(ConfigError, match="--x"):
            duration_ms("--x", text)
    for text in ("", "soon", "99999999999999d", "999999999d", "9" * 23, "0001-01-01", "1969-12-31"):
        with pytest.raises(ConfigError, match="--x"):
            moment_ms("--x", text)
