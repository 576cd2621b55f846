"""Become another program that dies with its parent and, where asked, runs as another user. Run by path, see process.py.

    python guard.py PARENT_PID UID:GID COMMAND...       PARENT_PID 0: outlive the parent; UID:GID empty: stay who we are

Not a `preexec_fn`: that runs Python between fork and exec, which may hang in a program with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, user: str, command: list[str]) -> None:
    if user:
        uid, gid = (int(part) for part in user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After setuid: a change of user clears the setting (man 2 prctl).
    if parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("guard: the parent ended before its server started")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
