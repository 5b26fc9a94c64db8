"""Zip files made to harm."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path
from random import Random

from support import hostile_lies as lies
from support.hostile_containers import (
    Name,
    damaged,
    honest,
    put,
    torch_records,
    torch_zip,
)
from support.hostile_trees import pickled


def zip_bytes(rng: Random, folder: Path, marker: str) -> Name:
    """Bytes of a torch zip changed anywhere."""
    return put(folder, "a.pt", damaged(torch_zip(*honest(rng)), rng))


def zip_fields(rng: Random, folder: Path, marker: str) -> Name:
    """Numbers in headers, directory and end of a zip exchanged for others, zip64 ends put in."""
    data = bytearray(torch_zip(*honest(rng)))
    if rng.random() < 0.3:
        data = _with_zip64(data, rng)
    marks = [
        b"PK\x01\x02",
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"PK\x03\x04",
        b"PK\x06\x06",
        b"PK\x06\x07",
    ]
    for _ in range(rng.choice([1, 1, 2])):
        places = _all(data, rng.choice(marks))
        if places:
            at = rng.choice(places) + rng.randrange(4, 46)
            width = rng.choice([1, 2, 4, 8])
            data[at : at + width] = _number(rng, width, len(data))
    return put(folder, "a.ckpt", bytes(data))


def _all(data: bytearray, mark: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(mark, at)]


def _number(rng: Random, width: int, size: int) -> bytes:
    value = rng.choice([0, 1, 8, 0xFFFF, 0xFFFFFFFF, 2**64 - 1, 2**63, size, size - 22, 65, 46])
    return (value % 256**width).to_bytes(width, "little")


def _with_zip64(data: bytearray, rng: Random) -> bytearray:
    """The same with the ends of zip64, true ones or not."""
    end = data.rindex(b"PK\x05\x06")
    count, size, offset = struct.unpack_from("<HII", data, end + 10)
    lie = rng.choice([0, 0, 1, -1, 2**63])
    numbers = [count, count, size, offset]
    numbers[rng.randrange(4)] += lie
    wide = struct.pack("<4sQHHII4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, *(n % 2**64 for n in numbers))
    wide += struct.pack("<4sIQI", b"PK\x06\x07", 0, end + rng.choice([0, 0, 0, 1, -4]), 1)
    if rng.random() < 0.5:
        struct.pack_into("<HHII", data, end + 8, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1)
    return data[:end] + wide + data[end:]


_NAMES = (
    "../evil", "archive/../../evil", "/etc/passwd", "archive/data/../0", "C:\\evil", "archive\\x",
    "archive/\x1b[2J", "archive/\u202e", "archive/\n", "archive//0", "archive/./0", "\0",
    "a" * 9000,
    "archive/data/0/", "other/data.pkl", "archive/.data/serialization_id", "archive/liontool.json",
    "archive/data/0", "archive/data.pkl", "archive/byteorder", "ARCHIVE/data.pkl", "data.pkl",
    "archive/code/x.py", "archive/constants.pkl", "archive/data/٣",
)  # fmt: skip


def zip_records(rng: Random, folder: Path, marker: str) -> Name:
    """Records that stand twice, lead elsewhere, are compressed, overlap, lack or contradict."""
    tree, storages = honest(rng)
    records = [*torch_records(pickled(tree), storages.data).items()]
    what = rng.choice(["name", "name", "gone", "byteorder", "order", "size", "packed", "overlap"])
    at = rng.randrange(len(records))
    name, data = records[at]
    if what == "name":
        records.insert(
            at, (rng.choice(_NAMES), rng.choice([b"", b"x", data, lies.CONTROL.encode()]))
        )
    elif what == "gone":
        del records[at : at + rng.choice([1, 1, 2, 99])]
    elif what == "byteorder":
        records[1] = (records[1][0], rng.choice([b"big", b"", b"middle", b"\xff", b"little" * 99]))
    elif what == "order":
        rng.shuffle(records)
    elif what == "size":
        records[at] = (name, rng.choice([b"", data[:-1], data + b"x", data * 2]))
    method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]) if what == "packed" else 0
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of names that stand twice
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in records:
                archive.writestr(zipfile.ZipInfo(name), data, method)
            archive.comment = rng.choice([b"", b"", b"x", lies.CONTROL.encode(), b"PK\x05\x06" * 9])
            if what == "overlap":
                archive.filelist[at].header_offset = rng.choice(archive.filelist).header_offset
    return put(folder, "a.pth", file.getvalue())
