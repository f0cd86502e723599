"""Bir uzman katmanı, kendi başına: satırlar girer, satırlar çıkar. (A layer of experts alone: rows in, rows out.)"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from .._library import DilArgumentError, DilUnsupportedError, F32, I32, as_f32, as_i32, call, ffi, filled, lib, path_bytes, pointer
from ..dosya import AgirlikDosyasi
from ..model import Engine

YONLENDIRME = {"tam": "exact", "yerel": "local", "onbellek": "cache"}


class NashSuruMoE:
    """Nash-Sürü yönlendiricili uzman karışımı.

    Her satır için yönlendirici ``top_k`` uzman seçer; çıktı ``Σ w_e down_e (silu(gate_e x) * (up_e x))``, w seçilenlerin puanlarının
    softmax'ı. Hesap C kitaplığında, bütün çekirdeklerde yapılır.

    Args:
        giris_boyutu, uzman_sayisi, top_k: katmanın biçimi.
        gizli_boyut: her uzmanın nöron sayısı; verilmezse girişin iki katı.
        agirliklar: ``router [uzman, giris]``, ``gate`` ve ``up [uzman, gizli, giris]``, ``down [uzman, giris, gizli]``; verilmeyenler
            ``tohum``dan rastgele.
        yonlendirme: ``"yerel"`` (aynı uzmanlar, yönlendiricinin daha az baytından), ``"tam"``, ya da ``"onbellek"`` (bellekteki uzmanlar
            yeğlenir, ağırlığın en çok ``onbellek_payi`` kadarı taşınır).
        uzman_bellegi: uzmanlar için en çok bu kadar bayt, gerisi diskte kalır; 0: hepsi bellekte.
        is_parcacigi: 0: her çekirdeğe bir tane.

    >>> import numpy as np
    >>> moe = NashSuruMoE(giris_boyutu=64, uzman_sayisi=8, top_k=2)
    >>> output, routing_info = moe(np.ones((3, 64), np.float32), return_routing_info=True)
    >>> output.shape, routing_info["secilen_uzmanlar"].shape
    ((3, 64), (3, 2))
    """

    def __init__(
        self,
        giris_boyutu: int = 512,
        uzman_sayisi: int = 8,
        top_k: int = 2,
        *,
        gizli_boyut: int | None = None,
        agirliklar: Mapping[str, Any] | None = None,
        tohum: int = 1,
        yonlendirme: str = "yerel",
        onbellek_payi: float = 0.1,
        uzman_bellegi: int = 0,
        is_parcacigi: int = 0,
    ) -> None:
        klasor = Path(tempfile.mkdtemp(prefix="dilmodeli-"))
        silinecek = weakref.finalize(self, shutil.rmtree, klasor, True)
        try:
            dosya = klasor / "katman.gguf"
            _yaz(dosya, giris_boyutu, gizli_boyut or 2 * giris_boyutu, uzman_sayisi, top_k, tohum, agirliklar or {})
            self._ac(dosya, yonlendirme, onbellek_payi, uzman_bellegi, is_parcacigi)
        except BaseException:
            silinecek()
            raise

    @classmethod
    def yukle(cls, dosya: str | os.PathLike[str], *, gecici: bool = False, **secenekler: Any) -> NashSuruMoE:
        """``kaydet`` ile ya da kuantize edilerek yazılmış bir katman; ``gecici``: dosya nesneyle birlikte silinir."""
        katman = cls.__new__(cls)
        if gecici:
            weakref.finalize(katman, _sil, Path(dosya))
        katman._ac(Path(dosya), **{**_VARSAYILAN, **secenekler})
        return katman

    def _ac(self, dosya: Path, yonlendirme: str, onbellek_payi: float, uzman_bellegi: int, is_parcacigi: int) -> None:
        if yonlendirme not in YONLENDIRME:
            raise DilArgumentError(f"yonlendirme: wanted 'tam', 'yerel' or 'onbellek', found {yonlendirme!r}")
        self.dosya = dosya
        self._secenekler: dict[str, Any] = dict(
            yonlendirme=yonlendirme, onbellek_payi=onbellek_payi, uzman_bellegi=uzman_bellegi, is_parcacigi=is_parcacigi
        )
        self._motor = Engine(
            dosya,
            n_threads=is_parcacigi,
            pack_cache=uzman_bellegi > 0,  # uzmanlar diskten oradan okunur
            route=YONLENDIRME[yonlendirme],
            route_mass=onbellek_payi,
            experts_memory=uzman_bellegi,
        )
        bilgi = self._motor.info
        if bilgi.n_vocab > 0:
            self._motor.close()
            raise DilUnsupportedError(f"{dosya}: wanted a layer of experts alone, found a language model; use dilmodeli.Model")
        self.giris_boyutu, self.gizli_boyut = bilgi.n_embd, bilgi.n_ff
        self.uzman_sayisi, self.top_k = bilgi.n_experts, bilgi.n_experts_used
        self.optimizasyon_bilgisi: dict[str, Any] = {}
        self._yuk = np.zeros(self.uzman_sayisi, np.int64)

    def __call__(self, x: Any, return_routing_info: bool = False) -> Any:
        """``x [..., giris_boyutu]`` -> aynı biçimde float32; istenirse yönlendirme bilgisiyle birlikte.

        Yönlendirme bilgisi: ``secilen_uzmanlar [..., top_k]`` (puan sırasıyla), ``agirliklar [..., top_k]``, ``uzman_yuku [uzman_sayisi]``
        (bu çağrıda), ``ihlal`` (en yüklü uzman / ortalama - 1), ``okunan_yonlendirici_payi`` (yönlendirici baytlarından okunan),
        ``degisen_secim``, ``bellekte_bulunan``, ``diskten_okunan`` (katman açıldığından beri).
        """
        satir = as_f32(x, "x")
        if satir.ndim == 0 or satir.shape[-1] != self.giris_boyutu:
            raise DilArgumentError(f"x: wanted rows of {self.giris_boyutu} numbers, found {satir.shape}")
        n = satir.size // self.giris_boyutu
        y = np.empty_like(satir)
        secilen = np.empty((*satir.shape[:-1], self.top_k), np.int32)
        agirlik = np.empty(secilen.shape, np.float32)
        with self._motor._lock:
            call(lib.dil_experts_run, self._motor._alive(), pointer(satir), n, pointer(y), pointer(secilen), pointer(agirlik))
        yuk = np.bincount(secilen.reshape(-1), minlength=self.uzman_sayisi)
        self._yuk += yuk
        return (y, self._bilgi(secilen, agirlik, yuk)) if return_routing_info else y

    def _bilgi(self, secilen: I32, agirlik: F32, yuk: Any) -> dict[str, Any]:
        s = filled(lib.dil_experts_count, "dil_experts_counts", self._motor._alive())
        return {
            "secilen_uzmanlar": secilen,
            "agirliklar": agirlik,
            "uzman_yuku": yuk,
            "ihlal": float(yuk.max() / yuk.mean() - 1) if yuk.sum() else 0.0,
            "okunan_yonlendirici_payi": s.router_read_bytes / s.router_full_bytes if s.router_full_bytes else 1.0,
            "degisen_secim": int(s.n_changed),
            "bellekte_bulunan": int(s.n_found),
            "diskten_okunan": int(s.n_loaded),
        }

    @property
    def uzman_yuku(self) -> Any:
        """Katman açıldığından beri her uzmanın seçilme sayısı."""
        return self._yuk.copy()

    @property
    def bellek_bayt(self) -> int:
        """Katmanın bellekteki ağırlıkları."""
        return self._motor.info.packed_bytes

    @property
    def dosya_bayt(self) -> int:
        """Katmanın dosyası."""
        return self._motor.info.file_bytes

    def agirliklar(self) -> dict[str, F32]:
        """``router``, ``gate``, ``up`` ve ``down``; kuantize katmanlarda çözülmüş değerler."""
        with AgirlikDosyasi(self.dosya) as d:
            return {kisa: d[tam] for kisa, tam in _ADLAR.items()}

    def kaydet(self, dosya: str | os.PathLike[str]) -> None:
        """Katman bir GGUF dosyası olarak."""
        shutil.copyfile(self.dosya, dosya)

    def kayit_yaz(self, dosya: str | os.PathLike[str], routing_info: Mapping[str, Any]) -> None:
        """Bir çağrının seçimleri, ``dil route`` ve görseller için bir yönlendirici kaydı olarak."""
        secilen = as_i32(routing_info["secilen_uzmanlar"], "secilen_uzmanlar").reshape(-1, self.top_k)
        agirlik = as_f32(routing_info["agirliklar"], "agirliklar").reshape(secilen.shape)
        call(lib.dil_experts_log, self._motor._alive(), path_bytes(dosya), pointer(secilen), pointer(agirlik), len(secilen))

    def kapat(self) -> None:
        """Katmanı bellekten atar; nesne silinince kendiliğinden olur."""
        self._motor.close()

    def __repr__(self) -> str:
        return f"NashSuruMoE({self.giris_boyutu}, {self.uzman_sayisi} uzman, top_k={self.top_k}, {self.dosya_bayt} bayt)"


_VARSAYILAN: dict[str, Any] = dict(yonlendirme="yerel", onbellek_payi=0.1, uzman_bellegi=0, is_parcacigi=0)
_ADLAR = {
    "router": "blk.0.ffn_gate_inp.weight",
    "gate": "blk.0.ffn_gate_exps.weight",
    "up": "blk.0.ffn_up_exps.weight",
    "down": "blk.0.ffn_down_exps.weight",
}


def _sil(dosya: Path) -> None:
    shutil.rmtree(dosya.parent, ignore_errors=True)


def _yaz(dosya: Path, giris: int, gizli: int, uzman: int, top_k: int, tohum: int, agirliklar: Mapping[str, Any]) -> None:
    katman = ffi.new("dil_experts *", lib.dil_experts_default())
    katman.n_embd, katman.n_ff, katman.n_experts, katman.n_used, katman.seed = giris, gizli, uzman, top_k, tohum
    bicimler = {"router": (uzman, giris), "gate": (uzman, gizli, giris), "up": (uzman, gizli, giris), "down": (uzman, giris, gizli)}
    bellek = []
    for ad, deger in agirliklar.items():
        if ad not in bicimler:
            raise DilArgumentError(f"agirliklar: wanted router, gate, up and down, found {ad!r}")
        bellek.append(pointer(as_f32(deger, ad, *bicimler[ad])))
        setattr(katman, ad, bellek[-1])
    call(lib.dil_experts_write, path_bytes(dosya), katman)
