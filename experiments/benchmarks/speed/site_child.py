"""Time the rounds of a deployment on loopback with the build whose worktree this is.

For builds without ``fedunlearn federation``: Flower's own programs are started, without TLS.
Arguments: a config (``data.clients`` sites), how many sites. Nothing is left running.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

LONGEST_S = 900


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def waited(port: int) -> None:
    """Return when somebody listens."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    sys.exit("the SuperLink did not come up")


def deployed(config: str, sites: int, home: Path) -> list[float]:
    """Run it; return wall seconds since the beginning at the end of every round."""
    beside = Path(sys.executable).parent
    environment = {
        **os.environ,
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
    }
    port, out, begun = free_port(), home / "run", []
    (home / "flwr").mkdir()
    (home / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n"
    )

    def start(name: str, *arguments: str) -> None:
        with (home / "log").open("ab") as log:
            begun.append(
                subprocess.Popen(
                    [str(beside / name), "--insecure", *arguments],
                    env=environment, stdout=log, stderr=log, start_new_session=True,
                )
            )  # fmt: skip

    try:
        start("flower-superlink", "--host", "127.0.0.1", "--port", str(port))
        waited(port)
        for site in range(sites):
            own = f"partition-id={site} num-partitions={sites}"
            start(
                "flower-supernode", "--superlink", f"127.0.0.1:{port}",
                "--port", str(free_port()), "--node-config", own,
            )  # fmt: skip
        given = f"config={json.dumps(config)} out={json.dumps(str(out))}"
        subprocess.run(
            [str(beside / "flwr"), "run", ".", "here", "--run-config", given],
            env=environment, check=True, stdout=sys.stderr,
        )  # fmt: skip
        until = time.monotonic() + LONGEST_S
        while not (out / "results.json").exists() or not (out / "details.json").exists():
            if time.monotonic() > until:
                sys.exit("the run did not end")
            time.sleep(0.5)
        time.sleep(1)  # the file is whole
    finally:
        for process in reversed(begun):
            process.send_signal(signal.SIGTERM)
        for process in begun:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    timeline = json.loads((out / "details.json").read_text())["timeline"]
    return [point["wall_s"] for point in timeline]


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        print(json.dumps({"ends_s": deployed(sys.argv[1], int(sys.argv[2]), Path(place))}))
