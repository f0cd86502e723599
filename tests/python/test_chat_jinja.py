"""Chat templates against Jinja2 set up the way Hugging Face's transformers does, and the built-in formats against both.

Templates: those of tests/python/templates; with $DIL_LLAMA_CPP (a llama.cpp source tree) its models/templates/*.jinja;
those inside the models under $XDG_DATA_HOME/dilmodeli, if there are any. Needs jinja2 and tool_chat in
$DIL_BUILD_DIR/bin; ends with 77 (skipped) when one is missing. Prints every template that differs.
"""
import datetime
import difflib
import glob
import json
import os
import struct
import subprocess
import sys
import time
import unittest

try:
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as missing:
    print(f"skipped: {missing}; pip install jinja2")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
TOOL = os.path.join(os.environ.get("DIL_BUILD_DIR", "build"), "bin", "tool_chat")
if not os.path.exists(TOOL):
    print(f"skipped: {TOOL} is not built")
    sys.exit(77)

BOS, EOS = "<s>", "</s>"
OK, FORMAT, LIMIT, BAD_ARGUMENT = 0, 3, 6, 5

# Renders that are known to differ from Jinja2, as "template/conversation": why.
KNOWN_DIFFERENCES = {
    "meetkai-functionary-medium-v3.1/calls": "Markup + str escapes the tool as HTML in Jinja2; we leave it as it is",
}
IDENTICAL_MIN = 195 / 210


