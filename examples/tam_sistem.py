"""Tam sistem: önerinin dört adımı art arda, uzmanları dengeleyen kayıp ve yanıt veren bir model."""

import time

import numpy as np

from demo import HIZLI, bayt, bolum, calistir, degerler, goreli, resim, s, smollm2_var, tablo, yaz, yuruyus, yuzde
from dilmodeli import Model
from dilmodeli.core.kayip_fonksiyonu import NashSuruKayipFonksiyonu
from dilmodeli.moe.nash_suru_router import NashSuruMoE
from dilmodeli.optimization.bellek_stratejisi import BellekStratejisi
from dilmodeli.optimization.cpu_optimizer import CPUOptimizer
from dilmodeli.quantization.dinamik_kuantizasyon import DinamikKuantizasyon, KuantizasyonKonfigurasyonu
from dilmodeli.visualization.suru_visualizer import SuruVisualizer

GENIS, UZMAN, TOP_K = 256, 8, 2
SORU = "Give me three tips for sleeping well."
ozet = []


def sure(is_):
    basladi = time.perf_counter()
    sonuc = is_()
    return sonuc, time.perf_counter() - basladi


def dort_adim(x):
    """Önerinin satırları: kur, kuantize et, iyileştir, çalıştır. Dönen: küçük katman ve yönlendirme bilgisi."""
    model, kurma = sure(lambda: NashSuruMoE(giris_boyutu=GENIS, uzman_sayisi=UZMAN, top_k=TOP_K, gizli_boyut=32 if HIZLI else 512))
    asil, ilk = sure(lambda: model(x))
    bolum("1. Kur")
    degerler(
        ("katman", f"{GENIS} genişlik, {model.gizli_boyut} nöronlu {UZMAN} uzman, satıra {TOP_K}"),
        ("süre", f"{s(kurma, '.2f')} s"),
        ("saniyede satır, kurulduğu gibi", s(len(x) / ilk, ".0f")),
    )
    ozet.append(("katman kuruldu", f"{UZMAN} uzman, {s(kurma, '.2f')} s"))

    config = KuantizasyonKonfigurasyonu(bit_genisligi=4, budama_orani_hedefi=0.3, hizli=True)
    model, bilgi = DinamikKuantizasyon(config).model_kuantize_et(model)
    bolum("2. Kuantize et")
    yaz("Dengeli ön ayar: 4 bit, nöronların %30'u gidebilir.")
    degerler(
        ("süre", f"{s(bilgi['sure'], '.1f')} s"),
        ("dosya", f"{bayt(bilgi['giris_bayt'])} -> {bayt(bilgi['cikis_bayt'])} ({yuzde(bilgi['oran'])})"),
        ("ağırlık biti", s(bilgi["bit"], ".2f")),
        ("giden nöron", f"{bilgi['budanan']} / {bilgi['yapi']}"),
        ("yalnız budamanın hatası", yuzde(bilgi["budama_bedeli"], 2)),
        ("hepsinin hatası", yuzde(bilgi["maliyet"], 2)),
    )
    if bilgi["budanan"]:
        yaz("Bu ağırlıklar rastgele, nöronlar birbirinin yerini tutamaz: budama eğitilmiş bir modeldekinden pahalıdır.")
    ozet.append(("katman kuantize edildi", f"baytların {yuzde(bilgi['oran'])} kadarı, {s(bilgi['sure'], '.1f')} s"))

    model = CPUOptimizer(saniye=1 if HIZLI else 5).model_optimizasyonu_uygula(model)
    ayar = model.optimizasyon_bilgisi
    bolum("3. İyileştir")
    degerler(
        ("süre", f"{s(ayar['sure'], '.1f')} s"),
        ("denenen, tutulan ayar", f"{ayar['deneme']}, {ayar['tutulan']}"),
        ("çok satır", f"{s(ayar['istem_kazanci'], '.3f')} kat hızlı"),
        ("tek satır", f"{s(ayar['uretim_kazanci'], '.3f')} kat hızlı"),
    )
    ozet.append(("katman ayarlandı", f"{s(ayar['istem_kazanci'], '.2f')} ve {s(ayar['uretim_kazanci'], '.2f')} kat hızlı"))

    (output, routing_info), son = sure(lambda: model(x, return_routing_info=True))
    hata = goreli(output, asil)
    bolum("4. Çalıştır")
    degerler(
        ("satır", f"{len(x)}, {s(son, '.3f')} s"),
        ("saniyede satır", s(len(x) / son, ".0f")),
        ("kurulduğu halden hata", yuzde(hata, 2)),
    )
    tablo(["uzman", "hizmet ettiği satır"], list(enumerate(routing_info["uzman_yuku"])))
    ozet.append(("katman çalıştı", f"{s(len(x) / son, '.0f')} satır/s, hata {yuzde(hata, 2)}"))
    return model, routing_info


