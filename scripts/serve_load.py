"""Load aim.serve on loopback: many clients at once, latencies, no loss, every answer aim.predict's, constant memory.

    python scripts/serve_load.py --checkpoint runs/demo --videos FOLDER --out scripts/results/serve_load.json

Each client posts all videos in turn; one request of fifty is a file without a video, which must get a 422. A 503 is
retried after its Retry-After. Answers are compared with those of `aim.predict` as text. At the end comes SIGTERM during
requests: accepted ones must be answered, and the exit code is 0.
"""

import argparse
import json
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import numpy as np
import torch

from aim.data.scanning import look
from aim.engine.machine.distributed import num_cores
from aim.engine.run.results import device_name
from aim.ground import files

ROOT = Path(__file__).resolve().parent.parent
BAD_EVERY, BAD = 50, b"not a video"
LAST = 8  # requests on their way at the end


class Clients:
    """Clients that share a count of requests, and their answers."""

    def __init__(self, port: int, videos: dict[str, bytes], requests: int) -> None:
        self.port, self.videos, self.requests = port, videos, requests
        self.next, self.lock = count(), threading.Lock()
        self.seconds, self.statuses = list[float](), Counter[int]()
        self.answers: dict[str, Counter[str]] = {name: Counter() for name in videos}

    def run(self) -> None:
        """One client: requests until all are made."""
        names, connection = [*self.videos], HTTPConnection("127.0.0.1", self.port, timeout=600)
        while (number := next(self.next)) < self.requests:
            bad = number % BAD_EVERY == BAD_EVERY - 1
            name = names[number % len(names)]
            began = time.monotonic()
            status, text = self.ask(connection, name, BAD if bad else self.videos[name])
            with self.lock:
                self.seconds.append(time.monotonic() - began)
                self.statuses[status] += 1
                if not bad:
                    self.answers[name][text] += 1

    def ask(self, connection: HTTPConnection, name: str, body: bytes) -> tuple[int, str]:
        """The status and the text of a video's answer, retried while the server is full."""
        while True:
            connection.request("POST", f"/predict?name={name}", body)
            answer = connection.getresponse()
            text = answer.read().decode().strip()
            if answer.status != 503:
                return answer.status, text
            with self.lock:
                self.statuses[503] += 1
            time.sleep(float(answer.headers["Retry-After"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--distinct", type=int, default=40, help="videos of the folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("settings", nargs="*", help="of aim.serve and aim.predict, such as threads=1")
    args = parser.parse_args()
    paths = [args.videos / name for name in look(args.videos).videos[: args.distinct]]
    asked = [f"checkpoint={args.checkpoint}", *args.settings]
    expected = predicted(asked, paths)
    command = [sys.executable, "-m", "aim.serve", "port=0", *asked]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        port = next(int(found[1]) for line in server.stderr if (found := re.search(r"http://[\d.]+:(\d+)/", line)))
        threading.Thread(target=server.stderr.read, daemon=True).start()
        clients = Clients(port, {f"{i}": path.read_bytes() for i, path in enumerate(paths)}, args.requests)
        threads = [threading.Thread(target=clients.run) for _ in range(args.clients)]
        began, memory = time.monotonic(), list[float]()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(resident(server.pid))
            time.sleep(0.5)
        took = time.monotonic() - began
        last = Clients(port, clients.videos, LAST)
        threads = [threading.Thread(target=last.run) for _ in range(LAST)]
        for thread in threads:
            thread.start()
        while accepted(port) + len(last.seconds) < LAST:
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        code = server.wait(60)
    wrong = sum(
        times
        for number, (name, told) in enumerate(clients.answers.items())
        for text, times in told.items()
        if json.loads(text) != expected[number] | {"path": name}
    )
    quarter = max(1, len(memory) // 4)
    p50, p95, p99 = np.percentile(clients.seconds, [50, 95, 99]).round(3).tolist()
    found = {
        "machine": f"{device_name(torch.device('cpu'))}, {num_cores()} cores, {platform.system()}",
        "settings": args.settings,
        "clients": args.clients,
        "requests": args.requests,
        "lost": args.requests - len(clients.seconds),
        "statuses": {str(status): times for status, times in sorted(clients.statuses.items())},
        "answers_unlike_aim_predict": wrong,
        "seconds": round(took, 1),
        "requests_per_second": round(args.requests / took, 2),
        "latency_seconds": {"p50": p50, "p95": p95, "p99": p99},
        "memory_mb": {  # of the server and its processes, medians
            "second_quarter": round(float(np.median(memory[quarter : 2 * quarter] or memory))),
            "last_quarter": round(float(np.median(memory[-quarter:]))),
        },
        "at_sigterm": {"accepted": LAST, "answered": last.statuses[200], "exit_code": code},
    }
    print(json.dumps(found, indent=1))
    if args.out:
        files.write_json(args.out, found)
    sys.exit(bool(found["lost"] or wrong or code or last.statuses[200] != LAST))


def predicted(asked: list[str], paths: list[Path]) -> list[dict[str, object]]:
    """The answers of aim.predict, of each video alone."""
    command = [sys.executable, "-m", "aim.predict", *asked, "batch_size=1", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def accepted(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/health")
    return int(json.loads(connection.getresponse().read())["accepted"])


def resident(pid: int) -> float:
    """The memory of a process and those below it in MB, what they share counted once (Linux, Pss)."""
    total = 0.0
    for each in [pid, *children(pid)]:
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]
    return total


def children(pid: int) -> list[int]:
    found = [int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()]
    return found + [deeper for each in found for deeper in children(each)]


if __name__ == "__main__":
    main()