class Generation(jinja2.ext.Extension):
    """The {% generation %} tag: its body, rendered in a scope of its own."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    @staticmethod
    def _body(caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


NOW = datetime.datetime.now()  # one moment for all: a test that runs over midnight compares the same day
ENVIRONMENT = environment()


def render_jinja2(source, messages, tools=None, add=True, extra=None, bos=BOS, eos=EOS):
    template = ENVIRONMENT.from_string(source)
    variables = {"documents": None, **(extra or {}), "messages": messages, "tools": tools,
                 "add_generation_prompt": add}
    if bos:
        variables["bos_token"] = bos
    if eos:
        variables["eos_token"] = eos
    return template.render(**variables)


class Tool:
    """tool_chat, kept running."""

    def __init__(self):
        self.process = subprocess.Popen([TOOL], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, mode, source, messages, tools=None, add=True, extra=None, bos=BOS, eos=EOS):
        fields = [mode, source, bos, eos, "1" if add else "0", messages,
                  None if tools is None else json.dumps(tools, ensure_ascii=False),
                  None if extra is None else json.dumps(extra, ensure_ascii=False), "."]
        for field in fields:
            data = None if field is None else field if isinstance(field, bytes) else field.encode()
            self.process.stdin.write(b"-1\n" if data is None else b"%d\n%s" % (len(data), data))
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline().split()
        if len(line) != 3:
            raise RuntimeError(f"tool_chat ended: {self.process.poll()}")
        status, kind, n = int(line[0]), line[1].decode(), int(line[2])
        return status, kind, self.process.stdout.read(n).decode()

    def jinja(self, source, messages, *rest, **options):
        return self.ask("jinja", source, json.dumps(messages, ensure_ascii=False), *rest, **options)

    def plain(self, mode, source, messages, **options):
        pairs = "".join(f"{m['role']}\0{m['content']}\0" for m in messages)
        return self.ask(mode, source, pairs, **options)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


TOOLS = [{"type": "function", "function": {
    "name": "hava_durumu", "description": "Bir şehrin hava durumu <b>&</b> \"derece\"",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Şehir"}, "days": {"type": "integer", "default": 1},
        "units": {"type": "string", "enum": ["C", "F"]}}}}}]
ONE = [{"role": "user", "content": "Merhaba! What is 2 + 2?"}]
FOUR = [
    {"role": "system", "content": "  Sen yardımsever bir asistansın. "},
    {"role": "user", "content": "İstanbul'da \"hava\" nasıl?\n\tİkinci satır 😀 <|x|> {{ 1 }}"},
    {"role": "assistant", "content": "<think>\nBakıyorum.\n</think>\n\n Güneşli, 21.5°C. "},
    {"role": "user", "content": "Peki yarın?\n"}]
CALLS = [
    {"role": "user", "content": "Ankara?"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "abc123xyz", "type": "function", "function": {
        "name": "hava_durumu", "arguments": {"city": "Ankara", "days": 2, "ratio": 0.5, "dry": True, "note": None}}}]},
    {"role": "tool", "tool_call_id": "abc123xyz", "name": "hava_durumu", "content": "{\"derece\": 18}"},
    {"role": "assistant", "content": "Ankara 18 derece."},
    {"role": "user", "content": "Teşekkürler"}]
CONVERSATIONS = {"one": (ONE, None), "four": (FOUR, None), "calls": (CALLS, TOOLS)}


def gguf_template(path):
    """tokenizer.chat_template and the texts of bos and eos of a GGUF file."""
    with open(path, "rb") as f:
        def unpack(format):
            return struct.unpack("<" + format, f.read(struct.calcsize(format)))[0]

        def value(kind):
            if kind == 8:
                return f.read(unpack("Q"))
            if kind == 9:
                item, n = unpack("I"), unpack("Q")
                return [value(item) for _ in range(n)]
            return unpack("BbHhIif?XXQqd"[kind])

        if f.read(4) != b"GGUF":
            return None
        unpack("I"), unpack("Q")
        keys = {}
        for _ in range(unpack("Q")):
            key = f.read(unpack("Q")).decode()
            keys[key] = value(unpack("I"))
    if "tokenizer.chat_template" not in keys:
        return None
    tokens = keys["tokenizer.ggml.tokens"]

    def token(name):
        return tokens[keys[name]].decode() if name in keys else ""
    return (keys["tokenizer.chat_template"].decode(), token("tokenizer.ggml.bos_token_id"),
            token("tokenizer.ggml.eos_token_id"))


def collect(pattern):
    found = {}
    for path in sorted(glob.glob(pattern)):
        with open(path, encoding="utf-8") as f:
            found[os.path.basename(path).removesuffix(".jinja")] = f.read()
    return found


def real_models():
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    found = {}
    for path in sorted(glob.glob(os.path.join(data, "dilmodeli", "*.gguf"))):
        try:
            template = gguf_template(path)
        except (struct.error, OSError, IndexError):
            continue
        if template:
            found[os.path.basename(path)] = template
    return found


OWN = collect(os.path.join(HERE, "templates", "*.jinja"))
PEER = collect(os.path.join(os.environ.get("DIL_LLAMA_CPP", "/nowhere"), "models", "templates", "*.jinja"))


def short_diff(want, got):
    lines = list(difflib.unified_diff(want.splitlines(), got.splitlines(), "jinja2", "ours", n=0, lineterm=""))
    return "\n    ".join(line[:200] for line in lines[:8])


def first_that_renders(source, messages, tools):
    """Jinja2's text and the tools it was made with: templates for tool use want a list where others take none."""
    for choice in (tools, tools or []):
        try:
            return render_jinja2(source, messages, choice), choice
        except Exception:  # anything a template may do
            pass
    return None, tools


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tool = Tool()

    @classmethod
    def tearDownClass(cls):
        cls.tool.close()


