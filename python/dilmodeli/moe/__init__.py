"""Uzman karışımı: yönlendirici ve uzman havuzu. (Mixture of experts: the router and the expert pool.)"""

from .nash_suru_router import NashSuruMoE
from .uzman_havuzu import HavuzSonucu, UzmanHavuzu

__all__ = ["HavuzSonucu", "NashSuruMoE", "UzmanHavuzu"]
