"""accounts: users, groups and passwords that were made, changed or removed by the tools of the system."""

from __future__ import annotations

import re

from logweir_workers.parsers import Fields, line_parser
from logweir_workers.parsers._text import quoted


def _user(action: str, name: str, group: str | None = None) -> Fields:
    return {"action": action, "outcome": "success", "targetusername": name, "group": group}


@line_parser(
    processes=(
        "useradd",
        "usermod",
        "userdel",
        "groupadd",
        "groupmod",
        "groupdel",
        "passwd",
        "chpasswd",
        "chage",
        "gpasswd",
        "chsh",
        "chfn",
        "newusers",
    ),
    adds=("action", "outcome", "targetusername", "username", "group", "targetuid", "targetgid", "reason"),
    # Forms of shadow-utils (src/useradd.c, usermod.c, userdel.c, group*.c, gpasswd.c, passwd.c, chage.c, chsh.c).
    examples=(
        (
            "new user: name=alice, UID=1001, GID=1001, home=/home/alice, shell=/bin/bash, from=/dev/pts/1",
            {
                "action": "add_user",
                "outcome": "success",
                "targetusername": "alice",
                "targetuid": "1001",
                "targetgid": "1001",
            },
        ),
        (
            "new user: name=toor, UID=0, GID=0, home=/root, shell=/bin/sh",
            {"action": "add_user", "outcome": "success", "targetusername": "toor", "targetuid": "0", "targetgid": "0"},
        ),
        (
            "new group: name=devs, GID=1002",
            {"action": "add_group", "outcome": "success", "group": "devs", "targetgid": "1002"},
        ),
        (
            "group added to /etc/group: name=devs, GID=1002",
            {"action": "add_group", "outcome": "success", "group": "devs", "targetgid": "1002"},
        ),
        (
            "failed adding user 'alice', exit code: 9",
            {"action": "add_user", "outcome": "failure", "targetusername": "alice", "reason": "exit code: 9"},
        ),
        (
            "add 'alice' to group 'sudo'",
            {"action": "add_to_group", "outcome": "success", "targetusername": "alice", "group": "sudo"},
        ),
        (
            "add 'alice' to shadow group 'sudo'",
            {"action": "add_to_group", "outcome": "success", "targetusername": "alice", "group": "sudo"},
        ),
        (
            "delete 'alice' from group 'sudo'",
            {"action": "remove_from_group", "outcome": "success", "targetusername": "alice", "group": "sudo"},
        ),
        (
            "change user 'alice' shell from '/bin/sh' to '/bin/bash'",
            {"action": "change_user", "outcome": "success", "targetusername": "alice"},
        ),
        (
            "change user name 'alice' to 'bob'",
            {"action": "change_user", "outcome": "success", "targetusername": "alice"},
        ),
        (
            "change user 'alice' password",
            {"action": "change_password", "outcome": "success", "targetusername": "alice"},
        ),
        ("lock user 'alice' password", {"action": "lock_user", "outcome": "success", "targetusername": "alice"}),
        ("unlock user 'alice' password", {"action": "unlock_user", "outcome": "success", "targetusername": "alice"}),
        ("delete user 'alice'", {"action": "delete_user", "outcome": "success", "targetusername": "alice"}),
        ("removed group 'alice' owned by 'alice'", {"action": "delete_group", "outcome": "success", "group": "alice"}),
        (
            "removed shadow group 'alice' owned by 'alice'",
            {"action": "delete_group", "outcome": "success", "group": "alice"},
        ),
        ("group 'devs' removed from /etc/group", {"action": "delete_group", "outcome": "success", "group": "devs"}),
        (
            "group changed in /etc/group (group devs/1002, new name: developers)",
            {"action": "change_group", "outcome": "success", "group": "devs"},
        ),
        (
            "password for 'alice' changed by 'root'",
            {"action": "change_password", "outcome": "success", "targetusername": "alice", "username": "root"},
        ),
        (
            "changed password expiry for alice",
            {"action": "change_user", "outcome": "success", "targetusername": "alice"},
        ),
        (
            "user alice added by root to group sudo",
            {
                "action": "add_to_group",
                "outcome": "success",
                "targetusername": "alice",
                "username": "root",
                "group": "sudo",
            },
        ),
        (
            "user alice removed by root from group sudo",
            {
                "action": "remove_from_group",
                "outcome": "success",
                "targetusername": "alice",
                "username": "root",
                "group": "sudo",
            },
        ),
        (
            "changed user 'alice' shell to '/bin/zsh'",
            {"action": "change_user", "outcome": "success", "targetusername": "alice"},
        ),
        ("add something else to the list", {}),
        ("cannot lock /etc/passwd; try again later.", {}),
        ("gkr-pam: couldn't update the login keyring password: no old password was entered", {}),
    ),
)
def accounts(line: str) -> Fields | None:
    """By how the line begins; names are quoted but for a few that have no blanks."""
    for begin, read in _BEGINNINGS:
        if line.startswith(begin):
            return read(line[len(begin) :])
    return None


