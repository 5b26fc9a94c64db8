"""Values that nobody expects, and honest trees with some of them put in."""

from __future__ import annotations

import copy
import json
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from random import Random
from typing import Any

from support.hostile_trees import TRAP, Call, Global, Raw, Tensor, scheduler

DECIMALS = 10**400  # beyond every float
CONTROL = "\x1b[2J\u202e\n\r\x07\x00"


def laughs(inner: Any = "lol") -> Any:
    """A few lists that stand for more strings than any memory holds."""
    value = [inner] * 10
    for _ in range(40):
        value = [value] * 10
    return value


def cycle() -> Any:
    value: list[Any] = [1]
    value.append(value)
    return value


def cyclic_mapping() -> Any:
    value: dict[Any, Any] = {"lr": 1.0, "params": [0], "last_epoch": 1, "base_lrs": [1.0]}
    value["me"] = value
    value["_schedulers"] = [value]
    return value


def cyclic_tuple() -> Any:
    value: tuple[list[Any]] = ([],)
    value[0].append(value)
    return value


def deep(depth: int) -> Raw:
    return Raw(b"]" * depth + b"a" * (depth - 1))


def deep_mapping(depth: int) -> Raw:
    return Raw(b"}U\x02me" * depth + b"N" + b"s" * depth)


TARGETS = (
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"),
    ("subprocess", "check_output"), ("builtins", "eval"), ("builtins", "exec"),
    ("__builtin__", "eval"), ("builtins", "__import__"), ("builtins", "open"),
    ("builtins", "getattr"), ("runpy", "run_path"), ("runpy", "_run_code"), ("torch", "load"),
    ("torch.hub", "load"), ("torch.utils.cpp_extension", "load_inline"), ("pty", "spawn"),
    ("webbrowser", "open"), ("socket", "create_connection"), ("shutil", "rmtree"),
    ("importlib", "import_module"), ("operator", "attrgetter"), ("functools", "partial"),
    ("pickle", "loads"), ("copyreg", "_reconstructor"), ("code", "interact"),
    ("numpy.testing._private.utils", "runstring"), ("pydoc", "locate"), ("ctypes", "CDLL"),
    (TRAP, "spring"), (TRAP, "Trap"), (f"{TRAP}.inner", "spring"), ("__main__", "Evil"),
    ("collections", "OrderedDict"), ("collections", "defaultdict"), ("collections", "deque"),
    ("collections", "Counter"), ("torch", "Size"), ("torch", "device"), ("builtins", "set"),
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"), ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._tensor", "_rebuild_from_type_v2"), ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"), ("_codecs", "encode"), ("builtins", "bytearray"),
    ("os\x1b[2J", "sys\u202etem"), ("", ""), ("a.b.c" * 500, "d"),
)  # fmt: skip


def call(rng: Random, marker: str) -> Call:
    """A call that would leave a mark, if anyone made it."""
    module, name = rng.choice(TARGETS)
    arguments = rng.choice(
        [
            (f"touch {marker}",),
            (f"open({marker!r}, 'w')",),
            (marker, "w"),
            (["touch", marker],),
            (TRAP,),
            (),
            (Tensor(),),
            (Global("os", "system"), f"touch {marker}"),
            (b"cos\nsystem\n(U\x01xtR.",),
            ([("a", [1])],),
            ({"lr": 1.0},),
            ((1, 2), 3, None, "f8", b"\0" * 8),
        ]
    )
    how = rng.choice(["reduce", "reduce", "newobj", "obj", "inst", "newobj_ex"])
    state = rng.choice([None, None, {"lr": 1}, f"touch {marker}", (1, 2, 3), cycle()])
    if how == "inst" and "\n" in f"{module}{name}":
        how = "obj"
    return Call(Global(module, name), arguments, how, state)


SCALARS: tuple[Any, ...] = (
    None, True, False, "", "x", CONTROL, "\ud800", "a" * 5000, "0", "nan", b"", b"\xff",
    0, -1, 1, 2, 3, 2**31, 2**63, -(2**63), 2**64, DECIMALS, -DECIMALS, 10**5000,
    0.0, -0.0, -1.0, 1.0, 1e-320, 1e300, 1.7e308, math.inf, -math.inf, math.nan, 1j,
)  # fmt: skip


def lie(rng: Random, marker: str) -> Any:
    """A value that nobody expects."""
    if rng.random() < 0.45:
        return rng.choice(SCALARS)
    return rng.choice(_LIES)(rng, marker)


