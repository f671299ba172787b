"""The leak guard: what may not be in an image that ships, found wherever in the image it is (docs/scan.md).

`patrol` forks one `worker` an image, which alone meets the image's bytes; `walk` opens containers, `sweep` looks at
bytes, `verdicts` says what a hit is. Nothing here writes a file with a name, and nothing of an image is run.
"""
