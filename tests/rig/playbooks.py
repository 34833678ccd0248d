# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks against hosts of the rig, run by ansible-runner as AWX runs them: its events are the result."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import tempfile
import typing as t

import ansible_runner

Event = dict[str, t.Any]
OUTCOMES = ("ok", "failed", "skipped", "unreachable")


@dataclasses.dataclass(frozen=True)
class Task:
    """How one task ended on one host: one of OUTCOMES, and the module's result."""

    host: str
    name: str
    action: str
    outcome: str
    result: dict[str, t.Any]

    @property
    def changed(self) -> bool:
        return bool(self.result.get("changed"))


@dataclasses.dataclass(frozen=True)
class Run:
    """A playbook that came to its end."""

    rc: int
    tasks: tuple[Task, ...]
    text: str

    def results(self, module: str) -> list[dict[str, t.Any]]:
        """The results of a module of this collection, or of another one by its full name; skipped tasks have none."""
        full = module if "." in module else f"hypervisor.hardening.{module}"
        return [task.result for task in self.tasks if task.action == full and task.outcome != "skipped"]

    @property
    def changed(self) -> list[str]:
        """The names of the tasks that changed something, or would have."""
        return [task.name for task in self.tasks if task.changed]

    @property
    def failed(self) -> list[Task]:
        return [task for task in self.tasks if task.outcome in ("failed", "unreachable")]


def play(
    playbook: str | pathlib.Path | list[dict[str, t.Any]],
    inventory: pathlib.Path,
    *flags: str,
    watch: t.Callable[[Task], None] | None = None,
    environment: dict[str, str] | None = None,
    artifacts: pathlib.Path | None = None,
    variables: t.Mapping[str, t.Any] | None = None,
) -> Run:
    """Run a playbook: its name in this collection, a file, or its plays as data.

    :param flags: more words for ansible-playbook, such as ``--check``.
    :param variables: extra variables, which win over all others.
    :param watch: called with each task as it ends.
    :param artifacts: where ansible-runner is to keep what it keeps; otherwise that goes with the run.
    :raises KeyboardInterrupt: it was interrupted, and ended for that.
    """
    if artifacts is None:
        with tempfile.TemporaryDirectory(prefix="rig-play-") as directory:
            return play(
                playbook,
                inventory,
                *flags,
                watch=watch,
                environment=environment,
                artifacts=pathlib.Path(directory),
                variables=variables,
            )
    tasks: list[Task] = []

    def handle(event: Event) -> bool:
        task = _task(event)
        if task is not None:
            tasks.append(task)
            if watch is not None:
                watch(task)
        return True

    named = isinstance(playbook, str) and "." not in playbook and "/" not in playbook
    with _handlers_put_back():
        outcome = ansible_runner.run(
            private_data_dir=str(artifacts),
            playbook=f"hypervisor.hardening.{playbook}" if named else _plain(playbook),
            inventory=str(inventory),
            cmdline=" ".join(flags) or None,
            extravars=dict(variables or {}) or None,
            envvars={
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_RETRY_FILES_ENABLED": "0",
                "ANSIBLE_COLLECTIONS_PATH": os.environ.get(
                    "ANSIBLE_COLLECTIONS_PATH", str(_checkout() / ".collections")
                ),
                **(environment or {}),
            },
            event_handler=handle,
            quiet=True,
        )
    if outcome.status == "canceled":
        _end_workers(artifacts)
        raise KeyboardInterrupt
    text = pathlib.Path(outcome.config.artifact_dir, "stdout").read_text(encoding="utf-8", errors="replace")
    return Run(outcome.rc, tuple(tasks), text)


@contextlib.contextmanager
def _handlers_put_back() -> t.Iterator[None]:
    """ansible-runner takes SIGINT and SIGTERM, to cancel a run by, and keeps them when the run is over."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_workers(artifacts: pathlib.Path) -> None:
    """Kill what is left of a run that was cancelled: workers have sessions of their own, which that does not reach."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if os.fsencode(artifacts) in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def _plain(playbook: str | pathlib.Path | list[dict[str, t.Any]]) -> t.Any:
    return str(playbook) if isinstance(playbook, pathlib.Path) else playbook


def _checkout() -> pathlib.Path:
    return pathlib.Path(__file__).resolve().parents[2]


def _task(event: Event) -> Task | None:
    outcome = event["event"].removeprefix("runner_on_")
    if not event["event"].startswith("runner_on_") or outcome not in OUTCOMES:
        return None
    data = event["event_data"]
    return Task(data["host"], data["task"], data["task_action"], outcome, data.get("res", {}))
