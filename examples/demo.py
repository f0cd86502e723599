"""Dört gösterinin ortak yanı: standart çıktıda bir anlatı, bir klasörde resimler. (What the four demos share.)

Anlatı, scripts/demo_page.py'nin okuduğu düz metindir: "# başlık", "## bölüm", paragraflar, tablolar (başta iki boşluk, gözler arasında
iki ya da daha çok), modelin söylediğinin önünde "> ", "picture: DOSYA: açıklama".
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

try:
    from dilmodeli import DilError
    from dilmodeli.model import model_path
except ImportError as e:
    sys.exit(f"hata: {e.name} kurulu değil; kaynakların klasöründe: pip install .")

AGAC = Path(__file__).resolve().parent.parent
SIGIRCIK = AGAC / "models" / "sigircik-moe.gguf"
HIZLI = os.environ.get("DIL_DEMO_QUICK", "0") not in ("", "0")  # testler için daha kısa bir anlatı
KLASOR = Path("demo-output")


def calistir(baslik, anlat):
    """Klasörü komut satırından alır, anlatıyı başlatır; hatayı bir satırda söyler."""
    global KLASOR
    if len(sys.argv) > 2 or sys.argv[1:2] and sys.argv[1].startswith("-"):
        sys.exit(f"kullanım: {sys.argv[0]} [KLASÖR]\nResimler KLASÖR'e yazılır; verilmezse demo-output.")
    KLASOR = Path(sys.argv[1] if len(sys.argv) == 2 else KLASOR)
    sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    basladi = time.perf_counter()
    try:
        KLASOR.mkdir(parents=True, exist_ok=True)
        print(f"# {baslik}")
        anlat()
    except (DilError, OSError) as e:
        sys.exit(f"hata: {e}")
    yaz(f"Bütün bunlar {s(time.perf_counter() - basladi, '.1f')} s sürdü.")


def smollm2_var():
    return model_path("smollm2").exists()


def yol(ad):
    return KLASOR / ad


# ---- sayılar ----


def s(sayi, bicim):
    """Bir sayı, Türkçe yazılışıyla."""
    return format(sayi, bicim).replace(".", ",")


def yuzde(oran, basamak=1):
    return f"%{s(100 * oran, f'.{basamak}f')}"


def bayt(n):
    for birim, boy in (("GB", 1e9), ("MB", 1e6)):
        if n >= boy:
            return f"{s(n / boy, '.2f' if birim == 'GB' else '.1f')} {birim}"
    return f"{s(n / 1e3, '.1f')} kB"


def yuruyus(rng, n, boy, adim):
    """Bir metnin sözcükleri gibi birbirini izleyen satırlar: float32 [n, boy]."""
    x = rng.normal(size=(n, boy))
    for i in range(1, n):
        x[i] = np.sqrt(1 - adim * adim) * x[i - 1] + adim * x[i]
    return x.astype(np.float32)


def goreli(y, asil):
    """|y - asil|² / |asil|²"""
    y, asil = np.asarray(y, np.float64), np.asarray(asil, np.float64)
    return float(((y - asil) ** 2).sum() / (asil**2).sum())


# ---- anlatı ----


def bolum(ad):
    print(f"\n## {ad}")


def yaz(metin):
    print(f"\n{metin}")


def degerler(*satirlar):
    """İki sütunlu tablo."""
    print()
    for ad, deger in satirlar:
        print(f"  {ad:<34}  {deger}")


def tablo(basliklar, satirlar):
    gozler = [[str(g) for g in satir] for satir in satirlar]
    genis = [max(len(x) for x in sutun) for sutun in zip(basliklar, *gozler)]
    print()
    for satir in (basliklar, ["-" * g for g in genis], *gozler):
        print("  " + "  ".join(x.ljust(g) for x, g in zip(satir, genis)).rstrip())


def resim(ad, ciz, aciklama):
    """``ciz(tema, dosya)`` resmi çizer: sayfaysa bir kez, durağansa açık ve koyu ekranlar için."""
    if ad.endswith(".html"):
        ciz(None, yol(ad))
    else:
        for tema, ek in (("light", ""), ("dark", "-dark")):
            ciz(tema, yol(f"{ad}{ek}.svg"))
        ad += ".svg"
    print(f"\npicture: {ad}: {aciklama}")
