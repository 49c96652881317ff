"""Settings: one clear line for whatever is wrong, before anything starts."""

import re
from pathlib import Path

import msgspec
import pytest

from dataflows.settings import OPTION_TABLES, Settings
from dataflows.settings_sources import load_settings
from session_logic.errors import ConfigError
from session_logic.event_table import EventTable, FromField
from session_logic.events import Rejected
from session_logic.mapping import MappedEvent

TABLE = "platform = 'pc'\ntype = 't'\nstart = 'on'\nend = 'off'\ndevice = 'id'\nsession = 'sid'\n"
ENDLESS = TABLE.replace("end = 'off'\n", "")
STARTLESS = TABLE.replace("start = 'on'\n", "")
WRONG = {
    "unknown name": (
        {"HEARTWHEEL_LANE": "4"},
        "HEARTWHEEL_LANE is not a setting of Heartwheel; did you mean HEARTWHEEL_LANES?",
    ),
    "name like no other": (
        {"HEARTWHEEL_Q": "4"},
        "HEARTWHEEL_Q is not a setting of Heartwheel; s",
    ),
    "no number": (
        {"HEARTWHEEL_LANES": "four"},
        "HEARTWHEEL_LANES is 'four': write a power of two up to 256",
    ),
    "no power of two": ({"HEARTWHEEL_LANES": "6"}, "6: write a power of two up to 256"),
    "too many lanes": ({"HEARTWHEEL_LANES": "512"}, "512: write a power of two up to 256"),
    "no lanes": ({"HEARTWHEEL_LANES": "0"}, "'0': write a power of two up to 256"),
    "zero": (
        {"HEARTWHEEL_MAX_SESSION_MS": "0"},
        "HEARTWHEEL_MAX_SESSION_MS is '0': write a whole number from 1 to 315360000000",
    ),
    "beyond its bounds": (
        {"HEARTWHEEL_HTTP_PORT": "65536"},
        "HEARTWHEEL_HTTP_PORT is '65536': write a whole number from 0 to 65535",
    ),
    "longer than ten years": (
        {"HEARTWHEEL_MAX_SESSION_MS": "9999999999999"},
        "HEARTWHEEL_MAX_SESSION_MS is '9999999999999': write a whole number from 1 to 315360000000",
    ),
    "longer than any thread can wait": (
        {"HEARTWHEEL_PROGRESS_S": "9999999999"},
        "HEARTWHEEL_PROGRESS_S is '9999999999': write a whole number from 0 to 315360000",
    ),
    "more than an int of C": (
        {"HEARTWHEEL_SNAPSHOT_MS": "9" * 30},
        "write a whole number from 10 to 315360000000",
    ),
    "no yes or no": (
        {"HEARTWHEEL_FENCING": "maybe"},
        "HEARTWHEEL_FENCING is 'maybe': write true or false",
    ),
    "empty": ({"HEARTWHEEL_RECOVERY_DIR": ""}, "HEARTWHEEL_RECOVERY_DIR is '': write some text"),
    "session shorter than beat": (
        {"HEARTWHEEL_MAX_SESSION_MS": "100"},
        "HEARTWHEEL_MAX_SESSION_MS (100) must be at least HEARTWHEEL_HEARTBEAT_MS (30000)",
    ),
    "policy": (
        {"HEARTWHEEL_CATCH_UP": "typo"},
        "HEARTWHEEL_CATCH_UP is 'typo': write all or latest",
    ),
    "start": (
        {"HEARTWHEEL_START": "End"},
        "HEARTWHEEL_START is 'End': write earliest, latest, or a moment with its zone, such as 2",
    ),
    "start without a zone": (
        {"HEARTWHEEL_START": "2026-11-25T00:00:00"},
        "HEARTWHEEL_START is '2026-11-25T00:00:00': write earliest, latest, or a moment with its z",
    ),
    "no start": ({"HEARTWHEEL_START": ""}, "HEARTWHEEL_START is '': write earliest, latest, or"),
    "log level": ({"HEARTWHEEL_LOG_LEVEL": "x"}, "write debug, error, info or warning"),
    "topics": ({"HEARTWHEEL_INPUT_TOPICS": "a,b"}, "topic=platform"),
    "topic with a blank": (
        {"HEARTWHEEL_OUTPUT_TOPIC": "a b"},
        "HEARTWHEEL_OUTPUT_TOPIC is 'a b': write up to 249 letters",
    ),
    "topic with a line break": ({"HEARTWHEEL_DEAD_LETTER_TOPIC": "a\n"}, "is 'a\\n': write up to"),
    "topic that is too long": ({"HEARTWHEEL_TABLE_TOPIC": "a" * 250}, "write up to 249 letters"),
    "no topic of output": ({"HEARTWHEEL_OUTPUT_TOPIC": ""}, "is '': write up to 249 letters"),
    "input topic of two dots": (
        {"HEARTWHEEL_INPUT_TOPICS": "pc=pc,..=pc"},
        "HEARTWHEEL_INPUT_TOPICS has a topic '..': write up to 249 letters",
    ),
    "heartbeats in the output": (
        {"HEARTWHEEL_HEARTBEAT_TOPIC": "session-events"},
        "HEARTWHEEL_HEARTBEAT_TOPIC is session-events, which HEARTWHEEL_OUTPUT_TOPIC has as well",
    ),
    "heartbeats in the input": (
        {"HEARTWHEEL_HEARTBEAT_TOPIC": "pc-events"},
        "HEARTWHEEL_HEARTBEAT_TOPIC is pc-events, which HEARTWHEEL_INPUT_TOPICS has as well",
    ),
    "heartbeats among the dead letters": (
        {"HEARTWHEEL_HEARTBEAT_TOPIC": "dead-letters"},
        "HEARTWHEEL_HEARTBEAT_TOPIC is dead-letters, which HEARTWHEEL_DEAD_LETTER_TOPIC has as w",
    ),
    "heartbeats among the summaries": (
        {"HEARTWHEEL_HEARTBEAT_TOPIC": "more", "HEARTWHEEL_SUMMARY_TOPIC": "more"},
        "HEARTWHEEL_SUMMARY_TOPIC is more, which HEARTWHEEL_HEARTBEAT_TOPIC has as well",
    ),
    "progress in the output": (
        {"HEARTWHEEL_PROGRESS_TOPIC": "session-events"},
        "HEARTWHEEL_PROGRESS_TOPIC is session-events, which HEARTWHEEL_OUTPUT_TOPIC has as w",
    ),
    "progress without a time": (
        {"HEARTWHEEL_PROGRESS_TOPIC": "p", "HEARTWHEEL_PROGRESS_S": "0"},
        "HEARTWHEEL_PROGRESS_TOPIC is set, and HEARTWHEEL_PROGRESS_S is 0: write how often",
    ),
    "same topic twice": (
        {"HEARTWHEEL_OUTPUT_TOPIC": "pc-events"},
        "HEARTWHEEL_OUTPUT_TOPIC is pc-events, which HEARTWHEEL_INPUT_TOPICS has as well: give i",
    ),
    "no file": (
        {"HEARTWHEEL_CONFIG": "/nowhere.toml"},
        "/nowhere.toml cannot be read: No such file or directory; correct HEARTWHEEL_CONFIG",
    ),
    "typing error in the prefix": (
        {"HEARTWHEL_LANES": "4"},
        "HEARTWHEL_LANES is not read, because it does not begin with HEARTWHEEL_: write HEARTW",
    ),
    "prefix in small letters": ({"heartwheel_lanes": "4"}, "write HEARTWHEEL_LANES"),
    "old name": (
        {"HEARTWHEEL_REMEMBER_ENDED_MS": "4"},
        "HEARTWHEEL_REMEMBER_ENDED_MS was renamed to HEARTWHEEL_DEDUPLICATION_WINDOW_MS",
    ),
    "no secret": ({"HEARTWHEEL_KAFKA_SASL_PASSWORD_FILE": "/nowhere"}, "cannot be read"),
    "input tables": (
        {"HEARTWHEEL_INPUTS": "pc=x"},
        "HEARTWHEEL_INPUTS: input tables are read from a file; write [inputs.TOPIC] in the one",
    ),
    "a key of an input table": (
        {"HEARTWHEEL_INPUTS_PC_DEVICE": "x"},
        "HEARTWHEEL_INPUTS_PC_DEVICE: input tables are read from a file",
    ),
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


def test_lanes_are_as_many_as_the_partitions_by_that_route() -> None:
    """Topics with 6 or 12 partitions are usual; by the hash it is a power of two."""
    found = load_settings({"HEARTWHEEL_ROUTE": "partition", "HEARTWHEEL_LANES": "12"})
    assert list(found.own_lanes) == list(range(12))
    with pytest.raises(ConfigError, match="257: write a power of two up to 256, by"):
        load_settings({"HEARTWHEEL_ROUTE": "partition", "HEARTWHEEL_LANES": "257"})


def test_moment_of_the_start_is_text_or_a_time_of_toml(tmp_path: Path) -> None:
    """Both are kept as text in ISO 8601."""
    config = tmp_path / "heartwheel.toml"
    moment = "2026-11-25T00:00:00+00:00"
    for written in (moment, f"'{moment}'"):
        config.write_text(f"start = {written}\n")
        assert load_settings({}, str(config)).start == moment
    assert load_settings({"HEARTWHEEL_START": "2026-11-25T00:00:00Z"}).start.endswith("Z")


WRONG_IN_FILE = {
    "lanes = 6": "lanes in FILE is 6: write a power of two up to 256",
    "lanes = 4.5": "lanes in FILE is 4.5: write a power of two up to 256",
    "lanes = true": "lanes in FILE is True: write a power of two up to 256",
    "output_topic = 5": "output_topic in FILE is 5: write up to 249 letters (a to z), digits, dots",
    "recovery_dir = 5": "recovery_dir in FILE is 5: write some text (in TOML, in quotes)",
    'input_topics = "console"': (
        "input_topics in FILE must be a table of topics with their platforms: "
        'input_topics = {console-events = "console"}'
    ),
    "input_topics = {x = 5}": "input_topics in FILE must be a table of topics with their platforms",
    "kafka = 5": "kafka in FILE must be a table of librdkafka options",
    "tick_ms = 0": "tick_ms in FILE is 0: write a whole number from 1 to 315360000000",
    "start = 2026-11-25": "start in FILE is '2026-11-25': write earliest, latest, or a moment",
    "start = 2026-11-25T00:00:00": "start in FILE is '2026-11-25T00:00:00': write earliest, latest",
    "start = 07:30:00": "start in FILE is datetime.time(7, 30): write earliest, latest, or a mom",
    "heartbeat = 5": "heartbeat in FILE is not a setting of Heartwheel; did you mean heartbeat_ms?",
    "HEARTWHEEL_LANES = 5": "HEARTWHEEL_LANES in FILE is not a setting of Heartwheel; did you mean "
    "lanes?",
    "value_limit_bytes = 5": "value_limit_bytes in FILE was renamed to max_record_bytes",
    "max_clock_skew_ms = 86_400_001": (
        "max_clock_skew_ms in FILE is 86400001: write a whole number from 0 to 86400000"
    ),
    "inputs = 5": "inputs in FILE must be tables: [inputs.TOPIC]; see docs/events.md",
    "inputs.pc = 5": "inputs.pc in FILE is 5: it must be a table with platform, type, start",
    "[inputs.pc]\ndevise = 'x'": (
        "inputs.pc.devise in FILE is not a key of a table; did you mean device?"
    ),
    "[inputs.pc]\nplatform = 'pc'\ndevice = 'a..b'": (
        "inputs.pc.device in FILE is 'a..b': a name is missing in the path; write a path such as "
        "data.id, or `key`, or `header:NAME`; see docs/events.md"
    ),
    "[inputs.prod.pc]\ndevice = 'x'": (
        'inputs.prod.pc in FILE is not a key of a table; a topic with dots is quoted: [inputs."a.b'
    ),
    "[inputs.pc]\ndevice = 'x'\n[inputs.pc]\ndevice = 'y'": "settings file FILE is not TOML: Ca",
    f"[inputs.'']\n{TABLE}": "inputs in FILE has a topic '': write up to 249 letters",
    f"[inputs.'a b']\n{TABLE}": "inputs in FILE has a topic 'a b': write up to 249 letters",
    "[input_topics]\n'a/b' = 'pc'": "input_topics in FILE has a topic 'a/b': write up to 249 let",
    "summary_topic = '..'": "summary_topic in FILE is '..': write up to 249 letters",
    "config = 'other.toml'": "config in FILE is not a setting of Heartwheel; see docs/settings.md",
    f"[input_topics]\npc = 'pc'\n[inputs.pc]\n{TABLE}": (
        "input_topics in FILE and inputs in FILE both have pc: a topic that has a table is left out"
    ),
    f"summary_topic = 'ended'\n[inputs.pc]\n{TABLE}carry = {{reason = 'why'}}": (
        "inputs in FILE, pc carries reason, which a summary has as well: give it another name, or "
        "leave summary_topic in FILE empty"
    ),
    f"[inputs.session-events]\n{TABLE}": (
        "HEARTWHEEL_OUTPUT_TOPIC is session-events, which inputs in FILE has as well: give it a t"
    ),
    "[inputs.pc]\n'' = 5": 'inputs.pc."" in FILE is not a key of a table; There are platform',
    f"[inputs.pc]\n{STARTLESS}": "inputs in FILE has no start in any table: write what begins",
    f"[inputs.pc]\n{STARTLESS}start = []\nping = 'alive'": "inputs in FILE has no start in any t",
    "[inputs.pc]\nplatform = 'pc'\ndevice = 'x'": (
        "inputs in FILE, pc has no type, so that no record is an end: write type, or an "
        "idle_timeout_ms after which its sessions end"
    ),
    f"[inputs.pc]\n{ENDLESS}": (
        "inputs in FILE, pc has no end, so that no record is an end: write end, or an "
        "idle_timeout_ms after which its sessions end, or idle_timeout_ms = 0 if only the next "
        "start ends them"
    ),
    f"[inputs.pc]\n{ENDLESS}ping = 'alive'": "inputs in FILE, pc has no end, so that no record",
    f"[inputs.pc]\n{ENDLESS}ping = 'alive'\nopen_on_ping = true": "inputs in FILE, pc has no end",
    f"[inputs.pc]\n{ENDLESS}[inputs.console]\n{TABLE}": "inputs in FILE, pc has no end, so that",
    "inputs = {}\ninput_topics = {}": "input_topics in FILE is empty: name a topic, or write an",
    "lanes 4": "settings file FILE is not TOML",
    f"lanes = {'9' * 5_000}": "settings file FILE is not TOML",
    f"lanes = {'[' * 20_000}": "settings file FILE is nested too deeply",
    f"[kafka]\n{'.'.join('x' * 1_500)} = 1": "settings file FILE is nested too deeply",
    "[kafka]\nsasl.password = {file = 5}": "kafka.sasl.password: write the path of its file",
    '[kafka]\nsasl.password = {file = "a\\u0000b"}': "kafka.sasl.password: the file a",
    f"[inputs.pc]\n{TABLE}format = 'avro'": (
        "inputs in FILE, pc has format avro: set HEARTWHEEL_REGISTRY_URL to where the schemas are"
    ),
    f"[inputs.pc]\n{TABLE}format = 'xml'": (
        'inputs.pc.format in FILE is \'xml\': write "json", "json_sr" or "avro"'
    ),
    "registry_url = 'registry:8081'": "registry_url in FILE is no address: write it as https://",
    "registry_url = 'file:///etc'": "registry_url in FILE is no address: write it as https://",
    "registry_url = 'https://host:port'": "registry_url in FILE cannot be read (",
    "registry_url = 'http://a, http://b?x'": "registry_url in FILE has more than a path: write it",
    "registry_url = 'https://me:hunter2@host'": (
        "registry_url in FILE has a user in it: write that in HEARTWHEEL_REGISTRY_USERNAME, and"
    ),
    "registry_username = 'me'": "registry_username in FILE and HEARTWHEEL_REGISTRY_PASSWORD need",
    "registry_username = 'a:b'\nregistry_password = 'c'": "registry_username in FILE has a colon",
    "registry_username = 'a'\nregistry_password = 'b'\nregistry_token = 'c'": (
        "registry_username in FILE and registry_token in FILE exclude each other: take one out"
    ),
    "registry_token = 'a b'": "registry_token in FILE must be one word of ASCII letters",
}


@pytest.mark.parametrize("text", WRONG_IN_FILE)
def test_wrong_setting_of_the_file_is_named_as_it_stands_there(text: str, tmp_path: Path) -> None:
    """The line names key and file, not a variable that nobody has set."""
    config = tmp_path / "heartwheel.toml"
    config.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_settings({}, str(config))
    assert str(error.value).startswith(WRONG_IN_FILE[text].replace("FILE", str(config)))


def test_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Some editors write one."""
    config = tmp_path / "heartwheel.toml"
    config.write_bytes(b"\xef\xbb\xbflanes = 2\n")
    assert load_settings({}, str(config)).lanes == 2


def settings_of(tmp_path: Path, text: str, **variables: str) -> Settings:
    """Return the settings of a file with this text, and of variables."""
    config = tmp_path / "heartwheel.toml"
    config.write_text(text)
    return load_settings(variables, str(config))


def test_topics_with_a_table_are_all_there_is_unless_others_are_named(tmp_path: Path) -> None:
    """The topics that there are by default have our own format."""
    text = f"[inputs.'prod.pc']\n{TABLE}[inputs.b]\n{TABLE}"
    assert settings_of(tmp_path, text).all_input_topics == ["prod.pc", "b"]
    both = settings_of(tmp_path, text, HEARTWHEEL_INPUT_TOPICS="x=console")
    assert both.all_input_topics == ["x", "prod.pc", "b"]
    assert both.input_topics == {"x": "console"}
    assert both.mappings().keys() == {"prod.pc", "b"}
    none = settings_of(tmp_path, text, HEARTWHEEL_INPUT_TOPICS="")
    assert none.all_input_topics == ["prod.pc", "b"]
    assert settings_of(tmp_path, "inputs = {}").all_input_topics == ["console-events", "pc-events"]


def test_limits_of_times_in_fields_are_those_of_the_settings(tmp_path: Path) -> None:
    """The one of timestamps in the future holds for them as well."""
    text = f"max_clock_skew_ms = 5\nlate_limit_ms = 7\n[inputs.a]\n{TABLE}time = 'at'\n"
    text += "time_unit = 'ms'\n"
    read = settings_of(tmp_path, text).mappings()["a"].read
    value = '{"t":"on","id":"d","sid":"s","at":%d}'
    found = [read(None, (value % at).encode(), None, 100) for at in (106, 105, 93, 92)]
    assert isinstance(found[0], Rejected)
    assert [(e.time_ms, e.late) for e in found[1:] if isinstance(e, MappedEvent)] == [
        (105, False), (93, False), (None, True),
    ]  # fmt: skip


def test_file_that_is_missing_is_told_with_how_it_was_named() -> None:
    """By the option or by the variable."""
    with pytest.raises(ConfigError, match=r"correct --config$"):
        load_settings({"HEARTWHEEL_CONFIG": "/other.toml"}, "/nowhere.toml")


def test_value_that_may_be_a_secret_is_not_shown(tmp_path: Path) -> None:
    """Neither a token nor what a file holds."""
    config = tmp_path / "heartwheel.toml"
    config.write_text("http_token = 12345")
    with pytest.raises(ConfigError, match=r"^http_token in [^ ]*toml: write some text") as error:
        load_settings({}, str(config))
    assert "12345" not in str(error.value)
    (tmp_path / "secret").write_text("hunter2")
    with pytest.raises(ConfigError, match=r"^HEARTWHEEL_LANES_FILE: write a power") as error:
        load_settings({"HEARTWHEEL_LANES_FILE": str(tmp_path / "secret")})
    assert "hunter2" not in str(error.value)


def test_every_setting_has_a_description_and_says_what_it_may_be() -> None:
    """No message and no row of the documentation is left empty."""
    for setting in msgspec.json.schema(Settings)["$defs"]["Settings"]["properties"].values():
        assert setting["description"].endswith(".")
    for name in set(Settings.__struct_fields__) - {
        *OPTION_TABLES, "inputs", "http_token", "http_addresses", "monitor_group", "registry_url",
        "heartbeat_topic", "summary_topic", "table_topic", "progress_topic", "shard",
        "registry_username", "registry_password", "registry_token", "registry_ca",
    }:  # fmt: skip
        with pytest.raises(ConfigError) as error:
            load_settings({f"HEARTWHEEL_{name.upper()}": ""})
        assert re.match(rf"HEARTWHEEL_{name.upper()} is '': write \w+", str(error.value))


def test_registry_is_set_with_its_secrets_in_files(tmp_path: Path) -> None:
    """They are shown as stars."""
    (tmp_path / "secret").write_text("hunter2\n")
    settings = settings_of(
        tmp_path,
        f"registry_url = 'http://a/x/, https://b'\n[inputs.pc]\n{TABLE}format = 'avro'",
        HEARTWHEEL_REGISTRY_USERNAME="me",
        HEARTWHEEL_REGISTRY_PASSWORD_FILE=str(tmp_path / "secret"),
    )
    assert settings.registry_urls == ["http://a/x", "https://b"]
    assert (settings.registry_password, settings.avro_topics) == ("hunter2", ["pc"])
    assert "hunter2" not in str(settings)
    assert settings.masked()["registry_password"] == "***"  # noqa: S105


@pytest.mark.parametrize(
    "name", ["BOOTSTRAP_SERVERS", "INPUT_TOPICS", "KAFKA_CLIENT_ID", "X\udcff"]
)
def test_variable_that_is_no_utf8_is_one_clear_line(name: str) -> None:
    """Neither Kafka nor a record can have such text, and it may be a secret."""
    with pytest.raises(ConfigError) as raised:
        load_settings({f"HEARTWHEEL_{name}": "t=\udcff"})
    shown = name.replace("\udcff", "\\udcff")
    assert str(raised.value) == f"HEARTWHEEL_{shown} is not written in UTF-8: correct it"


def test_variable_of_another_program_is_left_alone() -> None:
    """Only what looks like ours is refused."""
    others = {"HEARTBEAT_MS": "1", "HEART_RATE": "1", "WHEEL_LANES": "1", "HOME": "/"}
    assert load_settings(others) == Settings()


def test_monitoring_group_that_holds_the_lease_is_refused() -> None:
    """Its offsets would be taken for the lease."""
    with pytest.raises(ConfigError) as error:
        load_settings({"HEARTWHEEL_MONITOR_GROUP": "heartwheel-session-events"})
    assert "HEARTWHEEL_MONITOR_GROUP" in str(error.value)
    assert load_settings({"HEARTWHEEL_MONITOR_GROUP": ""}).monitor_group == ""


def test_recovery_directory_may_begin_with_the_home_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no shell has read it: in a file, a unit or a manifest."""
    monkeypatch.setenv("HOME", "/home/one")
    assert Settings(recovery_dir="~/heartwheel").recovery_path() == Path("/home/one/heartwheel")
    assert Settings().recovery_path() == Path("recovery")


def test_platform_of_a_topic_is_unknown_where_its_events_have_it() -> None:
    """For all input topics, with tables and without."""
    fixed = EventTable(platform="console", type="t", start="s", end="e", device="d")
    in_field = EventTable(platform=FromField(field="os"), type="t", start="s", end="e", device="d")
    settings = Settings(input_topics={"a": "pc"}, inputs={"b": fixed, "c": in_field})
    assert settings.platforms == {"a": "pc", "b": "console", "c": ""}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"SHARD": "4/4", "ROUTE": "partition"}, "write number/shards"),
        ({"SHARD": "1/4"}, "set HEARTWHEEL_ROUTE=partition"),
        ({"SHARD": "1/8", "ROUTE": "partition"}, "have at most 4 shards"),
        ({"SHARD": "pod/4", "ROUTE": "partition"}, "HOSTNAME is ''"),
    ],
)
def test_shard_that_cannot_be_is_refused(given: dict[str, str], words: str) -> None:
    """It would have nothing, or write where another one does."""
    with pytest.raises(ConfigError) as error:
        load_settings({f"HEARTWHEEL_{name}": text for name, text in given.items()})
    assert "HEARTWHEEL_SHARD is" in str(error.value)
    assert words in str(error.value)


def test_pod_of_a_stateful_set_is_the_shard_of_its_number() -> None:
    """So one manifest serves all of them."""
    variables = {"HEARTWHEEL_SHARD": "pod/4", "HEARTWHEEL_ROUTE": "partition"}
    settings = load_settings(variables | {"HOSTNAME": "heartwheel-2"})
    assert (settings.shard, list(settings.own_lanes)) == ("2/4", [2])


@pytest.mark.parametrize(
    "text",
    [
        f"[inputs.pc]\n{ENDLESS}idle_timeout_ms = 60000",
        f"idle_timeout_ms = 60000\n[inputs.pc]\n{ENDLESS}",
        f"[inputs.pc]\n{ENDLESS}idle_timeout_ms = 0",
        f"[inputs.pc]\n{ENDLESS}[inputs.ends]\n{STARTLESS}",
    ],
)
def test_table_without_an_end_is_taken_where_something_else_ends_its_sessions(
    text: str, tmp_path: Path
) -> None:
    """Silence, the next start where that is said, or a topic that has nothing but ends."""
    path = tmp_path / "heartwheel.toml"
    path.write_text(text)
    assert load_settings({"HEARTWHEEL_CONFIG": str(path)}).inputs
