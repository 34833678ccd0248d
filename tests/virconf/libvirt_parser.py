# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's own parser, asked in a root file system that has it."""

from __future__ import annotations

import json
import os
import re
import select
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_PATIENCE_S = 60
# The images are shared: nothing is written to them, and the mounts are gone with the process.
_ENTER = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -t proc proc "$1/proc" || exit
exec chroot "$1" python3 -B -c "$2"
"""


@dataclass(frozen=True)
class Reading:
    """What a parser makes of a file: an error and its line, or the entries and the first value of each key."""

    error: str | None
    line: int | None
    entries: list[list[Any]]
    first: dict[str, list[Any]]


class LibvirtParser:
    """virConfReadFile() of the libvirt that is installed in ``root``."""

    def __init__(self, root: Path) -> None:
        libraries = [*root.glob("usr/lib/*/libvirt.so.0"), *root.glob("usr/lib*/libvirt.so.0")]
        assert libraries, f"no libvirt.so.0 in {root}: there is nothing to compare with"
        self.library = os.readlink(libraries[0])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by __exit__
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh", root, _driver()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )

    def __enter__(self) -> LibvirtParser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __call__(self, data: bytes) -> Reading:
        """What libvirt makes of ``data``; AssertionError that names it, if libvirt dies of it or hangs."""
        assert self._process.stdin
        try:
            rest = memoryview(struct.pack(">I", len(data)) + data)
            while rest:
                rest = rest[self._process.stdin.write(rest) or 0 :]
            answer = json.loads(self._receive(struct.unpack(">I", self._receive(4))[0]))
        except (EOFError, BrokenPipeError, TimeoutError) as lost:
            self._process.kill()
            status = self._process.wait()
            self._errors.seek(0)
            says = self._errors.read().decode(errors="replace")[-2000:]
            shown = data if len(data) < 2000 else data[:1000] + b" ... " + data[-1000:]
            raise AssertionError(
                f"{self.library} did not survive (status {status}, {lost!r}): {shown!r}\n{says}"
            ) from lost
        if "error" in answer:
            line = re.search(r":(\d+): ", answer["error"])
            return Reading(answer["error"], int(line[1]) if line else None, [], {})
        return Reading(None, None, answer["entries"], answer["first"])

    def _receive(self, size: int) -> bytes:
        assert self._process.stdout
        parts = []
        while size:
            if not select.select([self._process.stdout], [], [], _PATIENCE_S)[0]:
                raise TimeoutError(f"no answer in {_PATIENCE_S} s")
            part = self._process.stdout.read(size)
            if not part:
                raise EOFError("the driver ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _driver() -> str:
    return Path(__file__).with_name("driver.py").read_text(encoding="utf-8")
