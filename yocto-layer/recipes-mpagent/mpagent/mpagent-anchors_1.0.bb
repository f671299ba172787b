SUMMARY = "Trust and choice of one image: anchors.toml and mpagent.toml"
DESCRIPTION = "Roots, realm, product and backends, which the signed image fixes, and the settings that a factory may \
               change. `mpserver product anchors` prints the first file."
HOMEPAGE = "https://git.example.com/mpagent"
SECTION = "base"

LICENSE = "CLOSED"

# The site's folder with its two files, an absolute path; there is no default.
MPAGENT_SITE ?= ""
SKIP_RECIPE[mpagent-anchors] = "${@'' if d.getVar('MPAGENT_SITE') else 'MPAGENT_SITE is not set (yocto-layer/README.md)'}"

# Named here so that a change of them builds the package again.
SRC_URI = "file://${MPAGENT_SITE}/anchors.toml file://${MPAGENT_SITE}/mpagent.toml"

# scarthgap unpacks into WORKDIR, wrynose into UNPACKDIR; there is no source of our own.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${MPAGENT_SITE}/anchors.toml ${D}${nonarch_libdir}/mpagent/anchors.toml
    install -D -m 0644 ${MPAGENT_SITE}/mpagent.toml ${D}${sysconfdir}/mpagent/mpagent.toml
}

FILES:${PN} += "${nonarch_libdir}/mpagent/anchors.toml"
CONFFILES:${PN} = "${sysconfdir}/mpagent/mpagent.toml"
