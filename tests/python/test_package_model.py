"""Language models through the Python package: tokens, logits, generation in every form, being interrupted, and what leaks."""
import asyncio
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import package
import numpy as np
from hypothesis import given, settings, strategies as st

import dilmodeli
from dilmodeli import Answer, DilArgumentError, DilBusyError, DilCancelled, DilFormatError, DilIOError, DilLimitError, Model

PROMPT = "Once upon a time there was"


def resident_bytes():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Text(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.m = Model(package.SIGIRCIK, n_context=512)

    @classmethod
    def tearDownClass(cls):
        cls.m.close()

    @given(st.text(max_size=60))
    @settings(deadline=None, max_examples=60)
    def test_tokens_there_and_back(self, text):
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            return
        ids = self.m.tokenize(text, add_special=False, parse_special=False)
        self.assertEqual(ids.dtype, np.int32)
        self.assertEqual(self.m.detokenize(ids).encode(), raw)

    def test_info(self):
        i = self.m.info
        self.assertGreater(i.n_experts, i.n_experts_used)
        self.assertEqual((i.n_context, i.n_vocab), (512, 8192))
        self.assertEqual(dilmodeli.__version__, subprocess.run([os.environ["DIL_BINARY"], "--version"], capture_output=True, text=True).stdout.split()[-1]
                         if os.path.exists(os.environ.get("DIL_BINARY", "")) else dilmodeli.__version__)

    def test_logits(self):
        ids = self.m.tokenize(PROMPT)
        all_logits = self.m.logits(ids)
        self.assertEqual(all_logits.shape, (len(ids), self.m.info.n_vocab))
        np.testing.assert_array_equal(self.m.next_logits(PROMPT), all_logits[-1])
        np.testing.assert_array_equal(self.m.next_logits(ids[:3]), all_logits[2])
        greedy = self.m.generate(PROMPT, max_tokens=1, temperature=0).text
        self.assertEqual(self.m.detokenize([int(all_logits[-1].argmax())]), greedy)

    def test_generate(self):
        pieces = []
        a = self.m.generate(PROMPT, max_tokens=20, temperature=0, on_text=pieces.append)
        self.assertIsInstance(a, Answer)
        self.assertEqual(("".join(pieces), a.n_generated, a.finish), (a.text, 20, "length"))
        self.assertEqual(str(self.m(PROMPT, max_tokens=20, temperature=0)), a.text)
        self.assertGreater(self.m(PROMPT, max_tokens=2, temperature=0).n_reused, 0)
        same = [self.m.generate(PROMPT, max_tokens=12, temperature=1.0, seed=s).text for s in (5, 5, 6)]
        self.assertEqual(same[0], same[1])
        self.assertNotEqual(same[0], same[2])
        stop = a.text[10:13]
        stopped = self.m.generate(PROMPT, max_tokens=20, temperature=0, stop=stop)
        self.assertEqual((stopped.finish, stopped.text), ("stop", a.text[: a.text.index(stop)]))
        stopped = self.m.generate(PROMPT, max_tokens=20, temperature=0, on_text=lambda _: False)
        self.assertEqual(stopped.finish, "cancelled")

    def test_stream(self):
        whole = self.m.generate(PROMPT, max_tokens=20, temperature=0).text
        self.assertEqual("".join(self.m.stream(PROMPT, max_tokens=20, temperature=0)), whole)
        before = threading.active_count()
        for piece in self.m.stream(PROMPT, max_tokens=-1, temperature=0):
            self.m.tokenize(piece)  # what needs no engine works meanwhile
            with self.assertRaises(DilBusyError):
                self.m.generate(PROMPT)
            break
        gc.collect()
        self.assertEqual(threading.active_count(), before)
        self.assertEqual(self.m.generate(PROMPT, max_tokens=20, temperature=0).text, whole)
        with self.assertRaises(DilArgumentError):
            list(self.m.stream(PROMPT, heat=1))

    def test_async(self):
        async def both():
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.001)

            ticking = asyncio.create_task(tick())
            pieces = [p async for p in self.m.astream(PROMPT, max_tokens=20, temperature=0)]
            answer = await self.m.agenerate(PROMPT, max_tokens=20, temperature=0)
            ticking.cancel()
            endless = asyncio.create_task(self.m.agenerate(PROMPT, max_tokens=-1, temperature=1.0, min_p=0.0))
            await asyncio.sleep(0.05)
            endless.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await endless
            return "".join(pieces), answer.text, ticks

        streamed, text, ticks = asyncio.run(both())
        self.assertEqual(streamed, text)
        self.assertGreater(ticks, 2)

    def test_chat(self):
        messages = [{"role": "user", "content": "Hello"}]
        ids = self.m.chat_tokens(messages)
        self.assertEqual(ids.tolist(), self.m.chat_tokens("Hello").tolist())
        self.assertIn("Hello", self.m.detokenize(ids, special=True))
        answer = self.m.chat(messages, max_tokens=8, temperature=0)
        self.assertEqual("".join(self.m.chat(messages, stream=True, max_tokens=8, temperature=0)), answer.text)
        self.assertEqual(answer.text, self.m.generate(ids, max_tokens=8, temperature=0).text)

    def test_measures(self):
        text = "The old man walked slowly down to the river and looked at the water. " * 40
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder) / "base.kld"
            p = self.m.perplexity(text, n_context=64, n_chunks=3, base=base)
            d = self.m.divergence(base)
        self.assertTrue(1 < p.perplexity < 200 and p.n_chunks == 3)
        self.assertLess(abs(d.mean_kld), 1e-4)
        self.assertGreater(d.same_top, 0.99)
        self.assertAlmostEqual(d.perplexity, p.perplexity, delta=1e-3 * p.perplexity)
        with self.assertRaises(DilCancelled):
            self.m.perplexity(text, n_context=64, progress=lambda *_: False)
        with self.assertRaises(DilLimitError):
            self.m.perplexity("short")

    def test_speed(self):
        s = self.m.bench(n_prompt=64, n_gen=8, n_runs=3)
        self.assertTrue(s.prompt_rate > s.generation_rate > 0)
        self.assertTrue(0 < s.bytes_per_token < self.m.info.packed_bytes + self.m.info.kv_bytes)
        self.assertEqual(self.m.bench(n_prompt=0, n_gen=4).prompt_rate, 0)
        with self.assertRaises(DilCancelled):
            self.m.bench(n_prompt=16, n_gen=0, progress=lambda *_: False)
        with self.assertRaisesRegex(DilArgumentError, "n_runs"):
            self.m.bench(n_runs=0)

    def test_bad_input_is_named(self):
        for call, kind, name in (
            (lambda: self.m.generate(""), DilArgumentError, "token"),
            (lambda: self.m.generate([8192]), DilArgumentError, "8192"),
            (lambda: self.m.generate([1.5]), DilArgumentError, "whole"),
            (lambda: self.m.generate("x", heat=2), DilArgumentError, "heat"),
            (lambda: self.m.logits([1] * 513), DilLimitError, "512"),
            (lambda: Model("/nowhere/x.gguf"), DilIOError, "/nowhere/x.gguf"),
            (lambda: Model(__file__), DilFormatError, "GGUF"),
            (lambda: Model(package.SIGIRCIK, route="far"), DilArgumentError, "far"),
            (lambda: Model(package.SIGIRCIK, kv_type="q3"), DilArgumentError, "q3"),
        ):
            with self.assertRaisesRegex(kind, name):
                call()

    def test_closed(self):
        with Model(package.SIGIRCIK, n_context=64) as m:
            pass
        for use in (lambda: m.info, lambda: m.tokenize("x"), lambda: m.generate("x"), lambda: next(m.stream("x"))):
            with self.assertRaisesRegex(DilArgumentError, "closed"):
                use()
        m.close()

    def test_ten_thousand_calls_leak_nothing(self):
        from dilmodeli.core import NashSuruTeorem, SuruDavranisi
        from dilmodeli.moe import NashSuruMoE

        teorem, suru, layer = NashSuruTeorem(), SuruDavranisi(), NashSuruMoE(32, 4, 2, gizli_boyut=32)
        points, x = np.random.default_rng(0).normal(size=(20, 4)), np.ones((2, 32), np.float32)

        def use():
            teorem.adaptif_karar_ver(points, points[0])
            suru.duzen(points)
            layer(x, return_routing_info=True)
            self.m.detokenize(self.m.tokenize("a few words of text"))
            try:
                self.m.generate([])
            except DilArgumentError:
                pass

        for _ in range(200):
            use()
        gc.collect()
        before = resident_bytes()
        for _ in range(2000):  # five calls each
            use()
        gc.collect()
        self.assertLess(resident_bytes() - before, 1 << 20)

    def test_models_leak_nothing(self):
        def use():
            with Model(package.SIGIRCIK, n_context=64) as m:
                m.generate("x", max_tokens=2)
                next(m.stream("x", max_tokens=4))

        for _ in range(3):
            use()
        gc.collect()
        before = resident_bytes()
        for _ in range(20):
            use()
        gc.collect()
        self.assertLess(resident_bytes() - before, 8 << 20)


class Interrupted(unittest.TestCase):
    def check(self, work):
        script = f"import dilmodeli, sys\nm = dilmodeli.Model({package.SIGIRCIK!r}, n_context=512)\nprint('ready', flush=True)\n{work}\n"
        p = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(p.stdout.readline(), "ready\n")
        time.sleep(0.5)
        p.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, err = p.communicate(timeout=20)
        self.assertLess(time.monotonic() - started, 10)
        self.assertIn("KeyboardInterrupt", err)
        self.assertNotIn("From cffi callback", err)

    def test_generating(self):
        self.check("while True: m.generate('Once', max_tokens=400, temperature=1.0)")

    def test_streaming(self):
        self.check("while True:\n  for p in m.stream('Once', max_tokens=400, temperature=1.0): pass")

    def test_measuring(self):
        self.check("m.perplexity('The old man walked to the river. ' * 200000, n_context=64)")


if __name__ == "__main__":
    package.main()
