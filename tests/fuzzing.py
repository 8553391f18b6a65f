"""Damage done to valid files and replies, and what a reader may make of it: a result, or one sentence for the user.

>>> damaged(random.Random(1), [b'{"seed": "Tea.", "text": "Coffee."}'], "json")
b'{"seed": null, "text": "Coffee."}'
"""

import csv
import io
import json
import random
import resource
import signal
import traceback
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import yaml

from culturellm_utils.errors import UserError

Kind = Literal["bytes", "text", "csv", "json", "jsonl", "yaml"]

#: Processor seconds that one small input may take, and bytes of memory that may be asked for in all.
SECONDS, MEMORY = 10.0, 3 << 30
#: Bytes of the longest input: beyond, a slow reader would test patience and not judgement.
LONGEST = 200_000
#: Characters of the longest sentence that a user should have to read.
LONGEST_SENTENCE = 2000

#: What is put between and over the bytes of a valid input.
TOKENS = [token.encode("utf-8", "surrogatepass") for token in (
    "\0", "\n", "\r", "\r\n", "\t", "\ufeff", "\u2028", "\u202e", "\u200b", "\x1b[31m", "\x85", "é", "문",
    "\U0001f9c2", "\ud800", "\\ud800", "\\u0000", "'", '"', '""', "`", "```json\n", "</think>", "<think>", "<",
    "<script>x()</script>", "&amp;", "&#0;", "]]>", "--", "#", "%", "$", "$(id)", "{", "}", "[", "]", "(", ")", ",",
    ";", ":", ": ", "- ", "? ", "| ", "> ", "*a", "&a ", "<<: *a\n", "!!python/object/apply:os.system [id]",
    "!!binary é", "!!bool x", "!!int ''", "!!timestamp x", "2024-13-45", "1:99:99", "0b", "0x", ".inf", "~", "=",
    "=1+1", "+", "-", "@", "/", "../", "~nobody/x", "null", "true", "NaN", "-Infinity", "1e999", "-1", "0", "1.5",
    "٣", "²", "1_0", "9" * 30, "9" * 5000, "a" * 3000, "“" * 2000, "*a " * 2000, " " * 5000, "1. " * 2000,
    "[" * 20_000, '{"a":' * 20_000, "(" * 500, "- " * 3000, "{a: " * 1000, "x" * 140_000)]
TOKENS += [b"\xff", b"\xfe\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]

#: What is put in the place of a value of a valid input.
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e300, float("nan"), float("inf"), "",
    " ", "\0", "\n", "a\nb", "\ud800", "\u202e", "\x1b[2J", "=1+1", "'=1", "@x", "<b>", "{x}", "{", "%s", "é", "문",
    "1", "01", "٣", "1e5", "nan", "no", "../../x", "/etc/passwd", "~nobody/x", "a" * 300, "a" * 5000,
    "1. a 999999999. b", "Q1", [], {}, [[]], [None], [0], ["a"], ["a", "a"], [{}], [[["a"]]], {"": ""}, {"a": {}},
    {"a": ["b"]}, {"1": "x"}]


def inputs(seed: int, corpus: Sequence[bytes], kind: Kind, count: int) -> list[bytes]:
    """``count`` inputs for a reader: what is valid first, then damaged copies, the same for the same seed."""
    chance = random.Random(seed)
    return [*corpus, *(damaged(chance, corpus, kind) for _ in range(count - len(corpus)))][:count]


def damaged(chance: random.Random, corpus: Sequence[bytes], kind: Kind) -> bytes:
    """A valid input with one to four faults: in its values where its kind has any, in its bytes otherwise."""
    found = chance.choice(corpus)
    structured = {"json": _json, "jsonl": _json_lines, "yaml": _yaml, "csv": _csv}.get(kind)
    if structured and chance.random() < 0.6:
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            found = structured(chance, found) or found
    if not structured or chance.random() < 0.5:
        for _ in range(chance.choice([1, 1, 2, 4])):
            found = _bytes(chance, found, corpus)
    return found[:LONGEST]


