# With meta-tpm in the build there is a package for boards with a TPM 2.0, as the wheel's extra "tpm".
PACKAGE_BEFORE_PN += "${PN}-tpm"
ALLOW_EMPTY:${PN}-tpm = "1"
SUMMARY:${PN}-tpm = "What mpagent needs for a TPM 2.0"
RDEPENDS:${PN}-tpm = "${PN} libtss2 libtss2-mu libtss2-tcti-device python3-tpm2-pytss tpm2-tss"
