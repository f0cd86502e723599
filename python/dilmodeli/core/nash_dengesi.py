"""Nash dengesi: kesin potansiyelli bir oyun, ortak bir fiyat. (An exact potential game with one shared price.)"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Sequence

import numpy as np
import numpy.typing as npt

from .._library import DilArgumentError, I32, as_f32, as_i32, call, ffi, lib, pointer, struct

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DengeSonucu:
    """Bir denge ve kanıtı. (An equilibrium and its evidence.)"""

    stratejiler: I32
    """Her oyuncunun stratejisi, 0'dan: ``[oyuncu]``."""
    fiyat: float
    kullanim: float
    maliyet: float
    """Kendi ve çift maliyetleri, fiyatsız."""
    potansiyel: float
    """Φ = maliyet + fiyat × kullanım; her hamlede düşer."""
    bosluk: float
    """Tek başına değişen bir oyuncunun en büyük kazancı; dengede 0."""
    takas_boslugu: float
    alt_sinir: float
    """Hiçbir durum bundan ucuz değildir (bağlantısız, bütçeli oyunda)."""
    etkin_oran: float
    """Komşuları kararını değiştirebilecek oyuncuların payı; 0'a yakınsa komşular önemsizdir."""
    tur: int
    hamle: int
    oturdu: bool
    potansiyel_yolu: list[float] = field(default_factory=list)
    """``yol=True`` ile: her turdan sonra Φ, başlangıç dahil."""


