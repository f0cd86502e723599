"""Nash-Sürü teoremi: lokal grup, dengesi, uyarlanan karar. (The Nash-Swarm theorem: local group, equilibrium, adaptive decision.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

import numpy as np
import numpy.typing as npt

from .._library import F32, I32, as_f32, call, ffi, lib, pointer, struct


@dataclass(frozen=True)
class LokalGrup:
    """Bir göreve en yakın adaylar, en yakını önce. (The candidates nearest to a task.)"""

    uyeler: I32
    uzakliklar: npt.NDArray[np.float64]
    """Göreve; her eksen bütün adayların sapması biriminde."""
    degerler: npt.NDArray[np.float64]
    """exp(-uzaklık² / 2h²), h grubun ortanca uzaklığı."""
    _adaylar: F32
    _gorev: F32
    _kanit: Any

    def __len__(self) -> int:
        return len(self.uyeler)

    def __iter__(self) -> Iterator[int]:
        return iter(self.uyeler.tolist())

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        return np.array(self.uyeler, dtype=dtype)


class NashSuruTeorem:
    """Önerideki karar motoru. (The decision engine of the proposal.)

    Args:
        komsu_sayisi: ilk bakılan aday sayısı; sığırcıklar gibi 7. Karar kesinleşene dek iki katına çıkar.
        secim_sayisi: kaç adayın yeri var.
        ortusme: aynı yöndeki iki seçilenin kaybettiği pay, değerleri çarpımının.

    >>> teorem = NashSuruTeorem()
    >>> secilen_idx, bilgi = teorem.adaptif_karar_ver([[0.0], [1.0], [2.0], [3.0]], [1.9])
    >>> secilen_idx, bilgi["kesin"]
    (2, True)
    """

    def __init__(self, komsu_sayisi: int = int(lib.DIL_NEIGHBOURS), secim_sayisi: int = 1, ortusme: float = 0.0) -> None:
        self.komsu_sayisi = komsu_sayisi
        self.secim_sayisi = secim_sayisi
        self.ortusme = ortusme

    def lokal_grup_sec(self, aday_birimleri: Any, hedef_gorev: Any) -> LokalGrup:
        """Göreve en yakın ``komsu_sayisi`` aday, beyazlatılmış ölçüde."""
        adaylar, gorev = self._noktalar(aday_birimleri, hedef_gorev)
        kanit = struct("dil_decision")
        call(lib.dil_decide_group, self._secenekler(adaylar, gorev), kanit)
        return LokalGrup(*_grup(kanit), adaylar, gorev, kanit)

    def nash_dengesi_hesapla(self, lokal_grup: LokalGrup, hedef_gorev: Any = None) -> tuple[I32, dict[str, Any]]:
        """Grubun oyununun dengesi: seçilenler ve kanıt. ``hedef_gorev`` verilirse grubun uzaklıkları yeniden ölçülmez, görev yalnız denetlenir."""
        gorev = lokal_grup._gorev if hedef_gorev is None else as_f32(hedef_gorev, "hedef_gorev", len(lokal_grup._gorev))
        kanit = ffi.new("dil_decision *", lokal_grup._kanit[0])
        call(lib.dil_decide_equilibrium, self._secenekler(lokal_grup._adaylar, gorev), kanit)
        bilgi = _bilgi(kanit)
        return bilgi["secilenler"], bilgi

    def adaptif_karar_ver(self, aday_birimleri: Any, hedef_gorev: Any) -> tuple[int, dict[str, Any]]:
        """Seçilen adayın sırası ve kanıt: grup, değerler, pişmanlıklar, yer fiyatı, kararın kesin olup olmadığı.

        ``aday_birimleri``: ``[n, d]``; ``hedef_gorev``: ``[d]``.
        """
        adaylar, gorev = self._noktalar(aday_birimleri, hedef_gorev)
        kanit = struct("dil_decision")
        call(lib.dil_decide_adaptive, self._secenekler(adaylar, gorev), kanit)
        return int(kanit.best), _bilgi(kanit)

    def _noktalar(self, aday_birimleri: Any, hedef_gorev: Any) -> tuple[F32, F32]:
        adaylar = as_f32(aday_birimleri, "aday_birimleri", None, None)
        return adaylar, as_f32(hedef_gorev, "hedef_gorev", adaylar.shape[1])

    def _secenekler(self, adaylar: F32, gorev: F32) -> Any:
        o = ffi.new("dil_decide_options *", lib.dil_decide_options_default())
        self._bellek = pointer(adaylar), pointer(gorev)
        o.n, o.dim = adaylar.shape
        o.candidates, o.task = self._bellek
        o.n_group, o.n_chosen, o.overlap = self.komsu_sayisi, self.secim_sayisi, self.ortusme
        return o


def _dizi(alan: Any, n: int, tur: Any) -> npt.NDArray[Any]:
    return np.array(ffi.unpack(alan, n), dtype=tur) if n else np.empty(0, tur)


def _grup(k: Any) -> tuple[I32, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return _dizi(k.member, k.n, np.int32), _dizi(k.distance, k.n, np.float64), _dizi(k.value, k.n, np.float64)


def _bilgi(k: Any) -> dict[str, Any]:
    uyeler, uzakliklar, degerler = _grup(k)
    secildi = _dizi(k.chosen, k.n, np.int32).astype(bool)
    return {
        "lokal_grup": uyeler,
        "uzakliklar": uzakliklar,
        "degerler": degerler,
        "secildi": secildi,
        "secilenler": uyeler[secildi],
        "pismanlik": _dizi(k.regret, k.n, np.float64),
        "fiyat": k.price,
        "bosluk": k.gap,
        "takas_boslugu": k.swap_gap,
        "etkin_oran": k.active_share,
        "disaridaki_en_iyi_deger": k.outside,
        "buyume_sayisi": k.n_rounds,
        "kesin": bool(k.certain),
    }
