"""Input tables and records at random, made from the same few names.

So paths meet what they look for, what they do not, and what is in the way.
"""

import json
import random
from typing import Any

from session_logic.mapping import Headers

T = 1_761_955_605_123
NAMES = ["a", "b", "c", "key", "é", "q'", "f0"]
WORDS = ["on", "off", "up", "1", "true", "null"]
SCALARS = [
    None, True, 0, 7, 2**64, 1.5, T, "", "on", "off", "up", "x", "é", "x" * 128, str(T),
    "2025-11-01T00:06:45.123Z",
]  # fmt: skip
ODD = [
    False, -1, 10**40, 1.0, -0.0, 1e300, T * 1000, T / 1000, "x" * 129, "\0", "\x7f", "\u2028",
    "\ud800", "2025-11-01 00:06:45", float("nan"), float("inf"),
]  # fmt: skip
TIMES: dict[str, list[Any]] = {
    "iso": ["2025-11-01T00:06:45.123Z", "2025-11-02", "2026-11-01 00:06:45", "1970-01-01 00:00"],
    "s": [T / 1000, str(T // 1000), T], "ms": [T, str(T), T / 1000], "us": [T * 1000, T],
}  # fmt: skip
BYTES = [
    b"", b"{", b"{}", b"[]", b"null", b"5", b'"on"', b"\xff", b"\xef\xbb\xbf{}", b"[" * 2_000,
    b'{"a":01}', b'{"a":"on","a":"off"}', b'{"a":{"b":1},"a":{"c":2}}', b'{"a":1e999}',
    b'{"a":tru}', b'{"\\u0061":"on","b":7}', b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\\x"}',
    b'{"a":"on"}x', b'{"a":' + b"1" * 5_000,
    b'{"b":{"\\u0062":"\\u00e9\\ud83d\\ude00"}, "a" : [ 1 , {"a":1,"a":2} ]}',
]  # fmt: skip


class AnyMapping:
    """Tables and records at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def table(self) -> dict[str, Any]:
        """Return a table as plain values."""
        plain: dict[str, Any] = {
            "platform": self._one("pc", "pc", {"field": self._sources()}),
            "device": self._sources(),
            "other": self._one("skip", "reject"),
            "time_unit": self._one(*TIMES),
            "format": self._one("json", "json_sr"),
            "carry": self._carry("x"),
            "end_carry": self._carry("y"),
        }
        for key in ("session", "time"):
            if self._random.random() < 0.7:
                plain[key] = self._sources()
        if "time" not in plain:
            plain["time_unit"] = "iso"
        if self._random.random() < 0.9:
            words = self._random.sample(WORDS, 4)
            plain |= {"start": words[0], "end": words[1:3], "ping": words[3:]}
            plain["type"] = self._sources()
        return plain

    def record(
        self, table: dict[str, Any]
    ) -> tuple[bytes | None, bytes | None, Headers | None, int]:
        """Return key, value, headers and timestamp."""
        key = self._one(None, b"", b"\xff", b"on", b"7", "é".encode())
        value = self._one(None, *BYTES) if self._random.random() < 0.2 else self._object(table)
        if value is not None and self._random.random() < 0.1:
            value = self._one(b"\0", b"\0\0\0\0\7") + value
        names = [self._one("h", "ce_type", "a") for _ in range(self._random.randint(0, 3))]
        headers = [(name, self._one(None, b"on", b"off", b"\xff", b"5")) for name in names]
        return key, value, self._one(None, headers, headers), self._one(T, T, T, -1, 0, 5)

    def _object(self, table: dict[str, Any]) -> bytes:
        fields = {name: self._json(3) for name in self._random.sample(NAMES, 4)}
        good = {
            "device": ["d", 7],
            "session": ["s", 7],
            "time": TIMES[table["time_unit"]],
            "type": [table.get("start"), *table.get("end", []), *table.get("ping", [])],
        }
        for key, values in good.items():
            if key in table and self._random.random() < 0.9:
                self._put(fields, self._one(*_list(table[key])), self._one(*values))
        text = json.dumps(fields, ensure_ascii=self._one(True, False), indent=self._one(None, 1))
        return text.encode(errors="surrogatepass")

    @staticmethod
    def _put(fields: dict[str, Any], source: str, value: Any) -> None:
        """Put a value where a source looks for it."""
        *parents, name = source.removeprefix("$.").split(".")
        for parent in parents:
            inner = fields.get(parent)
            fields[parent] = fields = inner if isinstance(inner, dict) else {}
        fields[name] = value

    def _json(self, depth: int) -> Any:
        if not depth or self._random.random() < 0.6:
            return self._one(*SCALARS) if self._random.random() < 0.97 else self._one(*ODD)
        inner = [self._json(depth - 1) for _ in range(self._random.randint(0, 4))]
        return self._one(
            inner, *[dict(zip(self._random.sample(NAMES, 5), inner, strict=False))] * 3
        )

    def _sources(self) -> Any:
        some = [self._source() for _ in range(self._random.randint(1, 3))]
        return self._one(some[0], some)

    def _source(self) -> str:
        path = ".".join(self._one(*NAMES) for _ in range(self._one(1, 1, 1, 2, 3)))
        return self._one(path, path, path, f"$.{path}", "key", "header:ce_type", "header:a")

    def _carry(self, prefix: str) -> dict[str, Any]:
        return {f"{prefix}{n}": self._sources() for n in range(self._one(0, 0, 1, 3, 8))}

    def _one(self, *choices: Any) -> Any:
        return self._random.choice(choices)


def _list(some: str | list[str]) -> list[str]:
    return [some] if isinstance(some, str) else some
