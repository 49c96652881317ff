"""Processes as a container engine starts them, made with what the kernel has: no engine is needed.

Each has a root file system that it can only read, its volumes, its user without any capability,
and is the first of its process namespace; pods have a network namespace each, on one bridge.
"""

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, field

from tests.support.broker import ROOT
from tests.support.missing import NAMESPACES, missing, require

USER = 10001
SOURCE = "/opt/source"
VENV = "/opt/venv"
BRIDGE = "10.213.0.1"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def require_namespaces() -> None:
    """Skip, or fail in CI, where namespaces cannot be made."""
    require(NAMESPACES)
    if os.geteuid():
        missing("only root can make namespaces")


def run(*command: str) -> None:
    """Run a command that must work."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@contextmanager
def own_network() -> Iterator[None]:
    """Move this thread, and what it starts, into a network of its own with a bridge."""
    with Path("/proc/self/ns/net").open() as before:
        assert _LIBC.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            run("ip", "link", "set", "lo", "up")
            run("ip", "link", "add", "bridge", "type", "bridge")
            run("ip", "address", "add", f"{BRIDGE}/24", "dev", "bridge")
            run("ip", "link", "set", "bridge", "up")
            yield
        finally:
            assert _LIBC.setns(before.fileno(), _CLONE_NEWNET) == 0


class Sandbox:
    """The network namespace of a pod, which stays while its containers come and go."""

    def __init__(self, number: int, host: int | None = None) -> None:
        """Connect it to the bridge, with this host number in its address or one of its own."""
        self.number = number
        self.host = number + 10 if host is None else host
        self.address = f"10.213.0.{self.host}"
        self._pause = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.enter = ["nsenter", f"--net=/proc/{self._pause.pid}/ns/net"]
        try:
            self._connect()
        except BaseException:
            self.end()
            raise

    def _connect(self) -> None:
        deadline = time.monotonic() + 10
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self._pause.pid}/ns/net").readlink() == own:
            assert time.monotonic() < deadline, "unshare has made no network namespace"
            time.sleep(0.01)
        here, there = f"veth{self.host}", f"pod{self.host}"
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        run("ip", "link", "set", here, "master", "bridge", "up")
        run("ip", "link", "set", there, "netns", str(self._pause.pid))
        run(*self.enter, "ip", "address", "add", f"{self.address}/24", "dev", there)
        run(*self.enter, "ip", "link", "set", there, "up")
        run(*self.enter, "ip", "link", "set", "lo", "up")

    def set_link(self, state: str) -> None:
        """Cut the link of the pod (down), with no word to anybody, or put it back (up)."""
        run("ip", "link", "set", f"veth{self.host}", state)

    def end(self) -> None:
        """Let it go, and free its host number.

        The kernel takes the network down with its last process, but later: until then the link is
        there. Whoever of both comes first takes it away.
        """
        self._pause.kill()
        self._pause.wait()
        subprocess.run(["ip", "link", "delete", f"veth{self.host}"], check=False)


class Mount(Struct, frozen=True):
    """A file or folder of this machine, and where the container sees it."""

    source: Path
    target: str
    read_only: bool = True


class Container(Struct):
    """What is started; `start` may be called again when it has exited."""

    folder: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    hosts: Mapping[str, str]
    mounts: Sequence[Mount] = ()
    tmpfs: Sequence[str] = ()
    enter: Sequence[str] = ()
    user: int = USER
    read_only: bool = True
    starts: int = 0
    process: subprocess.Popen[bytes] = field(default=None)  # type: ignore[assignment]

    def start(self) -> None:
        """Start it; what it prints goes to the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "space").mkdir(exist_ok=True)
        (self.folder / "root").mkdir(exist_ok=True)
        self.publish(self.hosts)
        script = self.folder / "start.sh"
        script.write_text("\n".join(self._script()))
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.enter, *unshare, "sh", str(script)], stdout=log, stderr=log
            )
        self.starts += 1

    def publish(self, hosts: Mapping[str, str]) -> None:
        """Let it find these names, and no others, from now on."""
        own = dict.fromkeys(("localhost", socket.gethostname()), "127.0.0.1")  # as engines do
        lines = [f"{address} {name}\n" for name, address in (own | dict(hosts)).items()]
        (self.folder / "hosts").write_text("".join(lines))

    def _script(self) -> Iterator[str]:
        root, space = self.folder / "root", self.folder / "space"
        layers = f"lowerdir=/,upperdir={space}/upper,workdir={space}/work"
        yield "set -e"
        yield "mount --make-rprivate /"
        yield f"mount -t tmpfs tmpfs {space}"
        yield f"mkdir {space}/upper {space}/work"
        yield f"mount -t overlay -o {layers} overlay {root}"
        yield f"mount -t proc proc {root}/proc"
        yield f"mount --rbind /dev {root}/dev"
        # Python may have been installed where only its owner gets.
        yield from (f"chmod o+x {root}{part}" for part in Path(sys.base_prefix).parents)
        yield from (f"mount -t tmpfs tmpfs {root}{target}" for target in self.tmpfs)
        own = [
            Mount(ROOT, SOURCE),
            Mount(Path(sys.prefix), VENV),
            Mount(self.folder / "hosts", "/etc/hosts"),
        ]
        for mount in [*own, *self.mounts]:
            target = f"{root}{mount.target}"
            if mount.source.is_dir():
                yield f"mkdir -p {target}"
            else:
                yield f"mkdir -p {Path(target).parent}; touch {target}"
            yield f"mount --bind {mount.source} {target}"
            if mount.read_only:
                yield f"mount -o remount,bind,ro {target}"
        if self.read_only:
            yield f"mount -o remount,ro {root}"
        variables = {
            "PATH": f"{VENV}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": SOURCE,
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environment,
        }
        yield shlex.join(
            [
                *("exec", "chroot", str(root)),
                *("setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"),
                *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
                *("env", "-i", *(f"{name}={value}" for name, value in variables.items())),
                *self.command,
            ]
        )

    @property
    def pid(self) -> int:
        """The id of its first process, as seen from outside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + 10
        while not (found := children.read_text()):
            assert time.monotonic() < deadline, f"{self.command} was not started: {self.log()}"
            time.sleep(0.01)
        return int(found)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as a health check or a person does."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root"]
        enter += [f"--setuid={self.user}", f"--setgid={self.user}", "--wdns=/"]
        variables = {"PATH": f"{VENV}/bin:/usr/bin:/bin", **self.environment}
        return subprocess.run(
            [*enter, *command], env=variables, capture_output=True, text=True, check=False
        )

    def signal(self, sign: signal.Signals) -> None:
        """Send a signal to its first process."""
        os.kill(self.pid, sign)

    def log(self) -> str:
        """Return what it has printed in all its starts."""
        return (self.folder / "log").read_text()

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.process is not None and self.process.poll() is None:
            # The first of a process namespace takes all others with it, and unshare ends with it.
            # (--kill-child alone is not enough: a process that changes its user is not told.)
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait()


def heartwheel(*arguments: str) -> list[str]:
    """Return the command that is `heartwheel` in the image, for this checkout."""
    return [f"{VENV}/bin/python", "-m", "heartwheel.cli", *arguments]
