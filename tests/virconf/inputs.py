# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files for the differential test: by hand, by grammar (hypothesis), by mutation of the files that libvirt ships."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import strategies as st

MAX_FILE = 10 * 1024 * 1024

# At least one per rule of the grammar, and what lies on both sides of it.
BY_HAND: Sequence[bytes] = (
    # the file
    b"",
    b"\n",
    b" ",
    b" \t\r\n\n",
    b"#",
    b"\n#\n",
    b"a = 1 #" + b"x" * (MAX_FILE - 7),
    b"a = 1 #" + b"x" * (MAX_FILE - 6),
    # bytes
    b"\xef\xbb\xbfa = 1\n",
    b"a = 1\n\f",
    b"a = 1 \v\n",
    b"\0",
    b"a = 1\0",
    b"# a\0b\n",
    b'a = "x\0y"\n',
    b'a = """x\0y"""\n',
    b'a = "\xff\xfe\xc3"\n',
    'a = "grün"\n# grün\n'.encode(),
    # line ends
    b"a = 1\r\nb = 2\r\n",
    b"a = 1\rb = 2\r",
    b"# c\ra = 1\r",
    b"a = [\r1\r,\r2\r]\r",
    b'a = "x\ry"\n',
    b"a = 'x\ry'\n",
    b"a = 1",
    b'a = "x"',
    b"a = [ 1 ]",
    b"a = 1 # c",
    b"a = 1\n \t\r\n ",
    # comments
    b" \t# c\na = 1\n",
    b"a = 1# c\nb = 2",
    b'a = "x" # c ; b = 2\n',
    b"a = [ 1, # c\n 2 ]\n",
    b"a = [\n# c\n 1 ]\n",
    b"a = [ 1 # c\n]\n",
    b"a # c\n = 1\n",
    b"a = # c\n1\n",
    b"# c ; a = 1\n",
    # separators
    b"a = 1; b = 2\n",
    b"a = 1 ;b = 2;\n",
    b"a = 1;",
    b"a = 1; # c\n",
    b"a = 1;\n\n b = 2\n",
    b"a = 1;; b = 2\n",
    b"a = 1 ; ; b = 2\n",
    b"a = 1\n;b = 2\n",
    b";\n",
    b"a = 1 b = 2\n",
    b'a = "x"b = 2\n',
    b"a = [ 1 ] b = 2\n",
    b"a = 1, b = 2\n",
    # keys
    b"A_1 = 1\na1 = 2\nb = 2\nB = 3\n",
    b"_a = 1\n",
    b"1a = 1\n",
    b"a-b = 1\n",
    b"a.b = 1\n",
    b"a:b = 1\n",
    b"a b = 1\n",
    b"\xc3\xa9 = 1\n",
    b"a\xc3\xa9 = 1\n",
    b"a",
    b"a\n",
    b"[a]\nb = 1\n",
    b'"a" = 1\n',
    # the assignment
    b"a=1\n",
    b"a \t=\t 1\n",
    b"a\n= 1\n",
    b"a =\n1\n",
    b"a =\r1\n",
    b"a =",
    b"a = \n",
    b"a == 1\n",
    b"a : 1\n",
    b"a 1\n",
    # strings
    b"a = 'x \" # y'\nb = \"x ' ; y\"\n",
    b"a = \"\"\nb = ''\n",
    b'a = "x\\"\nb = "x\\n\\t"\n',
    b'a = "x\\"y"\n',
    b"a = 'x\\'y'\n",
    b'a = "x\n',
    b"a = 'x\n",
    b'a = "x',
    b"a = 'x",
    b"a = x\n",
    b"a = \"x\" 'y'\n",
    b'a = "x""y"\n',
    b'a = """x\n"y" \'z\'\n\n"""\n',
    b'a = """"x"""\n',
    b'a = """x""""\n',
    b'a = """x"""',
    b'a = """"""\n',
    b'a = """"""',
    b'a = """"""#',
    b'a = [ """""" ]',
    b'a = """x\n\n',
    b'a = """',
    b'a = """x"',
    b'a = """x""',
    b'a = """""""',
    b"a = '''x'''\n",
    # integers
    b"a = 0\nb = -1\nc = +1\nd = -0\ne = +0\n",
    b"a = 007\nb = -08\n",
    b"a = 2147483648\nb = 4294967296\n",
    b"a = 9223372036854775807\nb = -9223372036854775807\n",
    b"a = " + b"0" * 400 + b"5\n",
    b"a = - 1\n",
    b"a = -\n",
    b"a = +-1\n",
    b"a = 0x10\n",
    b"a = 1.5\n",
    b"a = 1k\n",
    b"a = 1_000\n",
    b"a = yes\n",
    b"a = true\n",
    b'a = "1"\nb = 1\n',
    # lists
    b"a = []\nb = [ ]\nc = [\n]\n",
    b"a = [1,2]\n",
    b'a = [\n  "x",\n\t\'y\'\n  ,\n"""z\n"""\n]\n',
    b"a = [ 1, ]\n",
    b"a = [ , ]\n",
    b"a = [ ,1 ]\n",
    b"a = [ 1,, 2 ]\n",
    b"a = [ 1 2 ]\n",
    b'a = [ "x" "y" ]\n',
    b"a = [ 1\n",
    b"a = [ 1,",
    b"a = [",
    b"a = [ 1 ] ]\n",
    b"a = ]\n",
    b"a = [ 1; 2 ]\n",
    b"a = [ b = 1 ]\n",
    b'a = [ 1, [ "x", [], [ -1 ] ], "y" ]\n',
    b"a = " + b"[" * 300 + b"]" * 300 + b"\n",
    b"a = [ x ]\n",
    # several of a key, unknown keys
    b"a = 1\na = 2\n",
    b'a = 1\nb = 2\na = "x"\nb = []\n',
    b"a = 1; a = 2\n",
    b"nobody_knows_this_key = 1\nuser = 0\n",
)

