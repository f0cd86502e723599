#!/usr/bin/env python3
"""Layers: every #include "module/file.h" under src/ and every link list of CMakeLists.txt obeys scripts/layers.txt."""

import re
import sys

from common import ROOT, Findings, code_only, files, line_of, read

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.M)


def read_layers(text):
    """layers.txt -> {module: set of allowed names}, in order. "bridge" stands for the Rust library, "engine*" stays as it is."""
    layers = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        left, _, right = line.partition(":")
        modules, allowed, earlier = [m.strip() for m in left.split(",")], set(), set(layers)
        for word in right.split():
            if word == "(bridge)":
                allowed.add("bridge")
            elif word == "all":
                allowed |= earlier
            elif word.startswith("all-"):
                allowed |= earlier - {word[4:]}
            elif word.rstrip("*") in earlier:
                allowed.add(word)
            else:
                raise SystemExit(
                    f"scripts/layers.txt:{number}: '{word}' is not on an earlier line\n"
                    "    fix: move the line, or correct the name"
                )
        for module in modules:
            layers[module] = set(allowed)
    return layers


def includes_of(path):
    """(line, target) of every quoted include; comments do not count, strings are kept for the path."""
    text = read(path)
    code = code_only(text)
    return [
        (line_of(text, m.start()), m.group(1))
        for m in INCLUDE.finditer(text)
        if "include" in code[m.start() : m.end()]
    ]


def module_of(target):
    """The module an include names: "base/mem.h" -> base; the bridge's header -> bridge; the public header -> None."""
    if target == "dilmodeli.h":
        return None
    if "bridge" in target.split("/")[0]:
        return "bridge"
    return target.split("/")[0] if "/" in target else ""


def exposed_by(module):
    """Modules reachable through the headers of one module."""
    todo, seen, modules = files(".h", under=[f"src/{module}/"]), set(), {module}
    while todo:
        path = todo.pop()
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        for _, target in includes_of(path):
            if module_of(target):
                modules.add(module_of(target))
                todo.append(f"src/{target}")
    return modules


def allowed_for(module, layers):
    names = {module}
    for word in layers[module]:
        names |= exposed_by(word[:-1]) if word.endswith("*") else {word}
    return names


def check_includes(layers, findings):
    used = {}
    for path in files(".c", ".h", ".inc", under=["src/"]):
        parts = path.split("/")
        findings.looked_at += 1
        module = parts[1]
        if len(parts) < 3 or module not in layers:
            findings.add(
                path,
                f"'{module}' is not a module of scripts/layers.txt",
                "move the file into a module, or add the module's line with the reason in docs/decisions/",
            )
            continue
        allowed = allowed_for(module, layers)
        for line, target in includes_of(path):
            named = module_of(target)
            if named is None:
                continue
            if named == "":
                findings.add(
                    f"{path}:{line}",
                    f'#include "{target}" names no module',
                    f'write #include "{module}/{target}"; files of another project go in <...>',
                )
            elif named not in allowed:
                findings.add(
                    f"{path}:{line}",
                    f"{module} may not include {target}: its layer allows "
                    f"{' '.join(sorted(allowed - {module})) or 'nothing'}",
                    "pass what is needed through a lower module, or move this code up (see scripts/layers.txt)",
                )
            else:
                used.setdefault(module, {}).setdefault(named, f"{path}:{line}")
    return used


def check_links(layers, used, findings):
    text = re.sub(r"#[^\n]*", "", read("CMakeLists.txt"))
    links, order = {}, list(layers)
    for match in re.finditer(r"\bdil_module\(\s*(\w+)([^)]*)\)", text):
        name, words = match.group(1), match.group(2).split()
        place = f"CMakeLists.txt: dil_module({name})"
        if name not in layers:
            findings.add(
                place, "is not a module of scripts/layers.txt", "add its line there, or rename it"
            )
            continue
        links[name] = {w for w in words if w in layers}
        for word in words:
            if word == "dil_bridge" and "bridge" not in layers[name]:
                findings.add(
                    place, "links the bridge, which its layer does not allow", "remove dil_bridge"
                )
            if not (word in layers or word.startswith("dil_")):
                findings.add(
                    place, f"'{word}' is neither a module nor a dil_ library", "correct the name"
                )
        for word in sorted(links[name] - allowed_for(name, layers)):
            findings.add(
                place,
                f"links {word}, which its layer does not allow",
                f"remove {word} from the list, or change scripts/layers.txt with the reason in docs/decisions/",
            )
    defined = list(links)
    for position, name in enumerate(defined):
        for word in sorted(links[name] & set(defined[position + 1 :])):
            findings.add(
                f"CMakeLists.txt: dil_module({name})",
                f"stands before {word}, which it links",
                "put the lines in the order of scripts/layers.txt",
            )
    for module, names in used.items():
        if module not in links:
            findings.add(
                "CMakeLists.txt",
                f"src/{module} has no dil_module line",
                f"add dil_module({module} ...)",
            )
            continue
        reach, todo = set(), [module]
        while todo:
            step = todo.pop()
            if step not in reach:
                reach.add(step)
                todo.extend(links.get(step, ()))
        for name in sorted(set(names) - reach - {"bridge"}, key=order.index):
            findings.add(
                names[name],
                f"{module} includes {name} but does not link it",
                f"add {name} to dil_module({module} ...) in CMakeLists.txt",
            )


def check_packages(findings):
    """A library the build wants is one that run.sh and test.sh can install."""
    setup = read("scripts/setup.sh")
    for package in re.findall(
        r"^dil_library\(\w+ ([\w.-]+)\)", read("cmake/libraries.cmake"), re.M
    ):
        if f"have_library {package} " not in setup:
            findings.add(
                "cmake/libraries.cmake",
                f"{package} is unknown to scripts/setup.sh",
                f"add 'have_library {package} || echo DEBIAN-PACKAGE' to missing_build_packages",
            )


def main():
    findings = Findings("layers")
    layers = read_layers(read("scripts/layers.txt"))
    check_links(layers, check_includes(layers, findings), findings)
    check_packages(findings)
    return findings.report()


if __name__ == "__main__":
    sys.exit(main())
