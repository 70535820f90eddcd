"""Whether a server can be reached at all, known within two seconds.

The hub's client tries the addresses of a name in turn, each with its own timeout, and then all of
them again: where packets are dropped, that takes minutes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
import urllib.request
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443, "": 80}  # a proxy of another kind is SOCKS: 1080
# What a connection that does not block says at first; the second is Windows's.
_UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK}


def reach(url: str, seconds: float = 2) -> None:
    """Connect to the server of `url`, or to the proxy on the way there, and hang up.

    All addresses of it at once; the first that answers is enough.

    Raises:
        OSError: none could be reached; TimeoutError: none of them answered in `seconds`.
    """
    server = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(server.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(server.hostname or ""):
        server = urlsplit(proxy if "://" in proxy else f"//{proxy}")
    port = server.port or _PORTS.get(server.scheme, 1080)
    found = socket.getaddrinfo(server.hostname, port, type=socket.SOCK_STREAM)
    error = OSError(f"{server.hostname} has no address")
    with contextlib.ExitStack() as opened:
        waiting = opened.enter_context(selectors.DefaultSelector())
        for family, kind, protocol, _, address in found:
            try:
                one = opened.enter_context(socket.socket(family, kind, protocol))
            except OSError as missing:  # e.g. no IPv6 here
                error = missing
                continue
            one.setblocking(False)
            number = one.connect_ex(address)
            if number in _UNDER_WAY:
                waiting.register(one, selectors.EVENT_WRITE, one)
            else:
                error = OSError(number, os.strerror(number))
        until = time.monotonic() + seconds
        while waiting.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                number = key.data.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not number:
                    return
                error = OSError(number, os.strerror(number))
                waiting.unregister(key.data)
        if waiting.get_map():
            error = TimeoutError(f"no answer in {seconds:g} s")
    raise error
