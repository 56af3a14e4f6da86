"""Files that were damaged or forged, in all the ways that this module knows: what reads them must refuse them in one sentence."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable

import numpy as np

from fastdl.files import archive

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def signed(members: dict[str, bytes], description: dict) -> bytes:
    """An archive whose checksums are right, whatever it says."""
    import hashlib

    text = next(name for name in members if name.endswith(".json"))
    description = {k: v for k, v in description.items() if k != "sha256" and not k.endswith("_sha256")}
    for name, data in members.items():
        if name.endswith(".npy"):
            description[f"{name.removesuffix('.npy')}_sha256"] = hashlib.sha256(data).hexdigest()
    description["sha256"] = archive._digest(description)
    return zipped({**members, text: json.dumps(description).encode()})


def described(data: bytes) -> tuple[dict[str, bytes], dict]:
    members = members_of(data)
    return members, json.loads(next(data for name, data in members.items() if name.endswith(".json")))


# --- damage ---


def flip_bits(rng, data, other):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng, data, other):
    return data[: rng.randrange(len(data))]


def cut_out(rng, data, other):
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 200) :]


def insert(rng, data, other):
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.randrange(1, 200)) + data[start:]


def overwrite(rng, data, other):
    start, size = rng.randrange(len(data)), rng.randrange(1, 300)
    return data[:start] + (b"\0", b"\xff", rng.randbytes(1))[rng.randrange(3)] * size + data[start + size :]


def splice(rng, data, other):
    """The beginning of one file and the end of another."""
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def zip_numbers(rng, data, other):
    """Sizes and offsets of the archive that are not true, huge ones too."""
    changed = bytearray(data)
    places = [i for i in range(len(data) - 4) if data[i : i + 4] in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")]
    at = rng.choice(places) + rng.randrange(4, 46)
    value = rng.choice((0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE, rng.getrandbits(32)))
    changed[at : at + 4] = struct.pack("<I", value)
    return bytes(changed[: len(data)])


# --- other archives ---


def swap_members(rng, data, other):
    mine, its = members_of(data), members_of(other)
    name = rng.choice(sorted(mine))
    return zipped({**mine, name: its.get(name, its[sorted(its)[0]])})


def leave_out(rng, data, other):
    mine = members_of(data)
    del mine[rng.choice(sorted(mine))]
    return zipped(mine)


def rename(rng, data, other):
    mine = members_of(data)
    name = rng.choice(sorted(mine))
    mine[rng.choice(("../../evil", "x.npy", "a" * 60000, "model.json", "parameters.npy", "state9.npy"))] = mine.pop(
        name
    )
    return zipped(mine)


def bomb(rng, data, other):
    """Members that unfold to a thousand times their size."""
    mine = members_of(data)
    mine[rng.choice(sorted(mine))] = bytes(rng.choice((1 << 14, 1 << 16, 1 << 16)))
    return zipped(mine, rng.choice((*[zipfile.ZIP_DEFLATED] * 8, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))


def many_members(rng, data, other):
    return zipped({**members_of(data), **{f"{i}.npy": b"" for i in range(rng.randrange(1, 40))}})


# --- forged contents, with checksums that are right ---

ODD = (
    None, True, -1, 0, 1, 2, 10**9, 10**18, 2**63, 10**400, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "", "x", "linear",
    [], {}, [[]], [None], ["a"] * 3, {"name": "x"}, {"a": []}, "\ud800", "9" * 5000,
)  # fmt: skip


def forge(rng, data, other):
    """One value of the description is another."""
    members, description = described(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = rng.choice(list(places(description)))
        if rng.random() < 0.15:
            del holder[key]
        else:
            holder[key] = rng.choice(ODD)
    return signed(members, description)


def places(value, most=400):
    """Where something stands in a description: (dictionary or list, key)."""
    found, left = [], [value]
    while left and len(found) < most:
        holder = left.pop()
        items = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
        for key, inner in items[:40]:
            found.append((holder, key))
            if isinstance(inner, (dict, list)):
                left.append(inner)
    return found or [({"": 0}, "")]


def deep(rng, data, other):
    """JSON in JSON in JSON, deeper than any stack."""
    members = members_of(data)
    text = next(name for name in members if name.endswith(".json"))
    depth = rng.choice((500, 5_000, 50_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    whole = opening * depth + b"1" + closing * depth
    members[text] = rng.choice((whole, opening * depth, members[text].replace(b"null", whole, 1)))
    return zipped(members)


def header(rng, data, other):
    """Arrays that say they are huge, nested, of objects, or of no number."""
    members, description = described(data)
    name = rng.choice([name for name in members if name.endswith(".npy")])
    shape = rng.choice(
        ("(1000000000000,)", "()", "(2, 3)", "(-1,)", "(3,)", "(" * 5000, "(9999999999999999999999,)", "(0,)")
    )
    kind = rng.choice(("<f4", "<f8", "|O", "<i8", "<U9", "<f2", "[('a', '<f4')]"))
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * rng.choice((0, 5, 50_000)) + b"\n"
    size = struct.pack("<H", min(len(text), 65535))
    members[name] = b"\x93NUMPY" + rng.choice((b"\x01\x00", b"\x02\x00", b"\x09\x09")) + size + text + bytes(16)
    return signed(members, description)


def numbers(rng, data, other):
    """Arrays that are sound, and too short, too long or of another type."""
    members, description = described(data)
    name = rng.choice([name for name in members if name.endswith(".npy")])
    out = io.BytesIO()
    np.save(out, np.zeros(rng.randrange(99), rng.choice(("f4", "f8", "i8"))))
    return signed({**members, name: out.getvalue()}, description)


DAMAGE: dict[str, Mutation] = {
    f.__name__: f
    for f in (flip_bits, truncate, cut_out, insert, overwrite, splice, zip_numbers, swap_members, leave_out, rename, bomb,
              many_members, deep)
}  # fmt: skip
"""After these a file is refused or as it was."""
FORGERIES: dict[str, Mutation] = {f.__name__: f for f in (forge, header, numbers)}
"""These are signed: what is sound in itself may be read as what it says."""
