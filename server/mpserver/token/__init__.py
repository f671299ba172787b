"""Keys in a PKCS#11 token (python-pkcs11, imported by `module` alone): made there, used there, never read."""
