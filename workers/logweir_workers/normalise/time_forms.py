"""The forms in which a time may be written, each with who writes it so. A text of none of them is not read as a time.

No form is guessed at: what could mean two times (01/02/2026, 26/11/30, CST) means none. docs/reference/times.md is made
from this table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAMES_BY_OFFSET: dict[float, str] = {
    -10: "HST",
    -9: "AKST",
    -8: "AKDT",
    -7: "MST PDT",
    -6: "MDT",
    -5: "EST",
    -4: "EDT",
    -3.5: "NST",
    -2.5: "NDT",
    0: "UTC UT GMT Z WET",
    1: "CET MET WEST WAT",
    2: "CEST MEST EET CAT SAST",
    3: "EEST EAT MSK",
    5: "PKT",
    7: "WIB",
    8: "WITA HKT AWST",
    9: "WIT JST KST",
    9.5: "ACST",
    10: "AEST",
    10.5: "ACDT",
    11: "AEDT",
    12: "NZST",
    13: "NZDT",
}
ZONES_H = {name: hours for hours, names in _NAMES_BY_OFFSET.items() for name in names.split()}
"""Names of one zone only, in hours east of UTC: the tz database has each with one offset, wherever it is used, since
2019 at least."""

ZONES_OF_SEVERAL: dict[str, str] = {
    "CST": "North America, China and Cuba",
    "CDT": "North America and Cuba",
    "IST": "India, Israel and Ireland",
    "BST": "Britain, Bangladesh and Bougainville",
    "PST": "North America and the Philippines",
    "AST": "Atlantic Canada and Arabia",
    "ADT": "Atlantic Canada and Arabia",
    "GST": "the Gulf and Guam",
    "SST": "Samoa and Singapore",
}
"""Names that are not read, with the places that use them. So are all others that are not in ZONES_H."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a time."""

    name: str
    """What the form is called, or who writes it."""
    source: str
    """Where it is defined."""
    examples: tuple[str, ...]
    """2026-01-31T12:00:00Z, a Saturday, written so: what the reference shows, and tests read."""
    patterns: tuple[str, ...]
    """Regular expressions in which ``%Y`` and its like stand as in strftime, and a blank for one or two."""

    def compiled(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_compiled(pattern) for pattern in self.patterns)


_OFFSET = "[+-][0-9]{1,2}(?::?[0-9]{2})?"
_DIRECTIVES = {
    "%Y": "(?P<year>[0-9]{4})",
    "%y": "(?P<year_of_century>[0-9]{2})",
    "%m": "(?P<month>[0-9]{2})",
    "%b": "(?P<month_name>Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    "|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)",
    "%a": "(?P<weekday>Mon(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?)",
    "%d": "(?P<day>[0-9]{2})",
    "%e": "(?P<day>[0-9]{1,2})",
    "%j": "(?P<day_of_year>[0-9]{3})",
    "%G": "(?P<week_year>[0-9]{4})",
    "%V": "(?P<week>[0-9]{2})",
    "%u": "(?P<day_of_week>[1-7])",
    "%H": "(?P<hour>[0-9]{2})",
    "%k": "(?P<hour>[0-9]{1,2})",
    "%M": "(?P<minute>[0-9]{2})",
    "%S": "(?P<second>[0-9]{2})",
    # A fraction of the second, its point or comma included, or nothing.
    "%f": "(?:[.,](?P<fraction>[0-9]{1,30}))?",
    # AM or PM, or nothing; Java 20 and newer put a narrow no-break space before it.
    "%p": "(?: {0,2}|\u202f)(?P<half>[AP])M",
    # A zone, or nothing. Behind an offset some say its name as well: +0100 CET, +0100 (CET), +01:00[Europe/Berlin].
    "%z": "(?: {0,2}(?P<zone>(?:UTC|GMT|UT) ?" + _OFFSET + "|" + _OFFSET + "|[A-Z]{1,5})"
    r"(?P<aside> \([^()]{1,50}\)| [A-Z]{1,5}| " + _OFFSET + r"|\[[A-Z0-9_+/-]{1,50}\])?)?",
}
_DIRECTIVE = re.compile("%[A-Za-z]")


