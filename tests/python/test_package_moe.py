"""Layers of experts, quantizing, pruning, machine and pool through the Python package: the proposal's own lines, and NumPy as the reference."""
import gc
import os
import tempfile
import unittest
from pathlib import Path

import package
import numpy as np
from hypothesis import given, settings, strategies as st

from dilmodeli import DilArgumentError, DilCancelled, DilUnsupportedError
from dilmodeli.core.kayip_fonksiyonu import NashSuruKayipFonksiyonu
from dilmodeli.core.nash_suru_teorem import NashSuruTeorem
from dilmodeli.dosya import AgirlikDosyasi, agirlik_yaz
from dilmodeli.moe.nash_suru_router import NashSuruMoE
from dilmodeli.moe.uzman_havuzu import UzmanHavuzu
from dilmodeli.optimization.bellek_stratejisi import BellekStratejisi
from dilmodeli.optimization.cpu_optimizer import CPUOptimizer
from dilmodeli.quantization.budama_stratejisi import BudamaStratejisi
from dilmodeli.quantization.dinamik_kuantizasyon import DinamikKuantizasyon, KuantizasyonKonfigurasyonu

rng = np.random.default_rng(7)


def draw(*shape):
    return rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(shape[-1]))


def reference(w, x, k):
    """The layer as the public header says it."""
    z = x.astype(np.float64) @ w["router"].T
    chosen = np.argsort(-z, -1, kind="stable")[:, :k]
    top = np.take_along_axis(z, chosen, -1)
    weight = np.exp(top - top[:, :1])
    weight /= weight.sum(-1, keepdims=True)
    y = np.zeros(x.shape)
    for i, (experts, share) in enumerate(zip(chosen, weight)):
        for e, s in zip(experts, share):
            g, u = w["gate"][e].astype(float) @ x[i], w["up"][e].astype(float) @ x[i]
            y[i] += s * (w["down"][e].astype(float) @ (g / (1 + np.exp(-g)) * u))
    return y, chosen, weight


def relative(y, of):
    return float(((y - of) ** 2).sum() / (of**2).sum())


class Experts(unittest.TestCase):
    @given(st.integers(1, 3), st.integers(2, 9), st.integers(1, 20), st.sampled_from(["tam", "yerel"]))
    @settings(deadline=None, max_examples=15)
    def test_is_what_the_header_says(self, k, n_experts, n_rows, way):
        k = min(k, n_experts)
        w = {"router": draw(n_experts, 32), "gate": draw(n_experts, 64, 32), "up": draw(n_experts, 64, 32), "down": draw(n_experts, 32, 64)}
        x = rng.normal(size=(n_rows, 32)).astype(np.float32)
        moe = NashSuruMoE(32, n_experts, k, gizli_boyut=64, agirliklar=w, yonlendirme=way)
        y, info = moe(x, return_routing_info=True)
        wanted, chosen, weight = reference(w, x, k)
        np.testing.assert_allclose(y, wanted, atol=2e-5)
        np.testing.assert_array_equal(info["secilen_uzmanlar"], chosen)
        np.testing.assert_allclose(info["agirliklar"], weight, atol=1e-5)
        self.assertEqual(info["uzman_yuku"].tolist(), np.bincount(chosen.reshape(-1), minlength=n_experts).tolist())
        for name, values in moe.agirliklar().items():
            np.testing.assert_array_equal(values, w[name])

    def test_shapes(self):
        moe = NashSuruMoE(32, 4, 2, gizli_boyut=64)
        x = rng.normal(size=(2, 5, 32))
        y, info = moe(x, return_routing_info=True)
        self.assertEqual((y.shape, info["secilen_uzmanlar"].shape), ((2, 5, 32), (2, 5, 2)))
        np.testing.assert_array_equal(moe(x[1, 3]), y[1, 3])
        self.assertEqual(moe(np.empty((0, 32))).shape, (0, 32))
        self.assertEqual(int(moe.uzman_yuku.sum()), 22)
        for bad in (np.zeros(31), np.float32(1), "x"):
            with self.assertRaises(DilArgumentError):
                moe(bad)

    def test_bad_layers_are_named(self):
        for options, name in (
            ({"top_k": 9}, "n_used"),
            ({"yonlendirme": "hizli"}, "yonlendirme"),
            ({"agirliklar": {"routr": 1}}, "routr"),
            ({"agirliklar": {"router": np.zeros((8, 31))}}, "router"),
        ):
            with self.assertRaisesRegex(DilArgumentError, name):
                NashSuruMoE(32, 8, **options)
        with self.assertRaisesRegex(DilUnsupportedError, "language model"):
            NashSuruMoE.yukle(package.SIGIRCIK)

    def test_temporary_files_go(self):
        moe = NashSuruMoE(32, 4, 2, gizli_boyut=32)
        folder = moe.dosya.parent
        self.assertTrue(folder.exists())
        del moe
        gc.collect()
        self.assertFalse(folder.exists())

    def test_saved_and_loaded(self):
        moe, x = NashSuruMoE(32, 4, 2, gizli_boyut=32), rng.normal(size=(3, 32))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layer.gguf"
            moe.kaydet(path)
            np.testing.assert_array_equal(NashSuruMoE.yukle(path)(x), moe(x))
            self.assertTrue(path.exists())

    def test_experts_on_disk(self):
        moe, x = NashSuruMoE(256, 8, 2, gizli_boyut=512), rng.normal(size=(64, 256))
        small = UzmanHavuzu(4 * 3 * 256 * 512 * 4).kur(moe)
        y, info = small(x, return_routing_info=True)
        np.testing.assert_array_equal(y, moe(x))
        self.assertGreater(info["diskten_okunan"], 0)
        replays = UzmanHavuzu.karsilastir(moe, info, 0.5)
        self.assertEqual(set(replays), {"swarm", "lru", "lfu", "stale", "belady"})
        self.assertTrue(all(r.bulunan <= replays["belady"].bulunan for r in replays.values()))


