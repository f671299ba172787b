require ${@bb.utils.contains('DISTRO_FEATURES', 'mpagent', 'linux-mpagent.inc', '', d)}
