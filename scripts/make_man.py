#!/usr/bin/env python3
"""Man pages: dil(1) and dil-COMMAND(1) for every command, from what `dil help --json` says, by way of scdoc.

    make_man.py --binary DIL --output share/man [--sources FOLDER]

Writes man1/*.1 in English and, when the command has its Turkish texts, tr/man1/*.1. --sources keeps what scdoc is given.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

# Pages that lead to each other; a command of no group leads to dil(1).
GROUPS = [
    "run chat show plan",
    "show check plan tokenize",
    "tokenize detokenize",
    "eval-perplexity eval-kld eval-hellaswag eval-logits eval-outputs bench",
    "eval-outputs eval-bleu run",
    "quantize calibrate refine prune eval-kld",
    "train export quantize view",
    "import show run",
    "pull list rm",
    "route trace view",
    "tune plan bench",
]
TEXTS = {
    "en": {
        "title": "language models on ordinary CPUs",
        "headings": "NAME SYNOPSIS DESCRIPTION OPTIONS ENVIRONMENT|EXIT STATUS|FILES EXAMPLES|SEE ALSO|COMMANDS",
        "synopsis": "dil COMMAND [OPTIONS]",
        "about": "dil loads language models in GGUF files and runs, measures, converts, shrinks and trains them. Each command has a page "
        "of its own. Text goes to standard output, figures and progress to standard error; errors read: dil: what: wanted, found; hint.",
        "common": "Every command knows these, and --lang may stand in front of the command, too:",
        "version": "the version",
        "json": "with the word help instead of a command: all commands and options as JSON",
        "DIL_LANG": "The language of messages, tr or en, unless --lang says another. Without both: LC_ALL, LC_MESSAGES or LANG.",
        "DIL_ARG": "Every option may be set by a variable of its name, DIL_ARG_CTX_SIZE=2048 for --ctx-size 2048. The command line comes first.",
        "XDG": "Where models and what can be made again are kept; ~/.local/share and ~/.cache when they are not set.",
        "exit": [
            ("0", "what was asked for is done"),
            ("1", "it could not be done, or a check found defects"),
            ("2", "the question was not understood"),
        ],
        "models": "models by their names, plain files",
        "packed": "packed weights, about as large as the models; may be deleted at any time",
        "profiles": "tuned settings of models on this machine",
        "machine": "what this machine can do, measured once",
        "history": "lines typed in earlier conversations",
        "work": "what an interrupted run has left for --resume, beside the file OUT",
        "catalog": "Turkish texts, relative to the folder of the program",
        "first": ["dil pull smollm2", "dil chat -m smollm2"],
    },
    "tr": {
        "title": "sıradan işlemcilerde dil modelleri",
        "headings": "AD KULLANIM AÇIKLAMA SEÇENEKLER ORTAM|ÇIKIŞ DURUMU|DOSYALAR ÖRNEKLER|AYRICA BAKINIZ|KOMUTLAR",
        "synopsis": "dil KOMUT [SEÇENEKLER]",
        "about": "dil, GGUF dosyalarındaki dil modellerini yükler; çalıştırır, ölçer, dönüştürür, küçültür ve eğitir. Her komutun kendi sayfası "
        "vardır. Metin standart çıktıya, rakamlar ve ilerleme standart hataya yazılır; hatalar şöyledir: dil: ne: beklenen, bulunan; ipucu.",
        "common": "Bunları her komut bilir; --lang komutun önünde de durabilir:",
        "version": "sürüm",
        "json": "komut yerine help sözcüğüyle: bütün komutlar ve seçenekler JSON olarak",
        "DIL_LANG": "İletilerin dili, tr ya da en; --lang başkasını söylemedikçe. İkisi de yoksa: LC_ALL, LC_MESSAGES ya da LANG.",
        "DIL_ARG": "Her seçenek kendi adındaki bir değişkenle de verilebilir: --ctx-size 2048 yerine DIL_ARG_CTX_SIZE=2048. Komut satırı önce gelir.",
        "XDG": "Modellerin ve yeniden yapılabileceklerin durduğu yer; tanımlı değillerse ~/.local/share ve ~/.cache.",
        "exit": [
            ("0", "istenen yapıldı"),
            ("1", "yapılamadı ya da bir denetim kusur buldu"),
            ("2", "soru anlaşılmadı"),
        ],
        "models": "adlarıyla modeller, düz dosyalar",
        "packed": "paketlenmiş ağırlıklar, modeller kadar yer tutar; her an silinebilir",
        "profiles": "modellerin bu makinedeki ayar profilleri",
        "machine": "bu makinenin neler yapabildiği, bir kez ölçülür",
        "history": "önceki sohbetlerde yazılan satırlar",
        "work": "yarıda kesilmiş bir koşunun --resume için, ÇIKTI dosyasının yanında bıraktığı",
        "catalog": "Türkçe metinler, programın klasörüne göre",
        "first": ["dil pull smollm2", "dil chat -m smollm2"],
    },
}
CAPITALS = "A-ZÇĞİÖŞÜ"


def escape_within(text):
    return re.sub(r"([\\*_`~])", r"\\\1", text)


def escape(text):
    """A line or less that scdoc prints as it is."""
    return re.sub(r"^([#.'|\[\]-])", r"\\\1", escape_within(text))


def styled(text):
    """Usage: words and options bold, what stands for something underlined, values of options (F16) and signs as they are."""
    tokens = rf"(--?[a-z][\w-]*)|(\b[A-Z]+\d\w*)|([{CAPITALS}][{CAPITALS}_]+|\b[A-Z]\b)|([a-z][\w.]*)|(.)"
    out = ""
    for match in re.finditer(tokens, text):
        option, value, name, word, sign = map(escape_within, (g or "" for g in match.groups()))
        out += f"*{option or word}*" if option or word else f"_{name}_" if name else value or sign
    return out


def page_name(command):
    return "dil-" + command.replace(" ", "-")


class Page:
    def __init__(self, name, version, words):
        self.words = words
        flat = words["headings"].split("|")
        first, files, *last = flat[0].split(" "), flat[2].split(" "), *flat[3:]
        self.heading = dict(zip(("name", "synopsis", "description", "options", "environment"), first))
        self.heading |= {"exit": flat[1], "files": files[0], "examples": files[1], "also": last[0], "commands": last[1]}
        self.lines = [f'{name}(1) "dil {version}" "DilModeli"']

    def section(self, key):
        self.lines += ["", "# " + self.heading[key], ""]

    def text(self, paragraphs):
        self.lines += ["\n\n".join("\n".join(escape(ln) for ln in p.split("\n")) for p in paragraphs)]

    def item(self, head, body):
        """head: already in scdoc's language."""
        self.lines += [head, "\t" + escape(body), ""]

    def option(self, o):
        names = ([f"*-{escape(o['alias'])}*"] if o["alias"] else []) + [f"*--{escape(o['name'])}*"]
        argument = f" _{escape(o['argument'])}_" if o["argument"] else ""
        self.item(", ".join(names) + argument, o["help"])

    def environment(self, files):
        self.section("environment")
        self.item("*DIL\\_LANG*", self.words["DIL_LANG"])
        self.item("*DIL\\_ARG\\_*...", self.words["DIL_ARG"])
        if files:
            self.item("*XDG\\_DATA\\_HOME*, *XDG\\_CACHE\\_HOME*", self.words["XDG"])

    def exit(self):
        self.section("exit")
        for code, meaning in self.words["exit"]:
            self.item(f"*{code}*", meaning)

    def files(self, files):
        self.section("files")
        for path, key in files:
            self.item(f"_{escape(path)}_", self.words[key])

    def examples(self, lines):
        self.section("examples")
        self.lines += ["```", *lines, "```"]

    def also(self, names):
        self.section("also")
        self.lines += [", ".join(f"*{escape(n)}*(1)" for n in names)]

    def source(self):
        return "\n".join(self.lines).rstrip() + "\n"