class Smaller(unittest.TestCase):
    def test_a_layer(self):
        moe, x = NashSuruMoE(64, 4, 2, gizli_boyut=128), rng.normal(size=(500, 64))
        last = 1.0
        for bits in (3, 8):
            small, info = DinamikKuantizasyon(KuantizasyonKonfigurasyonu(bits, 0.0)).model_kuantize_et(moe)
            self.assertLessEqual(info["bit"], bits + 0.6)  # rows of 64 have few formats to choose from
            self.assertLess(small.dosya_bayt, moe.dosya_bayt / (32 / bits) * 1.3)
            error = relative(small(x), moe(x))
            self.assertLess(abs(error - info["maliyet"]), 0.25 * info["maliyet"])
            self.assertLess(error, 0.3 * last)
            self.assertTrue(all(m.hata <= m.duz_hata for m in info["matrisler"]))
            last = error

    def test_pruning_learns_from_what_it_is_told(self):
        moe = NashSuruMoE(64, 2, 1, gizli_boyut=128)
        basis = rng.normal(size=(16, 64)).astype(np.float32)
        x = (rng.normal(size=(1500, 16)) @ basis).astype(np.float32)  # rows of a small space: neurons can make up for others
        small, info = BudamaStratejisi(0.5).uygula(moe, girdiler=x[:1000])
        blind, _ = BudamaStratejisi(0.5).uygula(moe)
        self.assertEqual((info["yapi"], info["budanan"], small.gizli_boyut), (128, 64, 64))
        self.assertLess(relative(small(x[1000:]), moe(x[1000:])), 0.7 * relative(blind(x[1000:]), moe(x[1000:])))

    def test_matrices(self):
        weights = {"a.weight": draw(96, 256), "b.weight": draw(64, 128), "scale": np.ones(5, np.float32)}
        small, info = DinamikKuantizasyon(KuantizasyonKonfigurasyonu(4, 0.0)).model_kuantize_et(weights)
        self.assertEqual(set(small), set(weights))
        self.assertEqual(len(info["matrisler"]), 2)
        for name in ("a.weight", "b.weight"):
            self.assertLess(relative(small[name], weights[name]), 0.02)
        np.testing.assert_array_equal(small["scale"], weights["scale"])
        array, info = DinamikKuantizasyon().model_kuantize_et(weights["a.weight"])
        blocks, before = (np.square(a.reshape(-1, 32)).sum(1) for a in (array, weights["a.weight"]))
        self.assertAlmostEqual(np.mean(blocks < 0.05 * before), 0.3, delta=0.02)
        self.assertEqual(info["budanan"], int(0.3 * len(blocks)))
        folder = small.dosya.parent
        del small
        gc.collect()
        self.assertFalse(folder.exists())

    def test_presets(self):
        for config, bits, share, name in (
            (KuantizasyonKonfigurasyonu.dusuk(), 2, 0.5, "dusuk"),
            (KuantizasyonKonfigurasyonu(), 4, 0.3, "dengeli"),
            (KuantizasyonKonfigurasyonu(bit_genisligi=8, budama_orani_hedefi=0.1), 8, 0.1, "yuksek"),
        ):
            self.assertEqual((config.bit_genisligi, config.budama_orani_hedefi, config.on_ayar), (bits, share, name))
        self.assertIsNone(KuantizasyonKonfigurasyonu(5, 0.1).on_ayar)

    def test_it_stops(self):
        moe = NashSuruMoE(64, 4, 2, gizli_boyut=128)
        with self.assertRaises(DilCancelled):
            DinamikKuantizasyon().model_kuantize_et(moe, ilerleme=lambda *_: False)
        with self.assertRaises(ZeroDivisionError):
            DinamikKuantizasyon().model_kuantize_et(moe, ilerleme=lambda *_: 1 // 0)
        with self.assertRaisesRegex(DilArgumentError, "model"):
            DinamikKuantizasyon().model_kuantize_et(3)
        with self.assertRaisesRegex(DilArgumentError, "bits"):
            DinamikKuantizasyon(KuantizasyonKonfigurasyonu(17)).model_kuantize_et(moe)


class Files(unittest.TestCase):
    @given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    @settings(deadline=None, max_examples=20)
    def test_written_and_read(self, shape):
        values = rng.normal(size=shape).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "f.gguf")
            agirlik_yaz(path, {"çok güzel.weight": values, "b": np.arange(3)})
            with AgirlikDosyasi(path) as f:
                self.assertEqual([(t.ad, t.tur, t.bicim) for t in f.bilgi()][0], ("çok güzel.weight", "F32", tuple(shape)))
                np.testing.assert_array_equal(f["çok güzel.weight"], values)
                self.assertRaises(KeyError, lambda: f["c"])
            self.assertRaises(DilArgumentError, lambda: f["b"])