class NashDengesi:
    """``J_i(s) = maliyet_i(s) + Σ_j agirlik_ij miktar_i(s) miktar_j(s_j) + fiyat × kullanim_i(s)``

    Bir oyuncunun hamlesi J_i'yi ve Φ'yi aynı kadar değiştirir; bu yüzden en iyi yanıtlar hangi sırayla olursa olsun bir dengede biter.

    Args:
        maliyetler: her oyuncu için stratejilerinin maliyetleri (uzunlukları farklı olabilir).
        kullanimlar: aynı biçimde, ortak kaynaktan kullanılan; 0 ya da fazlası.
        miktarlar: aynı biçimde; yalnız bağlantılarla.
        baglantilar: oyuncu çiftleri ``[m, 2]``, her çift bir kez.
        agirliklar: ``[m]``; verilmezse 1.
        tohum: 0: oyuncular sırayla; değilse her turda başka bir rastgele sırayla.

    >>> oyun = NashDengesi([[0, 1], [0, 1.5]], miktarlar=[[1, 0], [1, 0]], baglantilar=[(0, 1)], agirliklar=[2])
    >>> oyun.coz().stratejiler.tolist()
    [1, 0]
    """

    def __init__(
        self,
        maliyetler: Sequence[Any],
        *,
        kullanimlar: Sequence[Any] | None = None,
        miktarlar: Sequence[Any] | None = None,
        baglantilar: Any = None,
        agirliklar: Any = None,
        tohum: int = 0,
    ) -> None:
        uzunluklar = [len(m) for m in maliyetler]
        self._ilk = np.concatenate([[0], np.cumsum(uzunluklar)]).astype(np.int32)
        self._maliyet = _duz(maliyetler, uzunluklar, "maliyetler", np.float64)
        self._kullanim = None if kullanimlar is None else _duz(kullanimlar, uzunluklar, "kullanimlar", np.float64)
        self._miktar = None if miktarlar is None else _duz(miktarlar, uzunluklar, "miktarlar", np.float32)
        cift = np.empty((0, 2), np.int32) if baglantilar is None else as_i32(baglantilar, "baglantilar").reshape(-1, 2)
        self._cift = np.ascontiguousarray(cift)
        self._agirlik = (
            np.ones(len(cift), np.float32) if agirliklar is None else as_f32(agirliklar, "agirliklar", len(cift))
        )
        self._tohum = tohum
        self.oyuncu_sayisi = len(uzunluklar)

    def coz(self, fiyat: float = 0.0, *, baslangic: Any = None, yol: bool = False) -> DengeSonucu:
        """Verilen fiyatta kimse kazanamayana dek en iyi yanıtlar. ``yol``: her turdan sonraki potansiyel de döner."""
        durum = np.zeros(self.oyuncu_sayisi, np.int32) if baslangic is None else np.array(as_i32(baslangic, "baslangic"))
        if durum.shape != (self.oyuncu_sayisi,):
            raise DilArgumentError(f"baslangic: wanted {self.oyuncu_sayisi} numbers, found {durum.shape}")
        rapor = struct("dil_game_report")
        if not yol:
            call(lib.dil_game_settle, self._oyun(), fiyat, pointer(durum), rapor)
            return _sonuc(durum, rapor, [])
        phi = [self.potansiyel(durum, fiyat)]
        tur = hamle = 0
        while True:
            call(lib.dil_game_settle, self._oyun(1, tur), fiyat, pointer(durum), rapor)
            tur, hamle = tur + 1, hamle + int(rapor.moves)
            phi.append(rapor.potential)
            if rapor.moves == 0:
                rapor.sweeps, rapor.moves, rapor.settled = tur, hamle, True
                return _sonuc(durum, rapor, phi)

    def butceye_sigdir(self, butce: float) -> DengeSonucu:
        """Kullanımı ``butce``yi aşmayan ucuz bir durum: fiyat ikiye bölünerek aranır, kalan doldurulur, çiftler takas edilir."""
        durum = np.zeros(self.oyuncu_sayisi, np.int32)
        rapor = struct("dil_game_report")
        call(lib.dil_game_fit, self._oyun(), butce, pointer(durum), rapor)
        return _sonuc(durum, rapor, [])

    def potansiyel(self, stratejiler: Any, fiyat: float = 0.0) -> float:
        """Bir durumun Φ'si."""
        s = self._ilk[:-1] + as_i32(stratejiler, "stratejiler")
        phi = float(self._maliyet[s].sum())
        if self._kullanim is not None:
            phi += fiyat * float(self._kullanim[s].sum())
        if self._miktar is not None and len(self._cift):
            m = self._miktar[s].astype(np.float64)
            phi += float((self._agirlik.astype(np.float64) * m[self._cift[:, 0]] * m[self._cift[:, 1]]).sum())
        return phi

    def _oyun(self, en_cok_tur: int = 0, kacinci: int = 0) -> Any:
        oyun = ffi.new("dil_game *", lib.dil_game_default())
        self._bellek = [pointer(a) for a in (self._ilk, self._maliyet, self._kullanim, self._miktar, self._cift, self._agirlik)]
        oyun.n_players = self.oyuncu_sayisi
        oyun.first, oyun.cost, oyun.use, oyun.amount = self._bellek[:4]
        oyun.n_edges = len(self._cift)
        oyun.edges, oyun.weights = (self._bellek[4], self._bellek[5]) if len(self._cift) else (ffi.NULL, ffi.NULL)
        oyun.seed = self._tohum + kacinci if self._tohum else 0
        oyun.most_sweeps = en_cok_tur
        return oyun


def _duz(listeler: Sequence[Any], uzunluklar: list[int], ad: str, tur: Any) -> npt.NDArray[Any]:
    if [len(x) for x in listeler] != uzunluklar:
        raise DilArgumentError(f"{ad}: wanted lists as long as maliyetler has them, {uzunluklar}, found {[len(x) for x in listeler]}")
    if not listeler:
        raise DilArgumentError(f"{ad}: wanted at least one player, found none")
    return np.ascontiguousarray(np.concatenate([np.asarray(x, tur).reshape(-1) for x in listeler]))


def _sonuc(durum: I32, rapor: Any, yol: list[float]) -> DengeSonucu:
    return DengeSonucu(
        durum,
        rapor.price,
        rapor.used,
        rapor.cost,
        rapor.potential,
        rapor.gap,
        rapor.swap_gap,
        rapor.bound,
        rapor.active_share,
        rapor.sweeps,
        int(rapor.moves),
        bool(rapor.settled),
        yol,
    )
