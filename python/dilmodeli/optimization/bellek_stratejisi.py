"""Bellek stratejisi: bir bütçeye sığmak. (Memory strategy: staying within a budget.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._library import call, ffi, lib, path_bytes, struct
from ..model import Model, engine_options
from .cpu_optimizer import CPUOptimizer, _dosya

PAY = 8 << 20


@dataclass(frozen=True)
class BellekPlani:
    """Bir modelin tutacağı bellek, bayt. (What a model will take.)"""

    agirliklar: int
    uzmanlar: int
    """Ağırlıkların uzman kısmı."""
    uzman_butcesi: int
    """Uzmanların paylaştığı bellek; 0: hepsi bellekte."""
    kv_onbellek: int
    ara_degerler: int
    toplam: int
    baglam: int
    sigar: bool


class BellekStratejisi:
    """Bir bellek bütçesi; 0: makinenin belleği.

    Bütçeye sığmayan uzmanlar diskte kalır; yoğun kısım hiç atılmaz; üretilen metin aynı kalır.
    """

    def __init__(self, bellek_bayt: int = 0, *, baglam: int = 0, kv_turu: str = "f16") -> None:
        self.bellek_bayt = bellek_bayt or CPUOptimizer.makine().bellek_bayt
        self.baglam = baglam
        self.kv_turu = kv_turu

    def planla(self, model: Any) -> BellekPlani:
        """Yüklemeden, yalnız başlıktan. ``model``: ``NashSuruMoE``, ``Model`` ya da GGUF yolu."""
        tam = self._plan(model, 0)
        if tam.sigar or tam.uzmanlar == 0:
            return tam
        sabit = tam.toplam - tam.uzmanlar + PAY  # program, plandan açılışa dek biraz büyür
        return self._plan(model, self.bellek_bayt - sabit) if self.bellek_bayt > sabit else tam

    def uygula(self, model: Any, **secenekler: Any) -> Model:
        """Modeli bu bütçeyle açar; sığmıyorsa ``DilMemoryError``."""
        plan = self.planla(model)
        return Model(
            _dosya(model),
            n_context=self.baglam,
            kv_type=self.kv_turu,
            memory_bytes=self.bellek_bayt,
            experts_memory=plan.uzman_butcesi,
            **secenekler,
        )

    def _plan(self, model: Any, uzman_butcesi: int) -> BellekPlani:
        p = struct("dil_plan")
        secenek, _bellek = engine_options(n_context=self.baglam, kv_type=self.kv_turu, experts_memory=uzman_butcesi)
        call(lib.dil_plan_make, path_bytes(_dosya(model)), secenek, ffi.NULL, p)
        return BellekPlani(
            int(p.weight_bytes),
            int(p.expert_bytes),
            int(p.experts_memory),
            int(p.kv_bytes),
            int(p.activation_bytes),
            int(p.total_bytes),
            p.n_context,
            int(p.total_bytes) <= self.bellek_bayt,
        )

