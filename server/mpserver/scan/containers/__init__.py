"""Readers of what holds other files. Each takes a region, writes nothing, follows no link, and yields what is inside.

What a reader raises beside Broken (a number that leads nowhere, a stream that is damaged) ends this container alone;
`walk` names it. Readers are plain Python, so the worst that hostile bytes reach is one of the bounds of `budget`.
"""
