"""A real Kubernetes API server, built from Go modules, that all manifests are applied to.

`python -m tests.deploy.control_plane [FILE...]` prints what the server says of each object of every
overlay, and of files with others, such as a chart's. The first build takes some minutes, so no test
needs it.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.support.broker import ROOT
from tests.support.manifests import MONITORING, OVERLAYS, Manifest, named, objects, render
from tests.support.ports import free_port

VERSION = "1.37.2"
OPERATOR = "0.95.1"
ADDRESS = "127.0.0.1"
TOKEN = "dry-run"  # noqa: S105  # of a server on loopback that ends with this program
BUILT = ROOT / ".cache" / f"kubernetes-{VERSION}"
START_S = 60

ETCD = """\
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""
APISERVER = """\
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
"""
# The objects of the Prometheus operator have no schema in the server: its own types read them.
MONITORS = """\
package main

import (
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	kinds := map[string]any{
		"PodMonitor":     &monitoring.PodMonitor{},
		"PrometheusRule": &monitoring.PrometheusRule{},
		"ServiceMonitor": &monitoring.ServiceMonitor{},
	}
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = yaml.UnmarshalStrict(text, kinds[os.Args[1]])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""


def build() -> None:
    """Build etcd, the API server and the reader of monitoring objects, if they are not there."""
    if (BUILT / "bin").exists():
        return
    shutil.rmtree(BUILT, ignore_errors=True)
    for name, source in (("etcd", ETCD), ("apiserver", APISERVER), ("monitors", MONITORS)):
        (BUILT / "cmd" / name).mkdir(parents=True)
        (BUILT / "cmd" / name / "main.go").write_text(source)
    module = json.loads(_go("mod", "download", "-json", f"k8s.io/kubernetes@v{VERSION}", cwd=ROOT))
    staging = re.findall(
        r"^\t(k8s\.io/\S+) => \./staging", Path(module["GoMod"]).read_text(), re.MULTILINE
    )
    replaced = "".join(f"replace {m} => {m} v0{VERSION[1:]}\n" for m in staging)
    go = re.search(r"^go .*$", Path(module["GoMod"]).read_text(), re.MULTILINE)
    assert go is not None
    operator = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring"
    (BUILT / "go.mod").write_text(
        f"module heartwheel/controlplane\n\n{go[0]}\n\nrequire k8s.io/kubernetes v{VERSION}\n"
        f"require {operator} v{OPERATOR}\n\n{replaced}"
    )
    _go("mod", "tidy", cwd=BUILT)
    (BUILT / "part").mkdir()
    stamp = f"-X k8s.io/component-base/version.gitVersion=v{VERSION}"
    _go("build", f"-ldflags={stamp}", "-o", "part/", "./cmd/...", cwd=BUILT)
    (BUILT / "part").rename(BUILT / "bin")


def _go(*arguments: str, cwd: Path) -> str:
    return subprocess.run(
        ["go", *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


@contextmanager
def server(folder: Path) -> Iterator[list[str]]:
    """Give the command of a kubectl that talks to a server of its own, on loopback."""
    port, store, peers = free_port(), free_port(), free_port()
    key = folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key)], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
    etcd = subprocess.Popen(
        [
            *(BUILT / "bin" / "etcd", "--log-level=fatal", f"--data-dir={folder / 'etcd'}"),
            *(f"--{w}-client-urls=http://{ADDRESS}:{store}" for w in ("listen", "advertise")),
            f"--listen-peer-urls=http://{ADDRESS}:{peers}",
        ]
    )
    with (folder / "apiserver.log").open("w") as log:
        apiserver = subprocess.Popen(
            [
                *(BUILT / "bin" / "apiserver", f"--etcd-servers=http://{ADDRESS}:{store}"),
                *(f"--bind-address={ADDRESS}", f"--secure-port={port}"),
                *(f"--cert-dir={folder / 'certs'}", f"--token-auth-file={folder / 'tokens.csv'}"),
                "--authorization-mode=RBAC",
                # There is no controller that makes the accounts of pods.
                "--disable-admission-plugins=ServiceAccount",
                *(
                    "--service-account-issuer=https://kubernetes",
                    f"--service-account-key-file={key}",
                ),
                *(
                    f"--service-account-signing-key-file={key}",
                    "--service-cluster-ip-range=10.0.0.0/24",
                ),
            ],
            stdout=log,
            stderr=log,
        )
    kubectl = ["kubectl", f"--server=https://{ADDRESS}:{port}", f"--token={TOKEN}"]
    kubectl += ["--insecure-skip-tls-verify", f"--cache-dir={folder / 'cache'}"]
    try:
        deadline = time.monotonic() + START_S
        while subprocess.run(
            [*kubectl, "get", "--raw=/readyz"], check=False, capture_output=True
        ).returncode:
            assert time.monotonic() < deadline, (folder / "apiserver.log").read_text()[-3_000:]
            time.sleep(0.5)
        yield kubectl
    finally:
        for process in (apiserver, etcd):
            process.terminate()
            process.wait()


def apply_all(folder: Path, files: list[str]) -> int:
    """Apply every overlay and file without keeping anything; return the number of failures."""
    failures = 0
    with server(folder) as kubectl:
        apply = [*kubectl, "apply", "--dry-run=server", "-f", "-"]
        version = json.loads(_output([*kubectl, "version", "-o", "json"]))["serverVersion"]
        print(f"API server {version['gitVersion']}, {version['goVersion']}")
        _output([*kubectl, "apply", "-f", str(ROOT / "k8s" / "base" / "namespace.yaml")])
        texts = {overlay: render(overlay, folder) for overlay in OVERLAYS}
        for name, text in (texts | {file: Path(file).read_text() for file in files}).items():
            print(f"\n{name}")
            manifests = objects(text)
            own = [m for m in manifests if m["apiVersion"] != MONITORING]
            failures += _tell(apply, [*own, _pod(own)])
            for manifest in manifests:
                if manifest["apiVersion"] == MONITORING:
                    read = [str(BUILT / "bin" / "monitors"), manifest["kind"]]
                    failures += _tell(read, [manifest])
        print("\nrefused, as they must be")
        unsafe, misspelt = _pod(own), _pod(own)
        del unsafe["spec"]["securityContext"]["runAsNonRoot"]
        misspelt["spec"]["terminationGracePeriod"] = 30
        failures += 2 - _tell(apply, [unsafe]) - _tell(apply, [misspelt])
    return failures


def _pod(manifests: list[Manifest]) -> Manifest:
    """Return the pod that the StatefulSet's controller would make, which is not running here."""
    stateful = objects(yaml.safe_dump(named(manifests, "StatefulSet")))[0]
    spec = stateful["spec"]["template"]["spec"]
    for claim in stateful["spec"].get("volumeClaimTemplates", []):
        name = claim["metadata"]["name"]
        source = {"claimName": f"{name}-{stateful['metadata']['name']}-0"}
        spec["volumes"].append({"name": name, "persistentVolumeClaim": source})
    metadata = {**stateful["metadata"], "name": f"{stateful['metadata']['name']}-0"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _tell(command: list[str], manifests: list[Manifest]) -> int:
    """Print what a command says of objects; return 1 if it fails."""
    done = subprocess.run(
        command, input=yaml.safe_dump_all(manifests), text=True, check=False, capture_output=True
    )
    print(done.stdout + done.stderr, end="")
    if not done.returncode and command[-1] == manifests[0]["kind"]:
        print(f"{manifests[0]['kind']} read by the operator's own types {OPERATOR}")
    return min(done.returncode, 1)


if __name__ == "__main__":
    build()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(apply_all(Path(name), sys.argv[1:]))
