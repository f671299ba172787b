"""mpissuer.enrollment.answer with ports that know nothing: only MpError leaves it, no signing, wrapping or writing verb
is reached (promise P5), and an order names the board whose keys signed.
"""

from tests.fuzz.drive import run

run("answer")
