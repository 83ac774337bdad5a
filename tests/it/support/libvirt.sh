#!/bin/sh
# A libvirt of its own in the folder $1, in a mount namespace that the caller
# made, without KVM: it becomes the daemon.
set -e
W=$1
for d in dev etc lib run cache log sock; do mkdir -p "$W/$d"; done
mount -t tmpfs -o mode=755 tmpfs "$W/dev"
for n in null zero full random urandom tty console; do
  if [ -e /dev/$n ]; then cp -a /dev/$n "$W/dev/"; fi
done
mkdir "$W/dev/pts" "$W/dev/shm" "$W/dev/net"
mount --rbind /dev/pts "$W/dev/pts"
mount --rbind /dev/shm "$W/dev/shm" || mount -t tmpfs tmpfs "$W/dev/shm"
ln -s pts/ptmx "$W/dev/ptmx"
ln -s /proc/self/fd "$W/dev/fd"
cat >"$W/etc/qemu.conf" <<X
user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
X
cat >"$W/etc/libvirtd.conf" <<X
unix_sock_dir = "$W/sock"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
X
: >"$W/etc/virtlogd.conf"
mkdir -p /run/libvirt
mount --rbind "$W/dev" /dev
mount --bind "$W/etc" /etc/libvirt
mount --bind "$W/lib" /var/lib/libvirt
mount --bind "$W/cache" /var/cache/libvirt
mount --bind "$W/log" /var/log/libvirt
mount --bind "$W/run" /run/libvirt
virtlogd -p "$W/virtlogd.pid" >"$W/log/virtlogd.txt" 2>&1 &
exec libvirtd -f "$W/etc/libvirtd.conf" -p "$W/libvirtd.pid"
