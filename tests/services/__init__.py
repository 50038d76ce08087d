"""Real batch systems, file servers and hosts, started on this machine in seconds, for tests."""
