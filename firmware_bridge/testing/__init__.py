"""For tests, ours and others: a faulty link under a virtual clock. Nothing here is used in operation."""
