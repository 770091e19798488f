from tests.cli.conftest import app as app
