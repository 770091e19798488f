from tests.cli.conftest import app as app
from tests.cli.conftest import named as named
from tests.cli.conftest import run as run
