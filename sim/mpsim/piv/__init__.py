"""A PIV card in software: its application, the folder that remembers it, and its ways into a reader."""