def files_of(command, options):
    data, cache = "$XDG_DATA_HOME/dilmodeli/", "$XDG_CACHE_HOME/dilmodeli/"
    out = []
    if "model" in options or command in ("pull", "list", "rm", "quantize", "prune", "refine", "import"):
        out.append((data, "models"))
    if "no-pack-cache" in options:
        out.append((cache + "packed/", "packed"))
    if "no-profile" in options or command == "tune":
        out.append((cache + "profiles/", "profiles"))
    if command in ("tune", "plan", "quantize"):
        out.append((cache + "machine/", "machine"))
    if command == "chat":
        out.append((data + "chat_history", "history"))
    if "resume" in options and command != "train":
        out.append(("OUT.work/", "work"))
    return out


CATALOG = ("../share/locale/tr/LC_MESSAGES/dil.mo", "catalog")


def command_page(c, version, words):
    first, *rest = c["summary"].split("\n\n")
    name = page_name(c["name"])
    page = Page(name, version, words)
    page.section("name")
    page.lines += [f"{name} - {escape(first.split(chr(10))[0].rstrip('.'))}"]
    page.section("synopsis")
    page.lines += [styled("dil " + re.sub(r"\s+", " ", c["usage"]))]
    page.section("description")
    page.text([first, *rest])
    page.section("options")
    for option in c["options"]:
        page.option(option)
    files = files_of(c["name"], {o["name"] for o in c["options"]})
    page.environment(files)
    page.exit()
    page.files([*files, CATALOG])
    page.examples([ln.strip() for ln in c["example"].split("\n")])
    page.also(["dil", *sorted({page_name(w) for g in GROUPS if name[4:] in g.split() for w in g.split()} - {name})])
    return name, page.source()


