"""Metriklerin görselleri. (Pictures of metrics.)"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Mapping, Sequence

from ..moe.nash_suru_router import NashSuruMoE
from ._cizim import ciz

Dosyalar = Sequence["str | os.PathLike[str]"]


class MetrikVisualizer:
    """Kayıtları ve raporları çizer; biçim çıktının uzantısından: svg, png, pdf, html.

    Args:
        tema: ``"light"``, ``"dark"`` ya da ``None``.
        dil: ``"tr"`` ya da ``"en"``.
    """

    def __init__(self, tema: str | None = None, dil: str = "tr") -> None:
        self.tema = tema
        self.dil = dil

    def egitim(self, kayitlar: Dosyalar, cikti: str | os.PathLike[str]) -> Path:
        """Eğitim eğrileri: ``dil train`` kayıtları (CSV)."""
        return self._ciz("metrics", kayitlar, cikti)

    def hiz(self, olcumler: Dosyalar, cikti: str | os.PathLike[str]) -> Path:
        """Ölçülen hız, makinenin sınırının yanında: ``dil bench -o json`` çıktıları."""
        return self._ciz("metrics", olcumler, cikti)

    def boyut_kalite(self, raporlar: Dosyalar, cikti: str | os.PathLike[str]) -> Path:
        """Boyuta karşı KLD: ``dil quantize --report`` raporları."""
        return self._ciz("metrics", raporlar, cikti)

    def bitler(self, rapor: str | os.PathLike[str], cikti: str | os.PathLike[str]) -> Path:
        """Her matrisin biti ve bedeli: bir ``dil quantize --report`` raporu."""
        return self._ciz("bits", [rapor], cikti)

    def uzmanlar(self, kayitlar: Dosyalar, cikti: str | os.PathLike[str]) -> Path:
        """Hangi uzman hangi metne: bir modelin yönlendirici kayıtları, metin başına bir tane."""
        return self._ciz("experts", kayitlar, cikti)

    def onbellek(self, kayitlar: Dosyalar, cikti: str | os.PathLike[str]) -> Path:
        """Bütçeye karşı isabet, her politikayla ve Belady sınırıyla: yönlendirici kayıtları."""
        return self._ciz("cache", kayitlar, cikti)

    def onbellek_ciz(self, katman: NashSuruMoE, routing_info: Mapping[str, Any], cikti: str | os.PathLike[str]) -> Path:
        """``onbellek``, bir ``NashSuruMoE`` çağrısının seçimlerinden."""
        with tempfile.TemporaryDirectory(prefix="dilmodeli-") as klasor:
            kayit = Path(klasor) / "katman.route"
            katman.kayit_yaz(kayit, routing_info)
            return self.onbellek([kayit], cikti)

    def _ciz(self, tur: str, girdiler: Dosyalar, cikti: Any) -> Path:
        return ciz(tur, girdiler, cikti, tema=self.tema, dil=self.dil)
