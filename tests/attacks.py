"""Inputs without end or of absurd size, for tests/test_inputs.py, which runs a group of them in a process with limits.

Each is a call that must raise a `FairtrialError` of one line, and a part of that line.
"""

import gzip
import io
import json
import os
import pickle
import resource
import sys
import tarfile
import zipfile
from functools import partial
from itertools import chain
from pathlib import Path

import fairtrial as ft
from fairtrial.errors import FairtrialError
from fairtrial.executors.limits import Limits
from fairtrial.executors.records import NO_RULES
from fairtrial.executors.slots import choose_slots
from fairtrial.scheduler import plan

STUDY = 'name = "s"\nreference = "a"\nseeds = 2\n[arms.a]\n[arms.b]\noptimizer.lr = 0.1\n'
OWN = STUDY.replace("[arms.a]", '[training]\nloop = "m:f"\n[arms.a]').replace("optimizer.lr", "params.lr")
DIGITS, HEX, LONG = "9" * 4301, "0x" + "f" * 4000, "x" * 10_000_000
DEEP = ".".join("a" * 20_000)


def text(*changes, of=STUDY):
    """Build a study from a text in which something is replaced, and list its trials."""
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in of
        of = of.replace(old, new)
    return lambda: plan(ft.Study.from_toml(of))


def section(more, of=STUDY):
    """Do so with more text at the end."""
    return lambda: plan(ft.Study.from_toml(of + more))


def from_file(content):
    """Load a study from a file."""

    def load():
        Path("s.toml").write_bytes(content)
        ft.load("s.toml")

    return load


def overridden(*assignments):
    """Load a study that ships, with overrides."""
    return lambda: ft.load("quick", assignments)


def python(**changes):
    """Build a study in Python."""
    return lambda: plan(ft.Study(**{"name": "s", "reference": "a", "seeds": 1, "arms": {"a": {}}} | changes))


def cyclic():
    """Make a table that contains itself."""
    table = {}
    table["a"] = table
    return table


def special(name):
    """Make what is no regular file, and name it."""
    path = Path(name)
    if name.startswith("pipe"):
        os.mkfifo(path)
    elif name.startswith("folder"):
        path.mkdir()
    elif name.startswith("loop"):
        path.symlink_to(path)
    elif name.startswith("large"):
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.symlink_to("/dev/zero")
    return name


SPECIAL = {
    "pipe": "not a regular file",
    "zero": "not a regular file",
    "folder": "Is a directory",
    "loop": "Too many levels of symbolic links",
    "large": "more than",
}


def files():
    """Study files, and files that they name."""
    for name, said in SPECIAL.items():
        path = special(f"{name}.toml")
        yield f"study {name}", partial(ft.load, path), said
        yield f"tasks {name}", partial(ft.load_tasks, path), said
    for name, said in {"pipe": "not a regular file", "zero": "not a regular file", "large": "more than 1 GiB"}.items():
        path = special(f"{name}.pt")
        yield f"weights {name}", overridden(f"model.weights={path}"), said
        yield f"weights {name} of a file", from_file(f'model.weights = "{path}"\n{STUDY}'.encode()), said
    yield "weights loop", overridden(f"model.weights={special('loop.pt')}"), "Symlink loop"
    yield "no home", overridden("data.path=~nobody-at-all/x"), "home directory"
    yield "NUL", lambda: ft.load("a\0.toml"), "NUL"
    yield "NUL in a path", overridden("data.path=a\0b"), "null byte"
    yield "long source", lambda: ft.load(LONG), "no study or file has a name of 10,000,000 characters"
    yield "no source", lambda: ft.load(None), "needs a file"
    yield "UTF-16", from_file(STUDY.encode("utf-16")), "save it as UTF-8"
    yield "UTF-16 without a mark", from_file(STUDY.encode("utf-16-be")), "save it as UTF-8"
    yield "UTF-32", from_file(STUDY.encode("utf-32")), "save it as UTF-8"
    yield "Latin-1", from_file(STUDY.encode() + b"# \xe9"), "not UTF-8 text"
    yield "NUL in a file", from_file(STUDY.encode() + b"#\0"), "save it as UTF-8"


