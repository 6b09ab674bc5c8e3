"""One contender a file, each started by the harness as a process of its own."""
