#!/bin/bash
# boot.sh PYTHON SOURCE RESULT: be the first process of new namespaces (mount, pid, cgroup, ipc), run systemd with the
# units of the tree SOURCE and nothing else, and in_systemd.py as a service of it. All that is written lands in file systems
# of its own, but for the answers in the folder RESULT.
set -eu
python=$1 source=$2 result=$3
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
for place in /run /opt /var/lib /var/log /usr/lib/systemd/system /usr/lib/systemd/system-generators; do
  mount -t tmpfs -o mode=0755 tmpfs "$place"
done
[ -d /sys/fs/cgroup/unified ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
# The program where the units look for it: they may see neither /tmp nor /home, and a Python may be in /root.
base=$("$python" -c 'import sys; print(sys.base_prefix)')
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
name=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
mkdir -p /opt/authz/bin /opt/authz/python /opt/authz/packages /opt/authz/source /opt/result /run/lock /etc/authz
mount --bind "$base" /opt/authz/python
mount --bind "$packages" /opt/authz/packages
mount --bind "$source" /opt/authz/source
mount --bind "$result" /opt/result
cd /
for place in /tmp /var/tmp; do
  mount -t tmpfs -o mode=1777 tmpfs "$place"
done
units=/opt/authz/source/packaging/systemd
cat > /opt/authz/bin/python <<EOF
#!/bin/sh
export LD_LIBRARY_PATH=/opt/authz/python/lib PYTHONPATH=/opt/authz/source:/opt/authz/packages PYTHONDONTWRITEBYTECODE=1
exec /opt/authz/python/bin/$name "\$@"
EOF
printf '#!/bin/sh\nexec /opt/authz/bin/python -m authz "$@"\n' > /opt/authz/bin/authz
chmod 755 /opt/authz/bin/*
rm -rf /etc/systemd/system && mkdir -p /etc/systemd/system/service.d
cp "$units"/*.service /etc/systemd/system/
systemd-sysusers "$units/sysusers.conf" - <<< 'u web - "a workload"' 
cd /etc/systemd/system
for name in sysinit basic network-online multi-user shutdown; do
  printf '[Unit]\nDefaultDependencies=no\n' > "$name.target"
done
printf '[Unit]\nDefaultDependencies=no\nRequires=try.service\n' > try.target
printf '[Service]\nStandardOutput=append:/opt/result/%%n.log\nStandardError=append:/opt/result/%%n.log\n' > service.d/log.conf
cat > try.service <<EOF
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
WorkingDirectory=/opt/authz/source
ExecStart=/opt/authz/bin/python tests/packaging/in_systemd.py /opt/result
ExecStopPost=kill -s RTMIN+14 1
EOF
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/lib/systemd/systemd --system --unit=try.target \
  --log-target=console --show-status=no
