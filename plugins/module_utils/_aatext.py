# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text of AppArmor's policy: the blocks that modules keep in files, what these include, a guest's own profile. Pure."""

from __future__ import annotations

import re
import typing as t

# Named so, the compiler says in which included file an error is; of what it reads unnamed, the line alone.
STDIN = "/dev/stdin"

_INCLUDE_RE = re.compile(r"^[ \t]*#?include[ \t]+(if exists[ \t]+)?<([^>\n]+)>[ \t]*$", re.MULTILINE)
_HEAD_RE = re.compile(r'^[ \t]*(?:profile[ \t]+)?("[^"\n]+"|[\w./@{}-]+)[^\n]*\{[ \t]*$', re.MULTILINE)
_TEMPLATE_NAME = "LIBVIRT_TEMPLATE"


def includes(text: str) -> list[str]:
    """What a policy file includes from the policy's directory, in its order."""
    return [match[2] for match in _INCLUDE_RE.finditer(text)]


def profile_name(text: str) -> str:
    """The name of the first profile in a policy file, "" where there is none."""
    found = _HEAD_RE.search(text)
    return found[1].strip('"') if found else ""


def block(text: str, owner: str) -> list[str]:
    """The lines of the block that a module keeps in a file; none where there is no block."""
    found = _block_re(owner).search(text)
    return found[1].splitlines() if found else []


def with_block(text: str, owner: str, lines: t.Sequence[str], *, inside: bool = False) -> str:
    """The text with these lines as the module's block, in the place of the one that is there; without one for no lines.

    :param inside: a new block goes before the last brace, into the profile, not to the end.
    """
    new = "".join(f"{line}\n" for line in (_mark("BEGIN", owner), *lines, _mark("END", owner))) if lines else ""
    if _block_re(owner).search(text):
        return _block_re(owner).sub(lambda _match: new, text, count=1)
    if not new:
        return text
    if inside:
        at = text.rindex("}")
        at = text.rfind("\n", 0, at) + 1
        return text[:at] + new + text[at:]
    return text + ("\n" if text and not text.endswith("\n") else "") + new


def _mark(word: str, owner: str) -> str:
    return f"  # {word} hypervisor.hardening.{owner}"


def _block_re(owner: str) -> re.Pattern[str]:
    begin, end = (re.escape(_mark(word, owner)) for word in ("BEGIN", "END"))
    return re.compile(rf"^{begin}\n(.*?)^{end}\n", re.MULTILINE | re.DOTALL)


def guest_profile(template: str, uuid: str) -> str:
    """A guest's profile as libvirt makes it of TEMPLATE.qemu (virt-aa-helper.c, create_profile).

    :raises ValueError: this is no template of libvirt's.
    """
    name = f"libvirt-{uuid}"
    end = template.find("\n}")
    if _TEMPLATE_NAME not in template or end < 0:
        raise ValueError("it has no LIBVIRT_TEMPLATE, or no end")
    text = f"{template[: end + 1]}  #include <libvirt/{name}.files>\n{template[end + 1 :]}"
    return text.replace(_TEMPLATE_NAME, name)


def inlined(text: str, contents: t.Mapping[str, str]) -> str:
    """A policy file with what it includes put in its place, so that the compiler can judge what is not on disk yet.

    :param contents: text by the name that is included; other includes stay.
    """

    def put(match: re.Match[str]) -> str:
        content = contents.get(match[2])
        return match[0] if content is None else inlined(content, {**contents, match[2]: ""})

    return _INCLUDE_RE.sub(put, text)


def refusal(said: str, text: str) -> str:
    """What the compiler said of a text that it read from STDIN, with the line, or the included file, that it means."""
    words = " ".join(line for line in said.splitlines() if "error" in line.lower()) or said.strip()
    words = words.replace(f" for {STDIN} in profile {STDIN}", "").replace(f" for {STDIN} in profile", " in")
    # With the name of a file it is a line of that file.
    number = re.search(r"error at line (\d+)", words)
    lines = text.splitlines()
    if number and 0 < int(number[1]) <= len(lines):
        return f"{words}, which is {lines[int(number[1]) - 1].strip()!r}"
    return words
