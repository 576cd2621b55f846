"""What every test may use: the real servers of tests/services, with the rules about skipping; the embedded adapters."""

pytest_plugins = ["tests.services.fixtures", "tests.embedded"]
