# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() on a tree of fixtures without QEMU: certificates, keys and the proof are real."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
from ansible_collections.hypervisor.hardening.plugins.modules import tls_credentials
from ansible_collections.hypervisor.hardening.tests.rig import certificates

OPTIONS = ("ca_cert", "server_cert", "server_key", "client_cert", "client_key")


@pytest.fixture(scope="module")
def authority() -> t.Iterator[certificates.Authority]:
    with certificates.authority() as made:
        yield made


@pytest.fixture(scope="module")
def given(authority: certificates.Authority) -> dict[str, str]:
    return issue(authority)


def issue(authority: certificates.Authority) -> dict[str, str]:
    texts = (authority.certificate, *authority.issue("h1", ["server"]), *authority.issue("h1", ["client"]))
    return dict(zip(OPTIONS, texts))


class Run:
    """What a run answered, and what it logged."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.logged: list[str] = []
        self._capsys = capsys
        monkeypatch.setattr(_runner, "Host", lambda: Host(str(root)))
        monkeypatch.setattr(AnsibleModule, "_log_to_syslog", lambda _module, text: self.logged.append(text))
        monkeypatch.setattr("ansible.module_utils.basic.has_journal", False)

    def __call__(self, **options: t.Any) -> dict[str, t.Any]:
        with patch_module_args({"_ansible_no_log": False, "_ansible_diff": True, **options}), pytest.raises(SystemExit):
            tls_credentials.main()
        self.output = self._capsys.readouterr().out
        answer: dict[str, t.Any] = json.loads(self.output)
        return answer

    def tree(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for directory in ("etc", "proc/sys/kernel", "var/lib/libvirt/qemu"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/hostname").write_text("h1\n")
    (tmp_path / "etc/passwd").write_text("libvirt-qemu:x:64055:994::/:/bin/false\n")
    (tmp_path / "etc/group").write_text("kvm:x:994:\n")
    os.chown(tmp_path / "var/lib/libvirt/qemu", 64055, 994)
    return Run(tmp_path, capsys, monkeypatch)


def test_check_then_change_then_nothing(run: Run, given: dict[str, str]) -> None:
    before = run.tree()
    predicted = run(_ansible_check_mode=True, **given)
    assert run.tree() == before
    done = run(**given)
    assert predicted["changed"] is done["changed"] is True
    assert {key: predicted[key] for key in predicted if key != "invocation"} == {
        key: done[key] for key in done if key != "invocation"
    }
    directory = run.root / "etc/pki/qemu"
    assert {path.name: (path.stat().st_gid, path.stat().st_mode & 0o7777) for path in directory.iterdir()} == {
        **{f"{name}-cert.pem": (0, 0o644) for name in ("ca", "server", "client")},
        **{f"{name}-key.pem": (994, 0o640) for name in ("server", "client")},
    }
    assert (directory.stat().st_mode & 0o7777, directory.stat().st_uid) == (0o755, 0)
    again = run(**given)
    assert (again["changed"], again["files"]) == (False, [])
    assert run()["changed"] is False, "what is there is proven by itself"


def test_every_return_value_is_documented(run: Run, given: dict[str, str]) -> None:
    answer = run(**given)
    documented = yaml.safe_load(tls_credentials.RETURN)
    always = {"changed", "diff", "invocation", "warnings"}
    assert set(answer) - always == set(documented)
    contained = documented["certificates"]["contains"]
    assert {key for entry in answer["certificates"] for key in entry} == set(contained)


def test_no_key_comes_out(run: Run, authority: certificates.Authority, given: dict[str, str]) -> None:
    outputs = []
    for options in (given, issue(authority), {**given, "server_key": given["client_key"]}):
        run(**options)
        outputs.append(run.output)
        mistaken = {**options, "server_cert": options["server_cert"] + options["server_key"]}
        assert "would hold a private key" in run(**mistaken)["msg"]
        outputs.append(run.output)
        for option in ("server_key", "client_key"):
            for line in options[option].splitlines()[1:-1]:
                assert line not in "".join(outputs) + "".join(run.logged)


def test_a_refusal_changes_nothing(run: Run, authority: certificates.Authority, given: dict[str, str]) -> None:
    run(**given)
    before = run.tree()
    answer = run(**{**given, "server_key": given["client_key"]})
    assert (answer["failed"], answer["changed"]) == (True, False)
    assert "server-key.pem is not the key of server-cert.pem." in answer["msg"]
    answer = run(**given, names=["h1", "h9"])
    assert "server-cert.pem does not name h9.\nIt names h1." in answer["msg"]
    assert run.tree() == before


def test_the_former_files_are_in_the_journal(
    run: Run, authority: certificates.Authority, given: dict[str, str]
) -> None:
    from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal

    run(**given)
    later = issue(authority)
    assert run(**later)["changed"]
    host = Host(str(run.root))
    journal = Journal(host, by="test")
    entries = [entry for entry in journal.entries() if entry.kind == "file"]
    assert [os.path.basename(entry.target) for entry in entries[5:]] == [
        f"{name}.pem" for name in ("server-cert", "server-key", "client-cert", "client-key")
    ]
    for entry in entries[5:]:
        journal.restore(entry)
    assert run(**given)["changed"] is False, "and are put back from there"
    for entry in entries[:5]:
        journal.restore(entry)
    assert list((run.root / "etc/pki/qemu").iterdir()) == []


def test_files_of_another_tool(run: Run, given: dict[str, str]) -> None:
    paths = {}
    for option, text in given.items():
        path = run.root / f"srv/{option}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        paths[option] = f"/srv/{option}"
    assert run(src=paths)["changed"]
    assert not run(src=paths, names="h1", renew_days="30")["changed"], "a survey sends strings"
    assert run(src={"ca_cert": "relative"})["msg"] == "src.ca_cert: 'relative' is not an absolute path."
    assert run(src={"ca_cert": "/nosuch"})["msg"] == (
        "src.ca_cert: /nosuch cannot be read: No such file or directory. Nothing was changed."
    )


def test_where_apparmor_lets_no_guest_read(run: Run, given: dict[str, str]) -> None:
    (run.root / "sys/module/apparmor/parameters").mkdir(parents=True)
    (run.root / "sys/module/apparmor/parameters/enabled").write_text("Y\n")
    policy = run.root / "etc/apparmor.d/abstractions/libvirt-qemu"
    policy.parent.mkdir(parents=True)
    policy.write_text("  /etc/pki/qemu/ r,\n  /etc/pki/qemu/** r,\n")

    def warned(path: str) -> bool:
        return f"AppArmor's rules for guests do not name {path}" in str(run(**given, path=path)["warnings"])

    assert not warned("/etc/pki/qemu")
    assert warned("/etc/pki/libvirt-vnc")
    local = run.root / "etc/apparmor.d/local/abstractions/libvirt-qemu"
    local.parent.mkdir(parents=True)
    local.write_text("/etc/pki/libvirt-migrate/** r,\n")
    assert not warned("/etc/pki/libvirt-migrate")
