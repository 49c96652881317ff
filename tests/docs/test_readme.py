"""The commands with which the README runs Heartwheel on one's own Kafka."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

from dataflows.settings_sources import environment
from tests.support.cluster import Cluster
from tests.support.pages import README
from tests.support.ports import free_port

INSTALL = "pip install"
URL = re.compile(r"http://\S+/devices/(\S+)")


def test_own_kafka_works_as_the_readme_says(cluster: Cluster, tmp_path: Path) -> None:
    """Topics, run, load and look-up, with nothing changed but addresses and names of topics."""
    (block,) = (one for one in README.blocks("console") if INSTALL in one)
    lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    lines = [line for line in lines if INSTALL not in line]  # see tests of the installation
    port = free_port()
    (look_up,) = (line for line in lines if line.startswith("curl"))
    script = "\n".join(line for line in lines if line != look_up).replace(
        "127.0.0.1:9092", cluster.address
    )
    assert cluster.address in script
    names = {
        "HEARTWHEEL_INPUT_TOPICS": f"own-{cluster.console}=console,own-{cluster.pc}=pc",
        "HEARTWHEEL_OUTPUT_TOPIC": f"own-{cluster.output}",
        "HEARTWHEEL_DEAD_LETTER_TOPIC": f"own-{cluster.letters}",
        "HEARTWHEEL_HTTP_PORT": str(port),
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.Popen(
        ["bash", "-euc", f"{script}\nread; kill %1; wait %1"],
        env=environment() | names,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    url = URL.search(look_up)
    assert url
    here = url[0].replace(":8080", f":{port}")
    answer: dict[str, object] = {}

    def found() -> bool:
        with suppress(OSError), urlopen(here) as response:  # noqa: S310  # http, as shown
            answer.update(json.load(response))
        return answer.get("active") is True

    try:
        cluster.wait("an active session of the load", found, 60)
    finally:
        out, errors = done.communicate("\n", timeout=60)
    assert done.returncode == 0, errors
    assert answer["device_id"] == url[1]
    assert f"own-{cluster.output}: created" in out
    assert (tmp_path / "heartwheel").is_dir()
