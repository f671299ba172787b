SUMMARY = "Gives a board its own secrets, in a factory that nobody has to trust"
SUMMARY:${PN}-finish = "Disk encryption, production image and reboot after an enrollment"
SUMMARY:${PN}-face = "PASS and FAIL for the line operator, on a terminal and on LEDs"
SUMMARY:${PN}-state = "Mounts the partition labelled mpagent-state on /var/lib/mpagent"
SUMMARY:${PN}-pkcs11 = "What mpagent needs for PKCS#11 tokens and OP-TEE's PKCS#11 TA"
SUMMARY:${PN}-card = "What mpagent needs for PIV cards"
DESCRIPTION = "The device side of factory provisioning: it proves to the OEM's server what the board is, receives the \
               board's secrets encrypted to the board's own key, and seals them so that only this chip opens them."
HOMEPAGE = "https://git.example.com/mpagent"
SECTION = "base"

LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# Where the source is, and which tag of it: set both in the site's configuration. A release build sets the 40 digits of
# a commit, so that bitbake asks no server what the tag means; a mirror of downloads then serves it for ever.
MPAGENT_GIT ?= "git.example.com/mpagent.git"
MPAGENT_TAG ?= "v${PV}"

SRC_URI = "\
    git://${MPAGENT_GIT};protocol=https;nobranch=1;destsuffix=${BP} \
    file://run-ptest \
    file://installed.py \
    file://var-lib-mpagent.mount \
"
SRCREV = "${MPAGENT_TAG}"

# scarthgap unpacks into WORKDIR, wrynose into UNPACKDIR.
MPAGENT_UNPACKED = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"
S = "${MPAGENT_UNPACKED}/${BP}"

inherit features_check ptest python_hatchling systemd useradd

REQUIRED_DISTRO_FEATURES = "mpagent systemd"

# The group that the image's udev rules give /dev/tee0 to. On scarthgap meta-freescale's optee-client says "teeclnt" and
# gives /dev/teepriv0, the supplicant's side, to "tee"; on wrynose /dev/tee0 is "tee".
MPAGENT_TEE_GROUP ?= "${@'teeclnt' if 'scarthgap' in d.getVar('LAYERSERIES_CORENAMES').split() else 'tee'}"

# A terminal for PASS and FAIL, beside the serial console.
MPAGENT_FACE_TTY ?= "tty1"

do_install:append() {
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/mpagent*.service ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/mpagent*.socket ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/mpagent*.target ${D}${systemd_system_unitdir}
    install -D -m 0644 ${S}/systemd/sysusers.d/mpagent.conf ${D}${nonarch_libdir}/sysusers.d/mpagent.conf
    install -D -m 0644 ${S}/systemd/tmpfiles.d/mpagent.conf ${D}${nonarch_libdir}/tmpfiles.d/mpagent.conf
    # The folder it is mounted on: a read-only root cannot make it by itself.
    install -d -m 0700 ${D}${localstatedir}/lib/mpagent
    install -m 0644 ${MPAGENT_UNPACKED}/var-lib-mpagent.mount ${D}${systemd_system_unitdir}

    # The document that the units name.
    install -D -m 0644 ${S}/docs/operate.md ${D}${docdir}/${BPN}/operate.md

    sed -i '/^SupplementaryGroups=/s/\<tee\>/${MPAGENT_TEE_GROUP}/' ${D}${systemd_system_unitdir}/mpagent*.service
    sed -i 's/^g tee -$/g ${MPAGENT_TEE_GROUP} -/' ${D}${nonarch_libdir}/sysusers.d/mpagent.conf
}

do_install_ptest() {
    install -m 0644 ${MPAGENT_UNPACKED}/installed.py ${D}${PTEST_PATH}/installed.py
}

# Users are made when the image is: its root is read-only afterwards. The same as systemd/sysusers.d/mpagent.conf.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system mpagent; --system mpagent-fuses; --system ${MPAGENT_TEE_GROUP}; --system tss"
USERADD_PARAM:${PN} = "--system -g mpagent --no-create-home --home-dir ${localstatedir}/lib/mpagent \
                       --shell ${sbindir}/nologin --comment 'Board provisioning agent' mpagent"

SYSTEMD_PACKAGES = "${PN} ${PN}-finish ${PN}-face ${PN}-state"
SYSTEMD_SERVICE:${PN} = "mpagent.service mpagent-credentials.socket"
SYSTEMD_SERVICE:${PN}-finish = "mpagent-finish.service mpagent-fetch.socket"
SYSTEMD_SERVICE:${PN}-face = "mpagent-face@${MPAGENT_FACE_TTY}.service mpagent-leds.service"
SYSTEMD_SERVICE:${PN}-state = "var-lib-mpagent.mount"

PACKAGE_BEFORE_PN = "${PN}-finish ${PN}-face ${PN}-state ${PN}-pkcs11 ${PN}-card"

FILES:${PN} += "\
    ${PYTHON_SITEPACKAGES_DIR}/mpagent \
    ${PYTHON_SITEPACKAGES_DIR}/mpagent-${PV}.dist-info \
    ${PYTHON_SITEPACKAGES_DIR}/mpwire \
    ${bindir}/mpagent \
    ${nonarch_libdir}/sysusers.d/mpagent.conf \
    ${nonarch_libdir}/tmpfiles.d/mpagent.conf \
    ${systemd_system_unitdir}/mpagent-credentials.service \
    ${systemd_system_unitdir}/mpagent-credentials.socket \
    ${systemd_system_unitdir}/mpagent-provisioned.target \
    ${systemd_system_unitdir}/mpagent.service \
"
FILES:${PN}-finish += "${systemd_system_unitdir}/mpagent-finish.service ${systemd_system_unitdir}/mpagent-fetch.socket"
FILES:${PN}-finish += "${systemd_system_unitdir}/mpagent-fetch@.service"
FILES:${PN}-face += "${systemd_system_unitdir}/mpagent-face@.service ${systemd_system_unitdir}/mpagent-leds.service"
FILES:${PN}-state += "${systemd_system_unitdir}/var-lib-mpagent.mount ${localstatedir}/lib/mpagent"

# One package for each extra of the wheel: it brings what the backend imports, and the backend itself is in mpagent.
ALLOW_EMPTY:${PN}-pkcs11 = "1"
ALLOW_EMPTY:${PN}-card = "1"

RDEPENDS:${PN} = "\
    python3-compression \
    python3-core \
    python3-crypt \
    python3-cryptography \
    python3-ctypes \
    python3-difflib \
    python3-fcntl \
    python3-io \
    python3-json \
    python3-mmap \
    python3-netclient \
    python3-requests \
    python3-resource \
    python3-tomllib \
    python3-unixadmin \
    python3-urllib3 \
"
RDEPENDS:${PN}-finish = "${PN} cryptsetup"
RDEPENDS:${PN}-face = "${PN}"
# python3-datetime and python3-threading: the library imports them, and meta-python's recipe does not say so.
RDEPENDS:${PN}-pkcs11 = "${PN} python3-datetime python3-pkcs11 python3-threading"
RDEPENDS:${PN}-card = "${PN} ccid pcsc-lite python3-pyscard"
