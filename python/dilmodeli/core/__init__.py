"""Teoremin kendisi: sürü, denge, karar ve eğitim kaybı. (The theorem itself: flock, equilibrium, decision, training loss.)"""

from .kayip_fonksiyonu import KayipSonucu, NashSuruKayipFonksiyonu
from .nash_dengesi import DengeSonucu, NashDengesi
from .nash_suru_teorem import LokalGrup, NashSuruTeorem
from .suru_davranisi import SuruDavranisi, SuruDuzeni

__all__ = [
    "DengeSonucu",
    "KayipSonucu",
    "LokalGrup",
    "NashDengesi",
    "NashSuruKayipFonksiyonu",
    "NashSuruTeorem",
    "SuruDavranisi",
    "SuruDuzeni",
]
