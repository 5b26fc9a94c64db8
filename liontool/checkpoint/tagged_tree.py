"""Plain Python values as JSON that says their types, and back.

Text, true, false, null, lists, objects with text keys, whole numbers and finite floats are what
they are in JSON. Everything else is an object with one key that begins with `$`:

  $int          "-0x1f...", more digits than JSON readers take     $float   "inf", "-inf", "nan"
  $complex      [real, imaginary]                                  $bytes   base64
  $bytearray    base64                                             $tuple   [item, ...]
  $set          [item, ...]                                        $frozenset  [item, ...]
  $deque        [longest or null, [item, ...]]
  $dict         [[key, value], ...], where a key is no text, or where one key begins with `$`
  $ordered      [[key, value], ...], an OrderedDict                $counter [[key, count], ...]
  $state_dict   [[[key, value], ...], metadata], a module's OrderedDict with its `_metadata`
  $defaultdict  ["list" or another factory, [[key, value], ...]]

`Leaves` add more: $tensor, $ndarray, $numpy, $dtype, $device, $size, $live. A type that is in no
table is an error, and so is a subclass: nothing is flattened in silence. Decoding makes only what
the tables say, to a limited depth; no name in a file is ever looked up or called.
"""

from __future__ import annotations

from liontool.checkpoint.tagged_decode import decode
from liontool.checkpoint.tagged_encode import encode
from liontool.checkpoint.tagged_nodes import MAX_DEPTH, Json, KeyPath, Leaves, malformed, unknown

__all__ = ["MAX_DEPTH", "Json", "KeyPath", "Leaves", "decode", "encode", "malformed", "unknown"]
