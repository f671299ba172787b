require ${@bb.utils.contains('DISTRO_FEATURES', 'mpagent', 'optee-os-mpagent.inc', '', d)}