def _bytes(chance: random.Random, found: bytes, corpus: Sequence[bytes]) -> bytes:
    """One fault in the bytes."""
    start, stop = sorted(chance.randrange(len(found) + 1) for _ in range(2))
    match chance.randrange(8):
        case 0:
            at = min(start, max(0, len(found) - 1))
            return found[:at] + bytes([chance.randrange(256)]) + found[at + 1 :]
        case 1:
            return found[:start] + chance.choice(TOKENS) + found[start:]
        case 2:
            return found[:start] + chance.choice(TOKENS) + found[min(stop, start + 8) :]
        case 3:
            return found[:start] + found[min(stop, start + 64) :]
        case 4:
            return found[:start]
        case 5:
            return found[:stop] + found[start:]
        case 6:
            other = chance.choice(corpus)
            return found[:start] + other[chance.randrange(len(other) + 1) :]
        case _:
            at = min(start, max(0, len(found) - 1))
            return found[:at] + bytes([found[at] ^ (1 << chance.randrange(8))]) + found[at + 1 :] if found else b"\n"


def _changed(chance: random.Random, value: Any) -> Any:
    """A nested value of which one part is replaced, removed, renamed or repeated."""
    value = deepcopy(value)
    places: list[tuple[Any, Any]] = []
    _places(value, places)
    if not places:
        return deepcopy(chance.choice(VALUES))
    holder, key = chance.choice(places)
    match chance.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(["", "x", "culture", 1, "\ud800", "a" * 300])] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder.append(holder[key])
        case 3:
            other, there = chance.choice(places)
            holder[key] = deepcopy(other[there])
        case _:
            holder[key] = deepcopy(chance.choice(VALUES))
    return value


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        _places(value[key], found)


def _json(chance: random.Random, found: bytes) -> bytes | None:
    try:
        text = json.dumps(_changed(chance, json.loads(found)), ensure_ascii=chance.random() < 0.5)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-8", "surrogatepass")


def _json_lines(chance: random.Random, found: bytes) -> bytes | None:
    lines = found.split(b"\n")
    at = chance.randrange(len(lines))
    lines[at] = _json(chance, lines[at]) or lines[at]
    if chance.random() < 0.2:
        lines.insert(at, chance.choice(lines))
    return b"\n".join(lines)


def _yaml(chance: random.Random, found: bytes) -> bytes | None:
    try:
        text = yaml.safe_dump(_changed(chance, yaml.safe_load(found.decode())), allow_unicode=True, sort_keys=False)
        return text.encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, yaml.YAMLError):
        return None


def _csv(chance: random.Random, found: bytes) -> bytes | None:
    try:
        rows = list(csv.reader(io.StringIO(found.decode(), newline="")))
    except (ValueError, csv.Error):
        return None
    filled = [row for row in rows if row]
    if not filled:
        return None
    row = chance.choice(filled)
    row[chance.randrange(len(row))] = str(chance.choice(VALUES))
    if chance.random() < 0.2:
        rows.insert(chance.randrange(len(rows)), list(chance.choice(filled)))
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


class _Slow(BaseException):
    """Out of time; no ``except Exception`` of a reader holds it up."""


def fault(read: Callable[[bytes], Any], given: bytes) -> str:
    """What is wrong with what ``read`` did: "" for a result, or for a UserError of readable lines in bounded time."""
    def stop(*_: object) -> None:
        raise _Slow

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        read(given)
    except UserError as error:
        said = str(error)
        if not said.strip() or not all(line.strip() and line.isprintable() for line in said.split("\n")):
            return f"a sentence that cannot be printed as one: {said!r:.300}"
        if max(map(len, said.split("\n"))) > LONGEST_SENTENCE:
            return f"a sentence of {len(said)} characters: {said:.200}"
        return ""
    except _Slow:
        return f"more than {SECONDS:g} s of processor time"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "culturellm_utils" in frame.filename][-1:] or where[-1:]
        return f"{type(error).__name__} at {ours[0].name}:{ours[0].lineno}: {error!s:.200}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return ""


def faults(read: Callable[[bytes], Any], given: Sequence[bytes]) -> dict[str, bytes]:
    """The faults of a reader, each with the shortest input that shows it. Memory beyond :data:`MEMORY` is one."""
    found: dict[str, bytes] = {}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    try:
        for one in given:
            said = fault(read, one)
            if said and (said not in found or len(one) < len(found[said])):
                found[said] = one
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return found
