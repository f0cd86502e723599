"""Dengeleyici kayıp: L = L_CE + λ1 L_denge - λ2 R_önbellek - λ3 R_sürü + λ4 L_nash. (The balancing loss of training.)"""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np

from .._library import DilArgumentError, F32, as_f32, as_i32, call, ffi, lib, pointer, struct

TERIMLER = {
    "capraz_entropi": "cross_entropy",
    "denge": "balance",
    "onbellek": "cache",
    "suru": "swarm",
    "nash": "nash",
    "z": "z",
    "entropi": "entropy",
    "ihlal": "violation",
}


class KayipSonucu(float):
    """Toplam kayıp, bir sayı gibi kullanılır; terimleri ve gradyanları da taşır.

    Attributes:
        terimler: ağırlıksız terimler, birimleri nat: ``capraz_entropi``, ``denge`` (1: hepsi eşit kullanılıyor), ``onbellek``, ``suru``,
            ``nash`` (0: dengede), ``z``, ``entropi``, ``ihlal`` (en yüklü uzman / ortalama - 1).
        tahmin_gradyani: tahminlerle aynı biçimde, istenmediyse ``None``.
        yonlendirici_gradyani: yönlendirici puanlarıyla aynı biçimde, ya da ``None``.
    """

    terimler: dict[str, float]
    tahmin_gradyani: F32 | None
    yonlendirici_gradyani: F32 | None


class NashSuruKayipFonksiyonu:
    """Önerideki kayıp fonksiyonu. (The proposal's loss.)

    Args:
        lambda_denge, lambda_onbellek, lambda_suru, lambda_nash, lambda_z: terimlerin ağırlıkları.
        beta: yakın zamanda kullanılmış olmanın Nash terimindeki değeri, puanların sapması biriminde.
        onbellek_uzman: önbelleğe sığan uzman sayısı; 0: dörtte biri.

    >>> import numpy as np
    >>> kayip = NashSuruKayipFonksiyonu()
    >>> round(float(kayip(np.zeros((3, 4)), [0, 1, 2])), 4)  # ln 4
    1.3863
    """

    def __init__(
        self,
        lambda_denge: float = 0.01,
        lambda_onbellek: float = 0.02,
        lambda_suru: float = 0.01,
        lambda_nash: float = 0.01,
        lambda_z: float = 0.0,
        *,
        beta: float = 0.5,
        onbellek_uzman: float = 0.0,
    ) -> None:
        self.lambda_denge = lambda_denge
        self.lambda_onbellek = lambda_onbellek
        self.lambda_suru = lambda_suru
        self.lambda_nash = lambda_nash
        self.lambda_z = lambda_z
        self.beta = beta
        self.onbellek_uzman = onbellek_uzman

    def __call__(
        self,
        tahminler: Any,
        hedefler: Any,
        ek_bilgiler: Mapping[str, Any] | None = None,
        *,
        gradyan: bool = False,
    ) -> KayipSonucu:
        """Kayıp ve terimleri.

        Args:
            tahminler: ham puanlar (logit) ``[dizi, belirtec, sozluk]`` ya da ``[belirtec, sozluk]``.
            hedefler: ``[dizi, belirtec]`` ya da ``[belirtec]``; -1: sayılmaz.
            ek_bilgiler: yönlendiriciden, hepsi isteğe bağlı: ``yonlendirici_puanlari`` ``[..., uzman]`` (öteki terimler bununla gelir),
                ``top_k`` (1) ya da ``secilenler`` ``[..., k]``, ``fiyatlar`` ``[uzman]``, ``yonlendirici_satirlari`` ``[uzman, boyut]``
                (kim kimin komşusu).
            gradyan: gradyanlar da hesaplanır.
        """
        ek = dict(ek_bilgiler or {})
        bilinen = {"yonlendirici_puanlari", "top_k", "secilenler", "fiyatlar", "yonlendirici_satirlari"}
        if set(ek) - bilinen:
            raise DilArgumentError(f"ek_bilgiler: wanted {', '.join(sorted(bilinen))}; found '{sorted(set(ek) - bilinen)[0]}'")
        o = ffi.new("dil_loss_options *", lib.dil_loss_options_default())
        logit = as_f32(tahminler, "tahminler")
        if logit.ndim not in (2, 3):
            raise DilArgumentError(f"tahminler: wanted [dizi, belirtec, sozluk] or [belirtec, sozluk], found {logit.ndim} dimensions")
        o.n_sequences, o.n_tokens, o.n_vocab = (1, *logit.shape)[-3:]
        hedef = as_i32(hedefler, "hedefler")
        if hedef.shape != logit.shape[:-1]:
            raise DilArgumentError(f"hedefler: wanted {logit.shape[:-1]}, found {hedef.shape}")
        bellek = [pointer(logit), pointer(hedef)]
        o.logits, o.targets = bellek
        puan = self._yonlendirici(o, ek, logit.shape[:-1], bellek)
        o.balance, o.cache, o.swarm = self.lambda_denge, self.lambda_onbellek, self.lambda_suru
        o.nash, o.z, o.beta, o.cached_experts = self.lambda_nash, self.lambda_z, self.beta, self.onbellek_uzman
        d_logit = np.empty_like(logit) if gradyan else None
        d_puan = np.empty_like(puan) if gradyan and puan is not None else None
        degerler = struct("dil_loss_values")
        call(lib.dil_loss_compute, o, degerler, pointer(d_logit), pointer(d_puan))
        sonuc = KayipSonucu(degerler.total)
        sonuc.terimler = {ad: float(getattr(degerler, alan)) for ad, alan in TERIMLER.items()}
        sonuc.tahmin_gradyani, sonuc.yonlendirici_gradyani = d_logit, d_puan
        return sonuc

    @staticmethod
    def _yonlendirici(o: Any, ek: dict[str, Any], bicim: tuple[int, ...], bellek: list[Any]) -> F32 | None:
        if "yonlendirici_puanlari" not in ek:
            if ek:
                raise DilArgumentError(f"ek_bilgiler: wanted yonlendirici_puanlari beside '{next(iter(ek))}', found none")
            return None
        puan = as_f32(ek["yonlendirici_puanlari"], "yonlendirici_puanlari", *bicim, None)
        o.n_experts, o.n_experts_used = puan.shape[-1], int(ek.get("top_k", 1))
        bellek.append(pointer(puan))
        o.router_scores = bellek[-1]
        if "secilenler" in ek:
            secilen = as_i32(ek["secilenler"], "secilenler")
            if secilen.shape[:-1] != bicim:
                raise DilArgumentError(f"secilenler: wanted {(*bicim, 'k')}, found {secilen.shape}")
            o.n_experts_used = secilen.shape[-1]
            bellek.append(pointer(secilen))
            o.chosen = bellek[-1]
        if "fiyatlar" in ek:
            bellek.append(pointer(as_f32(ek["fiyatlar"], "fiyatlar", puan.shape[-1])))
            o.price = bellek[-1]
        if "yonlendirici_satirlari" in ek:
            satir = as_f32(ek["yonlendirici_satirlari"], "yonlendirici_satirlari", puan.shape[-1], None)
            o.n_embd = satir.shape[1]
            bellek.append(pointer(satir))
            o.router_rows = bellek[-1]
        return puan
