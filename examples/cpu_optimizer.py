"""CPU iyileştirici: makine ne yapabilir, bir model üstünde ne yapacak, ne yapıyor ve ayar ne katıyor."""

from demo import HIZLI, bayt, bolum, calistir, degerler, resim, s, smollm2_var, tablo, yaz, yol, yuzde
from dilmodeli import DilError, Model
from dilmodeli.optimization.cpu_optimizer import CPUOptimizer
from dilmodeli.visualization.metrik_visualizer import MetrikVisualizer

MODEL, ISTEM, URETIM = "smollm2", 512, 32
KOSU = 1 if HIZLI else 3
SINIRLAR = {
    "arithmetic": "hesap",
    "reading from memory": "bellekten okuma",
    "reading from caches": "önbelleklerden okuma",
    "meeting of threads": "iş parçacıklarının buluşması",
}


def makine():
    m, h = CPUOptimizer.makine(), CPUOptimizer.olc()
    bolum("Makine")
    degerler(
        ("işlemci", m.islemci),
        ("hesap çekirdekleri", m.cekirdek_duzeyi),
        ("çekirdek, mantıksal işlemci", f"{m.cekirdek}, {m.mantiksal}"),
        ("önbellekler", f"L1 {bayt(m.l1_bayt)}, L2 {bayt(m.l2_bayt)}, L3 {bayt(m.l3_bayt)}"),
        ("bellek", bayt(m.bellek_bayt)),
    )
    yaz(f"Bir kez ölçüldü ve saklandı, {h.is_parcacigi} iş parçacığı birlikte{' (bu sırada başka programlar da çalışıyordu)' if h.mesgul else ''}:")
    degerler(
        *([("bellekten okuma", f"{bayt(h.bellek)}/s")] if h.bellek else []),  # 0: son önbellek okunanların hepsini tutuyor
        ("L3, L2, L1'den okuma", f"{bayt(h.l3)}/s, {bayt(h.l2)}/s, {bayt(h.l1)}/s"),
        ("çarpma-toplama, 8 bit tamsayı", f"{s(h.int8 * 1e-9, '.0f')} milyar/s"),
        ("çarpma-toplama, F32", f"{s(h.f32 * 1e-9, '.0f')} milyar/s"),
        ("birbirini bir kez bekleme", f"{s(h.engel * 1e6, '.2f')} mikrosaniye"),
    )


def olc(yigin, **yuk):
    with Model(MODEL, n_context=2 * ISTEM, n_micro_batch=yigin) as model:
        return model.bench(**yuk)


def ongoru():
    p = CPUOptimizer(istem=ISTEM, uretim=URETIM).profil_cikar(MODEL)
    bolum("SmolLM2, dosyasının başlığından öngörülen")
    degerler(
        ("ağırlıklar", bayt(p.agirlik_bayt)),
        ("KV önbelleği", bayt(p.kv_bayt)),
        ("toplam", bayt(p.toplam_bayt)),
        ("istemi sınırlayan", SINIRLAR.get(p.istem_siniri, p.istem_siniri)),
        ("yanıtı sınırlayan", SINIRLAR.get(p.uretim_siniri, p.uretim_siniri)),
        ("bir geçişe yeten belirteç", p.en_iyi_yigin),
        ("birlikte üretilen en iyi dizi sayısı", p.en_iyi_dizi),
    )
    yaz("Bir yanıt geçişinin baytları nereden gelir:")
    tablo(["nereden", "bayt"], [[yer, bayt(p.gecis_bayt[ad])] for yer, ad in (("bellek", "bellek"), ("L3", "l3"), ("L2", "l2"), ("toplam", "toplam"))])
    h = olc(0, n_prompt=ISTEM, n_gen=URETIM, n_runs=KOSU)
    bolum("Öngörülen ve ölçülen")
    tablo(
        ["saniyede belirteç", "öngörülen", "ölçülen", "pay"],
        [
            [ad, s(beklenen, ".0f"), f"{s(olculen, '.0f')} ± {s(sapma, '.0f')}", yuzde(olculen / beklenen, 0)]
            for ad, beklenen, olculen, sapma in (
                (f"{ISTEM} belirteçlik istem", p.istem_hizi, h.prompt_rate, h.prompt_deviation),
                (f"{URETIM} belirteçlik yanıt", p.uretim_hizi, h.generation_rate, h.generation_deviation),
            )
        ],
    )
    yaz(f"Yanıtın bir belirteci {bayt(h.bytes_per_token)} okur.")


def yiginlar():
    satirlar = []
    for yigin in (16, 32, 64, 128, 256, 512):
        p = CPUOptimizer(istem=ISTEM, uretim=1).profil_cikar(MODEL, yigin=yigin)
        satirlar.append((yigin, p.istem_hizi, olc(yigin, n_prompt=ISTEM, n_gen=0, n_runs=1 if HIZLI else 2).prompt_rate))
    bolum("Bir geçişte kaç belirteç?")
    yaz("Bir geçiş bütün ağırlıkları bir kez okur: az belirteçle uzun süren okumaktır, çok belirteçle hesap.")
    tablo(["geçişte belirteç", "öngörülen", "ölçülen"], [[y, s(o, ".0f"), s(b, ".0f")] for y, o, b in satirlar])
    kayitlar = [yol("öngörülen.csv"), yol("ölçülen.csv")]
    for sutun, kayit in enumerate(kayitlar, 1):
        govde = "".join(f"{satir[0]},{satir[sutun]:.1f}\n" for satir in satirlar)
        kayit.write_text("step:bir geçişte belirteç,istemin saniyede belirteci\n" + govde, encoding="utf-8")
    resim(
        "gecisler",
        lambda tema, dosya: MetrikVisualizer(tema=tema).hiz(kayitlar, dosya),
        "Geçişteki belirtece göre istemin hızı, öngörülen ve ölçülen.",
    )


def ayar():
    model = CPUOptimizer(saniye=1 if HIZLI else 10, istem=128, uretim=16).model_optimizasyonu_uygula(MODEL)
    bilgi = model.optimizasyon_bilgisi
    bolum("Ayar")
    yaz("Ayarlar sırayla alışılmışlarla yarışır; yalnız kuşkusuz hızlı olanlar, bu makinede bu model için, saklanır. Yanıtlar hiç değişmez.")
    degerler(
        ("süre", f"{s(bilgi['sure'], '.1f')} s"),
        ("denenen, tutulan", f"{bilgi['deneme']}, {bilgi['tutulan']}"),
        ("istem", f"{s(bilgi['istem_kazanci'], '.3f')} kat hızlı"),
        ("yanıt", f"{s(bilgi['uretim_kazanci'], '.3f')} kat hızlı"),
    )
    yaz("Model bundan böyle bu ayarlarla açılır." if bilgi["degisti"] else "Alışılmış ayarlar en iyisiydi: hiçbir şey değişmedi.")


def anlat():
    if not smollm2_var():
        raise DilError("SmolLM2 yok; getirmek için (100 MB, bir kez): dil pull smollm2")
    makine()
    ongoru()
    yiginlar()
    ayar()


if __name__ == "__main__":
    calistir("CPU iyileştirici", anlat)