def numbers():
    """Numbers in studies."""
    yield "seeds", text("seeds = 2", "seeds = 1000000000000"), "a study has at most 1,000,000"
    yield "range", text("seeds = 2", "seeds = {min = 2, max = 1000000000000}"), "a study has at most 1,000,000"
    yield "list of seeds", text("seeds = 2", "seeds = [1, 1]"), "seed 1 is listed twice"
    yield "crossed", text("seeds = 2", "noise = {initial_weights = 10000000, batch_orders = 10000000}"), "at most"
    yield "digits", text("seeds = 2", f"seeds = {DIGITS}"), "an integer of more than 4,300 digits"
    yield "hexadecimal", text("seeds = 2", f"seeds = {HEX}"), "seeds: an integer of 16,000 bits; integers must fit in"
    yield "infinite", text("seeds = 2", "seeds = 1e400"), "seeds = inf: must be an integer"
    yield "first_seed", text("seeds = 2", "seeds = 2\nnoise.first_seed = 9223372036854775807"), "at most 9,007,199"
    yield "epochs", section("[training]\nepochs = 1000001\n"), "must be an integer of at most 1,000,000"
    yield "evaluations", section("[training]\nevaluations_last_epoch = 7000\n"), "must be an integer of at most 1,000"
    yield "batch size", section(f"[training]\nbatch_size = {HEX}\n"), "training.batch_size: an integer of 16,000 bits"
    yield "learning rate", text("lr = 0.1", f"lr = {HEX}"), "arms.b.optimizer.lr: an integer of 16,000 bits"
    yield "infinite rate", text("lr = 0.1", "lr = 1e400"), "arms.b.optimizer.lr = inf: must be in (0, inf)"
    yield "floor", text("seeds = 2", f"seeds = 2\nevidence.lost_below = {HEX}"), "an integer of 16,000 bits"
    yield "mean of many", text("seeds = 2", f'seeds = 2\nevidence.metric = "mean_last{DIGITS}_test_acc"'), "known:"
    yield "evaluation", text("seeds = 2", 'seeds = 2\nevidence.metric = "final_eval999999_test_acc"'), "did you mean"


def nesting():
    """Tables and lists in each other, and overrides."""
    yield "lists", section("z = " + "[" * 100_000), "nested too deeply"
    yield "tables", section("z = " + "{a=" * 100_000), "nested too deeply"
    yield "header", section(f"[{DEEP}]\n"), "a key of more than 200 parts"
    yield "key", section(f"{DEEP} = 1\n"), "a key of more than 200 parts"
    yield "quoted key", section('."a"' * 20_000 + " = 1\n"), "a key of more than 200 parts"
    yield "deep list", section("z = " + "[" * 40 + "]" * 40), "nested at most 32 deep"
    yield "set deep", overridden(f"training.{DEEP}=1"), "nested at most 32 deep"
    yield "set lists", overridden("seeds=" + "[" * 100_000), "not valid TOML"
    yield "set digits", overridden(f"seeds={DIGITS}"), "an integer of more than 4,300 digits"
    yield "set signs", overridden("seeds=" + "-" * 100_000 + "1"), "text of 100,001 characters"
    yield "set nothing", overridden(LONG), "must be KEY=VALUE"
    yield "set a long key", overridden(f"{LONG}=1"), "a key of 10,000,000 characters; at most 128"
    yield "set half a character", overridden("name=\udcff"), "surrogate"


def texts():
    """Names, keys and texts, and how many of them."""
    for where in ("name", "reference"):
        yield where, python(**{where: LONG}), f"{where}: text of 10,000,000 characters; at most 65,536"
        yield f"{where} of 129", python(**{where: "x" * 129}), "must be at most 128 characters"
    yield "key of 10 MB", python(**{LONG: 1}), "a key of 10,000,000 characters; at most 128 are allowed"
    yield "arm", python(arms={LONG: {}}), "arms: a key of 10,000,000 characters"
    yield "label", python(arms={"a": {"label": LONG}}), "arms.a.label: text of 10,000,000"
    yield "label of 257", python(arms={"a": {"label": "x" * 257}}), "must be at most 256 characters"
    yield "parameter", python(training={"loop": "m:f"}, params={LONG: 1}), "params: a key of 10,000,000 characters"
    yield "text", python(training={"loop": "m:f"}, params={"a": LONG}), "params.a: text of 10,000,000 characters"
    yield "loop", python(training={"loop": "m:" + "f" * 300}), 'must be "fairtrial" or "module:function"'
    yield "list", python(training={"loop": "m:f"}, params={"a": [1] * 10_001}), "a list of 10,001 entries"
    yield "integer", python(training={"loop": "m:f"}, params={"a": 2**63}), "params.a: an integer of 64 bits"
    yield "surrogate", python(training={"loop": "m:f"}, params={"a": "\ud800"}), "surrogate pairs"
    yield "escape", section('params."a\\u001b[31m" = 1\n', of=OWN), "control characters"
    yield "metric", text("seeds = 2", f'seeds = 2\nevidence.metric = "final_{"x" * 60_000}"', of=OWN), "known:"
    yield "claims", section("[[claims]]\n" * 10_001), "a list of 10,001 entries"
    yield "keys", section("".join(f"a{number} = 1\n" for number in range(20_000))), "and 19997 more"
    yield "tasks", lambda: ft.load_tasks(many_tasks()), "at most 100 are allowed"