class Equality(Case):
    def compare(self, templates):
        """Counts by outcome; prints what differs. -> (counts, names of differences, names where only we fail)"""
        counts, differs, fails = {}, [], []
        for name, source in templates.items():
            for title, (messages, tools) in CONVERSATIONS.items():
                want, tools = first_that_renders(source, messages, tools)
                status, _, got = self.tool.jinja(source, messages, tools)
                full = f"{name}/{title}"
                if want is None:
                    outcome = "both fail" if status != OK else "only Jinja2 fails"
                elif status != OK:
                    outcome = "only we fail"
                    fails.append(full)
                    print(f"  {full}: {got}")
                elif want != got:
                    outcome = "differs"
                    differs.append(full)
                    print(f"  {full}: {KNOWN_DIFFERENCES.get(full, 'unknown difference')}\n    {short_diff(want, got)}")
                else:
                    outcome = "identical"
                counts[outcome] = counts.get(outcome, 0) + 1
        print(f"  {len(templates)} templates, {sum(counts.values())} renders: {counts}")
        return counts, differs, fails

    def test_own_templates(self):
        self.assertGreater(len(OWN), 5)
        counts, differs, fails = self.compare(OWN)
        self.assertEqual((differs, fails), ([], []))
        self.assertGreater(counts["identical"], 2 * len(OWN))

    @unittest.skipUnless(PEER, "needs $DIL_LLAMA_CPP")
    def test_real_templates(self):
        counts, differs, fails = self.compare(PEER)
        self.assertEqual(fails, [])
        self.assertLessEqual(set(differs), set(KNOWN_DIFFERENCES))
        self.assertGreaterEqual(counts["identical"], IDENTICAL_MIN * sum(counts.values()))

    @unittest.skipUnless(real_models(), "no models in the data directory")
    def test_templates_of_real_models(self):
        for name, (source, bos, eos) in real_models().items():
            for title, (messages, tools) in CONVERSATIONS.items():
                with self.subTest(model=name, conversation=title):
                    want = None
                    try:
                        want = render_jinja2(source, messages, tools, bos=bos, eos=eos)
                    except Exception:
                        pass
                    status, kind, got = self.tool.jinja(source, messages, tools, bos=bos, eos=eos)
                    self.assertEqual(kind, "jinja")
                    self.assertEqual(got if status == OK else None, want)

    def test_without_generation_prompt_and_with_extra(self):
        source = "{{ add_generation_prompt }} {{ enable_thinking }} {{ documents }} {{ tools }} {{ missing }}|{{ bos_token }}"
        extra = {"enable_thinking": False, "messages": "no"}
        for add in (True, False):
            status, _, got = self.tool.jinja(source, ONE, add=add, extra=extra, bos="")
            self.assertEqual((status, got), (OK, render_jinja2(source, ONE, add=add, extra=extra, bos="")))


