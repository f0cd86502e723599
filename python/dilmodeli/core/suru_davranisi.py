"""Sığırcık sürüsü: her kuş en yakın yedi komşusuna bakar. (The flock of starlings: each bird minds its seven nearest.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._library import F32, I32, as_f32, call, ffi, lib, pointer

KOMSU_SAYISI = int(lib.DIL_NEIGHBOURS)


@dataclass(frozen=True)
class SuruDuzeni:
    """Bir sürünün nasıl uçtuğu; bütün kuşların ortalaması. (How a flock flies: means over all birds.)"""

    hizalanma: float
    """Komşuların ortalama hızıyla kosinüs: 1 birlikte, -1 karşı yönde."""
    birliktelik: float
    """Komşuların merkezine uzaklık."""
    ayrilma: float
    """En yakın komşuya uzaklık."""


class SuruDavranisi:
    """Komşuluk ve hareket kuralları. (Who minds whom, and how they move.)

    Hız şöyle değişir: ``v += hizalanma (komşuların ortalama hızı - v) + birliktelik (komşuların merkezi - x) + ayrilma Σ (x - x_j)/|x - x_j|²
    + cekim (hedef - x)``, en çok ``en_buyuk_hiz`` kadar; sonra ``x += v``.

    >>> suru = SuruDavranisi(komsu_sayisi=2)
    >>> suru.komsular([[0.0], [1.0], [3.0], [7.0]]).tolist()
    [[1, 2], [0, 2], [1, 0], [2, 1]]
    """

    def __init__(
        self,
        komsu_sayisi: int = KOMSU_SAYISI,
        *,
        hizalanma: float = 0.125,
        birliktelik: float = 0.01,
        ayrilma: float = 0.05,
        cekim: float = 0.005,
        en_buyuk_hiz: float = 1.0,
    ) -> None:
        self.komsu_sayisi = komsu_sayisi
        self.hizalanma = hizalanma
        self.birliktelik = birliktelik
        self.ayrilma = ayrilma
        self.cekim = cekim
        self.en_buyuk_hiz = en_buyuk_hiz

    def komsular(self, konumlar: Any, *, kosinus: bool = False) -> I32:
        """Her noktanın en yakın komşuları, en yakını önce: ``[n, k]``, ``k = min(komsu_sayisi, n - 1)``."""
        return self._en_yakin(konumlar, kosinus)[0]

    def uzakliklar(self, konumlar: Any, *, kosinus: bool = False) -> F32:
        """``komsular`` ile aynı sırada uzaklıklar (Öklid ya da 1 - kosinüs): ``[n, k]``."""
        return self._en_yakin(konumlar, kosinus)[1]

    def duzen(self, konumlar: Any, hizlar: Any = None) -> SuruDuzeni:
        """Hizalanma, birliktelik ve ayrılma; hız verilmezse hizalanma 0."""
        x = as_f32(konumlar, "konumlar", None, None)
        v = None if hizlar is None else as_f32(hizlar, "hizlar", *x.shape)
        out = ffi.new("dil_flock_order *")
        call(lib.dil_flock_measure, pointer(x), pointer(v), *x.shape, self.komsu_sayisi, out)
        return SuruDuzeni(out.alignment, out.cohesion, out.separation)

    def adim(self, konumlar: Any, hizlar: Any, hedef: Any = None) -> tuple[F32, F32]:
        """Bütün kuşların bir adımı: yeni konumlar ve hızlar. Verilenler değişmez."""
        x = np.array(as_f32(konumlar, "konumlar", None, None))
        v = np.array(as_f32(hizlar, "hizlar", *x.shape))
        t = None if hedef is None else as_f32(hedef, "hedef", x.shape[1])
        kurallar = ffi.new("dil_flock_rules *", lib.dil_flock_rules_default())
        kurallar.k = self.komsu_sayisi
        kurallar.alignment, kurallar.cohesion, kurallar.separation = self.hizalanma, self.birliktelik, self.ayrilma
        kurallar.pull, kurallar.most_speed = self.cekim, self.en_buyuk_hiz
        kurallar.target = hedef_bellek = pointer(t)
        call(lib.dil_flock_step, pointer(x), pointer(v), *x.shape, kurallar)
        del hedef_bellek
        return x, v

    def _en_yakin(self, konumlar: Any, kosinus: bool) -> tuple[I32, F32]:
        x = as_f32(konumlar, "konumlar", None, None)
        k = max(1, min(self.komsu_sayisi, len(x) - 1))
        yakin = np.empty((len(x), k), np.int32)
        uzak = np.empty((len(x), k), np.float32)
        call(lib.dil_flock_nearest, pointer(x), *x.shape, k, kosinus, pointer(yakin), pointer(uzak))
        return yakin, uzak