def objects():
    """What only Python can say."""
    yield "values", python(arms={f"a{number}": {"b": [0] * 9_999} for number in range(21)}), "more than 200,000 values"
    for model in ("small_cnn", "mobilenet_v2"):
        yield f"width of {model}", python(model={"name": model, "width": 10**9}), "model.width = 1000000000: must be"
    yield "threads", lambda: choose_slots(1, None, 10**12), "threads: must be at most 10,000"
    yield "memory", lambda: Limits(memory=2**63), "memory_limit: must be below 8 EiB"
    yield "cycle", lambda: ft.Study.from_dict(cyclic()), "nested at most 32 deep"
    yield "cycle of an arm", python(arms={"a": cyclic()}), "nested at most 32 deep"
    yield "number for a key", lambda: ft.Study.from_dict({1: 2}), "whose keys are text"
    yield "number for an arm", python(arms={1: {}}), "keys must be text, not int"
    yield "no table", lambda: ft.Study.from_dict(None), "whose keys are text"
    yield "seeds in Python", python(seeds=10**5000), "an integer of 16,610 bits"


def many_tasks():
    Path("t.toml").write_text(STUDY + "".join(f"[tasks.t{number}]\n" for number in range(101)))
    return "t.toml"


def records():
    """Records of a user's loop; what is wrong with them is no FairtrialError before an executor made it one."""
    for name, metrics, said in (
        ("name", {LONG: 1.0}, "have at most 128 characters"),
        ("escape", {"a\x1b[31m": 1.0}, "names must be printable"),
        ("integer", {"a": 10**5000}, "must be a number that a float can hold"),
        ("list", {"a": [10**5000]}, "must be one number, not list"),
        ("many", dict.fromkeys(map(str, range(10_001)), 1.0), "at most 10,000 are allowed"),
    ):

        def check(metrics=metrics):
            try:
                NO_RULES.checked(metrics, 1)
            except (TypeError, ValueError) as error:
                raise FairtrialError(error) from error

        yield f"record {name}", check, said


def archives():
    """Tar archives as data sets."""
    for name, said in SPECIAL.items():
        if name != "folder":  # a folder may hold a data set
            said = {"large": "holds no CIFAR-10", "loop": "no such file"}.get(name, said)  # noqa: PLW2901
            yield name, partial(ft.fetch_data, "cifar10", special(f"{name}.tar")), said
    zeros = bytes(2**20)
    for kind, name in ((b"x", "pax"), (b"g", "global pax"), (b"L", "long name"), (b"K", "long link")):
        yield f"{name} of 3 GiB", packed(header("x", 3 * 2**30, kind) + zeros), "a header takes more than"
    yield "headers in a row", packed(header("x", 0, b"x") * 100_000), "a header takes more than"
    yield "negative size", packed(header("x", -512, b"x")), "a header takes more than"
    size = record("size", -1024)
    moves_back = header("x", len(size), b"x") + size.ljust(512, b"\0") + header("a", 0) + bytes(1024)
    yield "endless", packed(moves_back), "a member has a negative size"
    yield "members", packed(header("a", 0) * 100_000), "it has more than 1,000 members"
    yield "member of a terabyte", packed(header("x", 2**40)), "it unpacks to more than 1 GiB"
    yield "wanted member of a terabyte", packed(header("data_batch_1", 2**40)), "at most 62,488,576 expected"
    yield "sparse", packed(header("data_batch_1", 512, b"S") + bytes(1024)), "holds no CIFAR-10"
    yield "devices", packed(header("data_batch_1", 0, b"3") + header("test_batch", 0, b"6")), "holds no CIFAR-10"
    marks = record("GNU.sparse.major", 1) + record("GNU.sparse.minor", 0) + record("GNU.sparse.realsize", 9)
    sparse = header("x", len(marks), b"x") + marks.ljust(512, b"\0") + header("data_batch_1", 10**9) + b"9" * 10**6
    yield "sparse map", packed(sparse), "not a readable tar archive"
    yield "gzip in gzip", packed(b"".join(gzip.compress(b"") for _ in range(1000))), "not a readable tar archive"