class Builtin(Case):
    def test_equal_to_the_templates(self):
        """The built-in format of each family against its own template: system, user, assistant turns."""
        three = [{"role": "system", "content": "Kısa yaz. "}, {"role": "user", "content": " Selam 😀 "},
                 {"role": "assistant", "content": "Merhaba!"}, {"role": "user", "content": "Adın ne?\n"}]
        pairs = [m for m in three if m["role"] != "system"]
        sources = {**OWN, **{f"peer {k}": v for k, v in PEER.items()},
                   **{k: v[0] for k, v in real_models().items()}}
        kinds = {}
        for name, source in sources.items():
            for messages in (three, pairs, pairs[:1]):
                for add in (True, False):
                    status, kind, got = self.tool.plain("builtin", source, messages, add=add)
                    if status != OK or name.startswith("peer "):
                        continue  # the plain form of a template with many options is not promised
                    try:
                        want = render_jinja2(source, messages, add=add)
                    except jinja2.exceptions.TemplateError:
                        continue  # Gemma 2 refuses a system role
                    want = want.replace(NOW.strftime("%d %b %Y"), "01 Jan 2030")
                    want = want.replace(NOW.strftime("%B %d, %Y"), "January 01, 2030")
                    with self.subTest(template=name, kind=kind, messages=len(messages), add=add):
                        self.assertEqual(got, want)
                    kinds[kind] = kinds.get(kind, 0) + 1
        print(f"  built-in formats compared: {kinds}")
        self.assertGreaterEqual(set(kinds), {"chatml", "llama3", "gemma", "mistral-v1", "mistral-v3", "mistral-v7", "phi3",
                                             "zephyr", "llama2", "command-r", "granite"})

    def test_fallback(self):
        broken = "{% for m in messages %}<|im_start|>{{ m.role }}"
        status, kind, got = self.tool.plain("fallback", broken, ONE)
        self.assertEqual((status, kind), (OK, "chatml"))
        self.assertEqual(got, "<|im_start|>user\nMerhaba! What is 2 + 2?<|im_end|>\n<|im_start|>assistant\n")
        status, _, got = self.tool.jinja(broken, ONE)
        self.assertEqual(status, FORMAT)
        self.assertIn("line 1", got)
        # A template that parses but refuses: the built-in format of its family.
        refuses = "<start_of_turn>{{ raise_exception('no') }}"
        status, kind, got = self.tool.plain("fallback", refuses, FOUR[:2])
        self.assertEqual((status, kind), (OK, "jinja"))
        self.assertTrue(got.startswith("<s><start_of_turn>user\n  Sen"))
        status, kind, got = self.tool.plain("fallback", "", ONE)
        self.assertEqual((status, kind, got), (OK, "plain", ONE[0]["content"]))
        status, kind, got = self.tool.plain("fallback", "{% if", ONE)
        self.assertEqual((status, kind), (OK, "plain"))

    def test_hostile_text_in_messages(self):
        source = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
        bad = b"user\0\xff\xf0\x9f\x98 \"\\\x01\x1f\x7f\n\xed\xa0\x80 ok\0"
        status, _, got = self.tool.ask("fallback", source, bad)
        self.assertEqual(status, OK)
        self.assertIn("\"\\\x01\x1f\x7f\n", got)
        self.assertIn(" ok", got)


