"""Names that pickles ask for, by what comes of them.

The names that torch.load(weights_only=True) takes are those of torch/_weights_only_unpickler.py
(PyTorch, BSD licence). The list of dangerous names is a help for readers and no proof: what is not
on it can be as bad.
"""

from __future__ import annotations

from liontool.checkpoint.document import ITEM_SIZES

PLAIN, REBUILD, UNKNOWN, DANGEROUS = "plain", "rebuild", "unknown", "dangerous"
CLASSES = (PLAIN, REBUILD, UNKNOWN, DANGEROUS)

_TYPED = (
    "Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool",
    "ComplexDouble", "ComplexFloat", "QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4",
)  # fmt: skip
_TENSORS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_SPARSE = tuple(name for name in _TENSORS if name != "Bool")
_DTYPES = (
    *ITEM_SIZES, "quint4x2", "quint2x4",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
    "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "float4_e2m1fn_x2",
)  # fmt: skip
_REBUILD_FUNCTIONS = (
    "parameter", "parameter_with_state", "qtensor", "tensor", "tensor_v2", "tensor_v3",
    "sparse_tensor", "meta_tensor_no_storage", "nested_tensor", "wrapper_subclass",
    "device_tensor_from_numpy", "device_tensor_from_cpu_tensor",
)  # fmt: skip

ALLOWED = frozenset(
    {
        "collections.OrderedDict", "collections.Counter", "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout", "torch.Size", "torch.Tensor", "torch.device",
        "_codecs.encode", "builtins.bytearray", "builtins.set", "builtins.complex",
        "torch._tensor._rebuild_from_type_v2", "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage", "torch.per_tensor_affine", "torch.per_tensor_symmetric",
        "torch.per_channel_affine", "torch.per_channel_symmetric",
        "torch.per_channel_affine_float_qparams",
        *(f"torch.{name}" for name in _DTYPES),
        *(f"torch.{name}Storage" for name in _TYPED),
        *(f"torch.{name}Tensor" for name in _TENSORS),
        *(f"torch.sparse.{name}Tensor" for name in _SPARSE),
        *(f"torch.cuda.{name}Storage" for name in _TYPED if "Q" not in name),
        *(f"torch.cuda.{name}Tensor" for name in _TENSORS),
        *(f"torch.cuda.sparse.{name}Tensor" for name in _SPARSE),
        *(f"torch._utils._rebuild_{name}" for name in _REBUILD_FUNCTIONS),
    }
)  # fmt: skip
"""What torch.load(weights_only=True) takes without being told."""

REBUILDING = frozenset(
    {
        "collections.defaultdict", "collections.deque", "builtins.list", "builtins.dict",
        "builtins.tuple", "builtins.frozenset", "builtins.bytes", "builtins.int", "builtins.float",
        "builtins.bool", "builtins.str", "builtins.slice", "builtins.range", "numpy.dtype",
        "numpy.ndarray", "builtins.object", "copyreg._reconstructor", "copyreg.__newobj__",
        "datetime.datetime", "datetime.date", "datetime.timedelta",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core")
          for name in ("scalar", "_reconstruct")),
        *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
        *(f"pathlib.{name}" for name in
          ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    }
)  # fmt: skip
"""What makes values and does nothing else, though weights_only=True wants to be told of it."""

_DANGEROUS_MODULES = frozenset(
    [
        "os",
        "io",
        "_io",
        "posix",
        "nt",
        "sys",
        "subprocess",
        "pty",
        "socket",
        "shutil",
        "runpy",
        "importlib",
        "imp",
        "code",
        "codeop",
        "pickle",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "marshal",
        "shelve",
        "ctypes",
        "_ctypes",
        "cffi",
        "multiprocessing",
        "asyncio",
        "signal",
        "webbrowser",
        "pydoc",
        "timeit",
        "trace",
        "pdb",
        "bdb",
        "cProfile",
        "profile",
        "doctest",
        "platform",
        "tempfile",
        "urllib",
        "http",
        "ftplib",
        "smtplib",
        "telnetlib",
        "ssl",
        "requests",
        "httpx",
        "operator",
        "functools",
        "types",
        "inspect",
        "builtins",
        "__builtin__",
        "gc",
        "threading",
        "_thread",
        "zipimport",
        "pkgutil",
        "pip",
        "setuptools",
        "distutils",
        "linecache",
        "fileinput",
        "glob",
        "antigravity",
        "this",
        "idlelib",
        "lib2to3",
        "ensurepip",
        "venv",
        "commands",
        "numpy.testing",
        "numpy.f2py",
        "numpy.distutils",
        "torch.hub",
        "torch.jit",
        "torch.package",
        "torch.serialization",
        "torch.utils.cpp_extension",
        "torch._inductor",
        "torch._dynamo",
        "torch.multiprocessing",
        "torch.distributed.elastic",
        "torch.distributed.rpc",
        "torch.fx",
    ]
)
_DANGEROUS_NAMES = frozenset(
    [
        "torch.load",
        "torch.save",
        "torch.compile",
        "torch.storage._load_from_bytes",
        "numpy.load",
        "numpy.save",
        "numpy.loadtxt",
        "numpy.fromfile",
        "numpy.memmap",
        "codecs.open",
    ]
)
# Modules that others import: `torch.os.system` is `os.system`.
_BORROWED = frozenset(
    ["os", "sys", "io", "subprocess", "shutil", "socket", "builtins", "importlib", "ctypes"]
)


# pickle translates the module names of Python 2, in which protocols 0 to 2 are written.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "exceptions": "builtins"}


def class_of(name: str) -> str:
    """The class of a full name, "module.name"; one of `CLASSES`."""
    module, _, last = name.partition(".")
    name = f"{_RENAMED.get(module, module)}.{last}"
    if name in ALLOWED:
        return PLAIN
    if name in _DANGEROUS_NAMES:
        return DANGEROUS
    if name in REBUILDING:
        return REBUILD
    parts = name.split(".")
    modules = (".".join(parts[:length]) for length in range(1, len(parts)))
    reaches = any(module in _DANGEROUS_MODULES for module in modules)
    return DANGEROUS if reaches or not _BORROWED.isdisjoint(parts[1:-1]) else UNKNOWN
