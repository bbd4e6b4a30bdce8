"""Seeded changes of files: bits, bytes and spans of anything; fields of protobuf messages; words of documents."""

from dataclasses import dataclass, field

HUGE = (1 << 18, (1 << 31) - 1, 1 << 31, 1 << 38, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
WORDS = (
    b"NaN", b"-1", b"1e999", b"true", b"null", b"[]", b"{}", b'""', b'"passed"', b"99999999999999999999", b"0.0", b"1",
    b"../../x", b"/etc/passwd", b"\0", b"&a [*a, *a]", b"*a", b"!!python/object/apply:os.system ['true']", b"<<: {}",
    b"${HOME}", b"{{7*7}}", b"\xff\xfe", "\u202e".encode(), b"[" * 300, b"- " * 300, b"a" * 5000,
)  # fmt: skip


def changed(raw, other, rng, structured):
    """One to three changes of a file; `structured` changes fields or words, `other` is what is spliced in."""
    made = raw
    for _ in range(int(rng.integers(1, 4))):
        operation = structured if rng.integers(2) else PLAIN[int(rng.integers(len(PLAIN)))]
        made = operation(made or b"\0", other, rng)
    return made


def flip(raw, other, rng):
    """One bit."""
    made, at = bytearray(raw), int(rng.integers(len(raw)))
    made[at] ^= 1 << int(rng.integers(8))
    return bytes(made)


def truncate(raw, other, rng):
    """The end is missing."""
    return raw[: int(rng.integers(len(raw)))]


def remove(raw, other, rng):
    """A few bytes are missing."""
    at = int(rng.integers(len(raw)))
    return raw[:at] + raw[at + int(rng.integers(1, 9)) :]


def insert(raw, other, rng):
    """A few bytes are too many."""
    at = int(rng.integers(len(raw)))
    return raw[:at] + rng.bytes(int(rng.integers(1, 9))) + raw[at:]


def splice(raw, other, rng):
    """It ends as another file."""
    return raw[: int(rng.integers(len(raw)))] + other[int(rng.integers(len(other))) :]


PLAIN = (flip, truncate, remove, insert, splice)


# ---------------------------------------------------------------- documents


def words(raw, other, rng):
    """A word is another one, or a line is there twice, or lines changed places."""
    lines = raw.split(b"\n")
    at = int(rng.integers(len(lines)))
    match int(rng.integers(4)):
        case 0:
            lines.insert(at, lines[at])
        case 1:
            there = int(rng.integers(len(lines)))
            lines[at], lines[there] = lines[there], lines[at]
        case _:
            parts = lines[at].split(b" ")
            parts[int(rng.integers(len(parts)))] = WORDS[int(rng.integers(len(WORDS)))]
            lines[at] = b" ".join(parts)
    return b"\n".join(lines)


# ---------------------------------------------------------------- protobuf


@dataclass
class Field:
    """A field of a message: its number, its wire type, and its bytes or the fields of the message in them."""

    number: int
    wire: int
    body: bytes = b""
    inner: list = field(default_factory=list)


def fields(raw, other, rng):
    """A field anywhere in the message is there twice, missing, elsewhere, huge, or lies about its length."""
    tree = _parsed(raw)
    if not tree:
        return flip(raw, other, rng)
    places = list(_places(tree))
    siblings, at = places[int(rng.integers(len(places)))]
    match int(rng.integers(5)):
        case 0:
            siblings.insert(int(rng.integers(len(siblings) + 1)), siblings[at])
        case 1:
            del siblings[at]
        case 2:
            elsewhere, _ = places[int(rng.integers(len(places)))]
            elsewhere.append(Field(siblings[at].number, siblings[at].wire, _body(siblings[at])))
        case 3:
            siblings[at] = Field(siblings[at].number, 0, _varint(HUGE[int(rng.integers(len(HUGE)))]))
        case 4:
            lie = _varint(HUGE[int(rng.integers(len(HUGE)))] if rng.integers(2) else int(rng.integers(300)))
            siblings[at] = Field(siblings[at].number, 2 + 8, lie + _body(siblings[at]))  # written without a length
    return _built(tree)


def _parsed(raw, depth=0):
    """The fields of a message, or nothing where the bytes are none."""
    made, at = [], 0
    while at < len(raw):
        key, at = _read(raw, at)
        number, wire = key >> 3, key & 7
        start = at
        if wire == 0:
            _, at = _read(raw, at)
        elif wire in {1, 5}:
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, start = _read(raw, at)
            at = start + size
        if number == 0 or wire in {3, 4, 6, 7} or not start <= at <= len(raw):
            return []
        inner = _parsed(raw[start:at], depth + 1) if wire == 2 and depth < 8 and at - start < 100_000 else []
        made.append(Field(number, wire, raw[start:at], inner))
    return made


def _built(tree):
    made = bytearray()
    for each in tree:
        body = _body(each)
        made += _varint(each.number << 3 | each.wire & 7)
        made += _varint(len(body)) + body if each.wire == 2 else body
    return bytes(made)


def _body(each):
    return _built(each.inner) if each.inner else each.body


def _places(tree):
    for at, each in enumerate(tree):
        yield tree, at
        yield from _places(each.inner)


def _read(raw, at):
    """A varint and where it ends; beyond the end of the bytes where it is cut off."""
    value = shift = 0
    while at < len(raw) and shift < 70:
        value |= (raw[at] & 127) << shift
        at += 1
        if raw[at - 1] < 128:
            return value, at
        shift += 7
    return 0, len(raw) + 1


def _varint(value):
    made = b""
    while value > 127:
        made, value = made + bytes([value & 127 | 128]), value >> 7
    return made + bytes([value])
