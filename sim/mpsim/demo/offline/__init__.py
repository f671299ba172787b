"""The demo without a line: one bundle for every board of a lot, receipts that come back, and what nobody can refuse."""
