"""Kuantizasyon: gerçek uzmanlar 2 ile 8 bit arasında, budanarak ve budanmadan; her birinin bedeli kimsenin öğrenmediği satırlarda."""

import numpy as np

from demo import HIZLI, SIGIRCIK, bayt, bolum, calistir, degerler, goreli, resim, s, tablo, yaz, yol, yuzde
from dilmodeli.dosya import AgirlikDosyasi
from dilmodeli.moe.nash_suru_router import NashSuruMoE
from dilmodeli.quantization.dinamik_kuantizasyon import DinamikKuantizasyon, KuantizasyonKonfigurasyonu
from dilmodeli.visualization.metrik_visualizer import MetrikVisualizer

KATMAN, TOP_K = 1, 2
UZMAN = TOP_K if HIZLI else 8
DURUMLAR = {
    "2 bit, %50 budanmış": (2, 0.5),
    "4 bit, %30 budanmış": (4, 0.3),
    "8 bit, %10 budanmış": (8, 0.1),
    "4 bit, budanmamış": (4, 0.0),
    "3 bit, budanmamış": (3, 0.0),
}
BUDANMIS, BUTUN, KUCUK = "4 bit, %30 budanmış", "4 bit, budanmamış", "3 bit, budanmamış"


def gercek_katman():
    """Sığırcık'ın bir katmanının ilk uzmanları ve modelin kendi sözcüklerinden satırlar: (katman, öğrenilen, taze)."""
    adlar = {"router": "ffn_gate_inp", "gate": "ffn_gate_exps", "up": "ffn_up_exps", "down": "ffn_down_exps"}
    with AgirlikDosyasi(SIGIRCIK) as dosya:
        agirliklar = {kisa: dosya[f"blk.{KATMAN}.{uzun}.weight"][:UZMAN] for kisa, uzun in adlar.items()}
        sozcukler, olcek = dosya["token_embd.weight"], dosya[f"blk.{KATMAN}.ffn_norm.weight"]
    _, gizli, giris = agirliklar["gate"].shape
    x = sozcukler[np.random.default_rng(2).permutation(len(sozcukler))[: 1024 if HIZLI else 2560]]
    x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-12) * olcek
    taze = len(x) // 5
    return NashSuruMoE(giris, UZMAN, TOP_K, gizli_boyut=gizli, agirliklar=agirliklar), x[:-taze], x[-taze:]


def satirlar_csv(ad, y, asil):
    """Her satırın hatasının sinyalden ne kadar aşağıda olduğu, en kötüsü önce."""
    db = np.sort(-10 * np.log10(((y - asil) ** 2).sum(1) / (asil**2).sum(1) + 1e-30))
    yuzdeler = np.linspace(0, 100, 33)
    dosya = yol(ad.replace(", %", "-").replace(", ", "-").replace(" ", "-") + ".csv")
    govde = "".join(f"{p:.4g},{d:.3f}\n" for p, d in zip(yuzdeler, db[((len(db) - 1) * yuzdeler / 100).astype(int)]))
    dosya.write_text("step:taze satırların yüzdesi,sinyal / hata (dB)\n" + govde, encoding="utf-8")
    return dosya


def boyutlar(sonuclar):
    bolum("Ne kadar küçük, ne yitiyor")
    yaz("Hata: katmanın çıktılarında |y' - y|² / |y|², öğrenilmemiş satırlarda.")
    tablo(
        ["ayar", "ağırlık biti", "dosya", "F32'nin", "giden nöron", "hata", "saniye"],
        [
            [ad, s(b["bit"], ".2f"), bayt(b["cikis_bayt"]), yuzde(b["oran"]), f"{b['budanan']} / {b['yapi']}", yuzde(hata, 3), s(b["sure"], ".1f")]
            for ad, (b, hata) in sonuclar.items()
        ],
    )


