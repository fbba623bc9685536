"""Measures the captioning server under load: latencies and photos per second.

Starts `effcap serve` on a free port of this machine and sends the sample photos from one client,
then from many at once. Every request must be answered with the caption that the photo gets alone.

    python benchmarks/speed/serve_load.py --clients 50 --requests 4
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = sorted((ROOT / "res" / "photos").glob("*.jpg"))


def main() -> None:
    """Prints a line per number of clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="flickr8k-lite0")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=4, help="requests per client")
    parser.add_argument("--sampler", default="beam")
    arguments = parser.parse_args()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "effcap.tools", "serve", arguments.preset)
    started = time.perf_counter()
    server = subprocess.Popen([*command, "--port", str(port), "--timeout", "300"], cwd=ROOT)
    try:
        wait_until_ready(url, server)
        print(f"ready after {time.perf_counter() - started:.0f} s")
        bodies = [request_body(photo, arguments.sampler) for photo in PHOTOS]
        for body in bodies[:1] * 2:
            caption(url, body)  # the sampler is compiled
        burst(url, bodies, 8, 2)  # for a full batch, too
        expected = [caption(url, body)[0] for body in bodies]
        print(f"{'clients':>8} {'requests':>9} {'p50':>7} {'p95':>7} {'p99':>7} {'photos/s':>9}")
        for clients, requests in ((1, 20), (arguments.clients, arguments.requests)):
            seconds, results = burst(url, bodies, clients, requests)
            wrong = [text for photo, text, _ in results if text != expected[photo]]
            lost = clients * requests - len(results)
            times = sorted(taken for _, _, taken in results)
            quantiles = [times[min(len(times) - 1, int(q * len(times)))] for q in (0.5, 0.95, 0.99)]
            shown = " ".join(f"{value:6.2f}s" for value in quantiles)
            rate = len(results) / seconds
            print(f"{clients:8} {len(results):9} {shown} {rate:9.1f}")
            if wrong or lost:
                raise SystemExit(
                    f"{lost} requests were lost, {len(wrong)} captions differ: {wrong}"
                )
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(30)
    if code:
        raise SystemExit(f"the server ended with {code}")


def free_port() -> int:
    """Returns a port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(url: str, server: subprocess.Popen) -> None:
    """Waits until the server answers."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=60).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def request_body(photo: Path, sampler: str) -> bytes:
    """Returns the JSON of a request for the captions of a photo."""
    data = b64encode(photo.read_bytes()).decode()
    return json.dumps({"photos": [data], "sampler": sampler}).encode()


def caption(url: str, body: bytes) -> tuple[str, float]:
    """Returns the caption of a photo, and the seconds that the request took."""
    started = time.perf_counter()
    request = urllib.request.Request(f"{url}/caption", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        text = json.load(answer)["captions"][0]
    return text, time.perf_counter() - started


def burst(
    url: str, bodies: list[bytes], clients: int, requests: int
) -> tuple[float, list[tuple[int, str, float]]]:
    """Sends requests from several clients at once, each one after the other.

    Returns:
        The seconds of all, and (index of the photo, caption, seconds) of each answered request.
    """
    results: list[tuple[int, str, float]] = []

    def client(number: int) -> None:
        for turn in range(requests):
            photo = (number + turn) % len(bodies)
            try:
                results.append((photo, *caption(url, bodies[photo])))
            except (OSError, ValueError) as error:
                print(f"client {number}: {error!r}", file=sys.stderr)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started, results


if __name__ == "__main__":
    main()