class Python(Case):
    """Small things where templates rely on Python's own text forms."""
    EXPRESSIONS = [
        "{{ true }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ 1e-7 }} {{ 10 / 4 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }}",
        "{{ [1, 'a', \"it's\", none, true, {'k': [1.5]}] }} {{ {'a': (1, 2), 'b': (1,)} }}",
        "{{ 'é\\n\\t\\\\' }} {{ ['é\\n\\t\\\\\\x01'] }}",
        "{{ x | tojson }} {{ x | tojson(indent=2) }} {{ x | tojson(separators=(',', ':')) }}",
        "{{ x | tojson(ensure_ascii=True) }} {{ x | tojson(sort_keys=True, indent=4) }} {{ [] | tojson(indent=1) }}",
        "{{ 'a,b,,c'.split(',') }} {{ ' x '.strip() }} {{ 'xxaxx'.strip('x') }} {{ 'abc'[::-1] }} {{ 'abc'[-2:] }}",
        "{{ 'a' in x }} {{ x.items() | list | length }} {{ x.get('zz', 'd') }} {{ x.keys() | join('-') }}",
        "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}"
        "{% if i == 1 %}{% continue %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
        "{% generation %}a{% endgeneration %} {%- generation -%} b {%- endgeneration -%} c\n  {% generation %}\nd\n"
        "  {% endgeneration %}\ne",
        "{{ 'x' | upper }} {{ 'hello world' | title }} {{ 'HELLO' | capitalize }} {{ '  t ' | trim }}!",
        "{{ x | string }} {{ true | string }} {{ 1.5 | string ~ 'a' }} {{ [1,2] | join(', ') }}",
        "{{ ', '.join(['a', 'b']) }} {{ '{} {}'.format(1, 'b') }} {{ '%s-%d' | format('a', 3) }}",
        "{{ [3,1,2] | sort }} {{ [1,2,3] | map('string') | list }} {{ [{'a':1},{'a':2}] | map(attribute='a') | list }}",
        "{{ [{'r':'u'},{'r':'s'}] | selectattr('r', 'equalto', 'u') | list }} {{ [1,2,3] | first }} {{ [1,2,3] | last }}",
        "{{ 'abc'.startswith('a') }} {{ 'abc'.endswith(('b', 'c')) }} {{ 'aXb'.replace('X', '-') }} {{ 'a\\nb'.splitlines() }}",
        "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, b=3) }}",
        "{{ messages[0]['content'] if messages[0] is mapping and messages[0].content is string else 'no' }}",
        "{{ undefined_thing is defined }} {{ undefined_thing | default('d') }} {{ (none) is none }} {{ 3 is odd }}",
        "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.previtem is defined }}{% endfor %}",
        "{%- for k, v in x | dictsort %}{{ k }}={{ v }};{% endfor %} {{ x | length }} {{ 'a' * 3 }} {{ 'abc' | reverse }}",
        "{{ 1 == 1.0 }} {{ '1' == 1 }} {{ [1] + [2] }} {{ 'a' ~ 1 ~ 'b' }} {{ not [] }} {{ 5 | int }} {{ '7' | int + 1 }}",
        "{{ 3.14159 | round(2) }} {{ 2.5 | round | int }} {{ -3 | abs }} {{ [1, 2] | sum }} {{ 12345 | string | length }}",
        "{{ 'tr: İ ı ş' | lower }} {{ 'tr: i ı ş' | upper }} {{ 'ş' | length }} {{ '😀'[0] }}",
    ]
    VARIABLES = {"x": {"b": [1, 2.5, None, True], "a": "é\"\\\n<&'\u2028\x7f😀", "c": {}, "d": 1e16, "e": 0.00001}}

    def test_expressions(self):
        for source in self.EXPRESSIONS:
            with self.subTest(source=source):
                want = render_jinja2(source, ONE, extra=self.VARIABLES)
                status, _, got = self.tool.jinja(source, ONE, extra=self.VARIABLES)
                self.assertEqual((status, got), (OK, want))

    def test_clock(self):
        source = "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %B %Y') }}{{ strftime_now('') }}"
        before = datetime.datetime.now()
        status, _, got = self.tool.jinja(source, ONE)
        self.assertEqual(status, OK)
        self.assertIn(got, [t.strftime("%Y-%m-%d %d %B %Y") for t in (before, datetime.datetime.now())])

    def test_raise_exception_is_told(self):
        status, _, got = self.tool.jinja("a\n\n{{ raise_exception('Rol sırası: ' ~ messages[0].role) }}", ONE)
        self.assertEqual(status, FORMAT)
        self.assertIn("line 3", got)
        self.assertIn("Rol sırası: user", got)