def yuvarlama(sonuclar):
    bolum("Yuvarlama: tek başına ve dengede")
    yaz(
        "Biçimleri, her matrisin baytlarının bedelini ödediği bir oyun seçer; sonra her kod ve her ölçek, kimse kazanamayana dek ötekilere yanıt\n"
        "verir. Yanında, her ağırlık tek başına yuvarlansaydı çıkacak hata; aynı girdilerle."
    )
    tablo(
        ["ayar", "matris", "biçim", "tek başına", "dengede", "kalan", "hâlâ oynayan"],
        [
            [ad, m.ad.split("_")[1], m.tur, yuzde(m.duz_hata, 3), yuzde(m.hata, 3), yuzde(m.hata / m.duz_hata), yuzde(m.oynayan, 2)]
            for ad, (b, _) in sonuclar.items()
            for m in b["matrisler"]
        ],
    )
    tablo(["ayar", "baytın fiyatı", "boşluk"], [[ad, s(b["fiyat"], ".3g"), s(b["bosluk"], ".3g")] for ad, (b, _) in sonuclar.items()])


def budamanin_bedeli(sonuclar):
    bolum("Budamanın bedeli")
    (budanmis, hata), (butun, butun_hata), (kucuk, kucuk_hata) = (sonuclar[ad] for ad in (BUDANMIS, BUTUN, KUCUK))
    degerler(
        ("yalnız %30 budamanın hatası", yuzde(budanmis["budama_bedeli"], 3)),
        *((ad, f"{bayt(sonuclar[ad][0]['cikis_bayt'])}, hata {yuzde(sonuclar[ad][1], 3)}") for ad in (BUDANMIS, BUTUN, KUCUK)),
    )
    karar = "burada küçülmenin daha iyi yolu daha az bit." if kucuk_hata < hata else "burada budamaya değer."
    yaz(
        f"Budama, baytların {yuzde(budanmis['cikis_bayt'] / butun['cikis_bayt'], 0)} kadarı için hatayı {s(hata / butun_hata, '.1f')} katına çıkardı. Aşağı yukarı aynı boyda, budanmamış 3 bitin\n"
        f"hatası budanmış 4 bitinkinin {s(kucuk_hata / hata, '.2f')} katı: {karar}"
    )


def anlat():
    katman, ogrenilen, taze = gercek_katman()
    bolum("Gerçek uzmanlar")
    yaz(
        f"Projenin kendi uzman karışımı Sığırcık'ın {KATMAN}. katmanının ilk {UZMAN} uzmanı, kendi başına bir katman olarak: {katman.giris_boyutu} genişlik, her\n"
        f"birinde {katman.gizli_boyut} nöron, satır başına {TOP_K} uzman. Satırlar modelin kendi sözcükleri, onun yaptığı gibi ölçeklenmiş: {len(ogrenilen)} öğrenmek\n"
        f"için, {len(taze)} taze."
    )
    asil, sonuclar, kayitlar = katman(taze), {}, []
    for ad, (bit, oran) in DURUMLAR.items():
        config = KuantizasyonKonfigurasyonu(bit_genisligi=bit, budama_orani_hedefi=oran, hizli=True)
        kucuk, bilgi = DinamikKuantizasyon(config).model_kuantize_et(katman, girdiler=ogrenilen)
        y = kucuk(taze)
        sonuclar[ad] = bilgi, goreli(y, asil)
        kayitlar.append(satirlar_csv(ad, y, asil))
    boyutlar(sonuclar)
    resim(
        "kalite",
        lambda tema, dosya: MetrikVisualizer(tema=tema).hiz(kayitlar, dosya),
        "Her çizgide bütün taze satırlar, en kötüsü önce: hata sinyalden ne kadar aşağıda. 10 dB: onda bir hata.",
    )
    yuvarlama(sonuclar)
    budamanin_bedeli(sonuclar)


if __name__ == "__main__":
    calistir("Kuantizasyon ve budama", anlat)