def sekil(model, routing_info):
    ilk = {ad: routing_info[ad][:512] for ad in ("secilen_uzmanlar", "agirliklar")}
    resim(
        "katman",
        lambda tema, dosya: SuruVisualizer(tema=tema).ciz(model, dosya, routing_info=ilk),
        "Katmanın sekiz uzmanının sürüsü, ilk satırlardan sonra.",
    )


def denge(model, x, routing_info):
    yonlendirici = model.agirliklar()["router"]
    ek_bilgiler = {
        "yonlendirici_puanlari": x @ yonlendirici.T,
        "secilenler": routing_info["secilen_uzmanlar"],
        "yonlendirici_satirlari": yonlendirici,
    }
    kayip = NashSuruKayipFonksiyonu()(np.zeros((len(x), 16)), np.zeros(len(x), int), ek_bilgiler, gradyan=True)
    t = kayip.terimler
    bolum("Dengeleyen kayıp")
    yaz("Bu yönlendirici eğitilirken bakılacak olan; tahminlerin yerinde, 16 seçenek arasında hiçbir şey bilmeyen bir model: ln 16.")
    degerler(
        ("toplam", s(float(kayip), ".5f")),
        ("çapraz entropi", s(t["capraz_entropi"], ".5f")),
        ("denge (1: hepsi eşit kullanılıyor)", s(t["denge"], ".3f")),
        ("önbellek (yeniden kullanım)", s(t["onbellek"], ".3f")),
        ("sürü (komşularla uyum)", s(t["suru"], ".3f")),
        ("Nash (0: dengede)", s(t["nash"], ".4f")),
        ("yönlendiricinin entropisi", f"{s(t['entropi'], '.3f')} nat"),
        ("en yüklü uzman", f"ortalamanın {s(t['ihlal'] + 1, '.2f')} katı"),
        ("gradyanın boyu", s(float(np.linalg.norm(kayip.yonlendirici_gradyani)), ".3g")),
    )
    ozet.append(("dengeleyen kayıp", f"{s(float(kayip) - t['capraz_entropi'], '.5f')}, en yüklü uzman ortalamanın {s(t['ihlal'] + 1, '.2f')} katı"))


def sohbet():
    model, acma = sure(lambda: Model("smollm2", n_context=1024))
    bolum("Bir model yanıt veriyor")
    print(f"\n> **{SORU}**\n> ", end="", flush=True)

    def goster(parca):
        print(parca.replace("\n", "\n> "), end="", flush=True)

    yanit = model.chat(SORU, on_text=goster, max_tokens=12 if HIZLI else 96, temperature=0)
    model.close()
    hiz = yanit.n_generated / yanit.generate_seconds
    print()
    degerler(
        ("açılma", f"{s(acma, '.2f')} s"),
        ("soru", f"{yanit.n_prompt} belirteç, saniyede {s(yanit.n_prompt / yanit.prompt_seconds, '.0f')}"),
        ("ilk sözcük", f"{s(yanit.first_token_seconds, '.3f')} s sonra"),
        ("yanıt", f"{yanit.n_generated} belirteç, saniyede {s(hiz, '.0f')}"),
        ("bitiren", yanit.finish),
    )
    ozet.append(("SmolLM2 yanıt veriyor", f"saniyede {s(hiz, '.0f')} belirteç, ilk sözcük {s(yanit.first_token_seconds, '.3f')} s sonra"))


def bellek():
    planlar = {tur: BellekStratejisi(baglam=4096, kv_turu=tur).planla("smollm2") for tur in ("f16", "q8_0")}
    bolum("Bellek")
    yaz("SmolLM2'nin 4096 belirteçlik bağlamla tutacağı, KV önbelleğinin türüne göre.")
    tablo(
        ["KV önbelleği", "ağırlıklar", "boyu", "toplam"],
        [[tur, bayt(p.agirliklar), bayt(p.kv_onbellek), bayt(p.toplam)] for tur, p in planlar.items()],
    )
    ozet.append(("q8_0 KV önbelleğinin kazancı", f"{bayt(planlar['f16'].toplam - planlar['q8_0'].toplam)}, {bayt(planlar['f16'].toplam)} toplamdan"))


def anlat():
    x = yuruyus(np.random.default_rng(3), 512 if HIZLI else 4096, GENIS, 0.3)
    model, routing_info = dort_adim(x)
    sekil(model, routing_info)
    denge(model, x, routing_info)
    if smollm2_var():
        sohbet()
        bellek()
    else:
        bolum("Bir model yanıt veriyor")
        yaz("SmolLM2 yok, yanıt veremez; getirmek için (100 MB, bir kez): dil pull smollm2")
    bolum("Özet")
    degerler(*ozet)


if __name__ == "__main__":
    calistir("Tam sistem", anlat)
