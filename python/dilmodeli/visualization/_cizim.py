"""Bir görselin dosyası; çizen C kitaplığıdır. (The file of a picture; the C library draws it.)"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Sequence

from .._library import DilArgumentError, Progress, Watch, call, ffi, lib, path_bytes


def ciz(
    tur: str,
    girdiler: Sequence[str | os.PathLike[str]],
    cikti: str | os.PathLike[str],
    *,
    tema: str | None = None,
    dil: str = "tr",
    metin: str | None = None,
    katman: int | None = None,
    adim: int = 0,
    en_cok_adim: int = 0,
    ilerleme: Progress | None = None,
) -> Path:
    """``dil view TUR GIRDILER -o CIKTI``; biçim uzantıdan: svg, png, pdf, html."""
    if isinstance(girdiler, (str, os.PathLike)):
        raise DilArgumentError("girdiler: wanted a list of files, found one")
    o = ffi.new("dil_view_options *", lib.dil_view_options_default())
    bellek: list[Any] = [ffi.new("char[]", dil.encode())]
    o.language = bellek[0]
    if tema is not None:
        bellek.append(ffi.new("char[]", tema.encode()))
        o.theme = bellek[-1]
    if metin is not None:
        raw = metin.encode()
        bellek.append(ffi.new("char[]", raw))
        o.text, o.text_bytes = bellek[-1], len(raw)
    o.layer = -1 if katman is None else katman
    o.frame, o.n_frames = adim, en_cok_adim
    yollar = [ffi.new("char[]", path_bytes(g)) for g in girdiler]
    with Watch(ilerleme) as izleme:
        o.progress = izleme.progress
        call(lib.dil_view, tur.encode(), ffi.new("const char *[]", yollar), len(yollar), path_bytes(cikti), o)
    return Path(cikti)
