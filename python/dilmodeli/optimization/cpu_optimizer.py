"""CPU iyileştirici: makineyi ölçer, hızı öngörür, en iyi ayarları arar. (The CPU optimizer.)"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._library import DilArgumentError, Progress, Watch, call, ffi, filled, lib, path_bytes, struct, text_of
from ..model import Engine, Model, engine_options, model_path
from ..moe.nash_suru_router import NashSuruMoE


@dataclass(frozen=True)
class MakineBilgisi:
    """İşlemci, çekirdekler, önbellekler. Önbellekler birer tanesinin baytı; 0: yok ya da bilinmiyor."""

    islemci: str
    cekirdek_duzeyi: str
    """``"avx2"``, ``"avx512"``, ...: hangi hesap çekirdeklerinin seçildiği."""
    cekirdek: int
    mantiksal: int
    is_parcacigi: int
    l1_bayt: int
    l2_bayt: int
    l3_bayt: int
    l3_paylasan: int
    """Bir L3'ü paylaşan çekirdekler."""
    bellek_bayt: int


@dataclass(frozen=True)
class MakineHizi:
    """Bütün iş parçacıklarının birlikte ulaştığı: saniyede bayt ve çarpma-toplama; engel: birbirini bir kez bekleme, saniye."""

    is_parcacigi: int
    bellek: float
    l3: float
    l2: float
    l1: float
    int8: float
    bf16: float
    f32: float
    engel: float
    mesgul: bool
    """Ölçülürken başka programlar da çalışıyordu."""


@dataclass(frozen=True)
class Profil:
    """Bir modelin bu makinede ne tutacağı ve ne kadar hızlı olacağı, yalnız başlığından."""

    agirlik_bayt: int
    kv_bayt: int
    toplam_bayt: int
    istem_hizi: float
    """Saniyede belirteç (katmanda satır), öngörü."""
    uretim_hizi: float
    istem_siniri: str
    uretim_siniri: str
    en_iyi_yigin: int
    """Bir geçişte okunacak belirteç."""
    en_iyi_dizi: int
    """Birlikte üretilince toplamda en hızlı olan dizi sayısı."""
    gecis_bayt: dict[str, float]
    """Bir üretim geçişinin dokunduğu bayt ve nereden geldiği: ``toplam``, ``l2``, ``l3``, ``bellek``."""