# A file, a key, and its new value; None removes the key.
EDITS_BY_HAND: Sequence[tuple[bytes, str, str | int | list[str] | None]] = (
    (b"", "a", 1),
    (b"# c", "a", 1),
    (b"b = 2", "a", -1),
    (b"b = 2\r\n", "a", "x"),
    (b"b = 2\r#a = 1\rc = 3\r", "a", "x"),
    (b"#a = [\n#  1,\n#  2\n#]\n\nb = 2\n", "a", ["x", "y"]),
    (b'b = """\n#a = 1\n"""\n', "a", 1),
    (b"b = 2 #a = 1\nc = 3\n", "a", 1),
    (b"  a =  [ 1,\n 2 ] # c\r\nb = 2\r\n", "a", []),
    (b"a = 'x' # c\n", "a", "x"),
    (b"a = +1; a = 2; b = 3; a = 4\n", "a", 1),
    (b"a = -0\n", "a", 0),
    (b'a="""""";a = "x"', "a", "\udcff,#[='"),
    (b"a = 1\nb = 2\na = 3 # c\n", "a", 'it\'s "x"'),
    (b"a = 1\n", "a", "x\ny"),
    (b"a = 1\n", "a", "x \"y'"),
    (b"a = 1\n", "a", "it's x\""),
    (b"a = 1\n", "a", "\0"),
    (b"a = 1\n", "a", "\udcff"),
    (b"\n\n \ta = 1 # c\n\n", "a", None),
    (b"# c\n \ta = 1\n b = 2", "a", None),
    (b"# c\r\n \ta = 1;\r\n b = 2", "b", None),
    (b"a = 1\r\n\r\nb = 2\r\n", "a", None),
    (b"a = 1; b = 2; c = 3 # c\n", "a", None),
    (b"a = 1; b = 2; c = 3 # c\n", "b", None),
    (b"a = 1; b = 2; c = 3 # c\n", "c", None),
    (b"a = 1; b = 2; a = 3 # c\n", "a", None),
    (b"b = 1; a = 2; a = 3; # c\n", "a", None),
    (b"a = [\n1 ] ; b = [\n2 ]\n", "a", None),
    (b"a = [\n1 ] ; b = [\n2 ]\n", "b", None),
    (b'b = """""";a = 1', "a", None),
    (b'b = """""";a = 1;a = 2', "a", None),
    (b"a = 1; # c\nb = 2\n", "a", None),
)

_KEYS = ("a", "b", "a1", "user", "vnc_listen", "cgroup_device_acl", "nobody_knows_this_key")
_TOKENS = (
    *(key.encode() for key in _KEYS),
    *(
        b" ",
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b"=",
        b" = ",
        b"#",
        b"# c\n",
        b";",
        b",",
        b"[",
        b"]",
        b'"',
        b"'",
        b'"""',
        b"\\",
    ),
    *(b"1", b"0", b"-1", b"+1", b"-", b"007", b"0x1", b'"x"', b"'y'", b'"""z"""', b"[]", b"[ 1, 2 ]", b'[\n "x",\n]'),
    *(b"\0", b"\f", b"\xff", b"\xc3\xa9", b"_", b".", b"a = 1\n", b'b = "x"\n', b"a = [ 1,\n", b"true"),
)


