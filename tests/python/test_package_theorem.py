"""The theorem's Python face against NumPy: neighbours, how a flock flies, games, decisions, the loss. Cases are drawn by hypothesis."""
import itertools
import unittest

import package  # noqa: F401  ends the test without the package
import numpy as np
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from dilmodeli import DilArgumentError, DilLimitError
from dilmodeli.core import NashDengesi, NashSuruKayipFonksiyonu, NashSuruTeorem, SuruDavranisi

numbers = st.floats(-100, 100, width=32).map(lambda x: round(x, 3))


@st.composite
def points(draw, least=2, most=24, most_dim=5):
    n, dim = draw(st.integers(least, most)), draw(st.integers(1, most_dim))
    return draw(arrays(np.float32, (n, dim), elements=numbers))


def mutual(x, k):
    """Neighbour lists of the mutual graph, from sorted distances; ties by the lower index."""
    d = ((x[:, None].astype(float) - x[None]) ** 2).sum(-1)
    near = [sorted((j for j in range(len(x)) if j != i), key=lambda j: (d[i, j], j))[:k] for i in range(len(x))]
    return [sorted(set(near[i]) | {j for j in range(len(x)) if i in near[j]}) for i in range(len(x))], np.sqrt(d)


class Flock(unittest.TestCase):
    @given(points(), st.integers(1, 8))
    @settings(deadline=None, max_examples=60)
    def test_neighbours(self, x, k):
        found, far = SuruDavranisi(k).komsular(x), SuruDavranisi(k).uzakliklar(x)
        d = np.sqrt(((x[:, None].astype(float) - x[None]) ** 2).sum(-1))
        np.fill_diagonal(d, np.inf)
        wanted = np.sort(d, 1)[:, : min(k, len(x) - 1)]
        np.testing.assert_allclose(far, wanted, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(np.take_along_axis(d, found.astype(np.int64), 1), wanted, rtol=1e-4, atol=1e-3)

    @given(st.integers(0, 10**6), st.integers(2, 20), st.integers(1, 7))
    @settings(deadline=None, max_examples=60)
    def test_order_and_step(self, seed, n, k):
        rng = np.random.default_rng(seed)
        x, v = rng.normal(size=(n, 3)).astype(np.float32), rng.normal(size=(n, 3)).astype(np.float32)
        graph, d = mutual(x, k)
        mean_v = np.array([v[g].mean(0) for g in graph])
        centre = np.array([x[g].mean(0) for g in graph])
        order = SuruDavranisi(k).duzen(x, v)
        cosine = (v * mean_v).sum(1) / np.linalg.norm(v, axis=1) / np.linalg.norm(mean_v, axis=1)
        np.testing.assert_allclose(order.hizalanma, cosine.mean(), atol=1e-5)
        np.testing.assert_allclose(order.birliktelik, np.linalg.norm(x - centre, axis=1).mean(), rtol=1e-5)
        np.testing.assert_allclose(order.ayrilma, np.mean([d[i, g].min() for i, g in enumerate(graph)]), rtol=1e-5)
        target = np.ones(3)
        push = np.array([sum((x[i] - x[j]) / d[i, j] ** 2 for j in g) for i, g in enumerate(graph)])
        new_v = v + 0.5 * (mean_v - v) + 0.1 * (centre - x) + 0.2 * push + 0.3 * (target - x)
        speed = np.linalg.norm(new_v, axis=1, keepdims=True)
        new_v *= np.minimum(1, 1.5 / speed)
        before = x.copy()
        got_x, got_v = SuruDavranisi(k, hizalanma=0.5, birliktelik=0.1, ayrilma=0.2, cekim=0.3, en_buyuk_hiz=1.5).adim(x, v, target)
        np.testing.assert_allclose(got_v, new_v, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(got_x, x + new_v, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(x, before)

    def test_bad_input_is_named(self):
        for bad, name in (([[1.0], [float("nan")]], "finite"), ("text", "konumlar"), ([1.0], "konumlar")):
            with self.assertRaisesRegex(DilArgumentError, name):
                SuruDavranisi().komsular(bad)


@st.composite
def games(draw):
    n = draw(st.integers(1, 5))
    sizes = [draw(st.integers(1, 3)) for _ in range(n)]
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    pairs = [p for p in itertools.combinations(range(n), 2) if rng.random() < 0.6]
    lists = [[rng.normal(size=s) for s in sizes] for _ in range(2)] + [[rng.random(s) for s in sizes]]
    return NashDengesi(lists[0], kullanimlar=lists[2], miktarlar=lists[1], baglantilar=pairs, agirliklar=rng.normal(size=len(pairs))), sizes, lists[2]


class Game(unittest.TestCase):
    @given(games(), st.floats(0, 2))
    @settings(deadline=None, max_examples=100)
    def test_settled_is_an_equilibrium(self, case, price):
        game, sizes, _ = case
        r = game.coz(price, yol=True)
        phi = game.potansiyel(r.stratejiler, price)
        self.assertTrue(r.oturdu)
        self.assertAlmostEqual(phi, r.potansiyel, places=5)
        self.assertTrue(all(b <= a + 1e-9 for a, b in zip(r.potansiyel_yolu, r.potansiyel_yolu[1:])))
        for i, size in enumerate(sizes):  # an exact potential: nobody gains alone exactly when no single change lowers it
            for s in range(size):
                other = r.stratejiler.copy()
                other[i] = s
                self.assertGreaterEqual(game.potansiyel(other, price), phi - 1e-5)

    @given(games(), st.floats(0.1, 1.0))
    @settings(deadline=None, max_examples=60)
    def test_a_budget_holds(self, case, share):
        game, sizes, use = case
        least, most = sum(u.min() for u in use), sum(u.max() for u in use)
        budget = least + share * (most - least) + 1e-9
        r = game.butceye_sigdir(budget)
        self.assertLessEqual(r.kullanim, budget + 1e-9)
        states = list(itertools.product(*map(range, sizes)))
        feasible = [game.potansiyel(np.array(s)) for s in states if sum(u[i] for u, i in zip(use, s)) <= budget]
        self.assertGreaterEqual(r.maliyet, min(feasible) - 1e-5)
        self.assertLessEqual(r.maliyet, np.median(feasible) + 1e-5)
        if r.alt_sinir > -np.inf:
            self.assertLessEqual(r.alt_sinir, min(feasible) + 1e-6)

    def test_bad_games_are_named(self):
        with self.assertRaisesRegex(DilArgumentError, "kullanimlar"):
            NashDengesi([[0, 1]], kullanimlar=[[0]])
        with self.assertRaisesRegex(DilArgumentError, "two players"):
            NashDengesi([[0], [1]], miktarlar=[[1], [1]], baglantilar=[(0, 2)]).coz()
        with self.assertRaises(DilLimitError):
            NashDengesi([[0, 1]], kullanimlar=[[2, 3]]).butceye_sigdir(1)


class Decision(unittest.TestCase):
    @given(points(least=1, most=60))
    @settings(deadline=None, max_examples=80)
    def test_the_nearest_is_chosen(self, x):
        task = x.mean(0) + np.float32(0.5)
        chosen, evidence = NashSuruTeorem().adaptif_karar_ver(x, task)
        deviation = x.astype(float).std(0)
        weight = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1) ** 2, 0)
        far = np.sqrt((weight * (x.astype(float) - task) ** 2).sum(1))
        self.assertLessEqual(far[chosen], far.min() + 1e-4 * (1 + far.min()))
        self.assertTrue(evidence["kesin"])
        self.assertGreaterEqual(evidence["pismanlik"].min(), -1e-9)
        np.testing.assert_allclose(evidence["uzakliklar"], np.sort(far)[: len(evidence["uzakliklar"])], rtol=1e-4, atol=1e-4)

    def test_the_proposals_calls(self):
        rng = np.random.default_rng(1)
        aday_birimleri, hedef_gorev = rng.normal(size=(64, 16)), rng.normal(size=16)
        teorem = NashSuruTeorem()
        secilen_idx, bilgi = teorem.adaptif_karar_ver(aday_birimleri, hedef_gorev)
        grup = teorem.lokal_grup_sec(aday_birimleri, hedef_gorev)
        denge, kanit = teorem.nash_dengesi_hesapla(grup, hedef_gorev)
        self.assertEqual(len(grup), 7)
        self.assertIn(secilen_idx, list(grup))
        self.assertEqual(denge.tolist(), [secilen_idx])
        self.assertEqual(bilgi["secilenler"].tolist(), kanit["secilenler"].tolist())

    def test_alike_candidates_give_way(self):
        candidates = [[1.0, 0.0], [1.01, 0.0], [0.0, 1.05], [-3.0, -3.0]]
        alone = NashSuruTeorem(secim_sayisi=2).adaptif_karar_ver(candidates, [0.9, 0.3])[1]
        spread = NashSuruTeorem(secim_sayisi=2, ortusme=1.0).adaptif_karar_ver(candidates, [0.9, 0.3])[1]
        self.assertEqual(sorted(alone["secilenler"].tolist()), [0, 1])
        self.assertEqual(sorted(spread["secilenler"].tolist()), [0, 2])


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Loss(unittest.TestCase):
    def test_terms(self):
        rng = np.random.default_rng(3)
        logits, targets = rng.normal(size=(2, 9, 30)), rng.integers(0, 30, (2, 9))
        z, k = rng.normal(size=(2, 9, 8)), 2
        chosen = np.argsort(-z, -1)[..., :k]
        loss = NashSuruKayipFonksiyonu(0.3, 0.2, 0.0, 0.0)(logits, targets, {"yonlendirici_puanlari": z, "top_k": k}, gradyan=True)
        nll = -np.log(np.take_along_axis(softmax(logits), targets[..., None], -1)).mean()
        f = np.bincount(chosen.reshape(-1), minlength=8) / chosen.size
        balance = 8 * (f * softmax(z).reshape(-1, 8).mean(0)).sum()
        self.assertAlmostEqual(loss.terimler["capraz_entropi"], nll, places=5)
        self.assertAlmostEqual(loss.terimler["denge"], balance, places=5)
        self.assertAlmostEqual(float(loss), nll + 0.3 * balance - 0.2 * loss.terimler["onbellek"], places=5)
        self.assertAlmostEqual(loss.terimler["ihlal"], f.max() * 8 - 1, places=5)
        wanted = (softmax(logits) - np.eye(30)[targets]) / 18
        np.testing.assert_allclose(loss.tahmin_gradyani, wanted, atol=1e-6)
        self.assertEqual(loss.yonlendirici_gradyani.shape, z.shape)

    def test_bad_input_is_named(self):
        loss = NashSuruKayipFonksiyonu()
        for arguments, name in (
            ((np.zeros((2, 3)), [0]), "hedefler"),
            ((np.zeros((2, 3)), [0, 3]), "targets"),
            ((np.zeros((2, 3)), [0, 1], {"puan": 1}), "puan"),
            ((np.zeros((2, 3)), [0.5, 1]), "whole numbers"),
        ):
            with self.assertRaisesRegex(DilArgumentError, name):
                loss(*arguments)


if __name__ == "__main__":
    package.main()
