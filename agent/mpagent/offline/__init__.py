"""Provisioning without a line: bundles that were flashed with the image (docs/wire.md section 11)."""
