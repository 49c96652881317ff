"""The input of a published pipeline, as tables; docs/compare.md tells of it."""

from uuid import NAMESPACE_OID, uuid5

from heartwheel.fleet import Names

MAX_SESSION_MS = 1_800_000
FIRST_SESSION = 9_402_035_216
# docs/events.md has the same.
TABLES = """\
[inputs.pc_sessions]
platform = "pc"
type = "eventId"
start = ["ApplicationSessionStart"]
end = ["ApplicationSessionEndBi"]
device = "hostPcId"
session = "appSessionId"
time = "timestamp"
carry = {account = "psnAccountId"}
end_carry = {foreground_s = "totalFgTime"}

[inputs.console_sessions]
platform = "console"
type = "eventId"
start = ["ApplicationSessionStart"]
end = ["ApplicationSessionEndBi"]
device = "openPsid"
session = "appSessionId"
time = "timestamp"
carry = {account = "psnAccountId"}
end_carry = {foreground_s = "totalFgTime"}
"""
# Ids as the pipeline's own generator makes them: UUIDs, and numbers of ten digits.
NAMES = Names(
    device=lambda number: str(uuid5(NAMESPACE_OID, f"device {number}")),
    session=lambda number: str(FIRST_SESSION + number),
)
