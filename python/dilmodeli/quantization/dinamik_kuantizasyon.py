"""Daha az bit: biçimler oyunla, kodlar ve ölçekler en iyi yanıtla. (Fewer bits: formats by the game, codes and scales by best response.)"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from .._library import DilArgumentError, Progress, Watch, as_f32, call, ffi, lib, path_bytes, pointer, struct, text_of
from ..dosya import AgirlikDosyasi, agirlik_yaz
from ..model import Engine, Model, model_path
from ..moe.nash_suru_router import NashSuruMoE

ON_AYARLAR = {(2.0, 0.5): "dusuk", (4.0, 0.3): "dengeli", (8.0, 0.1): "yuksek"}
MATRIS_SINIRI = 65536


@dataclass(frozen=True)
class KuantizasyonKonfigurasyonu:
    """Ne kadar küçük, neye göre.

    Önerinin üç ön ayarı: ``(2, 0.5)`` düşük kaynak, ``(4, 0.3)`` dengeli, ``(8, 0.1)`` yüksek doğruluk. Dil modellerinde bir ön ayar
    istenen pay gidene ya da kalite bütçesi bitene dek yapı çıkarır; hangisi önce gelirse.
    """

    bit_genisligi: float = 4
    """Matrislerin ağırlık başına biti, ortalama; 1..16."""
    budama_orani_hedefi: float = 0.3
    """Gidebilecek yapının payı: dil modelinde uzman ya da nöron, tek katmanda her uzmanın nöronları, başka matrislerde 32'lik bloklar (0, ya da biçimin en küçüğü olurlar)."""
    kalite_butcesi: float | None = None
    """Dil modelinde belirteç başına nat; tek katmanda budamanın göreli hatası; ``None``: ön ayarınki, yoksa sınırsız."""
    kalibrasyon_metni: str | os.PathLike[str] | None = None
    """Dil modelinin ölçüldüğü metin dosyası; ``None``: modelin kendi yazdığı."""
    dizi_sayisi: int = 0
    """Kalibrasyon dizileri, 512 belirteçlik; 0: 100 (hızlıda 24)."""
    hizli: bool = False
    """Daha az tarama."""
    is_parcacigi: int = 0
    tur: str | None = None
    """Bit ve budama yerine: her matris bu türde (``"Q8_0"``, ``"Q4_K"``...); metin yoksa her ağırlık tek başına yuvarlanır."""
    rapor: str | os.PathLike[str] | None = None
    """Metinle ölçülen bir dil modelinin raporu (JSON): ``MetrikVisualizer`` okur."""

    @classmethod
    def dusuk(cls) -> KuantizasyonKonfigurasyonu:
        """2 bit, %50."""
        return cls(2, 0.5)

    @classmethod
    def dengeli(cls) -> KuantizasyonKonfigurasyonu:
        """4 bit, %30."""
        return cls(4, 0.3)

    @classmethod
    def yuksek(cls) -> KuantizasyonKonfigurasyonu:
        """8 bit, %10."""
        return cls(8, 0.1)

    @property
    def on_ayar(self) -> str | None:
        """Önerinin ön ayarlarından hangisi, ya da hiçbiri."""
        return None if self.tur else ON_AYARLAR.get((float(self.bit_genisligi), float(self.budama_orani_hedefi)))


@dataclass(frozen=True)
class MatrisBilgisi:
    """Sonucun bir matrisi. ``hata``: çıktılarının göreli hatası (dil modelinde beklenen nat); ``duz_hata``: her ağırlık tek başına
    yuvarlansaydı; ``oynayan``: son turda değişen kodların payı, dengede 0."""

    ad: str
    tur: str
    agirlik_sayisi: int
    bit: float
    hata: float
    duz_hata: float
    oynayan: float


