"""Budama: en az gereken yapı gider. (Pruning: the structure that costs least goes.)"""

from __future__ import annotations

import os
from typing import Any

from .._library import Progress
from .dinamik_kuantizasyon import DinamikKuantizasyon, KuantizasyonKonfigurasyonu


class BudamaStratejisi:
    """Yalnız budama; kalan ağırlıklar 16 bit olur.

    Tek katmanda her uzmanın nöronları gider (kalanlar gidenlerin işini üstlenir), başka matrislerde 32'lik bloklar 0 olur, dil modelinde
    uzmanlar ya da nöronlar gider.

    Args:
        oran: gidebilecek yapının payı, 0..0.95.
        kalite_butcesi: en çok bu kadar hata (katmanda göreli hata, dil modelinde belirteç başına nat); ``None``: sınırsız.
    """

    def __init__(
        self,
        oran: float = 0.3,
        kalite_butcesi: float | None = None,
        *,
        kalibrasyon_metni: str | os.PathLike[str] | None = None,
        hizli: bool = False,
    ) -> None:
        self.config = KuantizasyonKonfigurasyonu(
            16, oran, kalite_butcesi, kalibrasyon_metni=kalibrasyon_metni, hizli=hizli
        )

    def uygula(self, model: Any, *, girdiler: Any = None, cikti: Any = None, ilerleme: Progress | None = None) -> tuple[Any, dict[str, Any]]:
        """Budanmış model ve bilgisi; ``DinamikKuantizasyon.model_kuantize_et`` gibi."""
        return DinamikKuantizasyon(self.config).model_kuantize_et(model, girdiler=girdiler, cikti=cikti, ilerleme=ilerleme)
