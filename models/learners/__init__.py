"""River learners behind one interface, one file each."""
