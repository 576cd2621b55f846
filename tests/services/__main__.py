"""python -m tests.services fetch | senders | up | down | status

fetch   bring the servers' programs into the cache; as root on Debian install Java and Maven first
senders bring the syslog daemons that send to a door into the cache; one is built, which takes a minute
up      start Kafka and Elasticsearch and leave them running (make services)
down    stop them and remove their data, unless KEEP=1 (make services-down)
status  say whether they run; ends with 1 when not
"""

import os
import sys

from tests.services import standing
from tests.services.errors import ServiceError
from tests.services.fetch import fetch_all, fetch_senders


def main(arguments: list[str]) -> int:
    command = arguments[0] if len(arguments) == 1 else ""
    try:
        if command == "fetch":
            fetch_all()
        elif command == "senders":
            fetch_senders()
        elif command == "up":
            standing.up()
        elif command == "down":
            standing.down(keep=os.environ.get("KEEP") == "1")
        elif command == "status":
            return 0 if standing.status() else 1
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except ServiceError as error:
        print(f"tests.services {command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
