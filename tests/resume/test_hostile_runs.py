"""Checkpoints of runs made to harm: refused at once, in one line, with nothing else touched.

Whoever can write COMMIT can give anything a right hash; so each lie is told once in COMMIT itself,
and once under a COMMIT that vouches for it.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from liontool.checkpoint.run_folder.hashing import hash_of
from liontool.checkpoint.run_folder.layout import COMMIT, FACTS, step_name
from liontool.errors import LiontoolError
from support.checkpoints import TENSORS, TREE, everything, run_facts, saved
from support.odd_files import make_device, make_socket
from support.refusals import Outcome, Refusals

SECONDS = 1.0
MEMORY = 200_000_000
GOOD, BAD = 100, 200


@pytest.fixture(scope="module")
def refusals() -> Iterator[Refusals]:
    with Refusals() as server:
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with a good checkpoint, beside something that must not be touched."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"tensors 200")
    folder = tmp_path / "exp1"
    saved(folder, GOOD)
    return folder


def _was_cheap(outcome: Outcome) -> None:
    assert outcome.seconds < SECONDS, outcome
    assert outcome.memory < MEMORY, outcome


# --- COMMIT -------------------------------------------------------------------------------------


def _line(**changes: Any) -> bytes:
    """The first line of the COMMIT of a bad checkpoint, with other fields."""
    files = {TENSORS: [11, hash_of(b"tensors 200")]}
    body = {"liontool.commit": 1, "algorithm": "xxh3-128", "step": BAD, "epoch": 0, "metric": None,
            "time": 0.0, "files": files}  # fmt: skip
    return json.dumps(body | changes).encode()


def _listing(*names: str) -> bytes:
    return _line(files={name: [11, hash_of(b"tensors 200")] for name in names})


COMMITS: dict[str, bytes] = {
    "parent": _listing("../outside/precious"),
    "absolute": _listing("/etc/passwd"),
    "folder": _listing("a/b"),
    "dots": _listing(".."),
    "hidden": _listing(".bashrc"),
    "empty name": _listing(""),
    "itself": _listing(COMMIT),
    "newline": _listing("state\n"),
    "zero": _listing("state\0"),
    "letters of another script": _listing("st\u0430te"),
    "long": _listing("a" * 5000),
    "case": _listing("state", "STATE"),
    "30,000 names": _listing(*(f"state-{n}" for n in range(30_000))),
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a million digits": _line().replace(b": 200", b": " + b"9" * 1_000_000),
    "needed files missing": _listing(TENSORS),
    "empty lists": b"[" + b"[]," * 690_000 + b"[]]",
    "twice": _line().replace(b'"epoch": 0', b'"epoch": 0, "epoch": 1'),
    "the same file twice": _line().replace(b'{"state-0', b'{"state-0.safetensors": [], "state-0'),
    "nan": _line().replace(b'"time": 0.0', b'"time": NaN'),
    "infinity": _line().replace(b'"time": 0.0', b'"time": 1e999'),
    "step below zero": _line(step=-1),
    "step beyond": _line(step=10**10),
    "step of another": _line(step=BAD + 1),
    "step is true": _line(step=True),
    "step is text": _line(step="200"),
    "size below zero": _line(files={TENSORS: [-1, "0" * 32]}),
    "size beyond": _line(files={TENSORS: [1 << 63, "0" * 32]}),
    "size of a terabyte": _line(files={TENSORS: [1 << 40, "0" * 32]}),
    "no hash": _line(files={TENSORS: [11, ""]}),
    "hash in capitals": _line(files={TENSORS: [11, hash_of(b"tensors 200").upper() + "A"]}),
    "list of files": _line(files=[TENSORS]),
    "no files": _line(files={}),
    "metric is a list": _line(metric=[]),
    "metric is long": _line(metric="1" * 100_000 + "x"),
    "nothing": b"",
    "an array": b"[]",
    "two lines": _line() + b"\n",
    "utf-16": _line().decode().encode("utf-16"),
    "not text": b"\xff\xfe\x00",
    "pickle": pickle.dumps({"step": BAD}),
}


@pytest.mark.parametrize("name", COMMITS)
def test_commit(run: Path, refusals: Refusals, name: str) -> None:
    """A COMMIT that lies, under a right hash of its own: refused and named, the next one used."""
    bad = saved(run, BAD)
    for path in bad.iterdir():
        if path.name != TENSORS:
            path.unlink()
    line = COMMITS[name]
    (bad / COMMIT).write_bytes(b"%s\n%s\n" % (line, hash_of(line).encode()))
    _refused(run, refusals)


def test_large_commit(run: Path, refusals: Refusals) -> None:
    """Of a COMMIT of a terabyte no more is read than one can have."""
    os.truncate(saved(run, BAD) / COMMIT, 1 << 40)
    outcome = refusals.run("resume", run, "--json")
    _was_cheap(outcome)
    assert json.loads(outcome.out)["refused"][0]["reason"].startswith("COMMIT is damaged")


def test_large_file(run: Path, refusals: Refusals) -> None:
    """Of a file of another size than COMMIT says nothing is read."""
    os.truncate(saved(run, BAD) / TENSORS, 1 << 40)
    assert "it has 1,099,511,627,776 bytes instead of 11" in _refused(run, refusals, look=False)


def test_many_files(run: Path, refusals: Refusals) -> None:
    """The first file that COMMIT does not list is enough."""
    bad = saved(run, BAD)
    for number in range(3000):
        (bad / f"state-{number}.pt").touch()
    assert "which COMMIT does not list" in _refused(run, refusals)


def _refused(run: Path, refusals: Refusals, *, look: bool = True) -> str:
    """The reason why the newest is refused; the next is used, nothing touched, it cost little."""
    before = everything(run.parent) if look else {}
    outcome = refusals.run("resume", run, "--json")
    _was_cheap(outcome)
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert found["checkpoint"]["name"] == step_name(GOOD)
    assert [one["name"] for one in found["refused"]] == [step_name(BAD)]
    assert not look or everything(run.parent) == before
    reason: str = found["refused"][0]["reason"]
    assert reason.isprintable()
    assert len(reason) < 400
    return reason


# --- what is no file ----------------------------------------------------------------------------


NO_FILES: dict[str, Callable[[Path], None]] = {
    "link to a copy": lambda path: path.symlink_to("../../outside/precious"),
    "absolute link": lambda path: path.symlink_to("/etc/passwd"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "pipe": os.mkfifo,
    "socket": make_socket,
    "device": make_device,
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", [COMMIT, TENSORS, TREE, FACTS, ""])
@pytest.mark.parametrize("kind", NO_FILES)
def test_no_file(run: Path, refusals: Refusals, kind: str, name: str) -> None:
    """Whatever has the name of a file or of a checkpoint: not followed, opened or waited for."""
    bad = saved(run, BAD)
    if name:
        (bad / name).unlink()
    else:
        bad.rename(run / "elsewhere")
    NO_FILES[kind](bad / name)
    reason = _refused(run, refusals)
    assert ("not a f" in reason) == (bool(name) or kind != "folder")


@pytest.mark.parametrize("name", ["run.lock", "quarantine"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_names_of_the_run(run: Path, refusals: Refusals, kind: str, name: str) -> None:
    """The same for the lock and the quarantine; a repair writes through none of them."""
    NO_FILES[kind](run / name)
    before = everything(run.parent)
    for words in (["resume"], ["runs", "repair"], ["runs", "prune"]):
        outcome = refusals.run(*words, run)
        _was_cheap(outcome)
        if (name, kind) != ("quarantine", "folder"):
            assert outcome.code == 2
            assert outcome.err.count("\n") == 1
            assert "take it away" in outcome.err
    after = everything(run.parent)
    after.pop("exp1/run.lock", None)
    before.pop("exp1/run.lock", None)
    assert after == before


@pytest.mark.parametrize(
    "name", ["STEP-0000000300", "step-00000003000", "step-\u0661\u0661\u0661\u0661\u0661\u0661"
             "\u0661\u0661\u0661\u0661", "step-0000000300 ", "step-0000000300\n"]
)  # fmt: skip
def test_names_like_others(run: Path, refusals: Refusals, name: str) -> None:
    """Names that look like those of checkpoints, on some screens or file systems, are none."""
    saved(run, 300).rename(run / name)
    outcome = refusals.run("resume", run, "--json")
    assert json.loads(outcome.out)["checkpoint"]["name"] == step_name(GOOD)
    assert json.loads(outcome.out)["refused"] == []


# --- under a COMMIT that vouches for it ---------------------------------------------------------

JSONS: dict[str, bytes | Callable[[], bytes]] = {
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a million digits": b'{"liontool.run": ' + b"1" * 1_000_000 + b"}",
    "nan": b'{"liontool.run": 1, "level": NaN}',
    "twice": b'{"liontool.run": 1, "liontool.run": 1}',
    "many": lambda: b"[" + b"[]," * 10_000_000 + b"[]]",
    "large": lambda: b'"' + b"a" * (33 << 20) + b'"',
    "utf-16": run_facts().decode().encode("utf-16"),
    "an array": b"[1]",
    "nothing": b"",
    "another layout": b'{"liontool.run": 99}',
    "a layout of a million words": b'{"liontool.run": "' + b"x" * 1_000_000 + b'"}',
    "pickle": pickle.dumps({"liontool.run": 1}),
}


@pytest.mark.parametrize("name", JSONS)
def test_facts(run: Path, refusals: Refusals, name: str) -> None:
    """A run.json that is none, vouched for by COMMIT: one line, or the next checkpoint."""
    saved(run, BAD, files={FACTS: _made(JSONS[name])})
    if name in ("many", "large"):
        assert "of JSON, more than is ever written" in _refused(run, refusals)
    else:
        _complains(refusals.run("resume", run), FACTS)


def _made(data: bytes | Callable[[], bytes]) -> bytes:
    """Large ones are made when they are needed."""
    return data() if callable(data) else data


def _complains(outcome: Outcome, file: str) -> None:
    _was_cheap(outcome)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert file in outcome.err
    assert outcome.err.startswith("liontool: error: ")
    assert "bug in liontool" not in outcome.err
    assert len(outcome.err) < 1000


# --- tensors and trees under a COMMIT that vouches for them --------------------------------------


class Canary:
    """A pickle that tells when it is run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("canary",)