def overview_page(data, words):
    page = Page("dil", data["version"], words)
    page.section("name")
    page.lines += [f"dil - {words['title']}"]
    page.section("synopsis")
    page.lines += [styled(words["synopsis"])]
    page.section("description")
    page.text([words["about"]])
    page.section("commands")
    for c in data["commands"]:
        page.item(f"*{escape(page_name(c['name']))}*(1)", c["summary"].split("\n")[0])
    page.section("options")
    page.text([words["common"]])
    page.lines += [""]
    for option in [o for o in data["commands"][0]["options"] if o["name"] in ("lang", "help")]:
        page.option(option)
    page.item("*--version*", words["version"])
    page.item("*help --json*", words["json"])
    files = files_of("chat", {"model", "no-pack-cache", "no-profile"})
    page.environment(files)
    page.exit()
    page.files([*files, ("$XDG_CACHE_HOME/dilmodeli/machine/", "machine"), CATALOG])
    page.examples(words["first"])
    page.also([page_name(c["name"]) for c in data["commands"]])
    return "dil", page.source()


def copyable(roff):
    """Options and examples with the minus that a shell understands, where formatters would set a hyphen."""
    out, verbatim = [], False
    for line in roff.split("\n"):
        verbatim = line == ".nf" or (verbatim and line != ".fi")
        if line.startswith("."):
            out.append(line)
        elif verbatim:
            out.append(re.sub(r"(?<!\\)-", r"\\-", line))
        else:
            option = r"(?:(?<=\\fB)|(?<![\w\\-]))--?[a-z][\w-]*"
            out.append(re.sub(option, lambda m: m.group(0).replace("-", "\\-"), line))
    return "\n".join(out)


def write(pages, folder, sources):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("dil*.1"):  # a command that is gone
        old.unlink()
    for name, source in pages:
        if sources:
            sources.mkdir(parents=True, exist_ok=True)
            (sources / f"{name}.1.scd").write_text(source, encoding="utf-8")
        done = subprocess.run(["scdoc"], input=source.encode(), capture_output=True)
        if done.returncode:
            raise SystemExit(f"{name}: scdoc: {done.stderr.decode()}")
        (folder / f"{name}.1").write_text(copyable(done.stdout.decode()), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--sources", type=pathlib.Path)
    args = parser.parse_args()
    for language, below in (("en", "."), ("tr", "tr")):
        done = subprocess.run([args.binary, "--lang", language, "help", "--json"], capture_output=True, check=True)
        data = json.loads(done.stdout)
        if data["language"] != language:
            print(f"man pages: {args.binary} has no texts in '{language}': none in that language")
            continue
        words = TEXTS[language]
        pages = [overview_page(data, words), *(command_page(c, data["version"], words) for c in data["commands"])]
        write(pages, args.output / below / "man1", args.sources / below if args.sources else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
