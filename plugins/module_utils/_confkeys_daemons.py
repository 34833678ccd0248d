# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of the daemons' files in libvirt 7.0 to 12.8 by the words of its lenses, for a host that has no lens."""

from __future__ import annotations

import typing as t

# remote_daemon_config.c
_DAEMON = {
    "str": """
        auth_unix_ro auth_unix_rw host_uuid host_uuid_source log_filters log_outputs unix_sock_admin_perms unix_sock_dir
        unix_sock_group unix_sock_ro_perms unix_sock_rw_perms
    """,
    "bool": "audit_logging",
    "int": """
        admin_keepalive_count admin_keepalive_interval admin_max_client_requests admin_max_clients
        admin_max_queued_clients admin_max_workers admin_min_workers audit_level keepalive_count keepalive_interval
        log_level max_anonymous_clients max_client_requests max_clients max_queued_clients max_workers min_workers
        ovs_timeout prio_workers
    """,
    "str_array": "access_drivers sasl_allowed_username_list",
}
# The same file, built with WITH_IP.
_LISTENER = {
    "str": "auth_tcp auth_tls ca_file cert_file crl_file key_file listen_addr tcp_port tls_port tls_priority",
    "bool": "listen_tcp listen_tls tls_no_sanity_certificate tls_no_verify_certificate",
    "int": "tcp_min_ssf",
    "str_array": "cert_files key_files tls_allowed_dn_list",
}
_BESIDE = {"str": "log_filters log_outputs", "int": "admin_max_clients log_level max_clients"}
_LOCKS = {
    "str": "file_lockspace_dir lvm_lockspace_dir scsi_lockspace_dir",
    "bool": "auto_disk_leases require_lease_for_disks",
}
_FILES: dict[str, tuple[dict[str, str], ...]] = {
    "libvirtd.conf": (_DAEMON, _LISTENER),
    "virtproxyd.conf": (_DAEMON, _LISTENER),
    "virtlockd.conf": (_BESIDE,),
    "virtlogd.conf": (_BESIDE, {"str": "log_root", "int": "max_age_days max_backups max_size"}),
    "network.conf": ({"str": "firewall_backend"},),
    "nwfilter.conf": ({"str": "firewall_backend", "bool": "enable_counters enable_trace"},),
    "secret.conf": ({"str": "secrets_encryption_key", "bool": "encrypt_data"},),
    "qemu-lockd.conf": (_LOCKS,),
}


def types(file: str) -> t.Mapping[str, str]:
    """The lens's word for the type of a key, to all such keys of a file of /etc/libvirt; nothing of an unknown file."""
    own = (_DAEMON,) if file.startswith("virt") and file.endswith("d.conf") else ()
    parts = _FILES.get(file, own)
    return {kind: " ".join(part.get(kind, "") for part in parts) for kind in ("str", "bool", "int", "str_array")}
