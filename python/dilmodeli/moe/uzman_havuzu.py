"""Uzman havuzu: bellekte hangi uzmanlar kalsın. (The expert pool: which experts stay in memory.)"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from .._library import filled, lib, path_bytes
from .nash_suru_router import NashSuruMoE

POLITIKALAR = ("swarm", "lru", "lfu", "stale", "belady")


@dataclass(frozen=True)
class HavuzSonucu:
    """Bir kaydın bir bellekle yeniden oynanışı. (A router log replayed against a memory.)"""

    politika: str
    pay: float
    """Uzmanların belleğe sığan payı, istenen."""
    yer: int
    """Belleğe sığan uzman sayısı."""
    istek: int
    bulunan: int
    ilk_istek: int
    """Hiçbir önbelleğin bulamayacağı: her uzmanın ilk kullanımı."""
    okunan_bayt: int

    @property
    def isabet(self) -> float:
        """Bellekte bulunan istek payı."""
        return self.bulunan / self.istek if self.istek else 0.0


class UzmanHavuzu:
    """Bir uzman belleği ve politikası.

    ``kur`` bir katmanı bu bütçeyle yeniden açar (uzmanlar diskte, bütçe hiç aşılmaz, çıktı aynıdır); ``tekrarla`` bir kaydın bütçelerde
    ve politikalarda ne bulacağını söyler. Politikalar: ``swarm`` (uzmanın ve sürüsünün beklenen kullanımı), ``lru``, ``lfu``, ``stale``
    ve geleceği bilen sınır ``belady``.
    """

    def __init__(self, bellek_bayt: int = 0) -> None:
        self.bellek_bayt = bellek_bayt

    def kur(self, katman: NashSuruMoE) -> NashSuruMoE:
        """Aynı katman, uzmanları bu havuzda."""
        secenekler = {**katman._secenekler, "uzman_bellegi": self.bellek_bayt}
        yeni = NashSuruMoE.yukle(katman.dosya, **secenekler)
        yeni._kaynak = katman  # type: ignore[attr-defined]  # dosyası onunla silinir
        return yeni

    @staticmethod
    def tekrarla(kayit: str | os.PathLike[str], politika: str = "swarm", pay: float = 0.25) -> HavuzSonucu:
        """Bir yönlendirici kaydı (``dil trace`` ya da ``NashSuruMoE.kayit_yaz``), uzmanların ``pay`` kadarının sığdığı bir bellekle."""
        r = filled(lib.dil_experts_replay, "dil_replay", path_bytes(kayit), politika.encode(), pay)
        return HavuzSonucu(politika, pay, r.n_slots, int(r.n_uses), int(r.n_found), int(r.n_first), int(r.read_bytes))

    @classmethod
    def karsilastir(cls, katman: NashSuruMoE, routing_info: Mapping[str, Any], pay: float = 0.25) -> dict[str, HavuzSonucu]:
        """Bir çağrının seçimleri, her politikayla."""
        with tempfile.TemporaryDirectory(prefix="dilmodeli-") as klasor:
            kayit = Path(klasor) / "katman.route"
            katman.kayit_yaz(kayit, routing_info)
            return {p: cls.tekrarla(kayit, p, pay) for p in POLITIKALAR}
