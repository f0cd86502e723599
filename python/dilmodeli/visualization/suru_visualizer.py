"""Sürünün görseli: uzmanlar ya da adaylar kuş, en yakın yedi komşu çizgi. (The flock as a picture.)"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from .._library import DilArgumentError, as_f32
from ..core.nash_dengesi import DengeSonucu
from ..core.suru_davranisi import SuruDavranisi
from ..model import Engine, model_path
from ..moe.nash_suru_router import NashSuruMoE
from ._cizim import ciz

EN_COK_KUS = 1024


class SuruVisualizer:
    """Sürüyü çizer: HTML canlandırma, ya da son adımın durağan bir resmi (svg, png, pdf).

    Args:
        tema: ``"light"``, ``"dark"``; ``None``: sayfada okuyanınki, resimde açık.
        dil: ``"tr"`` ya da ``"en"``.
    """

    def __init__(self, tema: str | None = None, dil: str = "tr") -> None:
        self.tema = tema
        self.dil = dil

    def ciz(
        self,
        model: Any,
        cikti: str | os.PathLike[str],
        *,
        routing_info: Mapping[str, Any] | None = None,
        kayit: str | os.PathLike[str] | None = None,
        metin: str | None = None,
        katman: int | None = None,
        adim: int = 0,
        en_cok_adim: int = 0,
    ) -> Path:
        """Bir uzman karışımının sürüsü.

        Args:
            model: ``NashSuruMoE``, ``Model`` ya da bir GGUF yolu.
            routing_info: bir ``NashSuruMoE`` çağrısının bilgisi; verilmezse rastgele satırlar.
            kayit: bir yönlendirici kaydı (``dil trace``); metin: dil modelinden şimdi geçirilecek metin.
            katman, adim, en_cok_adim: hangi katman, son gösterilen adım (1'den), en çok kaç adım.
        """
        secenek: dict[str, Any] = dict(
            tema=self.tema, dil=self.dil, metin=metin, katman=katman, adim=adim, en_cok_adim=en_cok_adim
        )
        with tempfile.TemporaryDirectory(prefix="dilmodeli-") as klasor:
            if isinstance(model, NashSuruMoE):
                girdiler: list[Any] = [model.dosya]
                if routing_info is not None:
                    kayit = Path(klasor) / "katman.route"
                    model.kayit_yaz(kayit, routing_info)
            else:
                girdiler = [model.path if isinstance(model, Engine) else model_path(model)]
            return ciz("flock", girdiler + ([] if kayit is None else [kayit]), cikti, **secenek)

    def karar_ciz(
        self,
        aday_birimleri: Any,
        hedef_gorev: Any,
        bilgi: Mapping[str, Any],
        cikti: str | os.PathLike[str],
        *,
        adlar: list[str] | None = None,
        baslik: str | None = None,
        oyun: DengeSonucu | None = None,
    ) -> Path:
        """``NashSuruTeorem``in bir kararı: adaylar kuş, grubun değerleri büyüklük, pişmanlık renk, görev bir nokta.

        ``oyun``: ``NashDengesi.coz(yol=True)`` sonucu; potansiyelin düşüşü de çizilir.
        """
        x = as_f32(aday_birimleri, "aday_birimleri", None, None)
        if len(x) > EN_COK_KUS:
            raise DilArgumentError(f"aday_birimleri: wanted at most {EN_COK_KUS} candidates for a picture, found {len(x)}")
        yuk, fiyat = np.zeros(len(x)), np.zeros(len(x))
        yuk[bilgi["lokal_grup"]] = np.asarray(bilgi["degerler"]) / max(float(np.mean(bilgi["degerler"])), 1e-30)
        fiyat[bilgi["lokal_grup"]] = bilgi["pismanlik"]
        suru: dict[str, Any] = {
            "positions": x.tolist(),
            "neighbours": SuruDavranisi().komsular(x).tolist() if len(x) > 1 else [[]],
            "steps": [
                {
                    "load": yuk.tolist(),
                    "price": fiyat.tolist(),
                    "chosen": np.asarray(bilgi["secilenler"]).tolist(),
                    "target": as_f32(hedef_gorev, "hedef_gorev", x.shape[1]).tolist(),
                }
            ],
            "title": baslik or ("Nash-Sürü kararı" if self.dil == "tr" else "A Nash-Swarm decision"),
        }
        if adlar is not None:
            suru["names"] = adlar
        if oyun is not None and oyun.potansiyel_yolu:
            suru["game"] = {"phi": oyun.potansiyel_yolu}
        return self.veri_ciz(suru, cikti)

    def veri_ciz(self, suru: Mapping[str, Any], cikti: str | os.PathLike[str]) -> Path:
        """Kendi veriniz: ``positions`` ve isteğe bağlı ``names``, ``neighbours``, ``steps``, ``curves``, ``game``, ``title``
        (docs/KULLANIM.md)."""
        with tempfile.TemporaryDirectory(prefix="dilmodeli-") as klasor:
            dosya = Path(klasor) / "suru.json"
            dosya.write_text(json.dumps(suru, ensure_ascii=False), encoding="utf-8")
            return ciz("flock", [dosya], cikti, tema=self.tema, dil=self.dil)
