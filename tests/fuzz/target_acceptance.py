"""accept_grant, check_slots, accept_closed, also behind right signatures: only MpError leaves them; what they take
names this board, this challenge and exactly the slots wanted.
"""

from tests.fuzz.drive import run

run("acceptance")
