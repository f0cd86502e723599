"""Dinamik kuantizasyon ve budama. (Dynamic quantization and pruning.)"""

from .budama_stratejisi import BudamaStratejisi
from .dinamik_kuantizasyon import DinamikKuantizasyon, KuantizasyonKonfigurasyonu, MatrisBilgisi

__all__ = ["BudamaStratejisi", "DinamikKuantizasyon", "KuantizasyonKonfigurasyonu", "MatrisBilgisi"]
