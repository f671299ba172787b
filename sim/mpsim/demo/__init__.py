"""`make demo`: one server, four boards and seven attacks, by the commands a person would type."""
