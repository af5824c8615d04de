"""Secrets out of texts: what logs, causes and tracebacks say without what must not be said.

Every pattern takes a bounded or possessive number of characters from a start that it recognises by the
character before it, so that the time is linear in the text, whatever the text is. What replaces
a secret is no secret to any pattern: to redact twice changes nothing more.
"""

from __future__ import annotations

import re
import string
from typing import Any

__all__ = ["hidden", "is_secret_name", "redact"]

_MARK = "***"

_HINT = re.compile(r"pass|secret|key|auth|cred|token|cookie|pwd", re.IGNORECASE)
_PARTS = re.compile(
    r"passw(?:or)?d|passphrase|secret(?!ar)|api_?key|access_?key|private_?key|authorization|credential"
    r"|(?:token|cookie|pwd)(?![a-z])"
)
_HARMLESS = re.compile(
    r"_(?:count|counts|length|len|size|limit|budget|name|file|path|dir|type|url|uri|ttl|expir\w*|age|policy"
    r"|field|min|max|valid|required|is_set)$"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_secret_name(name: str) -> bool:
    """Return whether a name is one of a secret: ``db_password``, ``apiKey``, ``X-Auth-Token``.

    Names that only speak about one are not: ``password_length``, ``max_tokens``, ``token_url``.
    """
    if not _HINT.search(name):  # most names, at a fifth of the time
        return False
    words = _HUMP.sub("_", name).replace("-", "_").lower()
    return _PARTS.search(words) is not None and _HARMLESS.search(words) is None


def redact(text: str) -> str:
    """Return a text with the values of its secrets replaced by ``***``.

    Secrets are what follows a name of one (`is_secret_name`) in the forms key=value, "key": "value"
    and key: value; what a bearer or a URL's user shows; private key blocks; and tokens of well-known
    shapes. The rest of the text stays as it is.
    """
    # Most texts hint at few of these: to look for the hints takes a small part of the time.
    lower = text.lower()
    if "private key" in lower:
        text = _without_private_keys(text)
    if "://" in lower:
        text = _URL.sub(rf"\1{_MARK}@", text)
    if "bearer" in lower:
        text = _BEARER.sub(rf"\1{_MARK}", text)
    if any(hint in lower for hint in _TOKEN_HINTS):
        text = _TOKEN.sub(_MARK, text)
    return _without_values(text)


_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----")
_CUT_OFF = re.compile(
    r"""
    (?: (?: \s | \\+[nrt] )*+ [A-Za-z0-9+/=]{16,}+ )++  # the whole lines that are there
    (?: (?: \s | \\+[nrt] )*+ [A-Za-z0-9+/=]++ )?+      # the one where it ends
    """,
    re.VERBOSE,
)


def _without_private_keys(text: str) -> str:
    """Hide the bodies of PEM and PGP private keys, also of one whose end has been cut off."""
    kept: list[str] = []
    done = 0
    ends = _END.finditer(text)
    end = next(ends, None)
    for begin in _BEGIN.finditer(text):
        if begin.start() < done:
            continue
        while end is not None and end.start() < begin.end():
            end = next(ends, None)
        if end is not None:
            stop = end.start()
        elif cut_off := _CUT_OFF.match(text, begin.end()):
            stop = cut_off.end()
        else:
            continue
        kept += text[done : begin.end()], _MARK
        done = stop
    return "".join([*kept, text[done:]])


_URL = re.compile(r"""(://[^\s:/?#@'"<>]{0,256}+:)[^\s/?'"<>]+@""")
_BEARER = re.compile(
    r"""
    \b(Bearer[ \t]{1,4}
       (?!(?:token|auth\w{0,12}|scheme|header|realm|of|is|was|and|or|the|for|in|to|from|not|found|error)\b)
     | (?i:bearer)[ \t]{1,4}(?=[A-Za-z._~+/=-]{0,64}[0-9])
    )
    [A-Za-z0-9._~+/=-]++
    """,
    re.VERBOSE,
)
_TOKEN = re.compile(
    r"""
    (?<![A-Za-z0-9_-])
    (?: A[KS]IA[0-9A-Z]{16}(?![A-Za-z0-9])                       # AWS
      | (?:gh[opusr]_|github_pat_)[A-Za-z0-9_]{20,}+             # GitHub
      | glpat-[A-Za-z0-9_-]{20,}+                                # GitLab
      | xox[abeoprs]-[A-Za-z0-9-]{10,}+                          # Slack
      | AIza[A-Za-z0-9_-]{35,}+                                  # Google
      | [sr]k_(?:live|test)_[A-Za-z0-9]{10,}+                    # Stripe
      | sk-(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{16,}+          # OpenAI and others
      | eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+ # JSON web tokens
    )
    """,
    re.VERBOSE,
)
_TOKEN_HINTS = (
    *("akia", "asia", "gho_", "ghp_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "aiza"),
    *("k_live_", "k_test_", "sk-", "eyj"),
)

_NAME = re.compile(  # from the hint that it is one of a secret to its end, in lower case
    "(?:api[_-]?key|access[_-]?key|private[_-]?key|passw|passphrase|secret|authoriz|credential|token|cookie|pwd)"
    "[a-z0-9_-]*+"
)
_NAME_CHARS = f"{string.ascii_letters}{string.digits}_-"
_MAX_NAME = 128
_SIGN = re.compile(
    r"""
    \\{0,3} ["']? \]? [ \t]{0,8}
    (?: :[ \t]{0,3}(?:str|bytes|int)(?:[ \t]{0,3}\|[ \t]{0,3}None)?[ \t]{0,3}=  # an annotation
      | ={1,3}>? | :=? (?!:)
    )
    [ \t]{0,8}
    """,
    re.VERBOSE,
)
_QUOTED = re.compile(
    r"""
    [bBfFrRuU]{0,2}
    (?: (?P<long> \"\"\" | ''' ) (?: (?!(?P=long)) (?: \\. | [^\\] ) )*+
      | (?P<short> \\{0,3}["'] ) (?: (?!(?P=short)) (?: \\. | [^\\\n] ) )*+
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING = re.compile(r"""[bBfFrRuU]{0,2}(?:\"{3}|'{3}|\\{0,3}["'])""")
_PLAIN = re.compile(
    r"""
    (?: (?i:basic|bearer|digest|token|apikey) [ \t]{1,3} )?
    (?: [^\s,;&"'()\[\]{}<>]
      | , (?! \s | $ | [\w.-]{1,64}+ [ \t]{0,2} [=:] )
      | [()\[\]{}<>] (?! [\s,;&)\]}>"':.] | $ )
    )++
    """,
    re.VERBOSE,
)
_HEADER = re.compile(r"""[^\s"'][^\r\n"']*+""")
_NO_SECRET = frozenset({"None", "null", "nil", "True", "true", "False", "false", "str", "bytes"})


def _without_values(text: str) -> str:
    """Hide what follows the names of secrets."""
    kept: list[str] = []
    done = 0
    for hinted in _NAME.finditer(_lower(text)):
        sign = hinted.start() >= done and _SIGN.match(text, hinted.end())
        if not sign:
            continue
        name = _whole_name(text, *hinted.span())
        if len(name) <= _MAX_NAME and is_secret_name(name) and (span := _value(text, name, sign)):
            kept += text[done : span[0]], _MARK
            done = span[1]
    return "".join([*kept, text[done:]])


def _lower(text: str) -> str:
    """Return a text in lower case, each character in its place.

    The two that are not ASCII but whose lower case is, or begins so, give way to spaces.
    """
    return text.replace("\u212a", " ").replace("\u0130", " ").lower()


def _whole_name(text: str, begin: int, end: int) -> str:
    """Return the name that ends with what is there from begin to end.

    Of one that is too long, only so much that it still is.
    """
    before = text[max(0, begin - _MAX_NAME) : begin]
    return before[len(before.rstrip(_NAME_CHARS)) :] + text[begin:end]


def _value(text: str, name: str, sign: re.Match[str]) -> tuple[int, int] | None:
    """Return from where to where the value of a name goes, quotes left out; None without one."""
    at = sign.end()
    if quoted := _QUOTED.match(text, at):
        opening = _OPENING.match(text, at)
        begin = opening.end() if opening else at
        return (begin, quoted.end()) if begin < quoted.end() else None
    if sign[0].rstrip().endswith(":") and name.lower().endswith(("authorization", "cookie")):
        found = _HEADER.match(text, at)
    else:
        found = None if text[at : at + 1] in "([{<" else _PLAIN.match(text, at)
    return found.span() if found and found[0] not in _NO_SECRET else None


def hidden(value: Any) -> Any:
    """Return a value of a job's arguments with `***` in the place of what has the name of a secret."""
    if isinstance(value, dict):
        return {
            key: "***" if isinstance(key, str) and is_secret_name(key) else hidden(item)
            for key, item in value.items()
        }
    return [hidden(item) for item in value] if isinstance(value, list) else value
