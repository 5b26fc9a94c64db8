"""safetensors files made to harm, single and sharded."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from random import Random
from typing import Any

from support import hostile_lies as lies
from support import hostile_trees as trees
from support.hostile_containers import (
    Name,
    damaged,
    put,
    safetensors,
)


def state_file() -> tuple[dict[str, Any], bytes]:
    """Optimizer state in liontool's own layout, before any conversion: with second moments."""
    group = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False,
             "params": ["a", "b"]}  # fmt: skip
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "pt", "liontool.schema": "1", "liontool.optimizer": "torch.optim.AdamW",
            "liontool.param_groups": json.dumps([group]),
            "liontool.lr_scheduler": json.dumps([trees.scheduler()]),
            "liontool.provenance": json.dumps({"step": 30, "source": "x"}),
        }
    }  # fmt: skip
    body = b""
    for label in ("a", "b"):
        for name, values in (
            ("exp_avg", (1.0, 2.0)),
            ("exp_avg_sq", (1.0, 2.0)),
            ("step", (30.0,)),
        ):
            data = struct.pack(f"<{len(values)}f", *values)
            header[f"state.{label}.{name}"] = {
                "dtype": "F32", "shape": [2] if len(values) == 2 else [],
                "data_offsets": [len(body), len(body) + len(data)],
            }  # fmt: skip
            body += data
    return header, body


def state_files(rng: Random, folder: Path, marker: str) -> Name:
    """Our own layout with lies in the JSON of its metadata."""
    header, body = state_file()
    facts = header["__metadata__"]
    for key in rng.sample(sorted(facts), rng.choice([1, 1, 2])):
        way = rng.choice(["lie", "lie", "lie", "gone", "text", "value"])
        if way == "gone":
            facts.pop(key)
        elif way == "text":
            facts[key] = damaged(facts[key].encode(), rng).decode("utf-8", "replace")
        elif way == "value" or not key.endswith(("groups", "scheduler", "provenance")):
            facts[key] = json.dumps(lies.json_lie(rng))
        else:
            facts[key] = json.dumps(json_with_lies(json.loads(facts[key]), rng))
    return put(folder, "a.safetensors", safetensors(header, body))


def json_with_lies(value: Any, rng: Random) -> Any:
    slots = lies.slots(value)
    for holder, key in rng.sample(slots, min(len(slots), rng.choice([1, 1, 2, 5]))):
        if isinstance(holder, dict) and rng.random() < 0.2:
            holder[rng.choice([lies.CONTROL, "9" * 5000, "²", "state", "lr"])] = holder[key]
        else:
            holder[key] = lies.json_lie(rng)
    return value


def safetensors_files(rng: Random, folder: Path, marker: str) -> Name:
    """Headers with lies, and files with damage."""
    header, body = state_file()
    what = rng.choice(["bytes", "bytes", "lies", "lies", "text"])
    if what == "lies":
        json_with_lies(header, rng)
    text = json.dumps(header).encode()
    if what == "text":
        text = rng.choice(
            [
                b'{"a":' * 5000, b"[" * 10**5, b'{"a":1,"a":1}', b"{" + b" " * 10**5 + b"}", b"{}x",
                b'{"a":' + b"9" * 5000 + b"}", text.replace(b"F32", b"F64"), b'{"a":NaN}', b"{",
                text.replace(b"state.a.step", b"state.b.step"), b"\xff{}", b"{\"\\ud800\":{}}",
                text.replace(b"state.a.", b"state." + b"9" * 5000 + b"."),
                text.replace(b"state.a.", "state.²٣.".encode()), text.replace(b"state.", b"x."),
                text.replace(b"state.a.", b"state.\\u001b[2J."), text.replace(b"[2]", b"[1,2,1]"),
            ]
        )  # fmt: skip
    data = safetensors(text, body)
    if what == "bytes":
        data = damaged(data, rng)
    if rng.random() < 0.2:
        return _sharded(rng, folder, data)
    return put(folder, "a.safetensors", data)


_SHARDS = (
    "s.safetensors", "../s.safetensors", "/etc/passwd", "", ".", "a\0b", "x" * 300,
    "link.safetensors", "pipe.safetensors", "..safetensors", lies.CONTROL + ".safetensors",
)  # fmt: skip


def _sharded(rng: Random, folder: Path, data: bytes) -> Name:
    header, _ = state_file()
    shard = rng.choice(_SHARDS)
    names = [name for name in header if name.startswith("state.")]
    index: Any = {"metadata": {}, "weight_map": dict.fromkeys(names, "s.safetensors")}
    index["weight_map"][rng.choice([*names, "other"])] = shard
    if rng.random() < 0.3:
        index = json_with_lies(index, rng)
    (folder / "link.safetensors").symlink_to("/etc/passwd")
    (folder / "..safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    put(folder, "s.safetensors", data)
    return put(folder, "m.safetensors.index.json", json.dumps(index).encode())