def _compiled(pattern: str) -> re.Pattern[str]:
    expression = _DIRECTIVE.sub(lambda match: _DIRECTIVES[match[0]], pattern.replace(" ", " {1,2}"))
    # ASCII: without it, case does not count for the letters ſ (s) and K (the Kelvin sign), either.
    return re.compile(expression, re.ASCII | re.IGNORECASE)


_CLOCK = "%k:%M(:%S%f)?(%p)?%z"

FORMS = (
    Form(
        "ISO 8601, RFC 3339",
        "RFC 3339 section 5.6; ISO 8601-1 sections 5.2 to 5.4; RFC 9557 for the zone's name in brackets",
        (
            "2026-01-31T12:00:00Z",
            "2026-01-31 13:00:00.250+01:00",
            "2026-01-31T12:00",
            "2026-01-31T13:00:00+01:00[Europe/Berlin]",
        ),
        ("%Y-%m-%d(T| |_)" + _CLOCK, "%Y-%m-%dT%H(?P<zone>Z)?", "%Y-%m-%d", "%Y-%m-%dT%H%M%S%f%z"),
    ),
    Form(
        "RFC 3164, and Cisco's",
        "RFC 3164 section 4.1.2; Cisco IOS, service timestamps: * and . say that the clock is not synchronised",
        ("Jan 31 12:00:00", "*Jan 31 12:00:00.250 UTC", "Jan 31 2026 13:00:00 CET", "2026 Jan 31 12:00:00.250"),
        (
            "(?P<mark>[*.])?%b %e %H:%M:%S%f%z:?",
            "(?P<mark>[*.])?%b %e %Y %H:%M:%S%f%z:?",
            "(?P<mark>[*.])?%Y %b %e %H:%M:%S%f%z:?",
            "(?P<mark>[*.])?%H:%M:%S%f%z %a %b %e %Y",
        ),
    ),
    Form(
        "access logs",
        "Apache mod_log_config %t, nginx $time_local, HAProxy option httplog",
        ("31/Jan/2026:13:00:00 +0100", "[31/Jan/2026:12:00:00.250]"),
        ("%e/%b/%Y(:| )%H:%M:%S%f%z",),
    ),
    Form(
        "year first, with slashes or points",
        "nginx error_log; Go, package log",
        ("2026/01/31 12:00:00", "2026/01/31 12:00:00.250000", "2026.01.31 12:00:00"),
        ("%Y(?P<sign>[/.])%m(?P=sign)%d((T| )" + _CLOCK + ")?",),
    ),
    Form(
        "asctime, date",
        "ISO C asctime; POSIX date; Apache ErrorLog; Ruby and Java Date; ECMAScript Date.prototype.toString",
        (
            "Sat Jan 31 12:00:00 2026",
            "Sat Jan 31 13:00:00 CET 2026",
            "Sat Jan 31 13:00:00 +0100 2026",
            "Sat Jan 31 2026 13:00:00 GMT+0100 (Central European Standard Time)",
        ),
        ("%a %b %e %H:%M:%S%f(%p)?%z %Y", "%a %b %e %Y %H:%M:%S%f%z"),
    ),
    Form(
        "day, name of the month, year",
        "RFC 5322 section 3.3; RFC 9110 section 5.6.7; BIND, Oracle, PHP and Tomcat; GNU date",
        ("Sat, 31 Jan 2026 12:00:00 GMT", "31 Jan 2026 13:00 +0100", "31-Jan-2026 12:00:00.250", "31 January 2026"),
        ("(%a,? )?%e(?P<sign>[ -])%b(?P=sign)%Y(,? " + _CLOCK + ")?",),
    ),
    Form(
        "day, name of the month, two digits of the year",
        "RFC 9110 section 5.6.7 (RFC 850); RFC 5322 section 4.3; only with the day of the week, which must be right",
        ("Saturday, 31-Jan-26 12:00:00 GMT", "Sat, 31 Jan 26 13:00:00 +0100"),
        ("%a, %e(?P<sign>[ -])%b(?P=sign)%y %H:%M:%S%z",),
    ),
    Form(
        "name of the month, day, year",
        "Java DateFormat; .NET full date; Kibana",
        ("Jan 31, 2026 12:00:00 PM", "Jan 31, 2026, 1:00:00 PM GMT+01:00", "Saturday, January 31, 2026 12:00 PM"),
        ("(%a,? )?%b %e,? %Y(,?( at| @)? " + _CLOCK + ")?",),
    ),
    Form(
        "numbers with the year last, or with two digits of it, where the days of one month only fit",
        ".NET, Java and others by locale; PostgreSQL datestyle",
        ("31.01.2026 12:00", "01/31/2026 12:00:00 PM", "31/01/2026 12:00:00", "1/31/26, 12:00 PM"),
        (
            "(?P<first>[0-9]{1,2})(?P<sign>[/.-])(?P<second_number>[0-9]{1,2})(?P=sign)(?P<last>[0-9]{4}|[0-9]{2})(,? "
            + _CLOCK
            + ")?",
        ),
    ),
    Form(
        "ISO 8601 without signs",
        "ISO 8601-1 section 5.4.2; RFC 4517 section 3.3.13 (LDAP); FIX UTCTimestamp; Log4j COMPACT",
        ("20260131T120000Z", "20260131120000.250Z", "20260131-12:00:00.250", "20260131120000250", "20260131"),
        (
            "%Y%m%d",
            "%Y%m%dT%H%M(%S%f)?%z",
            "%Y%m%d%H%M%S%f%z",
            "%Y%m%d%H%M%S(?P<fraction>[0-9]{3})",
            "%Y%m%d( |-|_)%H%M%S",
            "%Y%m%d( |-)%H:%M:%S%f%z",
        ),
    ),
    Form(
        "ISO 8601 by week, by day of the year",
        "ISO 8601-1 sections 5.2.3 and 5.2.4",
        ("2026-W05-6T12:00:00Z", "2026-031T12:00:00Z"),
        ("%G-W%V-%u(T%H:%M(:%S%f)?%z)?", "%Y-%jT%H:%M(:%S%f)?%z"),
    ),
    Form(
        "Go",
        "Go, time.Time.String",
        ("2026-01-31 13:00:00.25 +0100 CET m=+0.012345678",),
        ("%Y-%m-%d %H:%M:%S%f%z m=[+-][0-9.]{1,25}",),
    ),
    Form(
        "offsets in minutes",
        "DMTF DSP0004 (WMI); IBM Db2 db2diag",
        ("20260131130000.250000+060", "2026-01-31-13.00.00.250000+060"),
        (
            "%Y%m%d%H%M%S[.](?P<fraction>[0-9]{6})(?P<offset_minutes>[+-][0-9]{3})",
            "%Y-%m-%d-%H[.]%M[.]%S[.](?P<fraction>[0-9]{1,12})(?P<offset_minutes>[+-][0-9]{3})?",
        ),
    ),
    Form(
        "glog, klog",
        "glog, log line prefix",
        ("I0131 12:00:00.250000", "I20260131 12:00:00.250000"),
        ("[IWEF]?%m%d %H:%M:%S[.](?P<fraction>[0-9]{6})", "[IWEF]%Y%m%d %H:%M:%S[.](?P<fraction>[0-9]{6})"),
    ),
    Form(
        "JSON of .NET",
        "DataContractJsonSerializer, PowerShell ConvertTo-Json: milliseconds since 1970",
        ("/Date(1769860800000)/", "/Date(1769860800000+0100)/"),
        (r"\\?/Date[(](?P<milliseconds>[0-9]{1,14})([+-][0-9]{4})?[)]\\?/",),
    ),
)
"""Beside these, numbers are read: see ``times.UNITS``."""
