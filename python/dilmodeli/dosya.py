"""Tensör dosyaları: bir GGUF dosyasının ağırlıkları numpy dizileri olarak. (Files of tensors as numpy arrays.)"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

import numpy as np

from ._library import F32, DilArgumentError, as_f32, call, ffi, lib, path_bytes, pointer, text_of


@dataclass(frozen=True)
class TensorBilgisi:
    """Bir tensör: adı, türü (``"F32"``, ``"Q4_K"``...), numpy biçimi (en dıştaki önce), bayt sayısı."""

    ad: str
    tur: str
    bicim: tuple[int, ...]
    bayt: int


class AgirlikDosyasi(Mapping[str, F32]):
    """Bir GGUF dosyası, salt okunur bir sözlük gibi: ``dosya["ad"]`` değerleri çözer, float32 verir."""

    def __init__(self, dosya: str | os.PathLike[str]) -> None:
        self.dosya = Path(dosya)
        out = ffi.new("dil_file **")
        call(lib.dil_file_open, out, path_bytes(self.dosya))
        self._f = out[0]
        self._kapat = weakref.finalize(self, lib.dil_file_close, self._f)
        self._sira = {t.ad: i for i, t in enumerate(self._hepsi())}

    def _hepsi(self) -> Iterator[TensorBilgisi]:
        t = ffi.new("dil_tensor *")
        for i in range(lib.dil_file_n_tensors(self._f)):
            call(lib.dil_file_tensor, self._f, i, t)
            yield TensorBilgisi(text_of(t.name), text_of(t.type), tuple(int(t.shape[d]) for d in reversed(range(t.n_dims))), int(t.n_bytes))

    def bilgi(self) -> list[TensorBilgisi]:
        """Bütün tensörler, dosyadaki sırayla."""
        self._acik()
        return list(self._hepsi())

    def __getitem__(self, ad: str) -> F32:
        self._acik()
        sira = self._sira[ad]
        t = ffi.new("dil_tensor *")
        call(lib.dil_file_tensor, self._f, sira, t)
        degerler = np.empty(tuple(int(t.shape[d]) for d in reversed(range(t.n_dims))), np.float32)
        call(lib.dil_file_read, self._f, sira, pointer(degerler), degerler.size)
        return degerler

    def __iter__(self) -> Iterator[str]:
        return iter(self._sira)

    def __len__(self) -> int:
        return len(self._sira)

    def _acik(self) -> None:
        if not self._kapat.alive:
            raise DilArgumentError(f"{self.dosya}: the file was closed")

    def kapat(self) -> None:
        """Dosyayı bırakır."""
        self._kapat()

    def __enter__(self) -> AgirlikDosyasi:
        return self

    def __exit__(self, *_: Any) -> None:
        self.kapat()


def agirlik_yaz(dosya: str | os.PathLike[str], agirliklar: Mapping[str, Any]) -> None:
    """numpy ağırlıklarını F32 bir GGUF dosyasına yazar."""
    if not agirliklar:
        raise DilArgumentError("agirliklar: wanted at least one matrix, found none")
    tensorler = ffi.new("dil_tensor[]", len(agirliklar))
    bellek = []
    for t, (ad, deger) in zip(tensorler, agirliklar.items()):
        dizi = as_f32(deger, ad)
        if not 1 <= dizi.ndim <= 4:
            raise DilArgumentError(f"{ad}: wanted 1 to 4 dimensions, found {dizi.ndim}")
        if len(ad.encode()) > 127:
            raise DilArgumentError(f"{ad}: wanted a name of at most 127 bytes, found {len(ad.encode())}")
        t.name = ad.encode()
        t.n_dims = dizi.ndim
        t.shape = [*reversed(dizi.shape), *[1] * (4 - dizi.ndim)]
        bellek.append(pointer(dizi))
    call(lib.dil_file_write, path_bytes(dosya), b"matrices", tensorler, ffi.new("const float *[]", bellek), len(bellek))
