# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of qemu.conf in libvirt 7.0 to 12.8 by the words of libvirt's lens, for a host that has no lens."""

from __future__ import annotations

TYPES = {
    "str": """
        auto_dump_path auto_shutdown_poweroff auto_shutdown_try_save auto_shutdown_try_shutdown backup_tls_priority
        backup_tls_x509_cert_dir backup_tls_x509_secret_uuid bridge_helper chardev_tls_priority
        chardev_tls_x509_cert_dir chardev_tls_x509_secret_uuid dbus_daemon default_cpu_deprecated_features
        default_tls_priority default_tls_x509_cert_dir default_tls_x509_secret_uuid deprecation_behavior
        dump_image_format group hugetlbfs_mount lock_manager memory_backing_dir migrate_tls_priority
        migrate_tls_x509_cert_dir migrate_tls_x509_secret_uuid migration_address migration_host nbd_tls_priority
        nbd_tls_x509_cert_dir nbd_tls_x509_secret_uuid pr_helper qemu_rdp qemu_vnc rdp_listen rdp_password
        rdp_tls_x509_cert_dir rdp_username save_image_format sched_core security_driver slirp_helper
        snapshot_image_format spice_listen spice_password spice_sasl_dir spice_tls_x509_cert_dir stdio_handler
        swtpm_group swtpm_user user vnc_listen vnc_password vnc_sasl_dir vnc_tls_priority vnc_tls_x509_cert_dir
        vnc_tls_x509_secret_uuid vxhs_tls_x509_cert_dir vxhs_tls_x509_secret_uuid
    """,
    "bool": """
        allow_disk_format_probing auto_dump_bypass_cache auto_save_bypass_cache auto_shutdown_restore
        auto_start_bypass_cache backup_tls_x509_verify chardev_tls chardev_tls_x509_verify default_tls_x509_verify
        dump_guest_core dynamic_ownership log_timestamp mac_filter migrate_tls_force migrate_tls_x509_verify nbd_tls
        nographics_allow_host_audio relaxed_acs_check remember_owner security_default_confined
        security_require_confined set_process_name spice_auto_unix_socket spice_sasl spice_tls storage_use_nbdkit
        virtiofsd_debug vnc_allow_host_audio vnc_auto_unix_socket vnc_sasl vnc_tls vnc_tls_x509_verify vxhs_tls
    """,
    "int": """
        auto_shutdown_wait auto_start_delay backup_port_max backup_port_min gluster_debug_level keepalive_count
        keepalive_interval max_files max_processes max_queued max_threads_per_process migration_port_max
        migration_port_min remote_display_port_max remote_display_port_min remote_websocket_port_max
        remote_websocket_port_min seccomp_sandbox
    """,
    "str_array": """
        capability_filters cgroup_controllers cgroup_device_acl namespaces nvram shared_filesystems
    """,
    "limits": """
        max_core
    """,
    "bytes": """
        auto_dump_max_size
    """,
}
