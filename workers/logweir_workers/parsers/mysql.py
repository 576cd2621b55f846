"""mysql: who was refused by MySQL or MariaDB, and whose connection broke."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    processes=("mysqld", "mysql", "mariadbd", "mariadb", "mysqld_safe"),
    categories=("mysql", "mariadb", "database"),
    adds=("action", "outcome", "username", "database", "sourceipaddress", "reason", "withpassword"),
    # Forms of the error logs of MySQL 5.7 to 9 and of MariaDB (share/errmsg.txt).
    examples=(
        (
            "2026-01-31T12:00:00.123456Z 12 [Note] [MY-010926] [Server] Access denied for user 'root'@'192.0.2.7' (using "
            "password: YES)",
            {
                "action": "login",
                "outcome": "failure",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "withpassword": "YES",
            },
        ),
        (
            "2026-01-31 12:00:00 12 [Warning] Access denied for user 'a'@'198.51.100.1' (x)'@'192.0.2.7' (using password: NO)",
            {
                "action": "login",
                "outcome": "failure",
                "username": "a'@'198.51.100.1' (x)",
                "sourceipaddress": "192.0.2.7",
                "withpassword": "NO",
            },
        ),
        (
            "2026-01-31T12:00:00.123456Z 13 [Note] [MY-013730] [Server] Aborted connection 13 to db: 'shop' user: 'alice' host: "
            "'192.0.2.7' (Got timeout reading communication packets).",
            {
                "action": "disconnect",
                "outcome": "failure",
                "username": "alice",
                "database": "shop",
                "sourceipaddress": "192.0.2.7",
                "reason": "Got timeout reading communication packets",
            },
        ),
        ("2026-01-31T12:00:00.123456Z 0 [System] [MY-010931] [Server] /usr/sbin/mysqld: ready for connections.", {}),
        ("Access denied for everybody", {}),
        ("2026-01-31 12:00:00 12 [Warning] Aborted connection 12", {}),
    ),
)
def mysql(line: str) -> Fields | None:
    """What stands behind the head, which differs by version and is looked over."""
    place = line.find("Access denied for user '", 0, 200)
    if place >= 0:
        # The name is the client's own choice, and may have quotes: the host stands last.
        user, found, rest = line[place + 24 :].rpartition("'@'")
        host, also_found, password = rest.partition("' (using password: ")
        if not found or not also_found:
            return None
        return {
            "action": "login",
            "outcome": "failure",
            "username": user,
            "sourceipaddress": host,
            "withpassword": password.partition(")")[0],
        }
    place = line.find("Aborted connection ", 0, 200)
    return _aborted(line[place + 19 :]) if place >= 0 else None


def _aborted(rest: str) -> Fields | None:
    database, found, rest = rest.partition(" to db: '")[2].partition("' user: '")
    user, also_found, rest = rest.rpartition("' host: '")
    host, _, reason = rest.partition("' (")
    if not found or not also_found:
        return None
    if "' user: '" in user:  # whoever connects chooses both names
        database = user = ""
    return {
        "action": "disconnect",
        "outcome": "failure",
        "username": None if user == "unauthenticated" else user,
        "database": None if database == "unconnected" else database,
        "sourceipaddress": host,
        "reason": reason.rstrip(".").removesuffix(")"),
    }
