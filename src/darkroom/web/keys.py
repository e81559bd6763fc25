"""API keys: shown once when they are made, kept as SHA-256 in a file of one line a key.

A key is 256 random bits, so that its plain hash cannot be turned back by guessing; passwords would need more.
"""

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from darkroom import files
from darkroom.errors import UsageError

PREFIX = "darkroom_"
LONGEST_KEY = 200

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64}) sha256:(?P<digest>[0-9a-f]{64})")

HEADING = """\
# API keys of darkroom serve: a name and the SHA-256 of its key. To take a key back, delete its line and restart.
"""


@dataclass(frozen=True)
class Keys:
    """The keys that a server accepts: hexadecimal digests and the name of each key's owner."""

    digests: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """The keys of a file; raises `UsageError` for one that is missing, empty or not of the form written here."""
        found = tuple((match["digest"], match["name"]) for match in _matches(path))
        if not found:
            raise UsageError(f"{path} holds no key: make one with `darkroom key {path} NAME`")
        return cls(found)

    def owner(self, key: str) -> str | None:
        """The name of a key's owner, None for a key that is not known; takes as long for each of them."""
        digest, owner = _digest(key[:LONGEST_KEY]), None
        for known, name in self.digests:
            if hmac.compare_digest(known, digest):
                owner = name
        return owner


def add_key(path: Path, name: str) -> str:
    """Make a key for `name`, add its hash to the file, which only its owner may read, and return the key.

    Raises `UsageError` for a name that is taken or cannot stand in the file.
    """
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) is None:
        raise UsageError(f"the name {name!r} cannot stand in the file: give up to 64 letters, digits, dots and dashes")
    if path.exists() and any(match["name"] == name for match in _matches(path)):
        raise UsageError(f"{path} has a key of {name} already: delete its line, or give another name")
    key = PREFIX + secrets.token_urlsafe(32)
    before = path.read_text(encoding="utf-8") if path.exists() else HEADING
    text = before + ("" if before.endswith("\n") else "\n") + f"{name} sha256:{_digest(key)}\n"
    with files.replacing(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(text, encoding="utf-8")
        if path.exists():  # a group that the server runs in may have been given the file
            os.chmod(temporary, path.stat().st_mode & 0o777)
    return key


def _matches(path: Path) -> list[re.Match[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: make it with `darkroom key {path} NAME`") from error
    shown = [(place, line.strip()) for place, line in enumerate(lines, start=1)]
    return [_match(path, place, line) for place, line in shown if line and not line.startswith("#")]


def _match(path: Path, place: int, line: str) -> re.Match[str]:
    match = _LINE.fullmatch(line)
    if match is None:  # the line itself is not shown: somebody may have put a key there
        raise UsageError(f"line {place} of {path} is not NAME sha256:HASH: make keys with `darkroom key {path} NAME`")
    return match


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
