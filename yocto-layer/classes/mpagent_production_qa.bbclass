# For every production image: fails the build of an image beneath which Linux could sign with the MP key, or which
# carries a room that is never on a device. There is no variable that turns it off.

inherit features_check

# The configuration that builds the provisioning image cannot build this one.
CONFLICT_DISTRO_FEATURES += "mpagent-provisioning"

# What OP-TEE was built with; our bbappend of optee-os deploys it beside the binary that goes into the boot container.
MPAGENT_OPTEE_CONF = "${DEPLOY_DIR_IMAGE}/optee/mpagent-optee-conf.mk"

IMAGE_QA_COMMANDS += "mpagent_production_qa"

do_image_qa[depends] += "${@bb.utils.contains('MACHINE_FEATURES', 'optee', 'optee-os:do_deploy', '', d)}"

python mpagent_production_qa () {
    from mpagentlayer.production import find_faults

    with_optee = "optee" in (d.getVar("MACHINE_FEATURES") or "").split()
    faults = find_faults(d.getVar("IMAGE_ROOTFS"), d.getVar("MPAGENT_OPTEE_CONF") if with_optee else None)
    if "mpagent-provisioning" in (d.getVar("DISTRO_FEATURES") or "").split():
        faults.insert(0, "DISTRO_FEATURES has mpagent-provisioning")
    if faults:
        bb.fatal("%s is not fit for production:\n  %s" % (d.getVar("PN"), "\n  ".join(faults)))
}
