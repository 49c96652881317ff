"""The schemas that a process knows: asked of the registry once, by a thread of their own.

Nobody waits for an answer: whoever needs a schema asks whether it is here, and asks again later.
"""

import time
from collections.abc import Mapping
from threading import Event, Lock, Thread

from dataflows.avro.framing import schema_of
from dataflows.avro.registry import (
    Ask,
    RegistryAwayError,
    SchemaId,
    SchemaText,
    UnknownSchemaError,
)
from dataflows.avro.schema import Fields, Schema, UnreadableSchemaError
from dataflows.logs import log
from dataflows.messages import Message
from dataflows.metrics import AWAITED_SCHEMAS, REGISTRY_FAILURES, read_from
from session_logic.codec import DETAIL_LENGTH
from session_logic.events import Rejected
from session_logic.record_fields import Headers

AGAIN_S = 1.0
# How often it is said that the registry is away.
LINE_S = 30.0
# A registry may learn of a schema later than its writer, so what it does not know is asked again.
UNKNOWN_S = 30.0
MAX_UNKNOWN = 10_000
_UNFRAMED = "the value is no Avro with the id of its schema in front, or in a header"


class Schemas:
    """The schemas of one process, which its source waits for and its decode step reads by."""

    def __init__(self, ask: Ask, where: str, stop: Event) -> None:
        """Ask this registry, until the stop; where is its address in words."""
        self._ask, self._where, self._stop = ask, where, stop
        self._known: dict[SchemaId, Schema | Rejected] = {}
        # Until when it is believed that there is no such schema.
        self._unknown: dict[SchemaId, float] = {}
        # A dict, because it keeps the order in which they were wanted.
        self._wanted: dict[SchemaId, None] = {}
        self._waking = Event()
        self._starting = Lock()
        self._thread: Thread | None = None
        self._away = False
        self._said_s = float("-inf")
        read_from(AWAITED_SCHEMAS, self.awaited)

    def awaited(self) -> int:
        """Return how many schemas are waited for."""
        return len(self._wanted)

    def wait(self) -> str:
        """Return in words what is waited for while the registry is away; empty if nothing is."""
        wanted = next(iter(self._wanted.copy()), None)
        if wanted is None or not self._away:
            return ""
        return f"schema {wanted} of {self._where}"

    def is_here(self, message: Message) -> bool:
        """Say whether a message can be read, or never will be; if not, its schema is asked for."""
        value = message[3]
        found = schema_of(value, message[5]) if value else None
        if found is None:
            return True
        schema_id, _ = found
        if schema_id in self._known or time.monotonic() < self._unknown.get(schema_id, 0):
            return True
        self._want(schema_id)
        return False

    def read(self, value: bytes, headers: Headers | None) -> Fields | Rejected:
        """Return the fields of a value, or why there are none."""
        found = schema_of(value, headers)
        if found is None:
            return Rejected("not_avro", _UNFRAMED)
        schema_id, begin = found
        schema = self._known.get(schema_id)
        if schema is None:
            detail = f"{self._where} has no schema {schema_id}"
            return Rejected("unknown_schema", detail[:DETAIL_LENGTH])
        return schema if isinstance(schema, Rejected) else schema.read(value, begin)

    def add(self, texts: Mapping[SchemaId, SchemaText]) -> None:
        """Know these schemas without asking."""
        for schema_id, text in texts.items():
            self._known[schema_id] = _made(schema_id, text)

    def _want(self, schema_id: SchemaId) -> None:
        if schema_id in self._wanted:
            return
        self._wanted[schema_id] = None
        self._waking.set()
        if self._thread is None:
            with self._starting:  # another worker thread may want the first one, too
                if self._thread is None:
                    self._thread = Thread(target=self._run, name="schemas", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        """Ask for what is wanted, again and again, until the stop."""
        while not self._stop.is_set():
            schema_id = next(iter(self._wanted.copy()), None)
            if schema_id is None:
                self._waking.wait(AGAIN_S)
                self._waking.clear()
            elif self._find(schema_id):
                del self._wanted[schema_id]
            else:
                self._wanted[schema_id] = self._wanted.pop(schema_id)  # others may be answered
                self._stop.wait(AGAIN_S)

    def _find(self, schema_id: SchemaId) -> bool:
        """Ask for a schema; say whether there was an answer."""
        try:
            self._known[schema_id] = _made(schema_id, self._ask(schema_id))
        except UnknownSchemaError:
            self._unknown.pop(schema_id, None)
            if len(self._unknown) >= MAX_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            self._unknown[schema_id] = time.monotonic() + UNKNOWN_S
        except RegistryAwayError as error:
            self._say_away(schema_id, str(error))
            return False
        if self._away:
            self._away, self._said_s = False, float("-inf")
            log.info("the schema registry answers again", registry=self._where)
        return True

    def _say_away(self, schema_id: SchemaId, problem: str) -> None:
        self._away = True
        REGISTRY_FAILURES.inc()
        now_s = time.monotonic()
        if now_s - self._said_s < LINE_S:
            return
        self._said_s = now_s
        log.warning(
            "waiting for the schema registry; records whose schema is not known wait, and the "
            "lanes' time stands still until it answers",
            schema=schema_id,
            error=problem,
        )


def _made(schema_id: SchemaId, text: SchemaText) -> Schema | Rejected:
    try:
        return Schema(text)
    except UnreadableSchemaError as error:
        return Rejected("not_avro", f"schema {schema_id} cannot be used: {error}"[:DETAIL_LENGTH])
