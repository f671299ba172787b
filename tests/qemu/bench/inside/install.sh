# In the guest: makes a board's disk of the bench's root. Our package is installed as an image build would install it,
# and the units are enabled as a provisioning image enables them (docs/operate.md, "Under systemd").
set -e
export DEBIAN_FRONTEND=noninteractive
dpkg --install /run/share/*.deb
install -m 644 /run/share/var-lib-mpagent.mount /etc/systemd/system
systemctl enable mpagent.service mpagent-finish.service mpagent-credentials.socket mpagent-face@ttyAMA0.service \
    var-lib-mpagent.mount
systemctl mask serial-getty@ttyAMA0.service getty@tty1.service
dpkg-query --show mpagent systemd-cryptsetup
