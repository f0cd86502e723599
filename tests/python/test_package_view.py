"""Pictures through the Python package: every form is written, is what it says it is, and shows what it was given."""
import re
import tempfile
import unittest
from pathlib import Path

import package
import numpy as np

from dilmodeli import DilArgumentError, DilError, DilFormatError, Model
from dilmodeli.core import NashDengesi, NashSuruTeorem
from dilmodeli.moe import NashSuruMoE
from dilmodeli.quantization import DinamikKuantizasyon, KuantizasyonKonfigurasyonu
from dilmodeli.visualization.metrik_visualizer import MetrikVisualizer
from dilmodeli.visualization.suru_visualizer import SuruVisualizer

MAGIC = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF", "html": b"<!DOCTYPE html>"}


class Pictures(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.folder = Path(self._folder.name)

    def look(self, path):
        raw = path.read_bytes()
        self.assertTrue(raw.lower().startswith(MAGIC[path.suffix[1:]].lower()), raw[:20])
        self.assertFalse(re.search(rb"""(src|href)=["']?https?:""", raw))
        return raw.decode("utf-8", "replace")

    def test_a_layer(self):
        moe = NashSuruMoE(32, 12, 2, gizli_boyut=32)
        _, info = moe(np.random.default_rng(0).normal(size=(40, 32)), return_routing_info=True)
        for form in MAGIC:
            self.look(SuruVisualizer().ciz(moe, self.folder / f"layer.{form}", routing_info=info))
        turkish = self.look(SuruVisualizer(dil="tr").ciz(moe, self.folder / "tr.html"))
        english = self.look(SuruVisualizer(dil="en").ciz(moe, self.folder / "en.html"))
        self.look(MetrikVisualizer().onbellek_ciz(moe, info, self.folder / "cache.svg"))
        self.assertTrue('lang="tr"' in turkish and 'lang="en"' in english)

    def test_a_model(self):
        page = self.look(SuruVisualizer(dil="en").ciz(package.SIGIRCIK, self.folder / "m.html", metin="A small zebra", en_cok_adim=9))
        self.assertTrue(re.search(r'"texts":\[[^]]*small', page), "the text is not in the page")

    def test_a_decision(self):
        rng = np.random.default_rng(1)
        candidates, task = rng.normal(size=(20, 5)), rng.normal(size=5)
        _, evidence = NashSuruTeorem().adaptif_karar_ver(candidates, task)
        game = NashDengesi([[0, 1]] * 2, miktarlar=[[1, 0]] * 2, baglantilar=[(0, 1)], agirliklar=[3]).coz(yol=True)
        page = self.look(
            SuruVisualizer().karar_ciz(
                candidates, task, evidence, self.folder / "d.html", adlar=[f"aday{i}" for i in range(20)], baslik="Bir karar", oyun=game
            )
        )
        for text in ("Bir karar", "aday19"):
            self.assertTrue(text in page, text)

    def test_a_quantized_model(self):
        text, report = self.folder / "text.txt", self.folder / "report.json"
        text.write_text("The old man walked slowly down to the river and looked at the water. " * 600, encoding="utf-8")
        config = KuantizasyonKonfigurasyonu(tur="Q4_0", kalibrasyon_metni=text, rapor=report, hizli=True, dizi_sayisi=1)
        path, info = DinamikKuantizasyon(config).model_kuantize_et(package.DENSE, cikti=self.folder / "small.gguf")
        self.assertEqual({m.tur for m in info["matrisler"]}, {"Q4_0"})
        self.assertTrue(all(m.duz_hata > 0 for m in info["matrisler"]))
        self.assertTrue(0 < info["maliyet"] < 2)
        self.look(MetrikVisualizer().bitler(report, self.folder / "bits.svg"))
        self.look(MetrikVisualizer(dil="en").boyut_kalite([report], self.folder / "sizes.html"))
        plain, info = DinamikKuantizasyon(KuantizasyonKonfigurasyonu(tur="Q8_0")).model_kuantize_et(package.DENSE, cikti=self.folder / "q8.gguf")
        self.assertAlmostEqual(info["bit"], 8.5, delta=0.01)
        with Model(plain) as q, Model(package.DENSE) as f:
            self.assertLess(abs(q.logits("The old man") - f.logits("The old man")).max(), 0.5)
        with self.assertRaisesRegex(DilArgumentError, "Q9"):
            DinamikKuantizasyon(KuantizasyonKonfigurasyonu(tur="Q9")).model_kuantize_et(package.DENSE, cikti=self.folder / "q9.gguf")

    def test_bad_input_is_named(self):
        v = SuruVisualizer()
        for call, kind, name in (
            (lambda: v.ciz(package.SIGIRCIK, self.folder / "x.gif", metin="a"), DilArgumentError, "gif"),
            (lambda: SuruVisualizer(tema="pink").ciz(package.SIGIRCIK, self.folder / "x.svg", metin="a"), DilArgumentError, "pink"),
            (lambda: v.veri_ciz({"positions": [[0], ["a"]]}, self.folder / "x.svg"), DilFormatError, "positions"),
            (lambda: MetrikVisualizer().egitim(["/nowhere.csv"], self.folder / "x.svg"), DilError, "nowhere"),
            (lambda: MetrikVisualizer().egitim("/nowhere.csv", self.folder / "x.svg"), DilArgumentError, "list"),
        ):
            with self.assertRaisesRegex(kind, name):
                call()
            self.assertEqual(list(self.folder.iterdir()), [])


if __name__ == "__main__":
    package.main()
