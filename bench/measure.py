"""What the programs of this folder share: running a command and reading what it took, and cases such as 'model.gguf:t=1/2,d=0'."""
import itertools
import json
import os
import subprocess
import tempfile


class Result:
    """Exit code, standard output and error, and the largest resident set in bytes of a command that has ended."""

    def __init__(self, code, out, err, largest):
        self.code, self.out, self.err, self.largest = code, out, err, largest

    def json(self):
        return json.loads(self.out)


def run(command, env=None, may_fail=False):
    """Runs it to its end; unless it may fail, an error says what the command said."""
    command = [str(c) for c in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        p = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        result = Result(p.returncode, out.read().decode(), err.read().decode(errors="replace"), usage.ru_maxrss * 1024)
    if result.code and not may_fail:
        raise SystemExit(f"{' '.join(command)}: ended with {result.code}: {result.err[-500:]}")
    return result


def cases_of(texts, defaults):
    """(model, values by key) of every combination; several values of a key are written with a slash."""
    for text in texts:
        name, _, rest = text.partition(":")
        keys = {key: [value] for key, value in defaults.items()}
        for part in filter(None, rest.split(",")):
            key, _, values = part.partition("=")
            if key not in keys:
                raise SystemExit(f"{text}: wanted {', '.join(keys)}, found '{key}'")
            keys[key] = values.split("/")
        for values in itertools.product(*keys.values()):
            yield name, dict(zip(keys, values))


def write_json(path, rows):
    if path:
        with open(path, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