def _tensors(header: bytes | dict[str, Any], body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _entry(begin: Any, end: Any, shape: Any = (2,), dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


MANY = 10_000_000
FILES: dict[str, bytes | Callable[[], bytes]] = {
    "2^63": _tensors(b"{}", length=1 << 63),
    "2^64 - 1": _tensors(b"{}", length=(1 << 64) - 1),
    "100 MB + 1": lambda: _tensors(b"{" + b" " * 100_000_001),
    "beyond the end": _tensors(b"{}", length=1000),
    "a million tensors": lambda: _tensors(
        b"{" + b",".join(b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % n
                         for n in range(1_000_000)) + b"}"),
    "ten million lists": lambda: _tensors(b'{"a":[' + b"[]," * MANY + b"[]]}"),
    "overlap": _tensors({"a": _entry(0, 2), "b": _entry(1, 3)}, b"123"),
    "gap": _tensors({"a": _entry(0, 2), "b": _entry(3, 5)}, b"12345"),
    "backwards": _tensors({"a": _entry(2, 0)}, b"12"),
    "below zero": _tensors({"a": _entry(-2, 0)}, b"12"),
    "beyond": _tensors({"a": _entry(0, 1 << 62, [1 << 62])}, b"12"),
    "too long a number": _tensors(b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,%s]}}'
                                  % (b"9" * 1_000_000)),
    "product": _tensors({"a": _entry(0, 0, [1 << 40, 1 << 40, 0])}),
    "fractions": _tensors({"a": _entry(0.0, 2.0)}, b"12"),
    "nan": _tensors(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,2]}}', b"12"),
    "twice": _tensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
                      b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "nested": _tensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "not text": _tensors(b'{"\xff": 1}'),
    "another dtype": _tensors({"a": _entry(0, 2, dtype="EVIL")}, b"12"),
    "more bytes": _tensors({"a": _entry(0, 2)}, b"123"),
    "no tensors": _tensors({}),
    "nothing": b"",
    "pickle": pickle.dumps(Canary()),
    "zip": b"PK\x03\x04" + bytes(100),
}  # fmt: skip