def _bytes(*choices: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(choices)


def _weighted(*choices: tuple[int, st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    """One of the strategies; one_of() takes a strategy once, however often it is named."""
    return st.sampled_from([choice for weight, choice in choices for _copy in range(weight)]).flatmap(
        lambda choice: choice
    )


def _joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(b"".join)


def _files() -> st.SearchStrategy[bytes]:
    blank = _bytes(b"", b" ", b" ", b"\t", b"  ")
    space = _bytes(b"", b" ", b" ", b"\n", b"\r\n", b"\n\t")
    eol = _bytes(b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n\n")
    inside = st.text(alphabet="xy \t#\\'\"\n\r\0", max_size=6).map(lambda text: text.encode("utf-8", "surrogateescape"))
    plain = st.text(alphabet="xy01 #;=,[]\\é\udcff", max_size=6).map(
        lambda text: text.encode("utf-8", "surrogateescape")
    )
    quote = _bytes(b'"', b"'", b'"""')
    string = st.builds(lambda quote, text: quote + text + quote, quote, plain)
    odd_string = st.builds(lambda quote, text: quote + text + quote, quote, inside)
    number = st.builds(b"%s%d".__mod__, st.tuples(_bytes(b"", b"", b"-", b"+", b"0"), st.integers(0, 2**63 - 1)))
    scalar = _weighted((6, _bytes(b'"x"', b"'y'", b"0", b"1")), (3, number), (6, string), (1, odd_string))

    def lists(item: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
        items = st.lists(_joined(space, item, space), max_size=3)
        close = _bytes(*[b"]"] * 12, b",]", b" ,\n]", b" ", b"# c\n]")
        return st.builds(lambda parts, end: b"[" + b",".join(parts) + end, items, close)

    value = _weighted((6, scalar), (2, lists(scalar)), (1, lists(_weighted((2, scalar), (1, lists(scalar))))))
    key = _bytes(*(key.encode() for key in _KEYS))
    after = _bytes(*[b"\n"] * 6, *[b"\r\n", b"\r", b" # c\n", b";", b" ; ", b";\n", b"# c\n"] * 2, b" ", b";;")
    assignment = _joined(blank, key, blank, _bytes(b"="), blank, value, after)
    comment = _joined(blank, _bytes(b"#", b"# c", b"#a = 1", b'# user = "x"', b"#a = [\n# 1\n#]", b"#\0\xff"), eol)
    odd = _bytes(b";", b"a", b"=", b"-", b"\0", b"\f", b"a-b = 1\n", b"a = yes\n", b"[x]\n")
    line = _weighted((20, assignment), (5, comment), (3, eol), (1, odd))
    tail = _bytes(*[b""] * 8, *[b"a = 1", b'b = "x"', b"# c", b" "] * 3, b"a", b"b = [", b'b = """"""')
    return _joined(st.lists(line, max_size=6).map(b"".join), tail)


# One in four is a row of tokens without any order.
FILES = _weighted((3, _files()), (1, st.lists(st.sampled_from(_TOKENS), max_size=12).map(b"".join)))


def shipped(root: Path) -> list[bytes]:
    """The files of /etc/libvirt that this grammar reads, as shipped and with each sample made an assignment."""
    files = [path.read_bytes() for path in sorted((root / "etc/libvirt").glob("*.conf"))]
    assert any(b"#security_driver" in data for data in files), f"no qemu.conf in {root}/etc/libvirt"
    return files + [_without_hashes(data) for data in files]


def _without_hashes(data: bytes) -> bytes:
    sample = rb"^#[a-z_]+ ?= ?(?:\[(?:[^]\n]|\n#)*\]|\"[^\"\n]*\"|[0-9]+)$"
    return re.sub(sample, lambda found: re.sub(rb"(?m)^#", b"", found[0]), data, flags=re.MULTILINE)


def mutations(files: Sequence[bytes], rng: random.Random) -> Iterator[bytes]:
    """Without end: pieces of the files (one in fifty is a whole file), changed in up to four places."""
    while True:
        data = rng.choice(files)
        if rng.random() >= 0.02:
            lines = data.splitlines(keepends=True)
            start = rng.choice([number for number, line in enumerate(lines) if b"=" in line] or [0])
            start = max(0, start - rng.choice((0, 0, 0, 1, 3, 10)))
            data = b"".join(lines[start : start + rng.randint(1, 25)])
        if rng.random() < 0.1:
            data = data.replace(b"\n", rng.choice((b"\r\n", b"\r")))
        for _change in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4))):
            data = _mutated(data, files, rng)
        yield data


def _mutated(data: bytes, files: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randint(0, len(data))
    # where it matters more often than in the prose of a comment
    marks = [found.start() for found in re.finditer(rb"[=\"\[\],#\n]", data[start : start + 400])]
    if marks and rng.random() < 0.7:
        start += rng.choice(marks)
    end = min(len(data), start + rng.choice((1, 1, 2, 5, 20)))
    how = rng.randrange(8)
    if how == 0:
        return data[:start] + data[end:]
    if how == 1:
        return data[:start] + rng.choice(_TOKENS) + data[start:]
    if how == 2:
        return data[:start] + rng.choice(_TOKENS) + data[end:]
    if how == 3:
        return data[:end] + data[start:end] + data[end:]
    if how == 4:
        return data[:start]
    lines = data.splitlines(keepends=True) or [b""]
    number = rng.randrange(len(lines))
    if how == 5:
        lines[number] = lines[number].lstrip(b"# ")
    elif how == 6:
        lines[number] = lines[number].rstrip(b"\r\n") + rng.choice((b";", b"; ", b" # c\n", b" ", b"\r\n"))
    else:
        lines.insert(number, rng.choice(rng.choice(files).splitlines(keepends=True)).lstrip(b"# "))
    return b"".join(lines)
