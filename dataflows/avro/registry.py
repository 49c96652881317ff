"""A schema registry over HTTP, as Confluent's and those that are compatible with it speak it."""

import ssl
from base64 import b64encode
from collections.abc import Callable
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPSHandler, Request, build_opener

import msgspec
from msgspec import Struct

from dataflows.settings import Settings
from session_logic.errors import ConfigError

ANSWER_S = 5.0
MAX_ANSWER_BYTES = 16_000_000
# Schemas that one refers to, and those that they refer to.
MAX_REFERENCES = 100
# What a registry says with 404 of a subject, a version or a schema that it does not have. Another
# 404 is of something that is no registry.
NOT_THERE = {40401, 40402, 40403}
REFUSED = {401, 403}
# A number, or the newer kind as text.
SchemaId = int | str


class RegistryAwayError(Exception):
    """The registry has not answered, or something else has: what it was asked is still open."""


class UnknownSchemaError(Exception):
    """The registry says that it has no such schema."""


class SchemaText(Struct, frozen=True, omit_defaults=True):
    """A schema with the texts of all that it refers to, of which each comes before its users."""

    text: str
    kind: str = "AVRO"
    needs: list[str] = []


# How a schema is asked for; it raises what `Registry.schema` does.
Ask = Callable[[SchemaId], SchemaText]


class _Reference(Struct):
    subject: str
    version: int


class _Stored(Struct, rename="camel"):
    schema: str
    schema_type: str | None = None
    references: list[_Reference] | None = None


class _Error(Struct):
    error_code: int = 0


class Registry:
    """Asks for schemas; several addresses are tried in turn."""

    def __init__(self, settings: Settings) -> None:
        """Ask as these settings say; raises ConfigError for certificates that cannot be read."""
        self._urls = settings.registry_urls
        self._authorization = _authorization(settings)
        self._opener = build_opener(HTTPSHandler(context=_context(settings.registry_ca)))

    def __str__(self) -> str:
        """Return where it is."""
        return " or ".join(self._urls)

    def schema(self, schema_id: SchemaId) -> SchemaText:
        """Return a schema; raises RegistryAwayError, or UnknownSchemaError if there is none."""
        kind = "ids" if isinstance(schema_id, int) else "guids"
        stored = self._get(f"schemas/{kind}/{schema_id}")
        needs: dict[tuple[str, int], str] = {}
        self._add_needs(stored, needs, ())
        return SchemaText(stored.schema, stored.schema_type or "AVRO", list(needs.values()))

    def _add_needs(
        self, stored: _Stored, needs: dict[tuple[str, int], str], users: tuple[object, ...]
    ) -> None:
        for reference in stored.references or ():
            place = reference.subject, reference.version
            if place in needs:
                continue
            if place in users or len(needs) == MAX_REFERENCES:
                raise UnknownSchemaError(f"its references have no end at {reference.subject}")
            subject = quote(reference.subject, safe="")
            needed = self._get(f"subjects/{subject}/versions/{reference.version}")
            self._add_needs(needed, needs, (*users, place))
            needs[place] = needed.schema

    def _get(self, path: str) -> _Stored:
        problems = []
        for url in self._urls:
            try:
                return self._ask(f"{url}/{path}")
            except RegistryAwayError as error:
                problems.append(str(error))
        raise RegistryAwayError("; ".join(problems))

    def _ask(self, url: str) -> _Stored:
        request = Request(url, headers={"Accept": "application/vnd.schemaregistry.v1+json"})  # noqa: S310  # settings allow http and https only
        if self._authorization:
            # Not sent on to where a redirection leads.
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with self._opener.open(request, timeout=ANSWER_S) as response:
                body = response.read(MAX_ANSWER_BYTES)
        except HTTPError as error:
            raise _refusal(url, error) from None
        except (OSError, HTTPException, ValueError) as error:  # the last: a name that can be none
            reason = error.reason if isinstance(error, URLError) else error
            raise RegistryAwayError(f"{url} does not answer ({reason})") from None
        try:
            return msgspec.json.decode(body, type=_Stored)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            problem = f"{url} does not answer as a registry does: correct HEARTWHEEL_REGISTRY_URL"
            raise RegistryAwayError(problem) from None


def _refusal(url: str, error: HTTPError) -> Exception:
    """Return what an answer that is no success means."""
    try:
        code = msgspec.json.decode(error.read(MAX_ANSWER_BYTES), type=_Error).error_code
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError, HTTPException):
        code = 0
    if error.code == 404 and code in NOT_THERE:  # noqa: PLR2004  # the word of HTTP for it
        return UnknownSchemaError(f"the registry does not have it ({url})")
    hint = ""
    if error.code == 404:  # noqa: PLR2004
        hint = ", and not as a registry does: correct HEARTWHEEL_REGISTRY_URL"
    elif error.code in REFUSED:
        hint = ": correct HEARTWHEEL_REGISTRY_USERNAME and _PASSWORD, or _TOKEN"
    return RegistryAwayError(f"{url} answers {error.code} {error.reason}{hint}")


def _authorization(settings: Settings) -> str:
    if settings.registry_token:
        return f"Bearer {settings.registry_token}"
    if settings.registry_username:
        pair = f"{settings.registry_username}:{settings.registry_password}"
        return f"Basic {b64encode(pair.encode()).decode()}"
    return ""


def _context(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        msg = (
            f"HEARTWHEEL_REGISTRY_CA is {ca!r}: it cannot be read as certificates "
            f"({error.strerror or error}); write the path of a PEM file"
        )
        raise ConfigError(msg) from None
