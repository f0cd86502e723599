"""Tables and verdicts of proposal_table.py, from the rows it has measured: nothing here runs anything."""
import math
import statistics

from compare import median_interval

OURS, FITTED = "ours", "fitted"  # of as many bits as asked for; as large as promised
Z = 1.96  # of a 95 % interval

# What was promised, and of the figures of a file which one it is about, with its interval; at most or at least the limit.
SIZE_LIMIT, PERPLEXITY_LIMIT = 20.0, 2.0
PROMISES = [
    ("file of at most 20 % of F32", "size", "most", SIZE_LIMIT),
    ("perplexity at most 2 % higher than F32's", "perplexity", "most", PERPLEXITY_LIMIT),
    ("decode at least 4 times F32", "answer", "least", 4.0),
    ("decode at least 2.7 times F32 (+167 %)", "answer", "least", 2.7),
    ("throughput of several answers at once at least 2.7 times F32", "many", "least", 2.7),
    ("memory at least 40 % less than F32 (40 to 60 %)", "memory", "most", -40.0),
    ("memory at least 65 % less than F32 (500 to 175 MB)", "memory", "most", -65.0),
]
BLEU_LIMIT = -1.6


# ---- figures from rows -------------------------------------------------------------------------------------------------------

def collect(rows):
    """{model: {"class", "files": {file: figures}}}, in the order of the rows; speeds as lists, one of every round."""
    found = {}
    for r in rows:
        model = found.setdefault(r["model"], {"class": r["class"], "files": {}})
        if r["kind"] == "speed":
            for file, speeds in sorted(r["speeds"].items()):
                for name, value in speeds.items():
                    model["files"].setdefault(file, {}).setdefault(name, []).append(value)
            continue
        figures = model["files"].setdefault(r["file"], {})
        if r["kind"] == "bleu":
            figures.setdefault("bleu", []).append({k: r[k] for k in ("task", "language", "same", "float", "score", "difference")})
        elif r["kind"] in ("memory", "perplexity"):
            figures.update({k: v for k, v in r.items() if k not in ("key", "model", "class", "kind", "file")})
    return {name: m for name, m in found.items() if any(m["files"].values())}


def ratio(figures, base, name):
    """(median, low, high) of the rounds' ratios, or None."""
    if name not in figures or name not in base:
        return None
    return median_interval([a / b for a, b in zip(figures[name], base[name])])[:3]


def change(figures, base):
    """Change of perplexity in %, with the interval of two files on the same words. The ratio that dil eval kld prints is not taken: saved
    probabilities end at e^-16 of the largest, which flatters F32 by tenths of a per cent where a word came as a surprise."""
    r, e = math.log(figures["perplexity"] / base["perplexity"]), Z * figures["log_ratio_error"]
    return tuple(100 * math.expm1(x) for x in (r, r - e, r + e))


def score_of(estimate):
    return estimate["score"], estimate["low"], estimate["high"]


def change_of_bleu(bleu):
    """Change beside the truth in % of the float model's score, or None: that has none."""
    whole = bleu["float"]["score"]
    return tuple(100 * x / whole for x in score_of(bleu["difference"])) if whole > 0 else None


def per_cent(part, whole):
    return 100 * part / whole


def small_file(files):
    """The file the promises are about."""
    return FITTED if FITTED in files else "Q4_K"


# ---- verdicts ----------------------------------------------------------------------------------------------------------------

def judge(value, low, high, direction, limit):
    """By the value; an interval with the limit inside leaves it in doubt."""
    holds = value <= limit if direction == "most" else value >= limit
    doubt = low < limit < high
    return ("holds" if holds else "miss") + (", within the noise" if doubt else "")


def measured(figures, base, name):
    """(value, low, high) of a promise's figure, or None where it was not measured."""
    if name == "size" and "bytes" in figures and "bytes" in base:
        value = per_cent(figures["bytes"], base["bytes"])
    elif name == "memory" and "rss" in figures and "rss" in base:
        value = per_cent(figures["rss"], base["rss"]) - 100
    elif name == "perplexity" and "perplexity" in figures and "perplexity" in base:
        return change(figures, base)
    elif name in ("answer", "many"):
        return ratio(figures, base, name)
    else:
        return None
    return value, value, value


SHOWN = {"size": "{:.1f} %", "memory": "{:+.1f} %", "perplexity": "{:+.2f} %", "answer": "{:.2f}", "many": "{:.2f}"}


def with_interval(pattern, value, low, high):
    text = pattern.format(value)
    return text if low == high else f"{text} [{pattern.format(low)}, {pattern.format(high)}]"


def verdict(model, promise, shown, result):
    return {"model": model, "promised": promise, "measured": shown, "verdict": result}


def both_at_once(model, figures, base):
    """Small and good is one promise: either alone is easy."""
    size, quality = measured(figures, base, "size"), measured(figures, base, "perplexity")
    if not size or not quality:
        return []
    results = [judge(*size, "most", SIZE_LIMIT), judge(*quality, "most", PERPLEXITY_LIMIT)]
    result = min(results, key=["miss", "miss, within the noise", "holds, within the noise", "holds"].index)
    shown = f"{with_interval(SHOWN['size'], *size)} at {with_interval(SHOWN['perplexity'], *quality)}"
    return [verdict(model, "file of at most 20 % of F32 at a perplexity at most 2 % higher", shown, result)]


