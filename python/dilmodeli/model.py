"""Language models: load a GGUF file, generate, chat, look at logits."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ._library import (
    F32,
    I32,
    DilArgumentError,
    DilBusyError,
    Progress,
    Watch,
    as_i32,
    call,
    ffi,
    filled,
    lib,
    path_bytes,
    pointer,
    text_of,
    view_f32,
)

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded model is. Bytes are of the file, of the packed weights and of the KV cache."""

    architecture: str
    n_params: int
    file_bytes: int
    packed_bytes: int
    kv_bytes: int
    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_context_trained: int
    n_context: int
    n_threads: int
    n_experts: int
    n_experts_used: int
    experts_memory: int


@dataclass(frozen=True)
class Answer:
    """A generated text and its figures. ``str(answer)`` is the text."""

    text: str
    finish: str
    """``"end"``, ``"stop"``, ``"length"``, ``"context"`` or ``"cancelled"``."""
    n_prompt: int
    n_reused: int
    """Tokens of the prompt that were computed before."""
    n_generated: int
    prompt_seconds: float
    generate_seconds: float
    first_token_seconds: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Speed:
    """Tokens per second, medians of several runs; ``bytes_per_token``: what one generated token reads."""

    prompt_rate: float
    generation_rate: float
    prompt_deviation: float
    generation_deviation: float
    bytes_per_token: float


@dataclass(frozen=True)
class Perplexity:
    """As llama-perplexity measures it; ``error`` is the standard error."""

    perplexity: float
    error: float
    n_chunks: int
    n_scored: int


@dataclass(frozen=True)
class Divergence:
    """Distance of a model from the one that wrote the base file, in nats per token."""

    mean_kld: float
    kld_error: float
    max_kld: float
    median_kld: float
    same_top: float
    perplexity: float
    base_perplexity: float
    n_scored: int


def model_path(name: str | os.PathLike[str]) -> Path:
    """A file, or the name of a model that ``dil pull`` fetched.

    >>> model_path("some.gguf").name
    'some.gguf'
    """
    path = Path(name)
    if path.exists() or len(path.parts) != 1 or path.suffix:
        return path
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    fetched = Path(home) / "dilmodeli" / f"{path}.gguf"
    return fetched if fetched.exists() else path


def _fields(kind: type, from_struct: Any) -> Any:
    values = {}
    for name in kind.__dataclass_fields__:  # type: ignore[attr-defined]
        value = getattr(from_struct, name)
        values[name] = text_of(value) if isinstance(value, ffi.CData) else value
    return kind(**values)


def engine_options(
    *,
    n_threads: int = 0,
    n_context: int = 0,
    n_sessions: int = 0,
    n_micro_batch: int = 0,
    memory_bytes: int = 0,
    kv_type: str = "f16",
    cpu_level: str = "auto",
    pack_cache: bool = True,
    experts_memory: int | str = 0,
    route: str = "exact",
    route_mass: float = 0.1,
) -> tuple[Any, list[Any]]:
    """``dil_engine_options`` and what must live as long as they are used. Names and defaults as `Model` has them."""
    options = ffi.new("dil_engine_options *", lib.dil_engine_options_default())
    keep = [ffi.new("char[]", kv_type.encode()), ffi.new("char[]", cpu_level.encode())]
    if route not in ("exact", "local", "cache"):
        raise DilArgumentError(f"route: wanted 'exact', 'local' or 'cache', found {route!r}")
    if isinstance(experts_memory, str) and experts_memory != "auto":
        raise DilArgumentError(f"experts_memory: wanted bytes or 'auto', found {experts_memory!r}")
    options.n_threads = n_threads
    options.n_context = n_context
    options.n_sessions = n_sessions
    options.n_micro_batch = n_micro_batch
    options.memory_bytes = memory_bytes
    options.kv_type, options.cpu_level = keep
    options.no_pack_cache = not pack_cache
    options.route_local = route == "local"
    options.route_mass = route_mass if route == "cache" else 0.0
    options.experts_memory = 2**64 - 1 if experts_memory == "auto" else experts_memory
    return options, keep


