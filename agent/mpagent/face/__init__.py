"""What an operator sees: PASS or FAIL from across the room, the reason, the next step, and which board this is."""