_Maker = Callable[[Random, str], Any]
_LIES: tuple[_Maker, ...] = (
    call, call, call,
    lambda rng, marker: Global(*rng.choice(TARGETS)),
    lambda rng, marker: [],
    lambda rng, marker: {},
    lambda rng, marker: (),
    lambda rng, marker: {1, 2},
    lambda rng, marker: frozenset({CONTROL}),
    lambda rng, marker: deque([1, 2], 3),
    lambda rng, marker: OrderedDict(params=[0], lr=1.0),
    lambda rng, marker: [rng.choice(SCALARS) for _ in range(rng.randrange(4))],
    lambda rng, marker: tuple(rng.choice(SCALARS) for _ in range(rng.randrange(4))),
    lambda rng, marker: {rng.choice(SCALARS): rng.choice(SCALARS)},
    lambda rng, marker: [[[1.0, [2.0]]]],
    lambda rng, marker: cycle(),
    lambda rng, marker: cyclic_mapping(),
    lambda rng, marker: cyclic_tuple(),
    lambda rng, marker: laughs(),
    lambda rng, marker: laughs(1e-3),
    lambda rng, marker: deep(rng.choice([17, 120, 400, 990, 1500, 20_000])),
    lambda rng, marker: deep_mapping(rng.choice([17, 120, 400, 990, 1500, 20_000])),
    lambda rng, marker: scheduler(rng.randrange(2)),
    lambda rng, marker: tensor(rng),
    lambda rng, marker: tensor(rng),
    lambda rng, marker: tensor(rng),
    lambda rng, marker: {"params": [0], "lr": tensor(rng)},
    lambda rng, marker: (tensor(rng), 0.9),
)  # fmt: skip

_NUMBERS = (0, 1, 2, 3, 5, 6, 7, -1, 2**31, 2**62, 2**63, DECIMALS, None, 1.5, True, "3")
_KINDS = (
    "FloatStorage", "HalfStorage", "BFloat16Storage", "DoubleStorage", "LongStorage",
    "ByteStorage", "BoolStorage", "ComplexFloatStorage", "UntypedStorage", "QInt8Storage",
    "NoStorage", "system",
)  # fmt: skip


def tensor(rng: Random) -> Tensor:
    """A tensor that is not quite right, or not at all."""
    rank = rng.choice([0, 1, 2, 2, 2, 3, 70])
    size = tuple(rng.choice(_NUMBERS[:7]) for _ in range(rank))
    stride = tuple(rng.choice(_NUMBERS[:7]) for _ in range(rank))
    honest = {"key": str(rng.randrange(9)), "size": (3,), "stride": (1,), "count": 3}
    wrong = {
        "key": rng.choice(["0", "1", "99", 0, None, CONTROL, "../../etc/passwd", ("0",)]),
        "size": rng.choice([size, size, rng.choice(SCALARS), (2**40, 2**40), (2**62,), [3]]),
        "stride": rng.choice([stride, stride, rng.choice(SCALARS), (2**62,), (0,), (-1,)]),
        "offset": rng.choice(_NUMBERS),
        "count": rng.choice(_NUMBERS),
        "kind": rng.choice(_KINDS),
        "rebuild": rng.choice(["_rebuild_tensor", "_rebuild_tensor_v3", "_rebuild_parameter"]),
        "ending": rng.choice([(), (None,), (("0", 1, 2),), (("0", -1, 2**63),), (1, 2, 3)]),
    }
    picked = rng.sample(sorted(wrong), rng.randrange(1, 4))
    return Tensor(**{**honest, **{name: wrong[name] for name in picked}})


def with_lies(tree: Any, rng: Random, marker: str) -> Any:
    """The tree with one to three lies in it, or with parts gone, swapped, doubled or shared."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = slots(tree)
        if not places:
            return lie(rng, marker)
        holder, key = rng.choice(places)
        _spoil(holder, key, rng.choice(places), rng, marker)
    return tree


def slots(tree: Any) -> list[tuple[Any, Any]]:
    """Every holder and key below `tree`; those near the leaves are many, so all weigh the same."""
    found: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    todo = [tree]
    while todo and len(found) < 2000:
        value = todo.pop()
        if id(value) in seen or not isinstance(value, (dict, list)):
            continue
        seen.add(id(value))
        keys = list(value) if isinstance(value, dict) else range(len(value))
        found += [(value, key) for key in keys]
        todo += [value[key] for key in keys]
    return found


def _spoil(holder: Any, key: Any, other: tuple[Any, Any], rng: Random, marker: str) -> None:
    what = rng.choice(["lie", "lie", "lie", "lie", "gone", "rename", "share", "swap", "more"])
    if key not in holder and isinstance(holder, dict):
        return
    if isinstance(holder, list) and key >= len(holder):
        return
    if what == "gone":
        del holder[key]
    elif what == "rename" and isinstance(holder, dict):
        new = rng.choice([*SCALARS, "0", "lr", "state", "params", (1, 2), Global("os", "system")])
        holder[new] = holder.pop(key)
    elif what in ("share", "swap"):
        there, place = other
        known = place in there if isinstance(there, dict) else place < len(there)
        holder[key] = there[place] if known else None
    elif what == "more" and isinstance(holder, list):
        holder.extend([holder[key]] * rng.choice([1, 2, 50]))
    elif what == "more":
        holder[rng.choice(["max_lr", "min_lr", "swa_lr", "x", "horizon", CONTROL, 0])] = lie(
            rng, marker
        )
    else:
        holder[key] = lie(rng, marker)


def json_lie(rng: Random) -> Any:
    """A lie that JSON can tell."""
    plain_ones = [v for v in SCALARS if not isinstance(v, (bytes, complex)) and v != 10**5000]
    nested: Any = 1
    for _ in range(rng.choice([2, 20, 90])):
        nested = [nested] if rng.random() < 0.5 else {"_schedulers": [nested], "a": nested}
        if len(json.dumps(nested)) > 20_000:
            break
    return rng.choice([*plain_ones, [], {}, [[]], [None], [1, "x"], {"a": 1}, nested, nested])