# Names of users and groups; none may hold a comma or a blank.
_NEW = re.compile(r"name=([^, ]{1,256})(?:, UID=([0-9]{1,10}))?(?:, GID=([0-9]{1,10}))?")


def _new_user(rest: str) -> Fields | None:
    match = _NEW.match(rest)
    return {**_user("add_user", match[1]), "targetuid": match[2], "targetgid": match[3]} if match else None


def _new_group(rest: str) -> Fields | None:
    match = _NEW.match(rest)
    return {"action": "add_group", "outcome": "success", "group": match[1], "targetgid": match[3]} if match else None


def _failed(rest: str) -> Fields | None:
    name = quoted(rest)
    if name is None:
        return None
    reason = rest[len(name) + 2 :].removeprefix(", ")
    return {"action": "add_user", "outcome": "failure", "targetusername": name, "reason": reason}


def _add(rest: str) -> Fields | None:
    return _member("add_to_group", rest, (" to group ", " to shadow group "))


def _delete(rest: str) -> Fields | None:
    return _member("remove_from_group", rest, (" from group ", " from shadow group "))


def _member(action: str, rest: str, betweens: tuple[str, ...]) -> Fields | None:
    name = quoted(rest)
    for between in betweens if name else ():
        behind = rest[len(name or "") + 2 :]
        if behind.startswith(between) and (group := quoted(behind[len(between) :])):
            return _user(action, name or "", group)
    return None


def _change(rest: str) -> Fields | None:
    rest = rest.removeprefix("name ")
    name = quoted(rest)
    is_password = name is not None and rest[len(name) + 2 :] == " password"
    return _user("change_password" if is_password else "change_user", name) if name else None


def _lock(rest: str) -> Fields | None:
    return _user("lock_user", name) if (name := quoted(rest)) else None


def _unlock(rest: str) -> Fields | None:
    return _user("unlock_user", name) if (name := quoted(rest)) else None


def _delete_user(rest: str) -> Fields | None:
    return _user("delete_user", name) if (name := quoted(rest)) else None


def _removed_group(rest: str) -> Fields | None:
    return {"action": "delete_group", "outcome": "success", "group": name} if (name := quoted(rest)) else None


def _group_removed(rest: str) -> Fields | None:
    name = quoted("'" + rest)
    is_removed = name is not None and rest[len(name) + 1 :].startswith(" removed")
    return {"action": "delete_group", "outcome": "success", "group": name} if is_removed else None


def _group_changed(rest: str) -> Fields | None:
    name, slash, _ = rest.partition("(group ")[2].partition("/")
    return {"action": "change_group", "outcome": "success", "group": name} if slash else None


def _password(rest: str) -> Fields | None:
    name, found, by = rest.partition("' changed by '")
    return {**_user("change_password", name), "username": by.rstrip("'")} if found else None


def _expiry(rest: str) -> Fields:
    return _user("change_user", rest)


def _by(rest: str) -> Fields | None:
    match rest.split(" ", 7):
        case [name, "added", "by", who, "to", "group", group]:
            return {**_user("add_to_group", name, group), "username": who}
        case [name, "removed", "by", who, "from", "group", group]:
            return {**_user("remove_from_group", name, group), "username": who}
    return None


_BEGINNINGS = (
    ("new user: ", _new_user),
    ("new group: ", _new_group),
    ("group added to /etc/group: ", _new_group),
    ("group added to /etc/gshadow: ", _new_group),
    ("failed adding user ", _failed),
    ("add ", _add),
    ("delete user ", _delete_user),
    ("delete ", _delete),
    ("change user ", _change),
    ("changed user ", _change),
    ("lock user ", _lock),
    ("unlock user ", _unlock),
    ("removed group ", _removed_group),
    ("removed shadow group ", _removed_group),
    ("group '", _group_removed),
    ("group changed in /etc/group ", _group_changed),
    ("password for '", _password),
    ("changed password expiry for ", _expiry),
    ("user ", _by),
)