class Hostile(Case):
    TEMPLATES = {
        "endless loop": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "quiet loop": "{% for a in range(100000) %}{% for b in range(100000) %}{% set c = b %}{% endfor %}{% endfor %}",
        "large range": "{% for a in range(1000000000) %}x{% endfor %}",
        "range list": "{{ range(1000000000) | list | length }}",
        "large output": "{% set s = 'x' * 1000000 %}{% for a in range(100000) %}{{ s }}{% endfor %}",
        "doubling": "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "doubling plus": "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "doubling lists": "{% set ns = namespace(s=['x']) %}{% for a in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"
                          "{{ ns.s | length }}{% for a in ns.s %}{% endfor %}",
        "shared lists": "{% set ns = namespace(s=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
        "shared lists joined": "{% set ns = namespace(s=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s ~ 'a' }}",
        "shared lists to json": "{% set ns = namespace(s=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
        "shared lists to string": "{% set ns = namespace(s=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | string }}",
        "shared lists by join": "{% set ns = namespace(s=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ','.join(ns.s) }}",
        "shared lists by filter": "{% set ns = namespace(s=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | join(',') }}",
        "shared lists compared": "{% set ns = namespace(s=['x'], t=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}"
                                 "{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
        "shared lists as key": "{% set ns = namespace(s=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ {ns.s: 1} }}",
        "shared lists sorted": "{% set ns = namespace(s=['x'], t=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}"
                               "{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ [ns.s, ns.t] | sort | length }}",
        "shared lists counted": "{% set ns = namespace(s=['x'], t=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}"
                                "{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ [ns.s].count(ns.t) }}{{ ns.s in [ns.t] }}",
        "shared maps to json": "{% set ns = namespace(s={'x': 1}) %}{% for a in range(50) %}{% set ns.s = {'a': ns.s, 'b': ns.s} %}{% endfor %}{{ ns.s | tojson }}",
        "set block": "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(60) %}{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = t %}{% endfor %}",
        "replace": "{% set s = 'x' * 1000000 %}{{ s.replace('x', s) | length }}",
        "replace filter": "{% set s = 'x' * 1000000 %}{{ s | replace('x', s) | length }}",
        "join method": "{% set s = 'x' * 1000000 %}{{ s.join(range(100000)) | length }}",
        "join items": "{% set s = 'x' * 10000000 %}{{ ''.join([s] * 1000000) | length }}",
        "format width": "{{ '%999999999d' | format(1) }}",
        "format method": "{{ '{:>999999999}'.format(1) }}",
        "format nested": "{{ '{:>{}}'.format(1, 999999999) }}",
        "power": "{{ 10 ** 1000000000 }}",
        "repeat list": "{% for a in [1] * 100000000 %}{% endfor %}",
        "indent": "{{ 'x\\n' * 100000 | indent(100000) }}",
        "json indent": "{{ [[[[1]]]] | tojson(indent=1000000000) }}",
        "center": "{{ 'x' | center(1000000000) }}",
        "batch": "{{ [1] | batch(1000000000, 'x') | list | length }}",
        "slice": "{{ [1] | slice(1000000000) | list | length }}",
        "macro recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "macro tree": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
        "loop recursion": "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "nested parentheses": "{{ " + "(" * 100000 + "1" + ")" * 100000 + " }}",
        "nested lists": "{{ " + "[" * 100000 + "]" * 100000 + " }}",
        "nested not": "{{ " + "not " * 100000 + "1 }}",
        "nested minus": "{{ " + "-" * 100000 + "1 }}",
        "nested if": "{% if 1 %}" * 50000 + "{% endif %}" * 50000,
        "nested for": "{% for a in [1] %}" * 50000 + "{% endfor %}" * 50000,
        "many attributes": "{{ a" + ".b" * 100000 + " }}",
        "many calls": "{{ a" + "()" * 100000 + " }}",
        "many filters": "{{ a" + "|upper" * 100000 + " }}",
        "many elses": "{{ " + "1 if 0 else " * 50000 + "1 }}",
        "many sums": "{{ " + "1+" * 100000 + "1 }}",
        "many powers": "{{ " + "1**" * 100000 + "1 }}",
        "many tildes": "{{ " + "'a'~" * 100000 + "1 }}",
        "deep drop": "{% set ns = namespace(s=[]) %}{% for a in range(90000) %}{% set ns.s = [ns.s] %}{% endfor %}",
        "deep drop print": "{% set ns = namespace(s=[]) %}{% for a in range(90000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
        "deep drop json": "{% set ns = namespace(s=[]) %}{% for a in range(90000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s | tojson }}",
        "deep drop compare": "{% set ns = namespace(s=[], t=[]) %}{% for a in range(90000) %}{% set ns.s = [ns.s] %}{% set ns.t = [ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
        "deep join": "{% set ns = namespace(s=[]) %}{% for a in range(90000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s ~ 'x' }}",
        "include": "{% include '/etc/passwd' %}",
        "import": "{% import 'os' as os %}",
        "attribute escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "debug": "{{ debug() }}",
        "open": "{{ '{% raw %}' }}{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "lipsum": "{{ lipsum(n=100000, min=1000, max=100000) }}",
        "split": "{% set s = 'x,' * 40000000 %}{{ s.split(',') | length }}",
        "unique": "{{ range(90000) | unique | list | length }}",
        "groupby": "{% set l = [{'a': 1}] * 1000000 %}{% for g in l | groupby('a') %}{{ g | length }}{% endfor %}",
        "wide map": "{% for a in range(90000) %}{{ [1] | map('upper') | list }}{% endfor %}",
        "chained maps": "{% set ns = namespace(s=['x']) %}{% for a in range(90000) %}{% set ns.s = ns.s | map('upper') %}{% endfor %}{{ ns.s | list }}",
        "title": "{% set s = 'x ' * 40000000 %}{{ s | title | upper | lower | length }}",
        "slices": "{% set s = 'x' * 40000000 %}{% for a in range(90000) %}{{ s[1:] | length }}{% endfor %}",
        "strips": "{% set s = ' ' * 40000000 %}{% for a in range(90000) %}{{ s.strip() }}{% endfor %}",
        "finds": "{% set s = 'x' * 20000000 %}{% for a in range(90000) %}{{ s.find('y') }}{% endfor %}",
        "lengths": "{% set s = 'x' * 20000000 %}{% for a in range(90000) %}{{ s | length }}{% endfor %}",
        "contains": "{% set s = 'x' * 20000000 %}{% for a in range(90000) %}{{ 'y' in s }}{% endfor %}",
        "equal": "{% set s = 'x' * 20000000 %}{% set t = 'x' * 20000000 %}{% for a in range(90000) %}{{ s == t }}{% endfor %}",
        "counts": "{% set s = 'x' * 20000000 %}{% for a in range(90000) %}{{ s.count('y') }}{% endfor %}",
        "indexes": "{% set s = 'x' * 20000000 %}{% for a in range(90000) %}{{ s[19999999] }}{% endfor %}",
        "isalnums": "{% set s = 'x' * 20000000 %}{% for a in range(90000) %}{{ s.isalpha() }}{% endfor %}",
        "starts": "{% set s = 'x' * 20000000 %}{% for a in range(90000) %}{{ s.startswith(s) }}{% endfor %}",
    }
    SECONDS = 5.0  # a lone thread needs 2 at most

    def test_each_ends_quickly(self):
        slowest = (0.0, "")
        for name, source in self.TEMPLATES.items():
            with self.subTest(template=name):
                start = time.monotonic()
                try:
                    status, _, text = self.tool.jinja(source, ONE)
                except (RuntimeError, BrokenPipeError) as ended:
                    type(self).tool = Tool()
                    self.fail(f"the process ended: {ended}")
                seconds = time.monotonic() - start
                slowest = max(slowest, (seconds, name))
                self.assertLess(seconds, self.SECONDS)
                self.assertIn(status, (OK, FORMAT, LIMIT))
                if status == OK:
                    self.assertLess(len(text), 1 << 20)
                else:
                    self.assertRegex(text, "^chat template: .")
        print(f"  {len(self.TEMPLATES)} hostile templates, slowest {slowest[1]}: {slowest[0]:.2f} s")

    def test_limits_are_said(self):
        for name in ("endless loop", "doubling", "large output"):
            status, _, text = self.tool.jinja(self.TEMPLATES[name], ONE)
            self.assertEqual(status, LIMIT, text)

    def test_bad_json(self):
        for messages in ("[", "nul", "[" * 100000, '{"a":1} x', '["\\ud800"]', "\xff"):
            status, _, text = self.tool.ask("jinja", "{{ messages }}", messages.encode("latin-1"))
            self.assertEqual(status, BAD_ARGUMENT, messages[:20])
            self.assertIn("messages" if messages != "\xff" else "UTF-8", text)

    def test_long_conversations_fit(self):
        source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        messages = [{"role": "user", "content": "kelime " * 200}] * 3000
        status, _, got = self.tool.jinja(source, messages)
        self.assertEqual((status, got), (OK, render_jinja2(source, messages)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
