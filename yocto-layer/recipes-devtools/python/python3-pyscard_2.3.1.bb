SUMMARY = "Smart cards over PC/SC"
DESCRIPTION = "Python's way to readers and cards, by pcsc-lite. No layer of scarthgap or wrynose has it."
HOMEPAGE = "https://pyscard.sourceforge.io"
SECTION = "devel/python"

LICENSE = "LGPL-2.1-or-later"
LIC_FILES_CHKSUM = "file://LICENSE;md5=b5eb9e5de362e4213d99d477ed4a7c1d"

DEPENDS = "pcsc-lite swig-native"

SRC_URI[sha256sum] = "a24356f57a0a950740b6e54f51f819edd5296ee8892a6625b0da04724e9e6c13"

PYPI_PACKAGE = "pyscard"

inherit pkgconfig pypi python_setuptools_build_meta

# The build asks for PyPI's wheel of swig; the tool of the build is the same program.
do_configure:prepend() {
    sed -i 's/requires = \["setuptools","swig"\]/requires = ["setuptools"]/' ${S}/pyproject.toml
}

RDEPENDS:${PN} = "\
    pcsc-lite-lib \
    python3-core \
    python3-logging \
    python3-threading \
"
