#!/usr/bin/env python3
"""Makes dilmodeli/_bindings.py, cffi's description of the library, from the public header and from nothing else.

    python3 bindings.py include/dilmodeli.h OUT.py
"""
import re
import sys


def declarations(header: str) -> str:
    """What cffi's parser needs of the header: no comments, no preprocessor but numbers, no attributes."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    text = re.sub(r"^#define (DIL_(?:ABI|NEIGHBOURS|GROUP_MOST))\s+(\d+).*$", r"enum { \1 = \2 };", text, flags=re.M)
    text = re.sub(r"^#.*(?:\\\n.*)*$", "", text, flags=re.M)
    text = re.sub(r"\bDIL_(?:API|MUST_CHECK)\b", "", text)
    return re.sub(r"\n{3,}", "\n\n", text)


def main(header_path: str, out_path: str) -> None:
    from cffi import FFI

    with open(header_path, encoding="utf-8") as f:
        text = declarations(f.read())
    ffi = FFI()
    ffi.cdef(text)
    ffi.set_source("dilmodeli._bindings", None)
    ffi.emit_python_code(out_path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
