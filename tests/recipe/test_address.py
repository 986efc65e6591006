"""Secrets in the addresses of stores, as SQLAlchemy and urllib make and read them."""

from urllib.parse import quote

import pytest
from sqlalchemy.engine import URL, make_url

from siqvl.recipe.address import has_password, without_password

SECRETS = [
    "secret",
    "se/cr",
    "se@cr",
    "s@e/c@r",
    "s:e:c",
    "s?e",
    "s#e",
    "9/8@7",
    "pass word",
    "%2F",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("end", ["db/x", "db:5432/x", "db", "db/x?sslmode=require"])
def test_a_password_is_masked_whatever_it_holds(secret: str, end: str) -> None:
    for scheme in ("postgresql", "mysql+pymysql", "mssql"):
        masked = without_password(f"{scheme}://me:{secret}@{end}")
        assert masked == f"{scheme}://me:***@{end}"
        assert has_password(f"{scheme}://me:{secret}@{end}")
        assert without_password(masked) == masked


@pytest.mark.parametrize("secret", SECRETS)
def test_a_password_is_masked_as_sqlalchemy_does_it(secret: str) -> None:
    url = URL.create("postgresql", "me", secret, "db", 5432, "x")
    assert without_password(url.render_as_string(hide_password=False)) == str(url)
    assert make_url(str(url)).password == "***"


@pytest.mark.parametrize("secret", ["secret", "se@cr", "se/cr", "s?e", "s#e", "a:b"])
def test_those_of_a_server_are_masked(secret: str) -> None:
    assert without_password(f"https://me:{secret}@host:1/x") == "https://me:***@host:1/x"
    token = secret.replace(":", "-").replace("/", "-").replace("?", "-").replace("#", "-")
    assert without_password(f"https://{token}@host:1/x") == "https://***@host:1/x"


@pytest.mark.parametrize("name", ["password", "sslpassword", "passwd", "PWD", "token", "api_key"])
@pytest.mark.parametrize("secret", ["secret", "a/b@c", "a=b", "a:b"])
def test_those_given_as_query_parameters_are_masked(name: str, secret: str) -> None:
    masked = without_password(f"postgresql://db/x?user=me&{name}={secret}&sslmode=require")
    assert masked == f"postgresql://db/x?user=me&{name}=***&sslmode=require"
    both = without_password(f"postgresql://me:{quote(secret)}@db/x?{name}={secret}")
    assert both == f"postgresql://me:***@db/x?{name}=***"


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:///mlflow.db",
        "sqlite:////home/me@work/a:b/mlflow.db",
        "https://db:1/x@y",
        "http://127.0.0.1:5000",
        "postgresql://me@db/x",
        "postgresql://db:5432/x?options=a",
        "databricks",
        "file:///tmp/a@b",
    ],
)
def test_an_address_without_a_secret_stays(address: str) -> None:
    assert without_password(address) == address
    assert not has_password(address)
