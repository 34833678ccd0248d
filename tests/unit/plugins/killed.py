# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that ends at once, as by SIGKILL, in the middle of what it does to the host."""

from __future__ import annotations

import functools
import os
import typing as t

# What others see of a change of files, by the names in os. What comes before a rename, tests/faults tries.
CALLS = ("rename", "unlink", "mkdir", "rmdir", "symlink")
_KILLED = 9


def killed_at(number: int, function: t.Callable[[], object], *played: tuple[object, str]) -> bool:
    """Call ``function`` in a child that ends before its change number ``number`` (from 0 on); whether it came to that.

    :param played: methods that play the kernel: before and after each call of one, the child can end as well.
    """
    child = os.fork()
    if child == 0:
        left = number
        inside = False
        end = os._exit

        def count() -> None:
            nonlocal left
            if left == 0:
                end(_KILLED)
            left -= 1

        def counted(call: t.Callable[..., t.Any], *, plays: bool) -> t.Callable[..., t.Any]:
            @functools.wraps(call)
            def wrapper(*words: t.Any, **named: t.Any) -> t.Any:
                nonlocal inside
                if inside:  # what plays the kernel is one change, as the kernel's is
                    return call(*words, **named)
                count()
                inside = plays
                answer = call(*words, **named)
                if plays:
                    inside = False
                    count()
                return answer

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name), plays=False))
        for owner, name in played:
            setattr(owner, name, counted(getattr(owner, name), plays=True))
        try:
            function()
        except BaseException:
            end(1)
        end(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _KILLED), f"the run failed before its change number {number}"
    return status == _KILLED
