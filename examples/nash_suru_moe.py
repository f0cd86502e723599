"""Nash-Sürü uzman karışımı: bir karar, yönlendiricisini daha az okuyan bir katman, uzmanlarının dörtte biri bellekte olan bir katman."""

import time

import numpy as np

from demo import HIZLI, SIGIRCIK, bayt, bolum, calistir, degerler, resim, s, tablo, yaz, yuruyus, yuzde
from dilmodeli.core.nash_suru_teorem import NashSuruTeorem
from dilmodeli.moe.nash_suru_router import NashSuruMoE
from dilmodeli.moe.uzman_havuzu import UzmanHavuzu
from dilmodeli.visualization.metrik_visualizer import MetrikVisualizer
from dilmodeli.visualization.suru_visualizer import SuruVisualizer

GENIS, UZMAN, TOP_K, GIZLI, ADAY = 256, 64, 8, 128, 64
METIN = (
    "Küçük bir sığırcık büyük ve yaşlı bir ağaçta yaşıyordu. Bir akşam gökyüzü karardı, rüzgâr soğudu. Küçük kuş arkadaşlarına baktı ve "
    "hepsi bir anda döndü. \"Haydi birlikte eve uçalım,\" dedi."
)
rng = np.random.default_rng(1)


def karar():
    adaylar, gorev = rng.normal(size=(ADAY, 3)), 0.5 * rng.normal(size=3)
    teorem = NashSuruTeorem(secim_sayisi=3)
    secilen_idx, bilgi = teorem.adaptif_karar_ver(adaylar, gorev)
    birlikte_idx, birlikte = NashSuruTeorem(secim_sayisi=3, ortusme=0.2).adaptif_karar_ver(adaylar, gorev)
    bolum("Bir karar")
    yaz(
        f"{ADAY} aday ve bir görev aynı uzayın noktaları, 3 yer var. Teorem göreve en yakın {teorem.komsu_sayisi} adaya bakar, onlar yerler için bir\n"
        "oyunda dengeye oturur; dışarıdan biri hâlâ yer alabilecekse daha çoğuna bakar. Örtüşen: aynı yöndeki iki seçilen, birlikte\n"
        "değerlerinin en çok beşte birini yitirir."
    )
    tablo(
        ["", "bağımsız", "örtüşen"],
        [
            [ad, bicim(bilgi, secilen_idx), bicim(birlikte, birlikte_idx)]
            for ad, bicim in (
                ("bakılan, 64'te", lambda b, _: len(b["lokal_grup"])),
                ("grubun büyüme sayısı", lambda b, _: b["buyume_sayisi"]),
                ("kesin", lambda b, _: "evet" if b["kesin"] else "hayır"),
                ("bir yerin fiyatı", lambda b, _: s(b["fiyat"], ".3f")),
                ("dışarıdaki en iyi değer", lambda b, _: s(b["disaridaki_en_iyi_deger"], ".3f")),
                ("dengeye uzaklık", lambda b, _: s(b["bosluk"], ".3g")),
                ("seçilenlerin en iyisi", lambda _, i: i),
            )
        ],
    )
    tablo(
        ["aday", "uzaklık", "değer", "yer", "pişmanlık"],
        [
            [aday, s(uzak, ".3f"), s(deger, ".3f"), "aldı" if secildi else "-", s(pisman, ".3f")]
            for aday, uzak, deger, secildi, pisman in zip(
                bilgi["lokal_grup"][:7], bilgi["uzakliklar"], bilgi["degerler"], bilgi["secildi"], bilgi["pismanlik"]
            )
        ],
    )
    yaz("Pişmanlık, bir adayın tek başına değişince yitireceği; kimseninki 0'dan az değil: denge budur.")
    resim(
        "karar",
        lambda tema, dosya: SuruVisualizer(tema=tema).karar_ciz(adaylar, gorev, bilgi, dosya),
        "Bağımsız adaylarla karar: kuşlar aday, nokta görev; büyük olan değerli, halkalı olan seçilen.",
    )


def satir_satir(katman, x):
    """Bir dil modeli yazarken olduğu gibi, satırlar tek tek: çıktılar, seçimler, süre."""
    basladi = time.perf_counter()
    ciktilar, bilgiler = zip(*(katman(satir, return_routing_info=True) for satir in x))
    sure = time.perf_counter() - basladi
    secimler = {ad: np.stack([b[ad] for b in bilgiler]) for ad in ("secilen_uzmanlar", "agirliklar")}
    return np.stack(ciktilar), {**bilgiler[-1], **secimler}, sure