class CPUOptimizer:
    """Önerideki CPU iyileştirici.

    Args:
        saniye: ``model_optimizasyonu_uygula`` en çok yaklaşık bu kadar arar.
        istem, uretim: neyin hızlanacağı, belirteç sayısı.

    >>> CPUOptimizer().makine().cekirdek >= 1
    True
    """

    def __init__(self, saniye: float = 10.0, *, istem: int = 512, uretim: int = 32, is_parcacigi: int = 0) -> None:
        self.saniye = saniye
        self.istem = istem
        self.uretim = uretim
        self.is_parcacigi = is_parcacigi

    @staticmethod
    def makine() -> MakineBilgisi:
        """Bu makine."""
        m = filled(lib.dil_machine_info, "dil_machine")
        return MakineBilgisi(
            text_of(m.cpu),
            text_of(m.kernels),
            m.n_cores,
            m.n_cpus,
            m.n_threads,
            int(m.l1_bytes),
            int(m.l2_bytes),
            int(m.l3_bytes),
            m.l3_cores,
            int(m.memory_bytes),
        )

    @staticmethod
    def olc(yeniden: bool = False, *, ilerleme: Progress | None = None) -> MakineHizi:
        """Makinenin hızı; bir kez ölçülür ve saklanır. ``yeniden``: şimdi ölçülür."""
        with Watch(ilerleme) as izleme:
            h = filled(lib.dil_machine_measure, "dil_machine_speed", yeniden, izleme.progress, ffi.NULL)
        return MakineHizi(
            h.n_threads, h.memory, h.l3, h.l2, h.l1, h.int8, h.bf16, h.f32, h.barrier_seconds, bool(h.busy)
        )

    def profil_cikar(self, model: Any, *, yigin: int = 0, ilerleme: Progress | None = None) -> Profil:
        """Modelin bellek ve hız öngörüsü. ``model``: ``NashSuruMoE``, ``Model`` ya da GGUF yolu; ``yigin``: bir geçişte okunan belirteç, 0: 512."""
        p = struct("dil_plan")
        with Watch(ilerleme) as izleme:
            secenek, _bellek = engine_options(n_threads=self.is_parcacigi, n_micro_batch=yigin)
            secenek.progress = izleme.progress
            call(lib.dil_plan_make, path_bytes(_dosya(model)), secenek, self._is_yuku(), p)
        b = p.generation_bytes
        return Profil(
            int(p.weight_bytes),
            int(p.kv_bytes),
            int(p.total_bytes),
            p.prompt_rate,
            p.generation_rate,
            text_of(p.prompt_bound),
            text_of(p.generation_bound),
            p.best_micro_batch,
            p.best_sequences,
            {"toplam": b.touched, "l2": b.l2, "l3": b.l3, "bellek": b.memory},
        )

    def en_iyi_yigin_boyutu(self, model: Any) -> int:
        """Bir geçişte okunacak belirteç (satır): en hızlının yüzde biri içindeki en küçük."""
        return self.profil_cikar(model).en_iyi_yigin

    def model_optimizasyonu_uygula(self, model: Any, *, ilerleme: Progress | None = None) -> Any:
        """Aynı model, bu makineye uyan ayarlarla.

        Ayarlar sırayla alışılmışlarla yarıştırılır, kuşkusuz hızlı olanlar modelin profilinde saklanır; çıktılar hiç değişmez. Dönen:
        ``NashSuruMoE`` için yeniden açılmış katman, yol için ``Model`` (``model(istem)`` üretir), ``Model`` için yeniden açılmış model,
        numpy ağırlıkları için kendisi. ``optimizasyon_bilgisi`` ne bulunduğunu söyler.
        """
        if not isinstance(model, (NashSuruMoE, Engine, str, os.PathLike)):
            if hasattr(model, "keys"):
                return model  # ağırlıkların geçişi yok: ayarlanacak bir şey de
            raise DilArgumentError(f"model: wanted a NashSuruMoE, a Model, numpy weights or a GGUF path, found {type(model).__name__}")
        bilgi = self._ara(_dosya(model), ilerleme)
        if isinstance(model, NashSuruMoE):
            iyi: Any = NashSuruMoE.yukle(model.dosya, **model._secenekler)
            iyi._kaynak = model  # dosyası onunla silinir
        else:
            iyi = Model(_dosya(model), n_threads=self.is_parcacigi)
        iyi.optimizasyon_bilgisi = bilgi
        return iyi

    def _ara(self, dosya: Path, ilerleme: Progress | None) -> dict[str, Any]:
        t = struct("dil_tuned")
        with Watch(ilerleme) as izleme:
            secenek, _bellek = engine_options(n_threads=self.is_parcacigi)
            secenek.progress = izleme.progress
            call(lib.dil_tune, path_bytes(dosya), secenek, self._is_yuku(), self.saniye, t)
        return {
            "degisti": bool(t.changed),
            "istem_kazanci": t.prompt_gain,
            "uretim_kazanci": t.generation_gain,
            "deneme": t.n_trials,
            "tutulan": t.n_kept,
            "sure": t.seconds,
            "profil_dosyasi": text_of(t.profile_path),
        }

    def _is_yuku(self) -> Any:
        w = ffi.new("dil_workload *", lib.dil_workload_default())
        w.n_prompt, w.n_gen = self.istem, self.uretim
        return w


def _dosya(model: Any) -> Path:
    if isinstance(model, NashSuruMoE):
        return model.dosya
    if isinstance(model, Engine):
        return model.path
    if isinstance(model, (str, os.PathLike)):
        return model_path(model)
    raise DilArgumentError(f"model: wanted a NashSuruMoE, a Model or a GGUF path, found {type(model).__name__}")