def verdicts_of_bleu(model, bleu, of_f16):
    """of_f16: the same of F16, as a yardstick: greedy answers part for good at the first word that differs."""
    out = []
    yardstick = {(b["task"], b["language"]): f" (F16: {b['same']['score']:.2f})" for b in of_f16}
    for b in bleu:
        where = f"{b['task']}, {b['language']}"
        same = score_of(b["same"])
        out.append(verdict(model, f"BLEU within 1.6 % of F32, its answers as reference ({where})",
                           with_interval("{:.2f}", *same) + yardstick.get((b["task"], b["language"]), ""), judge(*same, "least", 100 + BLEU_LIMIT)))
        changed = change_of_bleu(b)
        if changed:
            out.append(verdict(model, f"BLEU within 1.6 % of F32's, right answers as reference ({where})", with_interval("{:+.2f} %", *changed),
                               judge(*changed, "least", BLEU_LIMIT)))
    return out


def verdicts(found):
    out = []
    for name, model in found.items():
        small = small_file(model["files"])
        base, figures = model["files"].get("F32", {}), model["files"].get(small, {})
        both = both_at_once(name, figures, base)
        out += both
        for promise, key, direction, limit in PROMISES:
            value = measured(figures, base, key)
            if value and not (both and key in ("size", "perplexity")):
                out.append(verdict(name, promise, with_interval(SHOWN[key], *value), judge(*value, direction, limit)))
        out += verdicts_of_bleu(name, figures.get("bleu", []), model["files"].get("F16", {}).get("bleu", []))
    return out


# ---- tables ------------------------------------------------------------------------------------------------------------------

def lines_of(head, rows):
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(r) + " |" for r in rows)]


def file_name(file, bits):
    return {OURS: f"ours, {bits:g} bits", FITTED: f"ours, {SIZE_LIMIT:g} % of F32"}.get(file, file)


def cell_bytes(figures, base, key):
    if key not in figures:
        return ""
    return f"{figures[key] / 1e6:.1f}" + (f" ({per_cent(figures[key], base[key]):.0f} %)" if key in base else "")


def cell_speed(figures, files, name):
    """Median; how many times F32's and F16's."""
    if name not in figures:
        return ""
    value = statistics.median(figures[name])
    times = [ratio(figures, files.get(f, {}), name) for f in ("F32", "F16")]
    return f"{value:.{0 if value >= 100 else 1}f} (" + "; ".join(with_interval("{:.2f}", *t) if t else "-" for t in times) + ")"


def cell_perplexity(figures, base):
    if "perplexity" not in figures:
        return ""
    changed = figures["log_ratio_error"] and "perplexity" in base
    return f"{figures['perplexity']:.3f}" + (f" ({with_interval('{:+.2f} %', *change(figures, base))})" if changed else "")


def table_of_files(files, bits):
    base = files.get("F32", {})
    columns = [("file", lambda f, x: file_name(f, bits)), ("MB (of F32)", lambda f, x: cell_bytes(x, base, "bytes")),
               ("resident, MB (of F32)", lambda f, x: cell_bytes(x, base, "rss")),
               ("prompt, t/s (times F32; F16)", lambda f, x: cell_speed(x, files, "prompt")),
               ("answer, t/s (times F32; F16)", lambda f, x: cell_speed(x, files, "answer")),
               ("8 answers at once, t/s (times F32; F16)", lambda f, x: cell_speed(x, files, "many")),
               ("perplexity", lambda f, x: cell_perplexity(x, base)), ("mean KLD", lambda f, x: f"{x['kld']:.4f}" if "kld" in x else "")]
    rows = [[cell(f, x) for _, cell in columns] for f, x in files.items()]
    kept = [i for i, _ in enumerate(columns) if any(r[i] for r in rows)]
    return lines_of([columns[i][0] for i in kept], [[r[i] for i in kept] for r in rows])


def table_of_bleu(files, bits):
    rows = []
    for file, figures in files.items():
        for b in figures.get("bleu", []):
            scores = [with_interval("{:.2f}", *score_of(b[k])) for k in ("same", "float", "score")]
            changed = change_of_bleu(b)
            rows.append([file_name(file, bits), b["task"], b["language"], *scores, with_interval("{:+.2f} %", *changed) if changed else ""])
    head = ["file", "task", "language", "BLEU to the answers of F32", "F32 to the right answers", "the file to them", "change"]
    return ["", *lines_of(head, rows)] if rows else []


def order(files):
    """Float first, ours last."""
    known = ["F32", "F16", "Q8_0", "Q4_0", "Q4_K", OURS, FITTED]
    return dict(sorted(files.items(), key=lambda item: known.index(item[0])))


def intervals_text(found):
    rounds = max((len(x.get("answer", [])) for m in found.values() for x in m["files"].values()), default=0)
    speeds = f"; of speeds, order statistics of the rounds' ratios ({100 * median_interval(range(rounds))[3]:.1f} %)" if rounds else ""
    return f"In brackets: 95 % intervals{speeds}."


def report(rows, about, bits):
    """(Markdown, the same for programs)."""
    found = collect(rows)
    for model in found.values():
        model["files"] = order(model["files"])
    machine = next((f"Kernels {x['cpu']}, threads: {x['threads']}. " for m in found.values() for x in m["files"].values() if "cpu" in x), "")
    lines = [machine + about, intervals_text(found)]
    for name, model in found.items():
        lines += ["", f"### {name} ({model['class']})", "", *table_of_files(model["files"], bits), *table_of_bleu(model["files"], bits)]
    judged = verdicts(found)
    lines += ["", "### Promised and measured", "", *lines_of(["model", "promised", "measured", "verdict"], [list(v.values()) for v in judged])]
    return "\n".join(lines) + "\n", {"models": found, "verdicts": judged}
