"""One module a command: ABOUT, configure(parser) and run(arguments) -> exit code. Nothing heavy at import."""
