SUMMARY = "mpagent with the backends of this machine"
SUMMARY:${PN}-provisioning = "What the provisioning image has beyond the agent"
DESCRIPTION = "The agent, its anchors, and a package for each part that MACHINE_FEATURES names: tpm2, optee, smartcard."
HOMEPAGE = "https://git.example.com/mpagent"
SECTION = "base"

PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit packagegroup

PACKAGES = "${PN} ${PN}-provisioning"

# mpagent-tpm is there with meta-tpm alone: a machine that says tpm2 without that layer is told so by bitbake.
MPAGENT_PARTS = "\
    ${@bb.utils.contains('MACHINE_FEATURES', 'optee', 'mpagent-pkcs11 optee-client', '', d)} \
    ${@bb.utils.contains('MACHINE_FEATURES', 'smartcard', 'mpagent-card', '', d)} \
    ${@bb.utils.contains('MACHINE_FEATURES', 'tpm2', 'mpagent-tpm', '', d)} \
"

RDEPENDS:${PN} = "${MPAGENT_PARTS} mpagent mpagent-anchors mpagent-state"
RDEPENDS:${PN}-provisioning = "\
    ${PN} \
    mpagent-face \
    mpagent-finish \
"
