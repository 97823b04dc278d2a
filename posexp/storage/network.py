"""A reachability check that takes seconds, where the clients of hubs and wandb try for a minute."""

import socket
import threading
import urllib.request
from urllib.parse import urlsplit

PROBE_SECONDS = 3.0
PORTS = {"http": 80, "https": 443}


def reachable(url: str) -> bool:
    """Return whether the host of `url`, or its proxy, accepts a connection."""
    target = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(target.netloc):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    answers: list[bool] = []

    def connect() -> None:
        try:
            port = target.port or PORTS.get(target.scheme, 1080)
            socket.create_connection((target.hostname or "", port), timeout=PROBE_SECONDS).close()
            answers.append(True)
        except (OSError, ValueError):  # an invalid name or port
            pass

    # In a thread, because the timeout of create_connection does not cover name resolution.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)