def ayni(y, z):
    return "evet, bit bit" if np.array_equal(y, z) else "HAYIR"


def katman():
    x = yuruyus(rng, 512 if HIZLI else 4096, GENIS, 0.4)
    tam = NashSuruMoE(GENIS, UZMAN, TOP_K, gizli_boyut=GIZLI, yonlendirme="tam")
    y, bilgi, sure = satir_satir(tam, x)
    bolum("Bir uzman katmanı")
    yaz(f"{UZMAN} uzman, her satıra {TOP_K} tanesi; satırlar {GENIS} sayıdır ve bir metnin sözcükleri gibi birbirini izler.")
    degerler(("satır", len(x)), ("katman, bellekte", bayt(tam.bellek_bayt)), ("saniyede satır, tek tek", s(len(x) / sure, ".0f")))

    bolum("Yönlendirici, bir kısmı okunarak")
    yaz(
        "Yönlendiricinin bir satırının 8 bitlik kopyası, puanının ne olabileceğini sınırlar. Yalnız en iyiler arasında olabilecek satırlar\n"
        "bütün okunur: seçim kesindir, tahmin değil."
    )
    y_yerel, yerel, _ = satir_satir(NashSuruMoE.yukle(tam.dosya, yonlendirme="yerel"), x)
    degerler(("okunan yönlendirici payı", yuzde(yerel["okunan_yonlendirici_payi"])), ("aynı çıktılar", ayni(y, y_yerel)))

    bolum("Uzmanların dörtte biri bellekte")
    yaz("Ötekiler gerekene dek diskte kalır; bütçe hiç aşılmaz.")
    butce = tam.bellek_bayt // 4
    y_az, az, _ = satir_satir(UzmanHavuzu(butce).kur(tam), x)
    istek = az["bellekte_bulunan"] + az["diskten_okunan"]
    degerler(
        ("uzmanların bütçesi", bayt(butce)),
        ("bellekte bulunan", f"{az['bellekte_bulunan']} ({yuzde(az['bellekte_bulunan'] / istek)})"),
        ("diskten okunan", az["diskten_okunan"]),
        ("aynı çıktılar", ayni(y, y_az)),
    )
    politikalar(tam, bilgi)


def politikalar(tam, bilgi):
    bolum("Bellekte kim kalsın?")
    yaz("Aynı seçimler, uzmanların dörtte birine yer varken yeniden oynandı. Belady kuralı geleceği bilir: hiçbir politika daha çok bulmaz.")
    sonuclar = UzmanHavuzu.karsilastir(tam, bilgi, 0.25)
    tablo(
        ["politika", "bellekte bulunan", "diskten okunan"],
        [[p, yuzde(sonuclar[p].isabet, 2), bayt(sonuclar[p].okunan_bayt)] for p in ("swarm", "lru", "lfu", "belady")],
    )
    paylar = {p: yuzde(sonuclar[p].isabet / sonuclar["belady"].isabet) for p in ("swarm", "lru")}
    yaz(f"Sürünün politikası Belady'nin bulduğunun {paylar['swarm']} kadarını bulur; lru {paylar['lru']} kadarını.")
    resim(
        "onbellek",
        lambda tema, dosya: MetrikVisualizer(tema=tema).onbellek_ciz(tam, bilgi, dosya),
        "Belleğe sığan paya göre, uzmanın bellekte bulunma sıklığı.",
    )


def suru():
    bolum("Sürü")
    yaz(
        "Gerçek bir model: projenin kendi uzman karışımı Sığırcık kısa bir öykü okuyor. Her kuş bir katmanın bir uzmanı, çizgiler en yakın yedi\n"
        "komşuyu birleştirir; her belirteçte ona hizmet eden uzmanlar ona doğru uçar."
    )
    for ad, aciklama in (("suru.html", "Metin okunurken sürü: oynatın, arayın, katmanı değiştirin."), ("suru", "Aynı sürü, son belirteçten sonra.")):
        resim(ad, lambda tema, dosya: SuruVisualizer(tema=tema).ciz(SIGIRCIK, dosya, metin=METIN), aciklama)


def anlat():
    karar()
    katman()
    suru()


if __name__ == "__main__":
    calistir("Nash-Sürü uzman karışımı", anlat)
