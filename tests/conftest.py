"""What every test may use: the real servers of tests/services, and the rules about skipping that come with them."""

pytest_plugins = ["tests.services.fixtures"]
