import json
import os
import subprocess
import sys
from pathlib import Path

from firmware_bridge.testing.bench import Bench
from firmware_bridge.testing.device import MemoryDevice

ROOT = Path(__file__).parents[2]


def bridge(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "firmware_bridge", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def test_hello_names_the_device(bench: Bench) -> None:
    bench.start(MemoryDevice())
    shown = bridge("hello", "--port", bench.line.host_path)
    assert shown.returncode == 0, shown.stderr
    assert "board           memory" in shown.stdout
    assert "kit 0.1.0" in shown.stdout
    told = bridge("hello", "--json", EDGE_PORT=bench.line.host_path)
    assert json.loads(told.stdout)["slots"] == 4
    found = bridge("hello", "--json", EDGE_PORTS=bench.line.host_path)
    assert json.loads(found.stdout)["device_id"] == "memory"


def test_ports_are_listed(bench: Bench) -> None:
    listed = bridge("ports", "--json", EDGE_PORTS=f"{bench.line.host_path}:{bench.line.device_path}")
    assert [port["path"] for port in json.loads(listed.stdout)] == sorted(
        (bench.line.host_path, bench.line.device_path)
    )
    assert bench.line.host_path in bridge("ports", EDGE_PORTS=bench.line.host_path).stdout
    none = bridge("ports", EDGE_PORTS="")
    assert (none.returncode, none.stdout) == (0, "")


def test_errors_have_their_exit_codes(bench: Bench) -> None:
    silent = bridge("hello", "--port", bench.line.host_path, "--timeout", "1")
    assert silent.returncode == 9
    assert "nobody answers" in silent.stderr
    missing = bridge("hello", "--port", "/dev/does-not-exist")
    assert missing.returncode == 8
    assert missing.stderr.startswith("error: /dev/does-not-exist: there is no such port")
    assert bridge("hello", "--baud", "fast").returncode == 2
    assert "Traceback" not in silent.stderr + missing.stderr


def test_the_bridge_needs_no_heavy_package() -> None:
    code = (
        "import sys, firmware_bridge.__main__, firmware_bridge.serve, firmware_bridge.client\n"
        "heavy = {'torch', 'numpy', 'executorch', 'calib', 'edge'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
