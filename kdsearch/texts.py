"""Clean texts before they are shown, logged or saved: no secrets, no terminal control codes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

HIDDEN = "***"
REASON_LENGTH = 200

# user:password@ behind a scheme. Greedy to the last @, since a password may hold one itself.
_LOGIN = re.compile(r"((?:[a-zA-Z][\w+.-]*:/{1,3})|//)([^\s'\"<>]*)@")
# The same without a scheme, as in host:port forms: user:password@host.
_BARE_LOGIN = re.compile(r"(?<![\w/:*])([^\s:/@'\"=]+):(?!/)[^\s'\"<>]+@(?=[\w.\[])")
_WORD = r"[\w.-]*(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|signature|credential)"
# In a URL's query, in the settings of a database driver, and in the text of an error.
_SETTING = re.compile(rf"(?i)\b({_WORD}[\w.-]*\s*=\s*)('[^']*'|\"[^\"]*\"|[^\s&;,'\"#<>)]+)")
# How PyTorch and its allocators begin a message that a C++ stack follows.
_CPP_PREFIX = re.compile(r"\[enforce fail at [^\]]*\]\s*(?:[^.]*\.\s)?(?=\w)")

BEAT = "beat"
# Not in a path, a file name, a key of a space file or a quoted name.
_BEAT = re.compile(r"(?<![\w./'-])([Aa] )?([Bb]eats?)\b(?![\w/=-]|'(?!s\b)|\.\w)")

# How Python keeps the bytes of a file name that are not UTF-8.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def redact(text: str) -> str:
    """Hide the passwords of URLs and the values of settings such as ``sslpassword=``."""
    text = _LOGIN.sub(_without_password, text)
    text = _BARE_LOGIN.sub(rf"\1:{HIDDEN}@", text)
    return _SETTING.sub(rf"\g<1>{HIDDEN}", text)


def _without_password(found: re.Match[str]) -> str:
    scheme, login = found.groups()
    user, colon, _ = login.partition(":")
    if colon:
        return f"{scheme}{user}:{HIDDEN}@"
    # A token in the place of the user is usual for the web, a user alone for databases.
    return f"{scheme}{HIDDEN if scheme.startswith('http') else user}@"


def printable(text: str) -> str:
    """Replace everything that steers a terminal, except ends of lines.

    Bytes of a file name that are not UTF-8 are shown as ``\\xff``.
    """
    text = _NOT_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def one_line(text: str) -> str:
    """The first line of an error message, without the C++ stack that PyTorch appends."""
    lines = [line.strip() for line in printable(_CPP_PREFIX.sub("", text)).splitlines()]
    line = next(filter(None, lines), "")
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 3].rstrip() + "..."


def in_unit(text: str, unit: str) -> str:
    """The same text with another word for beats; names of files and settings stay.

    Args:
        unit: In the singular; ``beat`` changes nothing.
    """
    if unit == BEAT:
        return text

    def other(found: re.Match[str]) -> str:
        article, word = found.groups()
        new = f"{unit}s" if word[-1] == "s" and unit[-1] != "s" else unit
        if article:
            an = "An " if article[0] == "A" else "an "
            return (an if unit[0] in "aeiou" else article) + new
        return new.capitalize() if word[0] == "B" else new

    return _BEAT.sub(other, text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean 'width'?`` where one known name is close, else all known names."""
    known = list(known)
    beginnings = [k for k in known if len(name) > 2 and k.startswith(name)]
    near = [*beginnings, *difflib.get_close_matches(name, known, n=1, cutoff=0.75)]
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"


def short(value: object) -> str:
    """A value as Python writes it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
