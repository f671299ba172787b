"""anchors.toml and mpagent.toml: only ConfigWrong leaves their readers, and it names the file."""

from tests.fuzz.drive import run

run("config")
