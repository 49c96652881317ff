"""A real Kubernetes API server, built from Go modules, that all manifests are applied to.

Run it with `python -m tests.deploy.control_plane`; it prints what the server says of each object.
The first build takes some minutes, so no test needs it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

from tests.broker import ROOT, free_port
from tests.deploy.manifests import MONITORING, OVERLAYS, render

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
    staging = re.findall(r"^\t(k8s\.io/\S+) => \./staging", Path(module["GoMod"]).read_text(), re.M)
    replaced = "".join(f"replace {m} => {m} v0{VERSION[1:]}\n" for m in staging)
    go = re.search(r"^go .*$", Path(module["GoMod"]).read_text(), re.M)
    assert go is not None
    operator = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring"
    (BUILT / "go.mod").write_text(
        f"module heartwheel/controlplane\n\n{go[0]}\n\nrequire k8s.io/kubernetes v{VERSION}\n"
        f"require {operator} v{OPERATOR}\n\n{replaced}"
    )
    _go("mod", "tidy", cwd=BUILT)
    (BUILT / "part").mkdir()
    _go("build", "-o", "part/", "./cmd/...", cwd=BUILT)
    (BUILT / "part").rename(BUILT / "bin")


def _go(*arguments: str, cwd: Path) -> str:
    return subprocess.run(
        ["go", *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    build()