class Engine:
    """A loaded model: one caller at a time, freed with the object. Base of `Model` and of layers of experts."""

    def __init__(self, path: str | os.PathLike[str], progress: Progress | None = None, **options: Any) -> None:
        self.path = model_path(path)
        own, keep = engine_options(**options)
        out = ffi.new("dil_engine **")
        with Watch(progress) as watch:
            own.progress = watch.progress
            call(lib.dil_engine_open, out, path_bytes(self.path), own)
        self._engine = out[0]
        self._lock = threading.RLock()
        self._finalizer = weakref.finalize(self, _release, self._engine, None)
        del keep

    def _alive(self) -> Any:
        if not self._finalizer.alive:
            raise DilArgumentError(f"{self.path}: the model was closed")
        return self._engine

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return _fields(ModelInfo, filled(lib.dil_engine_info, "dil_model_info", self._alive()))  # type: ignore[no-any-return]

    def close(self) -> None:
        """Frees the model; using it afterwards is an error. Also done when nobody holds the object."""
        with self._lock:
            self._finalizer()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _release(engine: Any, session: Any) -> None:
    if session is not None:
        lib.dil_session_free(session)
    lib.dil_engine_close(engine)


class Model(Engine):
    """A language model.

    Args:
        path: a GGUF file, or the name of a fetched model such as ``"smollm2"``.
        n_threads: 0: one per physical core.
        n_context: tokens; 0: the model's, at most 4096.
        memory_bytes: refuse to take more than this; 0: no limit.
        kv_type: ``"f16"``, ``"f32"``, ``"bf16"``, ``"q8_0"`` or ``"q4_0"``.
        experts_memory: bytes of experts in memory, or ``"auto"``; the rest stays on disk; 0: all in memory.
        route: ``"exact"``, ``"local"`` (the same from fewer bytes) or ``"cache"`` (experts in memory are preferred, up to ``route_mass``).
        progress: told while the model is loaded.

    Raises:
        DilError: of the kind that fits, with the object, what was wanted and what was found.
    """

    def __init__(self, path: str | os.PathLike[str], progress: Progress | None = None, **options: Any) -> None:
        super().__init__(path, progress, **options)
        out = ffi.new("dil_session **")
        try:
            call(lib.dil_session_new, out, self._engine)
        except BaseException:
            self.close()
            raise
        self._session = out[0]
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _release, self._engine, self._session)
        self._streaming: threading.Thread | None = None

    # ---- text and tokens: any thread, any time ----

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> I32:
        """The ids of a text, int32 ``[n]``. ``add_special``: BOS and EOS as the model wants them."""
        raw = text.encode()
        tokens = np.empty(len(raw) + 8, np.int32)
        n = ffi.new("size_t *")
        call(lib.dil_tokenize, self._alive(), raw, len(raw), add_special, parse_special, pointer(tokens), tokens.size, n)
        return tokens[: n[0]].copy()

    def detokenize(self, tokens: Iterable[int] | I32, *, special: bool = False) -> str:
        """The text of ids. ``special``: special tokens are written too."""
        ids = as_i32(tokens if isinstance(tokens, np.ndarray) else list(tokens), "tokens")
        n = ffi.new("size_t *")
        room = 16 * ids.size + 16
        while True:
            text = ffi.new("char[]", room)
            error = ffi.new("dil_error *")
            status = lib.dil_detokenize(self._alive(), pointer(ids), ids.size, special, text, room, n, error)
            if status == lib.DIL_LIMIT and n[0] > room:
                room = int(n[0])
                continue
            if status != lib.DIL_OK:
                call(lambda e: (ffi.memmove(e, error, ffi.sizeof("dil_error")), status)[1])
            return str(ffi.buffer(text, n[0])[:].decode("utf-8", "replace"))

    def is_end(self, token: int) -> bool:
        """Whether this id ends an answer."""
        return bool(lib.dil_token_is_end(self._alive(), token))

    def chat_tokens(self, messages: Messages | str) -> I32:
        """A conversation as the model's template writes it, with the assistant's turn opened: int32 ``[n]``."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        texts = [ffi.new("char[]", str(m[key]).encode()) for m in messages for key in ("role", "content")]
        own = ffi.new("dil_message[]", [{"role": r, "content": c} for r, c in zip(texts[::2], texts[1::2])])
        n = ffi.new("size_t *")
        room = 64 + 16 * len(own) + sum(len(t) for t in texts)
        tokens = np.empty(room, np.int32)
        call(lib.dil_chat_tokens, self._alive(), own, len(own), pointer(tokens), room, n)
        return tokens[: n[0]].copy()

    # ---- logits and measures ----

    def logits(self, tokens: str | Iterable[int] | I32) -> F32:
        """Logits after each token of a text that begins here: float32 ``[n, n_vocab]``."""
        ids = self._ids(tokens)
        with self._own():
            out = np.empty((ids.size, self.info.n_vocab), np.float32)
            call(lib.dil_logits, self._engine, pointer(ids), ids.size, pointer(out))
        return out

    def next_logits(self, tokens: str | Iterable[int] | I32) -> F32:
        """Logits after the last token: float32 ``[n_vocab]``. What was computed before for the same beginning is reused."""
        ids = self._ids(tokens)
        out = ffi.new("const float **")
        with self._own():
            call(lib.dil_session_sync, self._session, pointer(ids), ids.size, out)
            return view_f32(out[0], self.info.n_vocab).copy()

    def perplexity(
        self,
        text: str,
        *,
        n_context: int = 512,
        n_chunks: int = 0,
        base: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Perplexity:
        """Perplexity of a text in chunks. ``base``: a file for `divergence` of other models."""
        raw = text.encode()
        file = ffi.NULL if base is None else ffi.new("char[]", path_bytes(base))
        with self._own(), Watch(progress) as w:
            r = filled(
                lambda *a: lib.dil_perplexity_measure(
                    self._engine, raw, len(raw), n_context, n_chunks, file, w.progress, ffi.NULL, *a
                ),
                "dil_perplexity",
            )
        return _fields(Perplexity, r)  # type: ignore[no-any-return]

    def divergence(self, base: str | os.PathLike[str], *, progress: Progress | None = None) -> Divergence:
        """How far this model is from the one whose `perplexity` wrote ``base``."""
        with self._own(), Watch(progress) as w:
            r = filled(lib.dil_divergence_measure, "dil_divergence", self._engine, path_bytes(base), w.progress, ffi.NULL)
        return _fields(Divergence, r)  # type: ignore[no-any-return]

    def bench(
        self, *, n_prompt: int = 512, n_gen: int = 128, depth: int = 0, n_parallel: int = 1, n_runs: int = 3, progress: Progress | None = None
    ) -> Speed:
        """Speed as ``dil bench`` measures it; the model's context must hold ``depth + n_prompt + n_gen``, and it ``n_parallel`` sessions."""
        w = ffi.new("dil_workload *", lib.dil_workload_default())
        w.n_prompt, w.n_gen, w.depth, w.n_parallel = n_prompt, n_gen, depth, n_parallel
        with self._own(), Watch(progress) as watch:
            r = filled(lib.dil_bench, "dil_speed", self._engine, w, n_runs, watch.progress, ffi.NULL)
        return _fields(Speed, r)  # type: ignore[no-any-return]

    # ---- generation ----

    def generate(self, prompt: str | Iterable[int] | I32, *, on_text: Callable[[str], bool | None] | None = None, **sampling: Any) -> Answer:
        """Continues a text or tokens.

        Args:
            prompt: text (as it is, without a template) or ids.
            on_text: receives the text in pieces as it comes; ``False`` stops.
            max_tokens: 128 by default; negative: until the model ends or the context is full.
            temperature, top_k, top_p, min_p, typical_p, repeat_penalty, penalty_last_n, presence_penalty, frequency_penalty, seed:
                as ``dil run`` has them; temperature 0 is greedy.
            stop: texts that end the answer.
        """
        return self._run(self._ids(prompt), Watch(), on_text, sampling)

    def chat(
        self, messages: Messages | str, *, stream: bool = False, on_text: Callable[[str], bool | None] | None = None, **sampling: Any
    ) -> Any:
        """The assistant's next turn: an `Answer`, or with ``stream`` an iterator of pieces. Arguments as `generate` has them."""
        ids = self.chat_tokens(messages)
        return self.stream(ids, **sampling) if stream else self._run(ids, Watch(), on_text, sampling)

    def stream(self, prompt: str | Iterable[int] | I32, **sampling: Any) -> Iterator[str]:
        """The pieces of text as they come. Leaving the loop stops the model."""
        ids = self._ids(prompt)
        pieces: queue.Queue[Any] = queue.Queue(64)
        watch = Watch()

        def put(piece: Any) -> bool:
            while not watch.stopped:
                try:
                    pieces.put(piece, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                put(self._run(ids, watch, put, sampling))
            except BaseException as e:  # raised where the pieces are read
                put(e)

        thread = threading.Thread(target=work, name="dilmodeli-stream", daemon=True)
        thread.start()
        self._streaming = thread
        try:
            while True:
                piece = pieces.get()
                if isinstance(piece, str):
                    yield piece
                elif isinstance(piece, Answer):
                    return
                else:
                    raise piece
        finally:
            watch.stopped = True
            thread.join()
            self._streaming = None

    async def astream(self, prompt: str | Iterable[int] | I32, **sampling: Any) -> AsyncIterator[str]:
        """`stream` for asyncio: the loop goes on while the model computes."""
        pieces = self.stream(prompt, **sampling)
        end = object()
        try:
            while True:
                piece = await asyncio.to_thread(next, pieces, end)
                if piece is end:
                    return
                yield piece  # type: ignore[misc]
        finally:
            await asyncio.to_thread(pieces.close)  # type: ignore[attr-defined]

    async def agenerate(self, prompt: str | Iterable[int] | I32, **sampling: Any) -> Answer:
        """`generate` for asyncio; cancelling the task stops the model."""
        return await self._aside(self._ids(prompt), sampling)

    async def achat(self, messages: Messages | str, **sampling: Any) -> Answer:
        """`chat` for asyncio; cancelling the task stops the model."""
        return await self._aside(self.chat_tokens(messages), sampling)

    def __call__(self, prompt: str | Iterable[int] | I32, **sampling: Any) -> Answer:
        """`generate`."""
        return self.generate(prompt, **sampling)

    # ---- private ----

    def _ids(self, tokens: str | Iterable[int] | I32) -> I32:
        if isinstance(tokens, str):
            return self.tokenize(tokens)
        ids = as_i32(tokens if isinstance(tokens, np.ndarray) else list(tokens), "tokens")
        return np.ascontiguousarray(ids.reshape(-1))

    def _own(self) -> Any:
        """The engine for this thread alone. A stream that this thread is reading would wait for ever: an error instead."""
        self._alive()
        streaming = self._streaming
        if streaming is not None and streaming is not threading.current_thread() and streaming.is_alive():
            raise DilBusyError(f"{self.path}: a stream is being read; end it first (leave its loop, or close it)")
        return self._lock

    async def _aside(self, ids: I32, sampling: dict[str, Any]) -> Answer:
        watch = Watch()
        task = asyncio.ensure_future(asyncio.to_thread(self._run, ids, watch, None, sampling))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            watch.stopped = True
            await asyncio.wait([task])
            raise

    def _run(self, ids: I32, watch: Watch, on_text: Callable[[str], bool | None] | None, sampling: dict[str, Any]) -> Answer:
        text: list[str] = []

        def receive(piece: str) -> bool | None:
            text.append(piece)
            return on_text(piece) if on_text else None

        if ids.size == 0:
            raise DilArgumentError("prompt: wanted at least one token, found none")
        result = ffi.new("dil_generation_result *")
        with self._own(), watch:
            options, keep = _generation(sampling)
            options.on_text = told = watch.on_text(receive)
            options.progress = watch.progress
            call(lib.dil_generate, self._session, pointer(ids), ids.size, options, result)
        del keep, told
        return Answer(
            "".join(text),
            text_of(result.finish),
            result.n_prompt,
            result.n_reused,
            result.n_generated,
            result.prompt_seconds,
            result.generate_seconds,
            result.first_token_seconds,
        )


def _generation(sampling: dict[str, Any]) -> tuple[Any, list[Any]]:
    """``dil_generation`` from keyword arguments, and what must live as long."""
    options = ffi.new("dil_generation *", lib.dil_generation_default())
    names = {name for name, _ in ffi.typeof("dil_sampling").fields} - {"struct_size"}
    keep: list[Any] = []
    options.max_tokens = 128
    for name, value in sampling.items():
        if name == "max_tokens":
            options.max_tokens = value
        elif name == "stop":
            stops = [value] if isinstance(value, str) else list(value)
            keep += [ffi.new("char[]", s.encode()) for s in stops]
            keep.append(ffi.new("const char *[]", keep[:]))
            options.stops, options.n_stops = keep[-1], len(stops)
        elif name in names:
            setattr(options.sampling, name, value)
        else:
            raise DilArgumentError(f"{name}: wanted max_tokens, stop or one of {', '.join(sorted(names))}; found '{name}'")
    return options, keep
