"""What names and words are likely to mean; nothing here is certain."""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Literal

Kind = Literal["start", "end", "ping"]

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def _set(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


# What says by itself that a session starts or ends.
_WORDS: dict[Kind, frozenset[str]] = {
    "start": _set(
        "start starts started starting begin begins began begun connect connects connected login",
        "logins loggedin signin signedin logon loggedon open opens opened create created online",
        "join joins joined enter enters entered launch launches launched launching boot booted",
        "startup bootup checkin checkedin clockin clockedin turnedon poweron poweredon switchedon",
        "attach attached arrive arrived dock docked established active nbirth dbirth",
    ),
    "end": _set(
        "end ends ended ending stop stops stopped disconnect disconnects disconnected logout",
        "logouts loggedout signout signedout logoff loggedoff close closes closed delete deleted",
        "offline leave leaves exit exits exited quit quits finish finishes finished terminate",
        "terminated termination shutdown checkout checkedout clockout clockedout turnedoff",
        "poweroff poweredoff switchedoff timeout timedout abort aborted hangup hungup detach",
        "detached depart departed undock undocked connectionlost destroyed expired inactive ndeath",
        "ddeath goodbye",
    ),
    "ping": _set("ping pinged heartbeat keepalive alive beat tick"),
}
# What says so at the end of a word with what is had in sessions: game over, but not handover.
_LAST: dict[Kind, frozenset[str]] = {
    "start": _set("on in up init initiated initialized activated"),
    "end": _set("off out down over left done complete completed crashed dropped deactivated"),
    "ping": frozenset(),
}
_HAD = _set(
    "session game play match app application client device host machine station player user",
    "member viewer connection conn link stream playback call trip ride visit run transaction power",
)
# These say nothing at the end of a word.
_FILLERS = _set("event events evt v bi")
# What may as well be a break in a session, or something else that happens in it.
_PERHAPS: dict[Kind, frozenset[str]] = {
    "start": _set(
        "resume resumes resumed unpause unpaused wake wakeup woke foreground foregrounded visible",
        "reconnect reconnected restart restarted born birth loaded ready unlocked",
    ),
    "end": _set(
        "pause pauses paused suspend suspended sleep asleep background backgrounded hidden lost",
        "crash kick kicked kill killed died death removed locked bye halt halted cancelled",
    ),
    "ping": frozenset(),
}
# What a word with one of these tells is that something did not happen, or not yet.
_VOID = _set(
    "failed failure fail error denied rejected refused attempt before request requested pending",
    "not never cannot will about",
)
# What a word with one of these tells is of something in a session, or beside it.
_BESIDE = _set(
    "click clicked swipe turn menu settings overlay popup dialog button download upload update",
    "updated level quest tutorial purchase friend friends view viewed",
)
# Of change events: created, read in a snapshot, deleted.
_CHANGES: dict[str, Kind] = {"c": "start", "r": "start", "d": "end"}

# What has one of these names and is true or false tells that a device is there, or not.
_PRESENCE = _set("online connected active playing present")
_TRUTH: dict[str, Kind] = {"true": "start", "false": "end"}

# Parts of names, with how much each speaks for it or against it.
TYPE = {"type": 4, "event": 4, "action": 3, "op": 4, "kind": 3, "status": 2, "state": 2, "name": 1}
DEVICE = {
    "device": 6, "imei": 6, "udid": 6, "client": 5, "psid": 5, "thing": 5, "host": 4, "pcid": 4,
    "serial": 4, "machine": 4, "console": 3, "gateway": 3, "mac": 3, "vin": 3, "node": 1,
    "subject": 3,
    "session": -6, "account": -4, "user": -4, "ip": -4, "type": -5, "version": -5, "model": -5,
    "addr": -4, "time": -5, "status": -5, "name": -1,
}  # fmt: skip
SESSION = {
    "session": 6, "trip": 5, "ride": 5, "visit": 5, "connection": 4, "call": 3, "match": 3,
    "sid": 4, "play": 2, "run": 2,
    "time": -5, "at": -5, "count": -5, "type": -5, "duration": -6, "status": -5, "start": -3,
    "end": -3, "number": -2, "timeout": -5,
}  # fmt: skip
TIME = {
    "timestamp": 6, "time": 5, "ts": 5, "at": 3, "date": 3, "datetime": 5, "occurred": 3,
    "when": 4, "moment": 4, "epoch": 5, "unix": 4, "utc": 3, "clock": 3, "t": 3,
    "event": 1, "ms": 1,
    "duration": -8, "fg": -6, "total": -6, "zone": -6, "expiry": -6, "keepalive": -6,
    "interval": -6, "timeout": -6, "uptime": -6, "id": -4,
}  # fmt: skip
PLATFORM = {"platform": 6, "os": 5, "system": 2, "family": 2, "devicetype": 3, "kind": 1}
# What consumers often ask for.
CARRIED = {"account": 5, "user": 4, "customer": 4, "title": 5, "game": 4, "app": 2, "country": 3,
           "region": 3, "locale": 2}  # fmt: skip
# Names that tell nothing without that of the object in which they are.
_GENERAL = _set("id uuid identifier value key")
# From so many letters on, a part of a name is looked for inside of its tokens: clientid.
_LONG = 4
PLATFORMS = _set(
    "pc console mobile ios android web tv xbox playstation ps4 ps5 switch windows linux macos mac",
    "mqtt iot vr browser desktop phone tablet car",
)


def tokens(text: str) -> list[str]:
    """Return the words that a name is made of: hostPcId is host, pc and id."""
    return [token.lower() for token in _TOKEN.findall(text)]


def kind_of(word: str, name: str) -> Kind | None:
    """Return what a word is likely to say where it stands in a field of this name."""
    if leaf(name) == "op" and len(word) == 1:
        return _CHANGES.get(word)
    if word in _TRUTH:
        return _TRUTH[word] if _PRESENCE & set(tokens(name)) else None
    found = _parts(word)
    kinds = _kinds(_grams_of(found), _WORDS)
    if not kinds and _HAD & set(found):
        kinds = _kinds(found[-1:], _LAST)
    return _only(found, kinds)


def perhaps_kind_of(word: str) -> Kind | None:
    """Return what a word may say, where kind_of does not know it: resumed, or in alone."""
    found = _parts(word)
    if _kinds(_grams_of(found), _WORDS):
        return None
    alone = found if len(found) == 1 else []
    return _only(found, _kinds(found, _PERHAPS) | _kinds(alone, _LAST))


def _only(parts: list[str], kinds: set[Kind]) -> Kind | None:
    """Return the kind if it is the only one, and if no part of the word speaks against it."""
    return kinds.pop() if len(kinds) == 1 and not (_VOID | _BESIDE) & set(parts) else None


def _kinds(words: Iterable[str], some: Mapping[Kind, frozenset[str]]) -> set[Kind]:
    found = set(words)
    return {kind for kind, known in some.items() if found & known}


def _parts(word: str) -> list[str]:
    """Return what a word is made of, also where nothing stands between: SESSIONEND, GameOverEvent.

    Left out is what says nothing at its end.
    """
    parts = [part for token in tokens(word) for part in _split(token)]
    while len(parts) > 1 and (parts[-1] in _FILLERS or parts[-1].isdecimal()):
        parts.pop()
    return parts


def _split(token: str) -> list[str]:
    """Return a token in two parts, if these are what is had in sessions and what becomes of it."""
    for had in _HAD:
        rest = token.removeprefix(had)
        if len(had) >= _LONG and rest != token and (rest == "over" or _kinds([rest], _WORDS)):
            return [had, rest]
    return [token]


def likeness(source: str, names: Mapping[str, int]) -> int:
    """Return how much the last name of a source speaks for a part of an event."""
    name = leaf(source)
    whole, lower = _grams(name), name.lower()
    found = {
        word
        for word, points in names.items()
        if word in whole or (len(word) >= _LONG and points > 0 and word in lower)
    }
    # One that is in a longer one tells nothing more: time in timestamp.
    return sum(names[word] for word in found if not any(word in other for other in found - {word}))


def leaf(source: str) -> str:
    """Return the name of a source that tells what it is: device.id of data.device.id."""
    path = source.removeprefix("header:").split(".")
    return ".".join(path[-2:] if path[-1].lower() in _GENERAL else path[-1:])


def platform_words(text: str) -> list[str]:
    """Return the platforms that a text tells of."""
    return [word for word in (text.lower(), *tokens(text)) if word in PLATFORMS]


def _grams(text: str) -> set[str]:
    """Return the words of a text, and each two that stand side by side, as one: signed in."""
    return _grams_of(tokens(text))


def _grams_of(found: list[str]) -> set[str]:
    return {*found, *(a + b for a, b in pairwise(found))}