class DinamikKuantizasyon:
    """Önerideki dinamik kuantizasyon.

    ``model`` bir ``NashSuruMoE``, numpy ağırlıkları (ad -> dizi, ya da tek bir dizi), bir GGUF yolu ya da ``Model`` olabilir; dönen model
    aynı türdendir (yol için yeni dosyanın yolu, ağırlıklar için okundukça çözülen bir sözlük).
    """

    def __init__(self, config: KuantizasyonKonfigurasyonu | None = None) -> None:
        self.config = config or KuantizasyonKonfigurasyonu()

    def model_kuantize_et(
        self,
        model: Any,
        *,
        girdiler: Any = None,
        cikti: str | os.PathLike[str] | None = None,
        ilerleme: Progress | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Küçültülmüş model ve bilgisi.

        Args:
            girdiler: tek katman için gördüğü satırlar ``[n, giris_boyutu]``; verilmezse normal rastgele.
            cikti: yeni dosya; verilmezse GGUF yolunun yanında, ötekiler için geçici.
            ilerleme: uzun işte çağrılır; ``False`` durdurur.
        """
        if isinstance(model, NashSuruMoE):
            yol, bilgi = self._gecici(model.dosya, cikti, girdiler, ilerleme)
            return NashSuruMoE.yukle(yol, gecici=cikti is None, **model._secenekler), bilgi
        if isinstance(model, np.ndarray):
            sozluk, bilgi = self._agirliklar({"agirlik": model}, cikti, ilerleme)
            return sozluk["agirlik"], bilgi
        if isinstance(model, Mapping):
            return self._agirliklar(model, cikti, ilerleme)
        if isinstance(model, Engine):
            model = model.path
        if isinstance(model, (str, os.PathLike)):
            return self._yol(model_path(model), cikti, girdiler, ilerleme)
        raise DilArgumentError(f"model: wanted a NashSuruMoE, numpy weights, a Model or a GGUF path, found {type(model).__name__}")

    def _gecici(self, kaynak: Path, cikti: Any, girdiler: Any, ilerleme: Progress | None) -> tuple[Path, dict[str, Any]]:
        yol = Path(cikti) if cikti is not None else Path(tempfile.mkdtemp(prefix="dilmodeli-")) / "kuantize.gguf"
        try:
            return yol, self._kuantize(kaynak, yol, girdiler, None, ilerleme)
        except BaseException:
            if cikti is None:
                shutil.rmtree(yol.parent, ignore_errors=True)
            raise

    def _agirliklar(self, agirliklar: Mapping[str, Any], cikti: Any, ilerleme: Progress | None) -> tuple[AgirlikDosyasi, dict[str, Any]]:
        with tempfile.TemporaryDirectory(prefix="dilmodeli-") as klasor:
            kaynak = Path(klasor) / "agirliklar.gguf"
            agirlik_yaz(kaynak, agirliklar)
            yol, bilgi = self._gecici(kaynak, cikti, None, ilerleme)
        sonuc = AgirlikDosyasi(yol)
        if cikti is None:
            weakref.finalize(sonuc, shutil.rmtree, yol.parent, True)
        return sonuc, bilgi

    def _yol(self, kaynak: Path, cikti: Any, girdiler: Any, ilerleme: Progress | None) -> tuple[Path, dict[str, Any]]:
        c = self.config
        ek = c.tur or f"{c.bit_genisligi:g}bit"
        yol = Path(cikti) if cikti is not None else kaynak.with_name(f"{kaynak.stem}-{ek}.gguf")
        if c.kalibrasyon_metni is not None or c.tur or not _dil_modeli(kaynak):
            return yol, self._kuantize(kaynak, yol, girdiler, c.kalibrasyon_metni, ilerleme)
        with tempfile.TemporaryDirectory(prefix="dilmodeli-") as klasor:
            metin = Path(klasor) / "kendi.txt"
            diziler = c.dizi_sayisi or 16
            metin.write_text(kendi_metni(kaynak, diziler, ilerleme), encoding="utf-8")
            kendi = DinamikKuantizasyon(replace(c, dizi_sayisi=diziler))
            return yol, {**kendi._kuantize(kaynak, yol, None, metin, ilerleme), "kalibrasyon": "modelin kendi metni"}

    def _kuantize(self, kaynak: Path, yol: Path, girdiler: Any, metin: Any, ilerleme: Progress | None) -> dict[str, Any]:
        c = self.config
        o = ffi.new("dil_quantize_options *", lib.dil_quantize_options_default())
        bellek = []
        if c.on_ayar and c.kalite_butcesi is None:
            bellek.append(ffi.new("char[]", c.on_ayar.encode()))
            o.preset = bellek[-1]
        o.bits, o.prune, o.budget = c.bit_genisligi, c.budama_orani_hedefi, c.kalite_butcesi or 0.0
        if metin is not None:
            bellek.append(ffi.new("char[]", path_bytes(metin)))
            o.text_path = bellek[-1]
        if c.tur is not None:
            bellek.append(ffi.new("char[]", c.tur.encode()))
            o.type = bellek[-1]
        if c.rapor is not None:
            bellek.append(ffi.new("char[]", path_bytes(c.rapor)))
            o.report_path = bellek[-1]
        if girdiler is not None:
            satirlar = as_f32(girdiler, "girdiler", None, None)
            bellek.append(pointer(satirlar))
            o.inputs, o.n_inputs = bellek[-1], len(satirlar)
        o.n_sequences, o.fast, o.n_threads = c.dizi_sayisi or (24 if c.hizli else 0), c.hizli, c.is_parcacigi
        rapor = struct("dil_quantize_report")
        matrisler = ffi.new("dil_quantized[]", MATRIS_SINIRI)
        with Watch(ilerleme) as izleme:
            o.progress = izleme.progress
            call(lib.dil_quantize, path_bytes(kaynak), path_bytes(yol), o, rapor, matrisler, MATRIS_SINIRI)
        return _bilgi(rapor, matrisler)


def kendi_metni(kaynak: Path, dizi_sayisi: int, ilerleme: Progress | None = None) -> str:
    """Modelin sıcaklık 1'de kendi yazdığı diziler: kalibrasyon metni verilmediğinde kullanılır. (Data-free calibration.)"""
    parcalar = []
    with Model(kaynak, n_context=512) as m:
        baslangic = m.chat_tokens("Hello! Tell me something interesting.")
        for i in range(dizi_sayisi + 4):  # sonu ölçüm için ayrılır
            parcalar.append(m.generate(baslangic, max_tokens=380, temperature=1.0, seed=i + 1, repeat_penalty=1.1).text)
            if ilerleme and ilerleme("writing", i + 1, dizi_sayisi + 4) is False:
                raise KeyboardInterrupt
    return "\n\n".join(parcalar)


def _dil_modeli(kaynak: Path) -> bool:
    with AgirlikDosyasi(kaynak) as d:
        return "token_embd.weight" in d


def _bilgi(r: Any, matrisler: Any) -> dict[str, Any]:
    return {
        "giris_bayt": int(r.in_bytes),
        "cikis_bayt": int(r.out_bytes),
        "oran": r.out_bytes / r.in_bytes if r.in_bytes else 1.0,
        "agirlik_sayisi": int(r.n_weights),
        "bit": r.bits,
        "maliyet": r.cost,
        "yapi": r.n_structure,
        "budanan": r.n_removed,
        "budama_bedeli": r.pruned_cost,
        "fiyat": r.price,
        "bosluk": r.gap,
        "sure": r.seconds,
        "matrisler": [
            MatrisBilgisi(text_of(m.name), text_of(m.type), int(m.n_values), m.bits, m.error, m.plain_error, m.moved)
            for m in matrisler[0 : min(int(r.n_matrices), MATRIS_SINIRI)]
        ],
    }
