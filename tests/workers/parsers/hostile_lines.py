"""Lines that a hostile sender makes: long, deep, half open; each as a beginning and a piece that is repeated."""

from __future__ import annotations

PIECES: dict[str, tuple[str, str, str]] = {
    "blanks": ("", " ", ""),
    "blanks behind a key": ("a= ", " ", "b"),
    "quotes": ('a="', '"', ""),
    "nested quotes": ("", '"\'"', ""),
    "escapes": ('a="', "\\", ""),
    "half escapes": ("", 'a="\\', ""),
    "escaped quotes": ('a="', '\\"', ""),
    "open quotes": ("", 'a="b ', ""),
    "pairs": ("", "k=v ", ""),
    "one pair": ("k=", "v", ""),
    "long key": ("", "k", "=v"),
    "keys without values": ("", "k= ", ""),
    "equals": ("a", "=", ""),
    "brackets": ("", "[", ""),
    "braces": ("", "{", "}" * 100),
    "objects": ("", '{"a":', "1}"),
    "array": ('{"a": ', "[", "]}"),
    "from": ("Failed password for ", "x from 192.0.2.7 port 1 ssh2 ", ""),
    "access": ("192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] ", '"GET / HTTP/1.1" 200 5 "', ""),
    "access escapes": ('192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "', '\\"', '" 200 5'),
    "digits": ("", "1", ""),
    "colons": ("", ":", ""),
    "semicolons": ("alice : TTY=pts/0 ; ", "PWD=/x ; ", "USER=root ; COMMAND=/bin/sh"),
    "hexadecimal": ("type=EXECVE msg=audit(1.1:1): argc=3 a0=", "41", ""),
    "arguments": ("type=EXECVE msg=audit(1.1:1): argc=3", ' a0="x"', ""),
    "repeated": ("", "message repeated 2 times: [ ", "]" * 50),
    "pam": ("pam_unix(sshd:auth): authentication failure; ", "rhost= ", "user=x"),
    "commas": ("", "a=b,", ""),
    "control characters": ("", "\x00\x1d\x1b", ""),
    "astral": ("", "\U0001f600=", ""),
}


def hostile(name: str, size: int) -> str:
    """The line of that name, of about ``size`` characters."""
    begin, piece, end = PIECES[name]
    return begin + piece * (size // len(piece)) + end
