"""What comes after enrollment: disk encryption, the production image, the reboot into it (docs/adr/0019-finish.md)."""
