"""Code of the classes of meta-mpagent; bitbake puts it on Python's path (conf/layer.conf, addpylib)."""

BBIMPORTS = ["production"]
