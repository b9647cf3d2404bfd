"""Bytes, texts and JSON from outside: a value, or an InputError of one line, whatever the file is.

path --an ordinary file, not too large?--> bytes --unpacked, decoded--> text --> JSON
"""

import csv
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nucleate.errors import InputError

LARGEST = 2**30  # bytes of a file, and of what it unpacks to: a larger one is a slip, or fills the memory
DEEPEST = 50  # containers in containers of JSON: what goes through them calls itself as often
GZIP = b"\x1f\x8b"


def check_file(path: Path, what: str) -> None:
    """Raise InputError "unreadable" for what is no ordinary file (a folder, a pipe that never ends), "too large" beyond
    `LARGEST`.
    """
    try:
        ordinary = path.is_file()
        there = "a folder" if path.is_dir() else "no ordinary file" if path.exists() else "none"
        size = path.stat().st_size if ordinary else 0
    except OSError as error:  # a name too long
        ordinary, there, size = False, why(error), 0
    if not ordinary:
        raise InputError(
            f"expected {what} in an existing file, got {there} at {path}; check the path", "unreadable"
        )
    if size > LARGEST:
        raise InputError(f"expected {what} of at most {LARGEST} bytes, got {size} in {path}", "too large")


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a file that should be `what`, such as "a CIF". Raises InputError as `check_file` does."""
    check_file(path, what)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"expected {what} that can be read, got {path} ({why(error)})", "unreadable"
        ) from None


def real_path(path: Path) -> Path:
    """As `Path.resolve`, which raises RuntimeError of links that go round in circles."""
    return Path(os.path.realpath(path))


def unpack(data: bytes, path: Path, whole: bool = False) -> bytes:
    """What gzip packed; the beginning of it where the end is damaged, nothing where all is; other bytes as they are.

    Raises InputError "too large" beyond `LARGEST`, and "damaged" where it must be `whole` and is not.
    """
    if not data.startswith(GZIP):
        return data
    parts, room = [], LARGEST
    while data.startswith(GZIP):  # one member after another
        stream = zlib.decompressobj(wbits=31)
        try:
            parts.append(stream.decompress(data, room + 1))
            sound = stream.eof or len(parts[-1]) > room
        except zlib.error:
            sound, parts = False, [*parts, b""]
        if whole and not sound:
            raise InputError(f"expected a whole file, got {path} damaged or cut; get it again", "damaged")
        room -= len(parts[-1])
        if room < 0:
            raise InputError(
                f"expected at most {LARGEST} bytes in {path}, got more when it was unpacked", "too large"
            )
        data = stream.unused_data
    return b"".join(parts)


def parse_csv(text: str, path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the columns, and rows as dictionaries with a text for every column.

    Raises InputError "unreadable", as for a field that never ends.
    """
    try:
        reader = csv.DictReader(text.splitlines())
        rows = [{name: row.get(name) or "" for name in reader.fieldnames or []} for row in reader]
        return list(reader.fieldnames or []), rows
    except csv.Error as error:
        raise InputError(
            f"expected a CSV table in {path}, got: {why(error)}; check its quotes", "unreadable"
        ) from None


def parse_json(text: str | bytes) -> Any:
    """As `json.loads`, with ValueError for everything that is no JSON; also where it is nested beyond `DEEPEST`."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [item for one in level for item in _inside(one)]
        if not level:
            return value
    raise ValueError("nested too deep")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises InputError "unreadable"."""
    try:
        return parse_json(read_file(path, "JSON").decode("utf-8-sig"))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"expected JSON in {path}, got: {why(error)}", "unreadable") from None


def why(error: BaseException) -> str:
    """The reason in an exception of a library, not too long."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:150]
