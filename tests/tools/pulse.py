"""How long a server takes to tell its health, as a process of its own sees it: the siege's is too busy to tell.

    python -m tests.tools.pulse PORT

Asks again and again until its standard input ends; then prints the longest time, in seconds.
"""

from __future__ import annotations

import http.client
import select
import sys
import time

_TIMEOUT_S = 20.0
_EVERY_S = 0.05


def main() -> int:
    port = int(sys.argv[1])
    slowest_s = 0.0
    while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
        started_s = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        slowest_s = max(slowest_s, time.monotonic() - started_s)
    print(slowest_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
