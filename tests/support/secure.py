"""A real Kafka with authentication: SCRAM over TLS, certificates of clients, and ACLs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.broker import Broker
from tests.support.cluster import Cluster
from tests.support.ports import free_port

USER, PASSWORD = "heartwheel", "correct-horse-battery"
# The plain listener is the test's own, and its user may do everything.
PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},\
SCRAM://127.0.0.1:{scram},MTLS://127.0.0.1:{mtls}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SCRAM://localhost:{scram},MTLS://localhost:{mtls}
listener.security.protocol.map=\
PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MTLS:SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.key={key}
ssl.keystore.certificate.chain={chain}
ssl.truststore.type=PEM
ssl.truststore.certificates={trust}
listener.name.mtls.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/,DEFAULT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


class SecureBroker(Broker):
    """A broker with a listener for SCRAM over TLS and one for certificates of clients."""

    def __init__(self, folder: Path) -> None:
        """Make the certificates and the user, then the broker."""
        self.folder = folder
        self.scram, self.mtls = f"localhost:{free_port()}", f"localhost:{free_port()}"
        authority = trustme.CA()
        own = authority.issue_cert("localhost")
        client = authority.issue_cert("client.example", common_name=USER)
        folder.mkdir(parents=True, exist_ok=True)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
        client.cert_chain_pems[0].write_to_path(folder / "client.pem")
        client.private_key_pem.write_to_path(folder / "client.key")
        (folder / "password").write_text(f"{PASSWORD}\n")
        properties = PROPERTIES.format(
            scram=self.scram.rpartition(":")[2],
            mtls=self.mtls.rpartition(":")[2],
            key=_line(_pkcs8(own.private_key_pem.bytes())),
            chain=_line(own.cert_chain_pems[0].bytes()),
            trust=_line(authority.cert_pem.bytes()),
        )
        super().__init__(
            folder,
            properties=properties,
            scram=(f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]",),
        )

    def scram_variables(self) -> dict[str, str]:
        """Return the settings for SCRAM over TLS, the password in a file."""
        return {
            "HEARTWHEEL_BOOTSTRAP_SERVERS": self.scram,
            "HEARTWHEEL_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "HEARTWHEEL_KAFKA_SASL_MECHANISMS": "SCRAM-SHA-512",
            "HEARTWHEEL_KAFKA_SASL_USERNAME": USER,
            "HEARTWHEEL_KAFKA_SASL_PASSWORD_FILE": str(self.folder / "password"),
            "HEARTWHEEL_KAFKA_SSL_CA_LOCATION": str(self.folder / "ca.pem"),
        }

    def mtls_variables(self) -> dict[str, str]:
        """Return the settings for a client with a certificate, the key in a file."""
        return {
            "HEARTWHEEL_BOOTSTRAP_SERVERS": self.mtls,
            "HEARTWHEEL_KAFKA_SECURITY_PROTOCOL": "SSL",
            "HEARTWHEEL_KAFKA_SSL_CA_LOCATION": str(self.folder / "ca.pem"),
            "HEARTWHEEL_KAFKA_SSL_CERTIFICATE_LOCATION": str(self.folder / "client.pem"),
            "HEARTWHEEL_KAFKA_SSL_KEY_PEM_FILE": str(self.folder / "client.key"),
        }

    def allow_run(self, cluster: Cluster) -> None:
        """Allow what docs/security.md says that a run needs, and nothing more."""
        inputs, outputs = (cluster.console, cluster.pc), (cluster.output, cluster.letters)
        exact, begins = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
        read, write = AclOperation.READ, AclOperation.WRITE
        rights = [
            *((ResourceType.TOPIC, topic, exact, read) for topic in (*inputs, *outputs)),
            *((ResourceType.TOPIC, topic, exact, write) for topic in outputs),
            (ResourceType.GROUP, "heartwheel", begins, read),
            (ResourceType.TRANSACTIONAL_ID, "heartwheel", begins, write),
        ]
        self._allow(rights)

    def allow_to_describe(self, topic: str) -> None:
        """Allow to see a topic, and not to read it."""
        self._allow(
            [(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, AclOperation.DESCRIBE)]
        )

    def _allow(self, rights: Sequence[tuple[Any, ...]]) -> None:
        allow = AclPermissionType.ALLOW
        admin = self.admin()
        done = admin.create_acls(
            [
                AclBinding(kind, name, pattern, f"User:{USER}", "*", right, allow)
                for kind, name, pattern, right in rights
            ]
        )
        for future in done.values():
            future.result()

    def revoke_transactions(self) -> None:
        """Take the right to write under the transactional ids of a run."""
        every = AclBindingFilter(
            ResourceType.TRANSACTIONAL_ID,
            "heartwheel",
            ResourcePatternType.PREFIXED,
            f"User:{USER}",
            "*",
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        admin = self.admin()
        for future in admin.delete_acls([every]).values():
            assert future.result()


def _pkcs8(pem: bytes) -> bytes:
    """Return a key as Java reads it."""
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _line(pem: bytes) -> str:
    return pem.decode().replace("\n", "\\n")
