"""Options that Kafka's clients refuse: the line names the option and what sets it."""

import sys

import pytest

from dataflows.kafka.client import (
    consumer_options,
    make_admin,
    make_consumer,
    make_producer,
    producer_options,
)
from dataflows.settings import Settings
from session_logic.errors import ConfigError
from tests.support.errors import one_line

IDEMPOTENT = {"enable.idempotence": "true", "acks": "all"}
NOT_SET = "HEARTWHEEL_KAFKA_SASL_MECHANISMS is not set; write PLAIN, SCRAM-SHA-256"


@pytest.mark.parametrize(
    ("option", "value", "variable", "says"),
    [
        ("no.such", "1", "NO_SUCH", "No such configuration property"),
        ("log_levels", "1", "LOG__LEVELS", "No such configuration property"),
        ("linger.ms", "abc", "LINGER_MS", "queue.buffering.max.ms"),  # librdkafka's name for it
        ("retries", "0", "RETRIES", "enable.idempotence"),
        ("max.in.flight", "7", "MAX_IN_FLIGHT", "enable.idempotence"),
        ("security.protocol", "tls", "SECURITY_PROTOCOL", "Invalid value"),
    ],
)
def test_wrong_option_is_named_with_its_variables(
    option: str, value: str, variable: str, says: str
) -> None:
    """Also where librdkafka calls it by another name, or it is wrong beside one of ours only."""
    settings = Settings(producer={option: value, "client.id": "test"})
    with pytest.raises(ConfigError) as error:
        make_producer(producer_options(settings, IDEMPOTENT, {"linger.ms": "1"}))
    one_line(
        error,
        f"refuses {option} = '{value}' (",
        says,
        f"correct HEARTWHEEL_PRODUCER_{variable} or HEARTWHEEL_KAFKA_{variable}",
        "docs/settings.md",
    )


def test_option_that_is_wrong_for_tls_alone_is_named() -> None:
    """The file is read because the protocol asks for it, and the file is what is missing."""
    settings = Settings(kafka={"security.protocol": "SSL", "ssl.ca.location": "/missing.pem"})
    with pytest.raises(ConfigError) as error:
        make_consumer(consumer_options(settings, {"group.id": "test"}))
    one_line(error, "ssl.ca.location = '/missing.pem'", "HEARTWHEEL_CONSUMER_SSL_CA_LOCATION")


def test_value_that_may_be_a_secret_is_not_shown() -> None:
    """The line goes to a log."""
    settings = Settings(kafka={"security.protocol": "SSL", "ssl.key.pem": "hunter2"})
    with pytest.raises(ConfigError) as error:
        make_admin(settings)
    one_line(error, "refuses ssl.key.pem (", "correct HEARTWHEEL_KAFKA_SSL_KEY_PEM, or its line")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("mechanism", "says"),
    [({}, NOT_SET), ({"sasl.mechanisms": "SCRAM"}, "SASL_MECHANISMS is 'SCRAM'; write PLAIN")],
)
def test_sasl_without_a_mechanism_names_the_setting(mechanism: dict[str, str], says: str) -> None:
    """librdkafka would ask to be compiled again, with a mechanism that nobody has asked for."""
    settings = Settings(kafka={"security.protocol": "SASL_SSL", **mechanism})
    with pytest.raises(ConfigError) as error:
        make_consumer(consumer_options(settings, {"group.id": "test"}))
    one_line(error, says, "SCRAM-SHA-512 or OAUTHBEARER")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("sasl.oauthbearer.metadata.authentication.type", "aws_iam", "sasl.oauthbearer.method"),
        ("stats_cb", "print", "callable"),
        ("default.topic.config", "acks=1", "keys"),
    ],
)
def test_option_that_the_client_in_python_refuses_is_one_line_with_its_name(
    option: str, value: str, says: str
) -> None:
    """Such options are checked before librdkafka sees them, with errors of other types."""
    settings = Settings(kafka={option: value})
    for make in (
        lambda: make_consumer(consumer_options(settings, {"group.id": "test"})),
        lambda: make_producer(producer_options(settings)),
        lambda: make_admin(settings),
    ):
        with pytest.raises(ConfigError) as error:
            make()
        one_line(error, f"Kafka's client refuses {option}", says, "docs/settings.md")


def test_module_that_an_option_needs_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The login by an AWS role needs a package that Heartwheel does not install."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    options = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.config": "region=eu-west-1 audience=kafka",
        "sasl.oauthbearer.metadata.authentication.type": "aws_iam",
    }
    with pytest.raises(ConfigError) as error:
        make_producer(producer_options(Settings(kafka=options)))
    one_line(error, "Kafka's client refuses", "aws")