def header(name, size, kind=b"0"):
    """Write a tar header with any size."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return bytes(block)


def record(key, value):
    """Write a record of a pax header."""
    content = f" {key}={value}\n"
    return f"{len(content) + 2}{content}".encode()


def packed(content):
    """Fetch a data set from an archive."""

    def fetch():
        Path("data.tar.gz").write_bytes(gzip.compress(content, 1))
        ft.fetch_data("cifar10", "data.tar.gz")

    return fetch


def hanging():
    """A pickle of 320 bytes whose key is a tuple that contains another twice, and so on 60 times."""
    value = ()
    for _ in range(60):
        value = (value, value)
    return b"\x80\x02}" + pickle.dumps(value, 2)[2:-1] + b"K\x01s."


def pickles():
    """Pickles in data sets and weights, and other weights."""
    from fairtrial.training.datasets.pickled import read_batch
    from fairtrial.training.weights import files

    colliding = [bytes([0x8A, 11]) + (number * (2**61 - 1)).to_bytes(11, "little") + b"N" for number in range(50_000)]
    large = {
        "key": (hanging(), "a tuple of more than 100 objects"),
        "deep tuple": (b"\x80\x02)" + b"\x85" * 10**6 + b".", "a tuple of more than 100 objects"),
        "equal hashes": (b"\x80\x02}(" + b"".join(colliding) + b"u.", "more instructions or large integers"),
        "many lists": (b"\x80\x02](" + b"]" * 2 * 10**6 + b"e.", "more instructions or large integers"),
    }
    for name, (content, said) in large.items():
        yield f"batch {name}", partial(read_batch, content, 1, 1, "batch"), said
        yield f"weights {name}", from_weights(zipped(content)), "damaged, not a file of torch's, or one that"
    for content in (older(hanging()), hanging()):
        yield "older weights", from_weights(content), "damaged, not a file of torch's, or one that"
    zeros = zipped(b"\x80\x02}.", zipfile.ZIP_DEFLATED, 400 * 2**20)
    yield "zip bomb", from_weights(zeros), "holds compressed parts, which torch.save never writes"
    memory = b"\x80\x02c__builtin__\nbytearray\n" + pickle.dumps((3 * 2**30,), 2)[2:-1] + b"R."
    yield "array of bytes", from_weights(zipped(memory)), "damaged, not a file of torch's, or one that"
    yield "name", from_weights(zipped(pickle.dumps({LONG: 1}, 2))), "... is a int"
    for name, said in SPECIAL.items():
        yield name, partial(files.read, Path(special(f"{name}.pth"))), said
    yield "safetensors", from_weights(b"\xff" * 7 + b"\0{", "w.safetensors"), "damaged, or not a safetensors file"
    deep = (400_000).to_bytes(8, "little") + b"[" * 400_000
    yield "deep safetensors", from_weights(deep, "w.safetensors"), "damaged, or not a safetensors file"


def from_weights(content, name="w.pt"):
    """Read weights."""
    from torch import nn

    from fairtrial.training.weights import files

    def read():
        Path(name).write_bytes(content)
        files.decode(files.read(Path(name)), Path(name), nn.Module())

    return read


def zipped(content, how=zipfile.ZIP_STORED, size=0):
    """Write a file of torch's that has a pickle and a tensor of so many zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        with archive.open("archive/data/0", "w") as tensor:
            for _ in range(size // 2**20):
                tensor.write(bytes(2**20))
    return file.getvalue()


def older(content):
    """Write a file in torch's older format."""
    head = [0x1950A86A20F9469CFC6C, 1001, {}]
    return b"".join(pickle.dumps(one, 2) for one in head) + content + pickle.dumps([], 2)


GROUPS = {
    "studies": (files, numbers, nesting, texts, objects, records),
    "archives": (archives,),
    "pickles": (pickles,),
}


def say(**what):
    """Print a line of JSON at once."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def run(group):
    """Run a group's attacks; say the name of each before, and what is wrong afterwards."""
    for name, attack, said in chain.from_iterable(part() for part in GROUPS[group]):
        say(name=name)
        try:
            attack()
            wrong = "nothing was raised"
        except FairtrialError as error:
            line = str(error)
            good = said in line and len(line) < 1000 and "\n" not in line
            wrong = "" if good else f"{len(line)}: {line[:300]}"
        except BaseException as error:  # noqa: BLE001  (whatever it is, it is wrong)
            wrong = f"{type(error).__name__}: {str(error)[:300]}"
        if wrong:
            say(name=name, wrong=wrong)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)
    say(peak=peak)


if __name__ == "__main__":
    run(sys.argv[1])