def _tree(tree: Any = None, **changes: Any) -> bytes:
    body = {"liontool.state": 1, "tensors": TENSORS, "tree": {"model": {"w": tree}}}
    return json.dumps(body | changes).encode()


TREES: dict[str, bytes | Callable[[], bytes]] = {
    "nested": _tree().replace(b"null", b"[" * 100_000 + b"]" * 100_000),
    "nested tags": _tree().replace(b"null", b'{"$tuple":[' * 50_000 + b"]}" * 50_000),
    "many": lambda: _tree().replace(b"null", b"[" + b"[]," * MANY + b"[]]"),
    "a million digits": _tree().replace(b"null", b"9" * 1_000_000),
    "nan": _tree().replace(b"null", b"NaN"),
    "twice": _tree().replace(b'"w": null', b'"w": 1, "w": 2'),
    "another file": _tree(tensors="../../outside/precious"),
    "absolute": _tree(tensors="/etc/passwd"),
    "another name": _tree(tensors="run.json"),
    "unknown tensor": _tree({"$tensor": {"name": "not there"}}),
    "no name": _tree({"$tensor": {"name": ["a"]}}),
    "unknown tag": _tree({"$pickle": "gASVAAAA"}),
    "a function": _tree({"$live": "os.system"}),
    "a factory": _tree({"$defaultdict": ["os.system", []]}),
    "long deque": _tree({"$deque": [-1, []]}),
    "base64": _tree({"$bytes": "not base64!"}),
    "not hashable": _tree({"$set": [{"a": 1}]}),
    "numpy object": _tree({"$numpy": ["object", "00"]}),
    "huge array": _tree({"$ndarray": {"name": "not there", "dtype": "O", "shape": [1 << 62]}}),
    "huge strides": _tree({"$tensor": {"name": "model.first.weight", "stride": [1 << 62, 1]}}),
    "no tree": _tree().replace(b'{"model": {"w": null}}', b"null"),
    "another layout": _tree(**{"liontool.state": 99}),
    "pickle": pickle.dumps(Canary()),
    "nothing": b"",
}


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as a script writes it."""
    from support.run_folders import saved_run

    return saved_run(tmp_path_factory.mktemp("real") / "exp1", steps=(BAD,))


@pytest.fixture
def real(real_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with nothing else in the working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(real_run, tmp_path / "exp1"))


def _put(run: Path, name: str, data: bytes) -> None:
    """A file of the checkpoint exchanged, and vouched for."""
    from support.run_folders import resealed

    checkpoint = run / step_name(BAD)
    (checkpoint / name).write_bytes(data)
    resealed(checkpoint)


ATTACKS = [(TENSORS, name) for name in FILES] + [(TREE, name) for name in TREES]


def _attacked(run: Path, file: str, name: str) -> None:
    _put(run, file, _made((FILES if file == TENSORS else TREES)[name]))


@pytest.mark.parametrize(("file", "name"), ATTACKS, ids=" ".join)
def test_lens(real: Path, refusals: Refusals, file: str, name: str) -> None:
    """The commands that look into it complain in one line; nothing is run, nothing is touched."""
    _attacked(real, file, name)
    before = everything(real.parent)
    for words in (["inspect"], ["convert", "--lr-ratio", "3"], ["verify"]):
        outcome = refusals.run(*words, real)
        if words == ["verify"] and outcome.code == 1:
            _was_cheap(outcome)
        else:
            _complains(outcome, "")
    assert everything(real.parent) == before


@pytest.mark.parametrize(("file", "name"), ATTACKS, ids=" ".join)
def test_reading(real: Path, file: str, name: str) -> None:
    """What a start reads is refused before anything is loaded."""
    from liontool.resume.reading import read_state

    _attacked(real, file, name)
    before = everything(real.parent)
    started, highest = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LiontoolError) as caught:
        read_state(real / step_name(BAD), {})
    assert time.process_time() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - highest) * 1024 < MEMORY
    assert "\n" not in str(caught.value)
    assert everything(real.parent) == before