class Machine(unittest.TestCase):
    def test_plan(self):
        machine = CPUOptimizer.makine()
        self.assertGreaterEqual(machine.mantiksal, machine.cekirdek)
        profile = CPUOptimizer().profil_cikar(package.SIGIRCIK)
        self.assertGreater(profile.uretim_hizi, 0)
        self.assertGreater(profile.toplam_bayt, profile.agirlik_bayt)
        b = profile.gecis_bayt
        self.assertGreaterEqual(b["toplam"] + 1, b["l2"] + b["l3"] + b["bellek"])
        self.assertTrue(16 <= CPUOptimizer().en_iyi_yigin_boyutu(package.SIGIRCIK) <= 1024)
        one = CPUOptimizer().profil_cikar(package.SIGIRCIK, yigin=1)
        self.assertLess(one.istem_hizi, profile.istem_hizi)

    def test_memory(self):
        plan = BellekStratejisi().planla(package.SIGIRCIK)
        self.assertTrue(plan.sigar and plan.uzman_butcesi == 0)
        tight = BellekStratejisi(plan.toplam - plan.uzmanlar // 2)
        small = tight.planla(package.SIGIRCIK)
        self.assertTrue(0 < small.uzman_butcesi < plan.uzmanlar)
        with tight.uygula(package.SIGIRCIK) as m, BellekStratejisi().uygula(package.SIGIRCIK) as whole:
            self.assertEqual(m.info.experts_memory > 0, True)
            text = "The old house stood"
            self.assertEqual(m.generate(text, max_tokens=12, temperature=0).text, whole.generate(text, max_tokens=12, temperature=0).text)


class TheProposal(unittest.TestCase):
    """Its lines as they stand there, but for the import path."""

    def test_four_steps(self):
        x = rng.normal(size=(16, 128)).astype(np.float32)
        model = NashSuruMoE(giris_boyutu=128, uzman_sayisi=8, top_k=2)
        config = KuantizasyonKonfigurasyonu(bit_genisligi=4, budama_orani_hedefi=0.3)
        model, bilgi = DinamikKuantizasyon(config).model_kuantize_et(model)
        model = CPUOptimizer(saniye=1).model_optimizasyonu_uygula(model)
        output, routing_info = model(x, return_routing_info=True)
        self.assertEqual((output.shape, routing_info["secilen_uzmanlar"].shape), ((16, 128), (16, 2)))
        self.assertLess(bilgi["oran"], 0.2)
        self.assertIn("profil_dosyasi", model.optimizasyon_bilgisi)

    def test_default_layer(self):
        x = rng.normal(size=(4, 512))
        moe = NashSuruMoE(giris_boyutu=512, uzman_sayisi=8, top_k=2)
        output, routing_info = moe(x, return_routing_info=True)
        self.assertEqual(output.shape, (4, 512))

    def test_numpy_weights(self):
        model, bilgi = DinamikKuantizasyon().model_kuantize_et({"w": draw(64, 256)})
        model = CPUOptimizer().model_optimizasyonu_uygula(model)
        self.assertEqual((rng.normal(size=(2, 256)) @ model["w"].T).shape, (2, 64))

    def test_loss_and_decision(self):
        tahminler, hedefler = rng.normal(size=(12, 40)), rng.integers(0, 40, 12)
        ek_bilgiler = {"yonlendirici_puanlari": rng.normal(size=(12, 8)), "top_k": 2}
        self.assertGreater(NashSuruKayipFonksiyonu()(tahminler, hedefler, ek_bilgiler), 0)
        secilen_idx, bilgi = NashSuruTeorem().adaptif_karar_ver(rng.normal(size=(8, 4)), np.zeros(4))
        self.assertIn(secilen_idx, bilgi["secilenler"])


if __name__ == "__main__":
    package.main()
